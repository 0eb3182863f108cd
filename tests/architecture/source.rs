//! Rust sources as the rules see them: what each file mentions, resolved through its imports, with the tests left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// Something that the code of a file mentions.
#[derive(Clone, Debug)]
pub struct Mention {
    pub line: usize,
    /// `Type::function` or `function` that it stands in; empty outside of functions.
    pub within: String,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// From the crate's root (`crate::sys::fs::write`) or another crate's (`std::fs::write`), renames and re-exports undone.
    Path(String),
    /// `receiver.name`: the last name of what the method is called on.
    Method(String),
    Macro(String),
    /// Reads a variable of the environment: `#[arg(env)]`.
    EnvAttribute,
}

#[derive(Debug)]
pub struct Function {
    pub name: String,
    pub line: usize,
    /// Without blank lines and comments.
    pub lines: usize,
}

/// What a `use` brings into a module.
#[derive(Debug)]
struct Import {
    name: String,
    path: Vec<String>,
}

/// One file.
#[derive(Debug, Default)]
pub struct Source {
    /// Below the repository, such as `src/sys/nft.rs`.
    pub path: String,
    /// `sys`, `nft`.
    pub module: Vec<String>,
    /// Without its tests and without comments that take a line.
    pub lines: usize,
    pub mentions: Vec<Mention>,
    pub functions: Vec<Function>,
    /// Names of types and traits, with their lines.
    pub types: Vec<(String, usize)>,
    /// Modules that it declares, in order.
    pub modules: Vec<String>,
    /// Methods of the traits that it declares.
    pub traits: BTreeMap<String, Vec<String>>,
    /// `super::` that leads to the crate's root.
    pub leaves: Vec<usize>,
    /// `todo!`, `unimplemented!` and `#[ignore]`, in tests too.
    pub unwritten: Vec<(String, usize)>,
    imports: Vec<Import>,
}

/// All files of the program.
pub struct Tree {
    pub sources: Vec<Source>,
}

impl Tree {
    /// Reads texts by path. Files below `#[cfg(test)] mod name;` are kept for what is unwritten alone.
    pub fn new(texts: &[(String, String)]) -> Self {
        let parsed = texts.iter().map(|(path, text)| {
            let file = syn::parse_file(text).unwrap_or_else(|error| panic!("{path}: {error}"));
            (path, text, file)
        });
        let parsed: Vec<_> = parsed.collect();
        let tests: BTreeSet<_> = parsed.iter().flat_map(|(path, _, file)| test_modules(path, file)).collect();
        let is_test = |path: &str| {
            let module = module(path);
            !path.starts_with("src/") || tests.iter().any(|test| module.starts_with(test))
        };
        let read = |(path, text, file): &(&String, &String, syn::File)| read(path, text, file, is_test(path));
        let mut tree = Self { sources: parsed.iter().map(read).collect() };
        tree.undo_reexports();
        tree
    }

    /// The repository's own sources.
    pub fn of_repository() -> Self {
        let mut texts = Vec::new();
        for below in ["src", "tests"] {
            for path in files(below, ".rs") {
                let text = self::text(&path);
                texts.push((path, text));
            }
        }
        assert!(texts.len() > 50, "the sources are not where they are looked for");
        Self::new(&texts)
    }

    pub fn below<'a>(&'a self, places: &'a [&str]) -> impl Iterator<Item = &'a Source> {
        self.sources.iter().filter(|source| places.iter().any(|place| source.path.starts_with(place)))
    }

    /// Mentions name what is meant where it stands, not where it was re-exported.
    fn undo_reexports(&mut self) {
        let mut known = BTreeMap::new();
        for source in &self.sources {
            for import in &source.imports {
                let mut place = vec!["crate".to_owned()];
                place.extend(source.module.iter().cloned());
                place.push(import.name.clone());
                known.insert(place.join("::"), import.path.join("::"));
            }
        }
        for mention in self.sources.iter_mut().flat_map(|source| &mut source.mentions) {
            if let What::Path(path) = &mut mention.what {
                *path = follow(path, &known);
            }
        }
    }
}

fn follow(path: &str, known: &BTreeMap<String, String>) -> String {
    let mut path = path.to_owned();
    // Bounded, for two modules can name each other's names.
    for _ in 0..8 {
        let ends = path.match_indices("::").map(|(at, _)| at).chain([path.len()]);
        let Some((end, target)) = ends.filter_map(|end| Some((end, known.get(&path[..end])?))).last() else {
            break;
        };
        path = format!("{target}{}", &path[end..]);
    }
    path
}

