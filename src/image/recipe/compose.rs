//! Loading recipes and those they extend, and composing them into [`Recipes`].

use std::collections::BTreeMap;
use std::str::FromStr;

use sha2::Digest;

use crate::fleet::{GuestPath, Label, Sha256, SourceFiles, suggest};

use super::render::{Renderer, with_given};
use super::schema::{AttributeEntry, FileEntry, RecipeFile, UserEntry};
use super::{
    Attributes, Declared, FileItem, Group, Parameters, PathItem, RecipeError, Recipes, SubIds, User,
    capability,
};

impl Recipes {
    /// Loads recipes and all that they extend, renders and composes them.
    ///
    /// # Errors
    /// Where a recipe or template is missing or wrong, naming the file and line, or two want different things in one place.
    pub fn load(names: &[Label], given: &Parameters, files: &SourceFiles) -> Result<Self, RecipeError> {
        let mut loader = Loader { files, loaded: BTreeMap::new(), order: Vec::new() };
        for name in names {
            loader.load(name, &mut Vec::new())?;
        }
        let Loader { loaded, order, .. } = loader;
        check_given(given, &loaded)?;
        let mut recipes = Self::default();
        for name in &order {
            let parameters = with_given(&parameters_of(name, &loaded)?, given)?;
            let path = recipe_path(name);
            let renderer = Renderer::new(&path, &parameters);
            let mut composing = Composing {
                name,
                path: &path,
                files,
                renderer,
                digest: sha2::Sha256::new(),
                recipes: &mut recipes,
            };
            let recipe = &loaded[name];
            composing.note(&path, recipe.text.as_bytes());
            composing.add(&recipe.file)?;
            let digest = Sha256(composing.digest.finalize().into());
            recipes.digests.insert(name.clone(), digest);
        }
        check_owner(&recipes)?;
        Ok(recipes)
    }
}

fn recipe_path(name: &Label) -> String {
    format!("recipes/{name}/recipe.toml")
}

struct Loaded {
    text: String,
    file: RecipeFile,
}

struct Loader<'a> {
    files: &'a SourceFiles,
    loaded: BTreeMap<Label, Loaded>,
    /// Each recipe after those it extends.
    order: Vec<Label>,
}

impl Loader<'_> {
    fn load(&mut self, name: &Label, above: &mut Vec<Label>) -> Result<(), RecipeError> {
        if let Some(at) = above.iter().position(|other| other == name) {
            let names = above[at..].iter().chain([name]).cloned().collect();
            return Err(RecipeError::Circle { names });
        }
        if self.loaded.contains_key(name) {
            return Ok(());
        }
        let path = recipe_path(name);
        let text = read_text(self.files, &path)?;
        let file: RecipeFile =
            toml::from_str(&text).map_err(|source| RecipeError::Parse { path: path.clone(), source })?;
        above.push(name.clone());
        for extended in &file.extends {
            self.load(extended, above)?;
        }
        above.pop();
        self.loaded.insert(name.clone(), Loaded { text, file });
        self.order.push(name.clone());
        Ok(())
    }
}

fn read_text(files: &SourceFiles, path: &str) -> Result<String, RecipeError> {
    let file = files.read(path)?.ok_or_else(|| RecipeError::Missing { path: path.to_owned() })?;
    String::from_utf8(file.bytes.into_owned())
        .map_err(|_| RecipeError::Invalid { path: path.to_owned(), problem: "is not UTF-8".into() })
}

/// Parameters that a recipe's templates may name: its own, and those of the recipes that it extends.
fn parameters_of(name: &Label, loaded: &BTreeMap<Label, Loaded>) -> Result<Parameters, RecipeError> {
    let mut found: BTreeMap<String, Declared<super::ParameterValue>> = BTreeMap::new();
    let mut open = vec![name];
    while let Some(name) = open.pop() {
        let file = &loaded[name].file;
        for (parameter, entry) in &file.parameters {
            declare(&mut found, parameter.clone(), name, entry.default.clone(), || {
                format!("parameter {parameter}")
            })?;
        }
        open.extend(&file.extends);
    }
    Ok(found.into_iter().map(|(name, declared)| (name, declared.value)).collect())
}

fn check_given(given: &Parameters, loaded: &BTreeMap<Label, Loaded>) -> Result<(), RecipeError> {
    let known = || loaded.values().flat_map(|recipe| recipe.file.parameters.keys().map(String::as_str));
    match given.keys().find(|name| known().all(|known| known != name.as_str())) {
        Some(name) => Err(RecipeError::UnknownParameter {
            name: name.clone(),
            hint: suggest("parameters", name, known()),
        }),
        None => Ok(()),
    }
}

