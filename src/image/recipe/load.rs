//! Reads recipes and those that they extend.

use std::collections::BTreeSet;

use crate::base::Label;
use crate::base::problem::{Problem, Problems, Read, ReadRef, suggest};
use crate::fleet::reader::FromToml;
use crate::fleet::{InvalidFile, SourceFiles, syntax};
use crate::sys::fs::FileError;

use super::RecipeError;
use super::schema::RecipeFile;

/// A recipe that was read, and what is wrong with it so far.
pub(super) struct Loaded {
    pub name: Label,
    pub path: String,
    pub text: String,
    pub file: Read<RecipeFile>,
    /// All recipes that it extends, also by way of others.
    pub extends: BTreeSet<Label>,
    pub problems: Problems,
}

impl Loaded {
    /// The file with its problems, where there are any.
    pub(super) fn invalid(self) -> Option<InvalidFile> {
        let problems = self.problems.into_sorted();
        (!problems.is_empty()).then(|| InvalidFile { path: self.path.into(), text: self.text, problems })
    }
}

/// Reads recipes with all that they extend: each once, behind those that it extends. What is wrong inside of a recipe
/// stands with it.
pub(super) fn load(names: &[Label], files: &SourceFiles) -> Result<Vec<Loaded>, RecipeError> {
    let mut loader = Loader { files, loaded: Vec::new() };
    for name in names {
        if !files.exists(&path_of(name))? {
            return Err(RecipeError::Missing { path: path_of(name) });
        }
        loader.load(name, &mut Vec::new())?;
    }
    Ok(loader.loaded)
}

pub(super) fn path_of(name: &Label) -> String {
    format!("recipes/{name}/recipe.toml")
}

/// Reads a text; `None` where there is no such file.
pub(super) fn read_text(files: &SourceFiles, path: &str) -> Result<Option<String>, RecipeError> {
    let Some(file) = files.read(path)? else { return Ok(None) };
    let not_utf8 = |_| RecipeError::NotUtf8 { path: path.to_owned() };
    String::from_utf8(file.bytes.into_owned()).map(Some).map_err(not_utf8)
}

struct Loader<'a> {
    files: &'a SourceFiles,
    loaded: Vec<Loaded>,
}

impl Loader<'_> {
    /// Loads a recipe that is there. `above` are those that extend each other down to it.
    fn load(&mut self, name: &Label, above: &mut Vec<Label>) -> Result<(), RecipeError> {
        if self.loaded.iter().any(|loaded| loaded.name == *name) {
            return Ok(());
        }
        let path = path_of(name);
        let text = read_text(self.files, &path)?.unwrap_or_default();
        let mut problems = Problems::default();
        let file = syntax::parse(&text, &mut problems)
            .and_then(|document| RecipeFile::from_toml(&document, &mut problems));
        above.push(name.clone());
        let mut extends = BTreeSet::new();
        let listed = file.as_ref().ok().and_then(|file| file.extends.by_ref().ok());
        for entry in listed.into_iter().flatten().flatten() {
            let other = entry.get_ref();
            if let Some(problem) = self.extension_problem(other, above)? {
                problems.report(Problem { span: entry.span(), ..problem });
                continue;
            }
            self.load(other, above)?;
            extends.insert(other.clone());
            let below = self.loaded.iter().find(|loaded| loaded.name == *other);
            extends.extend(below.into_iter().flat_map(|loaded| loaded.extends.iter().cloned()));
        }
        above.pop();
        self.loaded.push(Loaded { name: name.clone(), path, text, file, extends, problems });
        Ok(())
    }

    fn extension_problem(&self, name: &Label, above: &[Label]) -> Result<Option<Problem>, FileError> {
        if let Some(at) = above.iter().position(|other| other == name) {
            let circle: Vec<&str> = above[at..].iter().chain([name]).map(Label::as_str).collect();
            let message = format!("recipes extend each other in a circle: {}", circle.join(" -> "));
            return Ok(Some(Problem::new(0..0, message).hint("remove one of them")));
        }
        if self.files.exists(&path_of(name))? {
            return Ok(None);
        }
        let names = self.files.list("recipes")?;
        let names = names.iter().map(String::as_str).filter(|name| *name != "README.md");
        let hint = suggest("recipes", name.as_str(), names);
        Ok(Some(Problem::new(0..0, format!("there is no {}", path_of(name))).hint(hint)))
    }
}
