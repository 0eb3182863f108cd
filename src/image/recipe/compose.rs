//! Composing recipes into [`Recipes`]: texts are rendered, values checked, and what two recipes say of one thing compared.

mod accounts;

use std::collections::BTreeMap;
use std::ops::Range;
use std::str::FromStr;

use sha2::Digest;
use toml::Spanned;

use crate::base::problem::{Problem, Problems, Read, ReadRef, Reported};
use crate::base::{GuestPath, InvalidValue, LOST_FOUND, Label, Sha256, is_lost_found};
use crate::fleet::scalar::Mode;
use crate::fleet::{InvalidFile, ScriptName, SourceFiles, suggest};

use super::load::{Loaded, load};
use super::render::Renderer;
use super::schema::{
    AttributeSection, DirectorySection, HomeSection, Number, RecipeFile, RecipeFileSection, ScriptSection,
    ServiceSection, SymlinkSection,
};
use super::{
    Attributes, FileItem, FromRecipe, Parameters, PathItem, RecipeError, Recipes, Service, attribute,
    capability, parameters,
};

/// What every file gets that does not say otherwise.
const FILE_MODE: Mode = Mode(0o644);
const DIRECTORY_MODE: Mode = Mode(0o755);

impl Recipes {
    /// Loads recipes and all that they extend, renders and composes them.
    pub fn load(names: &[Label], given: &Parameters, files: &SourceFiles) -> Result<Self, RecipeError> {
        let mut loaded = load(names, files)?;
        let (values, given) = parameters::resolve(&mut loaded, given);
        let mut recipes = Self::default();
        let mut invalid = Vec::new();
        for recipe in &mut loaded {
            let Ok(file) = recipe.file.clone() else { continue };
            let mut composing = Composing {
                renderer: Renderer::new(values.seen_by(recipe)),
                recipe,
                files,
                digest: sha2::Sha256::new(),
                recipes: &mut recipes,
                templates: Vec::new(),
                failure: None,
            };
            let (path, text) = (composing.recipe.path.clone(), composing.recipe.text.clone());
            composing.note(&path, text.as_bytes());
            composing.add(&file);
            let digest = Sha256(composing.digest.finalize().into());
            invalid.append(&mut composing.templates);
            if let Some(failure) = composing.failure {
                return Err(failure);
            }
            recipes.digests.insert(recipe.name.clone(), digest);
        }
        recipes.parameters = values.into_all();
        invalid.splice(0..0, loaded.into_iter().filter_map(Loaded::invalid));
        if invalid.is_empty() && given.is_empty() {
            Ok(recipes)
        } else {
            Err(RecipeError::Invalid { files: invalid, given })
        }
    }
}

/// One recipe being added.
struct Composing<'a> {
    recipe: &'a mut Loaded,
    files: &'a SourceFiles,
    renderer: Renderer,
    digest: sha2::Sha256,
    recipes: &'a mut Recipes,
    /// Templates that cannot be rendered.
    templates: Vec<InvalidFile>,
    /// A file that exists but cannot be read.
    failure: Option<RecipeError>,
}

/// Where the bytes of a file come from.
struct FileOrigin<'a> {
    path: &'a Spanned<String>,
    template: &'a Read<Option<Spanned<Label>>>,
    content: &'a Read<Option<Spanned<String>>>,
    copy: &'a Read<Option<Spanned<Label>>>,
}