/// Files below a folder of the repository whose names end so.
pub fn files(below: &str, extension: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(below)).unwrap();
    let mut found = Vec::new();
    for entry in entries.map(Result::unwrap) {
        let path = format!("{below}/{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&path, extension));
        } else if path.ends_with(extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The text of a file of the repository.
pub fn text(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn module(path: &str) -> Vec<String> {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    match path {
        "lib" | "main" => Vec::new(),
        path => path.split('/').map(str::to_owned).collect(),
    }
}

fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) if list.path.is_ident("cfg") => {
            let condition = list.tokens.to_string();
            condition == "test" || condition.starts_with("any (test") || condition.starts_with("all (test")
        }
        meta => meta.path().is_ident("test"),
    })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Modules with a file of their own that only tests have.
fn test_modules(path: &str, file: &syn::File) -> Vec<Vec<String>> {
    let own = module(path);
    let name = |item: &syn::Item| match item {
        syn::Item::Mod(item) if item.content.is_none() && is_for_tests(&item.attrs) => {
            let mut module = own.clone();
            module.push(item.ident.to_string());
            Some(module)
        }
        _ => None,
    };
    file.items.iter().filter_map(name).collect()
}

fn read(path: &str, text: &str, file: &syn::File, is_test: bool) -> Source {
    let mut unwritten = Unwritten::default();
    unwritten.visit_file(file);
    let mut source = Source { path: path.to_owned(), module: module(path), ..Source::default() };
    source.unwritten = unwritten.found;
    if is_test {
        return source;
    }
    let (tests, items): (Vec<_>, Vec<_>) = file.items.iter().partition(|item| is_for_tests(attributes(item)));
    for item in &items {
        if let syn::Item::Mod(item) = item {
            source.modules.push(item.ident.to_string());
        }
    }
    let code: Vec<&str> = text.lines().collect();
    let within = |line: usize| tests.iter().any(|item| lines(item.span()).contains(&line));
    source.lines = (1..=code.len()).filter(|line| is_code(code[line - 1]) && !within(*line)).count();

    let mut imports = Imports { source: &mut source };
    items.iter().for_each(|item| imports.visit_item(item));
    let mut reader = Reader { source: &mut source, code: &code, owner: None, within: Vec::new() };
    items.iter().for_each(|item| reader.visit_item(item));
    source
}

fn lines(span: Span) -> RangeInclusive<usize> {
    span.start().line..=span.end().line
}

fn is_code(line: &str) -> bool {
    !line.trim().is_empty() && !line.trim_start().starts_with("//")
}

#[derive(Default)]
struct Unwritten {
    found: Vec<(String, usize)>,
}

impl Visit<'_> for Unwritten {
    fn visit_macro(&mut self, item: &syn::Macro) {
        let name = item.path.segments.last().map(|last| last.ident.to_string()).unwrap_or_default();
        if ["todo", "unimplemented"].contains(&name.as_str()) {
            self.found.push((format!("{name}!"), item.span().start().line));
        }
    }

    fn visit_attribute(&mut self, attribute: &syn::Attribute) {
        if attribute.path().is_ident("ignore") {
            self.found.push(("#[ignore]".into(), attribute.span().start().line));
        }
    }
}

impl Source {
    /// The path from a root, as far as this file's imports and modules tell.
    fn resolve(&self, mut path: Vec<String>) -> Vec<String> {
        let root = || vec!["crate".to_owned()];
        let mut place = self.module.clone();
        match path.first().map(String::as_str) {
            Some("self") => {
                path.remove(0);
                [root(), place, path].concat()
            }
            Some("super") => {
                while path.first().is_some_and(|first| first == "super") {
                    place.pop();
                    path.remove(0);
                }
                [root(), place, path].concat()
            }
            Some("crate" | "Self") | None => path,
            Some(first) => {
                if let Some(import) = self.imports.iter().find(|import| import.name == first) {
                    [import.path.clone(), path[1..].to_vec()].concat()
                } else if self.modules.iter().any(|module| module == first) {
                    [root(), place, path].concat()
                } else {
                    path
                }
            }
        }
    }