/// The data disk is one user's, whose group the recipes number.
fn check_owner(recipes: &Recipes) -> Result<(), RecipeError> {
    let mut owners = recipes.users.iter().filter(|(_, user)| user.value.subids.is_some());
    let Some((name, user)) = owners.next() else { return Ok(()) };
    if let Some((_, other)) = owners.next() {
        return Err(RecipeError::Conflict {
            what: "the data disk (users with subids)".into(),
            first: user.recipe.clone(),
            second: other.recipe.clone(),
        });
    }
    if !recipes.groups.contains_key(&user.value.group) {
        return Err(RecipeError::Invalid {
            path: recipe_path(&user.recipe),
            problem: format!("user {name} has subids, so its group {} must be a [[group]]", user.value.group),
        });
    }
    Ok(())
}

/// Adds a value, unless the same is there already.
fn declare<K: Ord, T: PartialEq>(
    map: &mut BTreeMap<K, Declared<T>>,
    key: K,
    recipe: &Label,
    value: T,
    what: impl FnOnce() -> String,
) -> Result<(), RecipeError> {
    match map.get(&key) {
        Some(first) if first.value != value => {
            Err(RecipeError::Conflict { what: what(), first: first.recipe.clone(), second: recipe.clone() })
        }
        Some(_) => Ok(()),
        None => {
            map.insert(key, Declared { recipe: recipe.clone(), value });
            Ok(())
        }
    }
}

/// One recipe being added.
struct Composing<'a> {
    name: &'a Label,
    path: &'a str,
    files: &'a SourceFiles,
    renderer: Renderer<'a>,
    digest: sha2::Sha256,
    recipes: &'a mut Recipes,
}