impl Composing<'_> {
    /// Makes a file that was read part of the recipe's digest.
    fn note(&mut self, path: &str, bytes: &[u8]) {
        self.digest.update(format!("{path}\n{}\n", bytes.len()));
        self.digest.update(bytes);
    }

    fn report(&mut self, place: Range<usize>, message: impl Into<String>) -> Reported {
        self.recipe.problems.report(Problem::new(place, message))
    }

    /// Tells that two recipes differ, unless one says the same thing twice.
    fn conflict(&mut self, place: Range<usize>, what: &str, first: &Label) -> Reported {
        let second = &self.recipe.name;
        let message = if first == second {
            format!("recipe {second} sets {what} twice")
        } else {
            format!("recipes {first} and {second} contradict each other about {what}")
        };
        self.recipe.problems.report(Problem::new(place, message))
    }

    /// Adds a value, unless the same is there already.
    fn declare<K: Ord, T: PartialEq>(
        &mut self,
        map: fn(&mut Recipes) -> &mut BTreeMap<K, FromRecipe<T>>,
        key: K,
        value: T,
        place: Range<usize>,
        what: &str,
    ) -> Read<()> {
        let recipe = self.recipe.name.clone();
        match map(self.recipes).get(&key) {
            Some(first) if first.value != value => {
                let first = first.recipe.clone();
                Err(self.conflict(place, what, &first))
            }
            Some(_) => Ok(()),
            None => {
                map(self.recipes).insert(key, FromRecipe { recipe, value });
                Ok(())
            }
        }
    }

    /// Adds everything; whatever is wrong is told when this returns.
    fn add(&mut self, file: &RecipeFile) {
        if let Some(description) = file.description.as_ref().ok().filter(|text| text.get_ref().contains('\n'))
        {
            self.report(description.span(), "a description must be one line");
        }
        if let Ok(packages) = &file.packages {
            let entries = packages.iter().flatten().map(|package| package.get_ref().entry.clone());
            self.recipes.packages.extend(entries);
        }
        if let Ok(Some(kernel)) = &file.kernel {
            let needs = kernel.needs.iter().flatten().flatten();
            let needs = needs.map(|need| (self.recipe.name.clone(), need.get_ref().clone()));
            self.recipes.needs.extend(needs);
        }
        self.each(&file.directory, Self::add_directory);
        self.each(&file.file, Self::add_file);
        self.each(&file.symlink, Self::add_symlink);
        self.each(&file.attribute, Self::add_attributes);
        self.each(&file.group, Self::add_group);
        self.each(&file.user, Self::add_user);
        self.each(&file.service, Self::add_service);
        self.each(&file.home, Self::add_home);
        self.each(&file.script, Self::add_script);
    }

    fn each<T>(&mut self, sections: &Read<Vec<Read<T>>>, add: fn(&mut Self, &T) -> Read<()>) {
        for section in sections.iter().flatten().flatten() {
            // What went wrong was told.
            let _ = add(self, section);
        }
    }

    /// A path, and where it stands in `recipe.toml`.
    fn path(&mut self, path: &Read<Spanned<String>>) -> Read<Spanned<GuestPath>> {
        let text = path.by_ref()?;
        self.value(text).map(|path| Spanned::new(text.span(), path))
    }

    fn add_path(&mut self, path: Spanned<GuestPath>, item: PathItem) -> Read<()> {
        let (place, path) = (path.span(), path.into_inner());
        let is_the_directory = path.as_str() == LOST_FOUND && matches!(item, PathItem::Directory { .. });
        if !is_the_directory {
            self.refuse_lost_found(&path, place.clone())?;
        }
        self.declare(|recipes| &mut recipes.paths, path.clone(), item, place, path.as_str())
    }

    fn refuse_lost_found(&mut self, path: &GuestPath, place: Range<usize>) -> Read<()> {
        let what = format!("no file can be put into {LOST_FOUND}, which is e2fsck's");
        if is_lost_found(path.as_str()) { Err(self.report(place, &what)) } else { Ok(()) }
    }

    fn add_directory(&mut self, section: &DirectorySection) -> Read<()> {
        let path = self.path(&section.path);
        let owner = self.account(&section.owner);
        let group = self.account(&section.group);
        let mode = section.mode?.unwrap_or(DIRECTORY_MODE).0;
        let item = PathItem::Directory { mode, owner: owner?, group: group? };
        self.add_path(path?, item)
    }

    fn add_file(&mut self, section: &RecipeFileSection) -> Read<()> {
        let RecipeFileSection { template, content, copy, .. } = section;
        let content = self.content(&FileOrigin { path: section.path.by_ref()?, template, content, copy });
        let path = self.path(&section.path);
        let owner = self.account(&section.owner);
        let group = self.account(&section.group);
        let mode = section.mode?.unwrap_or(FILE_MODE).0;
        let item = FileItem { content: content?, mode, owner: owner?, group: group? };
        self.add_path(path?, PathItem::File(item))
    }

    fn add_symlink(&mut self, section: &SymlinkSection) -> Read<()> {
        let path = self.path(&section.path);
        let text = section.target.by_ref()?;
        let target = self.text(text)?;
        if target.is_empty() || target.chars().any(char::is_control) {
            return Err(self.report(text.span(), "the target is empty, or contains a control character"));
        }
        self.add_path(path?, PathItem::Symlink { target })
    }

    fn add_home(&mut self, section: &HomeSection) -> Read<()> {
        let HomeSection { template, content, copy, .. } = section;
        let path = section.path.by_ref()?;
        let content = self.content(&FileOrigin { path, template, content, copy });
        let below = Spanned::new(path.span(), format!("/{}", path.get_ref()));
        let inside: GuestPath = self.value(&below)?;
        // The home is the root of a file system of its own.
        self.refuse_lost_found(&inside, path.span())?;
        let mode = section.mode?.unwrap_or(FILE_MODE).0;
        let item = FileItem { content: content?, mode, owner: String::new(), group: String::new() };
        let what = format!("{inside} of the home");
        self.declare(|recipes| &mut recipes.home, inside, item, path.span(), &what)
    }

    /// The bytes of a file.
    fn content(&mut self, origin: &FileOrigin<'_>) -> Read<Vec<u8>> {
        let (template, content, copy) =
            (origin.template.by_ref()?, origin.content.by_ref()?, origin.copy.by_ref()?);
        match (template, content, copy) {
            (Some(template), None, None) => {
                let (path, bytes) = self.file_beside(template)?;
                let Ok(text) = String::from_utf8(bytes) else {
                    return Err(
                        self.report(template.span(), format!("{path} is not UTF-8; `copy` takes any file"))
                    );
                };
                self.template(path, text)
            }
            (None, Some(content), None) => Ok(content.get_ref().as_bytes().to_owned()),
            (None, None, Some(copy)) => self.file_beside(copy).map(|(_, bytes)| bytes),
            _ => {
                let message =
                    format!("{} needs one of `template`, `content` and `copy`", origin.path.get_ref());
                Err(self.report(origin.path.span(), message))
            }
        }
    }

    /// Reads a file that stands beside `recipe.toml`; gives its path too.
    fn file_beside(&mut self, name: &Spanned<Label>) -> Read<(String, Vec<u8>)> {
        let folder = format!("recipes/{}", self.recipe.name);
        let path = format!("{folder}/{}", name.get_ref());
        match self.files.read(&path) {
            Ok(Some(file)) => {
                let bytes = file.bytes.into_owned();
                self.note(&path, &bytes);
                Ok((path, bytes))
            }
            Ok(None) => {
                let names = self.files.list(&folder).unwrap_or_default();
                let names = names.iter().map(String::as_str).filter(|name| *name != "recipe.toml");
                let hint = suggest("files beside recipe.toml", name.get_ref().as_str(), names);
                let problem = Problem::new(name.span(), format!("there is no {path}")).hint(hint);
                Err(self.recipe.problems.report(problem))
            }
            Err(error) => {
                let told = self.report(name.span(), error.to_string());
                self.failure = Some(error.into());
                Err(told)
            }
        }
    }

    fn template(&mut self, path: String, text: String) -> Read<Vec<u8>> {
        match self.renderer.render(&text) {
            Ok(rendered) => Ok(rendered.into_bytes()),
            Err(problem) => {
                let mut problems = Problems::default();
                let told = problems.report(problem);
                let problems = problems.into_sorted();
                self.templates.push(InvalidFile { path: path.into(), text, problems });
                Err(told)
            }
        }
    }

    fn add_attributes(&mut self, section: &AttributeSection) -> Read<()> {
        let path = self.path(&section.path);
        let account = |this: &mut Self, name: &Read<Option<Spanned<String>>>| match name.by_ref()? {
            Some(_) => this.account(name).map(Some),
            None => Ok(None),
        };
        let owner = account(self, &section.owner);
        let group = account(self, &section.group);
        let xattrs = self.xattrs(section);
        let attributes = Attributes {
            mode: section.mode?.map(|mode| mode.0),
            owner: owner?,
            group: group?,
            xattrs: xattrs?,
        };
        let (place, path) = path.map(|path| (path.span(), path.into_inner()))?;
        let recipe = self.recipe.name.clone();
        let Some(there) = self.recipes.attributes.get_mut(&path) else {
            self.recipes.attributes.insert(path, FromRecipe { recipe, value: attributes });
            return Ok(());
        };
        if there.value.merge(attributes) {
            return Ok(());
        }
        let first = there.recipe.clone();
        Err(self.conflict(place, &format!("the attributes of {path}"), &first))
    }

    fn xattrs(&mut self, section: &AttributeSection) -> Read<BTreeMap<String, Vec<u8>>> {
        let mut found = BTreeMap::new();
        let mut wrong = None;
        for (name, value) in section.xattrs.by_ref()?.iter() {
            let value = value.by_ref()?;
            let name_checked = attribute::check_name(name.get_ref());
            let parsed = name_checked.map_err(|rule| (name.span(), format!("{:?} {rule}", name.get_ref())));
            let parsed = parsed.and_then(|()| {
                attribute::parse(value.get_ref())
                    .map_err(|rule| (value.span(), format!("{:?} {rule}", value.get_ref())))
            });
            match parsed {
                Ok(bytes) => drop(found.insert(name.get_ref().clone(), bytes)),
                Err((place, message)) => wrong = Some(self.report(place, message)),
            }
        }
        if let Some(text) = section.capabilities.by_ref()? {
            const NAME: &str = "security.capability";
            match capability::parse(text.get_ref()) {
                Ok(_) if found.contains_key(NAME) => {
                    wrong = Some(self.report(text.span(), format!("`xattrs` has {NAME}, too")));
                }
                Ok(bytes) => drop(found.insert(NAME.to_owned(), bytes)),
                Err(rule) => wrong = Some(self.report(text.span(), format!("{:?}: {rule}", text.get_ref()))),
            }
        }
        wrong.map_or(Ok(found), Err)
    }

    /// A service on, or off where a package or a recipe that this one extends has it on.
    fn add_service(&mut self, section: &ServiceSection) -> Read<()> {
        let place = section.name.by_ref()?.span();
        let name: Label = self.value(section.name.by_ref()?)?;
        let runlevel: Label = self.value(section.runlevel.by_ref()?)?;
        let key = (runlevel.to_string(), name.to_string());
        let service = if section.enabled?.unwrap_or(true) { Service::On } else { Service::Off };
        if service == Service::Off
            && let Some(there) = self.recipes.services.get(&key)
            && self.recipe.extends.contains(&there.recipe)
        {
            let declared = FromRecipe { recipe: self.recipe.name.clone(), value: Service::OffAgain };
            self.recipes.services.insert(key, declared);
            return Ok(());
        }
        let what = format!("service {name} in runlevel {runlevel}");
        self.declare(|recipes| &mut recipes.services, key, service, place, &what)
    }

    fn add_script(&mut self, section: &ScriptSection) -> Read<()> {
        let because = section.because.by_ref()?;
        if because.get_ref().trim().is_empty() {
            return Err(self.report(because.span(), "`because` must say why the script need not run"));
        }
        let package = section.package.by_ref()?.get_ref().clone();
        let script = ScriptName { package, moment: section.kind? };
        for sha256 in &section.sha256.by_ref()?.0 {
            let key = (script.clone(), sha256.get_ref().0);
            self.recipes.reviewed.entry(key).or_insert_with(|| self.recipe.name.clone());
        }
        Ok(())
    }

    /// Renders a text of `recipe.toml` itself.
    fn text(&mut self, text: &Spanned<String>) -> Read<String> {
        let rendered = self.renderer.render(text.get_ref());
        rendered.map_err(|problem| self.recipe.problems.report(Problem { span: text.span(), ..problem }))
    }

    /// Renders and parses a text.
    fn value<T: FromStr<Err = InvalidValue>>(&mut self, text: &Spanned<String>) -> Read<T> {
        let rendered = self.text(text)?;
        rendered
            .parse()
            .map_err(|InvalidValue(rule)| self.report(text.span(), format!("{rendered:?} {rule}")))
    }

    fn number(&mut self, number: &Spanned<Number>) -> Read<u32> {
        let text = match number.get_ref() {
            Number::Plain(number) => return Ok(*number),
            Number::Template(text) => Spanned::new(number.span(), text.clone()),
        };
        let rendered = self.text(&text)?;
        let parsed = rendered.trim().parse();
        parsed.map_err(|_| {
            self.report(number.span(), format!("{rendered:?} is not a number from 0 to 2^32 - 1"))
        })
    }
}

impl Attributes {
    /// Adds what another recipe says; `false`, with nothing added, where the two differ in one thing.
    fn merge(&mut self, other: Self) -> bool {
        fn differ<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
            one.is_some() && other.is_some() && one != other
        }
        if differ(self.mode.as_ref(), other.mode.as_ref())
            || differ(self.owner.as_ref(), other.owner.as_ref())
            || differ(self.group.as_ref(), other.group.as_ref())
            || other.xattrs.iter().any(|(name, value)| differ(self.xattrs.get(name), Some(value)))
        {
            return false;
        }
        self.mode = self.mode.or(other.mode);
        self.owner = self.owner.take().or(other.owner);
        self.group = self.group.take().or(other.group);
        self.xattrs.extend(other.xattrs);
        true
    }
}
