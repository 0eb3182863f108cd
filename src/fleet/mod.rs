//! Declare: the text of `fleet.toml` becomes a validated [`Fleet`].
//!
//! Text -> document (`syntax`) -> `FleetFile` (`reader`, `file`) -> [`Fleet`] (`validate`) -> what it mentions
//! is looked up (`check`). Each stage adds to one list of problems, told together.

pub mod builtin;
mod check;
mod file;
pub mod files;
pub mod model;
pub(crate) mod reader;
mod registry;
pub(crate) mod scalar;
pub(crate) mod syntax;
mod validate;

use std::io::ErrorKind;
use std::path::Path;

pub use crate::base::problem::{InvalidFile, Problem, Problems, nearest, render, suggest};
use crate::base::{Diagnosis, Diagnostic};
use crate::sys::fs::{self as sys_fs, FileError};

use file::FleetFile;
pub use files::{SourceFile, SourceFiles};
pub use model::*;
use reader::FromToml;
pub use registry::RegistryImage;

/// The fleet that a user starts from: what `sisforge init` prints.
pub const EXAMPLE: &str = include_str!("../../fleet.toml");

/// A fleet that could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Read(#[from] FileError),
    #[error(transparent)]
    Invalid(#[from] InvalidFile),
}

impl Diagnostic for LoadError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Read(error) => error.diagnosis().hint(match error.source.kind() {
                ErrorKind::NotFound => {
                    "run `sisforge init` for a fleet.toml to start from, or name one with --file"
                }
                ErrorKind::IsADirectory => "name the file itself, as in --file DIR/fleet.toml",
                ErrorKind::InvalidData => "save it as UTF-8",
                _ => "make it readable for you, or name another with --file",
            }),
            Self::Invalid(error) => error.diagnosis(),
        }
    }

    fn problems(&self) -> &[InvalidFile] {
        match self {
            Self::Read(_) => &[],
            Self::Invalid(file) => file.problems(),
        }
    }
}

/// Reads and validates a `fleet.toml`, and looks up the files, keys, recipes and kernel configs that it mentions.
pub fn load(path: &Path) -> Result<Fleet, LoadError> {
    let text = sys_fs::read_text(path)?;
    Ok(read(path, &text, true)?)
}

/// Validates the text of a `fleet.toml` that stands at `path`, without looking at any other file.
pub fn parse(path: &Path, text: &str) -> Result<Fleet, InvalidFile> {
    read(path, text, false)
}

fn read(path: &Path, text: &str, look_up: bool) -> Result<Fleet, InvalidFile> {
    // Fails only for an empty path and where the working directory is gone; both stay as they are.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let root = absolute.parent().unwrap_or(Path::new("/"));
    let mut problems = Problems::default();
    let file = syntax::parse(text, &mut problems)
        .and_then(|document| FleetFile::from_toml(&document, &mut problems));
    let fleet = file.and_then(|file| {
        let source = SourceText { path: path.to_owned(), text: text.to_owned() };
        let (fleet, mentions) = validate::validate(root, source, &file, &mut problems);
        if look_up {
            check::check_files(&mentions, &SourceFiles::new(root), &mut problems);
        }
        fleet
    });
    match fleet {
        Ok(fleet) if problems.is_empty() => Ok(fleet),
        _ => Err(InvalidFile {
            path: path.to_owned(),
            text: text.to_owned(),
            problems: problems.into_sorted(),
        }),
    }
}

/// The JSON Schema of `fleet.toml` (draft 2020-12).
pub fn schema() -> serde_json::Value {
    reader::file_schema::<FleetFile>("fleet.toml")
}

#[cfg(test)]
mod tests;