    fn note_leaving(&mut self, path: &[String], line: usize) {
        let up = path.iter().take_while(|part| *part == "super").count();
        if up > 0 && up >= self.module.len() {
            self.leaves.push(line);
        }
    }
}

/// Reads the `use` items, wherever they stand.
struct Imports<'a> {
    source: &'a mut Source,
}

impl Imports<'_> {
    fn tree(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        let (name, path, line) = match tree {
            syn::UseTree::Path(path) => return self.tree(&with(&path.ident), &path.tree),
            syn::UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.tree(before, tree));
            }
            syn::UseTree::Name(name) if name.ident == "self" => {
                (before.last().cloned().unwrap_or_default(), before.to_vec(), name.span().start().line)
            }
            syn::UseTree::Name(name) => (name.ident.to_string(), with(&name.ident), name.span().start().line),
            syn::UseTree::Rename(name) if name.ident == "self" => {
                (name.rename.to_string(), before.to_vec(), name.span().start().line)
            }
            syn::UseTree::Rename(name) => {
                (name.rename.to_string(), with(&name.ident), name.span().start().line)
            }
            syn::UseTree::Glob(glob) => ("*".into(), before.to_vec(), glob.span().start().line),
        };
        self.source.note_leaving(&path, line);
        let path = self.source.resolve(path);
        let what = What::Path(path.join("::"));
        self.source.mentions.push(Mention { line, within: String::new(), what });
        self.source.imports.push(Import { name, path });
    }
}

impl Visit<'_> for Imports<'_> {
    fn visit_item_use(&mut self, item: &syn::ItemUse) {
        self.tree(&[], &item.tree);
    }
}

/// Reads everything else.
struct Reader<'a> {
    source: &'a mut Source,
    code: &'a [&'a str],
    /// The type of the `impl`, or the trait.
    owner: Option<String>,
    within: Vec<String>,
}

impl Reader<'_> {
    fn note(&mut self, line: usize, what: What) {
        let within = self.within.last().cloned().unwrap_or_default();
        self.source.mentions.push(Mention { line, within, what });
    }

    fn note_path(&mut self, line: usize, path: Vec<String>) {
        self.source.note_leaving(&path, line);
        let path = self.source.resolve(path).join("::");
        self.note(line, What::Path(path));
    }

    fn function(&mut self, name: &syn::Ident, at: RangeInclusive<usize>, visit: impl FnOnce(&mut Self)) {
        let name: String =
            self.owner.iter().map(|owner| format!("{owner}::")).chain([name.to_string()]).collect();
        let lines = self.code[at.start() - 1..*at.end()].iter().filter(|line| is_code(line)).count();
        self.source.functions.push(Function { name: name.clone(), line: *at.start(), lines });
        self.within.push(name);
        visit(self);
        self.within.pop();
    }

    fn owned(&mut self, owner: Option<String>, visit: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.owner, owner);
        visit(self);
        self.owner = outer;
    }

    /// What stands in a macro's braces need not be Rust; paths, calls and types are told by their tokens.
    fn tokens(&mut self, tokens: TokenStream) {
        let all: Vec<_> = tokens.into_iter().collect();
        let is = |at: usize, c: char| matches!(all.get(at), Some(TokenTree::Punct(p)) if p.as_char() == c);
        let name = |at: usize| match all.get(at) {
            Some(TokenTree::Ident(name)) => Some(name.to_string()),
            _ => None,
        };
        let mut at = 0;
        while at < all.len() {
            let line = all[at].span().start().line;
            if let TokenTree::Group(group) = &all[at] {
                self.tokens(group.stream());
            }
            let Some(first) = name(at) else {
                at += 1;
                continue;
            };
            // `$type` is a macro's parameter.
            let is_parameter = at > 0 && is(at - 1, '$');
            let declares = !is_parameter && matches!(first.as_str(), "struct" | "enum" | "trait" | "type");
            if let (true, Some(name)) = (declares, name(at + 1)) {
                self.source.types.push((name, line));
            }
            let before = at;
            let mut path = vec![first];
            while is(at + 1, ':') && is(at + 2, ':') {
                let Some(next) = name(at + 3) else { break };
                path.push(next);
                at += 3;
            }
            at += 1;
            let is_call =
                matches!(all.get(at), Some(TokenTree::Group(g)) if g.delimiter() == Delimiter::Parenthesis);
            if before > 0 && is(before - 1, '.') && !(before > 1 && is(before - 2, '.')) {
                if is_call {
                    let receiver = before.checked_sub(2).and_then(name).unwrap_or_default();
                    self.note(line, What::Method(format!("{receiver}.{}", path[0])));
                }
            } else if is(at, '!') {
                self.note(line, What::Macro(path.pop().unwrap_or_default()));
            } else {
                self.note_path(line, path);
            }
        }
    }
}