impl Composing<'_> {
    /// Makes a file that was read part of the recipe's digest.
    fn note(&mut self, path: &str, bytes: &[u8]) {
        self.digest.update(format!("{path}\n{}\n", bytes.len()));
        self.digest.update(bytes);
    }

    fn invalid(&self, problem: String) -> RecipeError {
        RecipeError::Invalid { path: self.path.to_owned(), problem }
    }

    fn add(&mut self, file: &RecipeFile) -> Result<(), RecipeError> {
        self.recipes.packages.extend(file.packages.iter().cloned());
        self.recipes.needs.extend(file.kernel.needs.iter().map(|need| (self.name.clone(), need.clone())));
        self.add_paths(file)?;
        for entry in &file.attribute {
            self.add_attributes(entry)?;
        }
        for entry in &file.group {
            let name = self.account(&entry.name)?;
            let group = Group { gid: self.renderer.number(&entry.gid)? };
            declare(&mut self.recipes.groups, name.clone(), self.name, group, || format!("group {name}"))?;
        }
        for entry in &file.user {
            self.add_user(entry)?;
        }
        for entry in &file.service {
            let key = (self.plain_name(&entry.runlevel)?, self.plain_name(&entry.name)?);
            declare(&mut self.recipes.services, key, self.name, (), String::new)?;
        }
        for entry in &file.home {
            let path: GuestPath = self.value(&format!("/{}", self.renderer.text(&entry.path)?))?;
            let content = self.content(path.as_str(), entry.template.as_deref(), entry.content.as_deref())?;
            let mode = self.mode(entry.mode)?;
            let item = FileItem { content, mode, owner: String::new(), group: String::new() };
            declare(&mut self.recipes.home, path.clone(), self.name, item, || format!("{path} of the home"))?;
        }
        Ok(())
    }

    fn add_paths(&mut self, file: &RecipeFile) -> Result<(), RecipeError> {
        let mut items = Vec::new();
        for entry in &file.directory {
            let (owner, group) = (self.account(&entry.owner)?, self.account(&entry.group)?);
            let item = PathItem::Directory { mode: self.mode(entry.mode)?, owner, group };
            items.push((self.renderer.text(&entry.path)?, item));
        }
        for entry in &file.file {
            let item = PathItem::File(self.file_item(entry)?);
            items.push((self.renderer.text(&entry.path)?, item));
        }
        for entry in &file.symlink {
            let target = self.renderer.text(&entry.target)?;
            if target.is_empty() || target.contains('\0') {
                return Err(self.invalid(format!("symlink {} has no target", entry.path)));
            }
            items.push((self.renderer.text(&entry.path)?, PathItem::Symlink { target }));
        }
        for (path, item) in items {
            let path: GuestPath = self.value(&path)?;
            declare(&mut self.recipes.paths, path.clone(), self.name, item, || path.to_string())?;
        }
        Ok(())
    }

    fn file_item(&mut self, entry: &FileEntry) -> Result<FileItem, RecipeError> {
        Ok(FileItem {
            content: self.content(&entry.path, entry.template.as_deref(), entry.content.as_deref())?,
            mode: self.mode(entry.mode)?,
            owner: self.account(&entry.owner)?,
            group: self.account(&entry.group)?,
        })
    }

    fn content(
        &mut self,
        path: &str,
        template: Option<&str>,
        content: Option<&str>,
    ) -> Result<Vec<u8>, RecipeError> {
        match (template, content) {
            (Some(template), None) => {
                let file: Label = self.value(template)?;
                let file = format!("recipes/{}/{file}", self.name);
                let text = read_text(self.files, &file)?;
                self.note(&file, text.as_bytes());
                Ok(self.renderer.file(&file, &text)?.into_bytes())
            }
            (None, Some(content)) => Ok(content.as_bytes().to_owned()),
            _ => Err(self.invalid(format!("file {path} needs either a template or a content"))),
        }
    }

    fn add_attributes(&mut self, entry: &AttributeEntry) -> Result<(), RecipeError> {
        let path: GuestPath = self.value(&self.renderer.text(&entry.path)?)?;
        let account = |name: &Option<String>| name.as_ref().map(|name| self.account(name)).transpose();
        let capabilities = entry.capabilities.as_deref().map(capability::parse).transpose();
        let attributes = Attributes {
            mode: entry.mode.map(|mode| self.mode(mode)).transpose()?,
            owner: account(&entry.owner)?,
            group: account(&entry.group)?,
            capabilities: capabilities
                .map_err(|problem| self.invalid(format!("capabilities of {path}: {problem}")))?,
        };
        let what = || format!("the attributes of {path}");
        declare(&mut self.recipes.attributes, path.clone(), self.name, attributes, what)
    }

    fn add_user(&mut self, entry: &UserEntry) -> Result<(), RecipeError> {
        let name = self.account(&entry.name)?;
        let home: GuestPath = self.value(&self.renderer.text(&entry.home)?)?;
        let shell: GuestPath = self.value(&self.renderer.text(&entry.shell)?)?;
        let user = User {
            uid: self.renderer.number(&entry.uid)?,
            group: self.account(&entry.group)?,
            home: home.to_string(),
            shell: shell.to_string(),
            gecos: self.renderer.text(&entry.gecos)?,
            password: entry.password.clone(),
            subids: entry.subids.as_ref().map(|ids| SubIds { start: ids.start, count: ids.count }),
        };
        for text in [&user.home, &user.shell, &user.gecos, &user.password] {
            if text.contains([':', '\n']) {
                return Err(self.invalid(format!("user {name}: {text:?} holds a ':' or a line break")));
            }
        }
        if entry
            .subids
            .as_ref()
            .is_some_and(|ids| ids.start.checked_add(ids.count).is_none() || ids.count == 0)
        {
            return Err(self.invalid(format!("user {name}: subids must lie below 2^32, and be some")));
        }
        declare(&mut self.recipes.users, name.clone(), self.name, user, || format!("user {name}"))
    }

    /// Name of a user or group (shadow's `is_valid_name`).
    fn account(&self, text: &str) -> Result<String, RecipeError> {
        let name = self.renderer.text(text)?;
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        let first = name.bytes().next();
        if name.len() <= 32
            && name.bytes().all(good)
            && first.is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
        {
            Ok(name)
        } else {
            Err(self.invalid(format!("{name:?} cannot be the name of a user or group")))
        }
    }

    /// Name of a service or runlevel: one part of a path.
    fn plain_name(&self, text: &str) -> Result<String, RecipeError> {
        let name: Label = self.value(&self.renderer.text(text)?)?;
        Ok(name.to_string())
    }

    fn mode(&self, mode: u16) -> Result<u16, RecipeError> {
        if mode <= 0o7777 { Ok(mode) } else { Err(self.invalid(format!("mode {mode:o} is above 7777"))) }
    }

    fn value<T: FromStr<Err = crate::fleet::InvalidValue>>(&self, text: &str) -> Result<T, RecipeError> {
        text.parse().map_err(|problem| self.invalid(format!("{text:?} {problem}")))
    }
}