/// The last name of an expression: `hierarchy` of `host.hierarchy`.
fn last_name(expression: &syn::Expr) -> String {
    match expression {
        syn::Expr::Path(path) => path.path.segments.last().map(|s| s.ident.to_string()).unwrap_or_default(),
        syn::Expr::Field(field) => match &field.member {
            syn::Member::Named(name) => name.to_string(),
            syn::Member::Unnamed(_) => String::new(),
        },
        syn::Expr::MethodCall(call) => call.method.to_string(),
        syn::Expr::Call(call) => last_name(&call.func),
        syn::Expr::Try(inner) => last_name(&inner.expr),
        syn::Expr::Reference(inner) => last_name(&inner.expr),
        syn::Expr::Paren(inner) => last_name(&inner.expr),
        _ => String::new(),
    }
}

impl Visit<'_> for Reader<'_> {
    fn visit_item_use(&mut self, _: &syn::ItemUse) {}

    fn visit_item_fn(&mut self, item: &syn::ItemFn) {
        let lines = item.sig.span().start().line..=item.span().end().line;
        self.function(&item.sig.ident, lines, |reader| visit::visit_item_fn(reader, item));
    }

    fn visit_impl_item_fn(&mut self, item: &syn::ImplItemFn) {
        if is_for_tests(&item.attrs) {
            return;
        }
        let lines = item.sig.span().start().line..=item.span().end().line;
        self.function(&item.sig.ident, lines, |reader| visit::visit_impl_item_fn(reader, item));
    }

    fn visit_trait_item_fn(&mut self, item: &syn::TraitItemFn) {
        let lines = item.sig.span().start().line..=item.span().end().line;
        self.function(&item.sig.ident, lines, |reader| visit::visit_trait_item_fn(reader, item));
    }

    fn visit_item_impl(&mut self, item: &syn::ItemImpl) {
        let owner = match &*item.self_ty {
            syn::Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
            _ => None,
        };
        self.owned(owner, |reader| visit::visit_item_impl(reader, item));
    }

    fn visit_item_trait(&mut self, item: &syn::ItemTrait) {
        let name = item.ident.to_string();
        let methods = item.items.iter().filter_map(|item| match item {
            syn::TraitItem::Fn(function) => Some(function.sig.ident.to_string()),
            _ => None,
        });
        self.source.traits.insert(name.clone(), methods.collect());
        self.source.types.push((name.clone(), item.ident.span().start().line));
        self.owned(Some(name), |reader| visit::visit_item_trait(reader, item));
    }

    fn visit_item_struct(&mut self, item: &syn::ItemStruct) {
        self.source.types.push((item.ident.to_string(), item.ident.span().start().line));
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &syn::ItemEnum) {
        self.source.types.push((item.ident.to_string(), item.ident.span().start().line));
        visit::visit_item_enum(self, item);
    }

    fn visit_item_type(&mut self, item: &syn::ItemType) {
        self.source.types.push((item.ident.to_string(), item.ident.span().start().line));
        visit::visit_item_type(self, item);
    }

    fn visit_attribute(&mut self, attribute: &syn::Attribute) {
        if let syn::Meta::List(list) = &attribute.meta
            && ["arg", "clap", "command"].iter().any(|name| list.path.is_ident(name))
            && list.tokens.clone().into_iter().any(|token| token.to_string() == "env")
        {
            self.note(attribute.span().start().line, What::EnvAttribute);
        }
    }

    fn visit_path(&mut self, path: &syn::Path) {
        let names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.note_path(path.span().start().line, names);
        visit::visit_path(self, path);
    }

    fn visit_expr_method_call(&mut self, call: &syn::ExprMethodCall) {
        let what = What::Method(format!("{}.{}", last_name(&call.receiver), call.method));
        self.note(call.method.span().start().line, what);
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, item: &syn::Macro) {
        let name = item.path.segments.last().map(|last| last.ident.to_string()).unwrap_or_default();
        self.note(item.span().start().line, What::Macro(name));
        self.tokens(item.tokens.clone());
    }
}
