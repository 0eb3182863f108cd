//! Declare: the text of `fleet.toml` becomes a validated [`Fleet`].
//!
//! Text -> document (`syntax`) -> `FleetFile` (`reader`, `file`) -> [`Fleet`] (`validate`) -> what it mentions
//! is looked up (`check`). Each stage adds to one list of problems, told together.

pub mod builtin;
mod check;
mod file;
pub mod files;
mod head;
pub mod model;
pub(crate) mod reader;
mod registry;
pub(crate) mod scalar;
pub(crate) mod syntax;
mod validate;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

pub use crate::base::problem::{InvalidFile, Problem, Problems, nearest, render, suggest};
use crate::base::{Diagnosis, Diagnostic};
use crate::sys::beneath;
use crate::sys::fs::{self as sys_fs, FileError};

pub use check::LARGEST_KUBE;
use file::FleetFile;
pub use files::{SourceFile, SourceFiles};
pub use head::{FleetHead, head};
pub use model::*;
use reader::FromToml;
pub use registry::{ArtifactPlace, RegistryImage};
use validate::Mention;

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
                    "run `sisforge init` for a fleet.toml to start from, or choose one with --file"
                }
                ErrorKind::IsADirectory => "give the file itself, as in --file DIR/fleet.toml",
                // What it is instead has words of its own.
                ErrorKind::InvalidData | ErrorKind::Other => return error.diagnosis(),
                // A link that leads out of a checkout.
                ErrorKind::InvalidInput => "commit the file itself instead of a link",
                _ => "make it readable for you, or choose another with --file",
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

/// Reads and validates a `fleet.toml`, and looks up the files, keys, recipes and kernel configs that it mentions. A path in
/// it may lead anywhere; a link below its directory that leads out of there is refused.
pub fn load(path: &Path) -> Result<Fleet, LoadError> {
    load_as(path, None, None)
}

/// The same with artifacts from another place than it names, and, where others may write it, confined.
pub fn load_as(
    path: &Path,
    confinement: Option<&Confinement>,
    artifacts: Option<&ArtifactPlace>,
) -> Result<Fleet, LoadError> {
    let (text, scope) = match confinement {
        None => (sys_fs::read_text(path)?, FileScope::Plain),
        Some(confinement) => (read_confined(path, confinement)?, FileScope::Confined(confinement)),
    };
    Ok(read(path, &text, &scope, artifacts)?)
}

/// Which files of a host a `fleet.toml` may name that others write.
#[derive(Clone, Debug)]
pub struct Confinement {
    /// Their checkout, which no link leads out of.
    pub checkout: PathBuf,
    /// Directories of the host that whoever runs this allows beside it.
    pub allowed: Vec<PathBuf>,
}

/// The text of a `fleet.toml` that others may write, in a checkout of theirs: neither a path nor a link, nor the file itself
/// and its lock, leads out of it, but for paths to what is allowed.
fn read_confined(path: &Path, confinement: &Confinement) -> Result<String, FileError> {
    let project = &confinement.checkout;
    let files = SourceFiles::new(project);
    for file in [path, &path.with_extension("lock")] {
        files.find(file)?;
    }
    let inside = path.strip_prefix(project).unwrap_or(path);
    let bytes = beneath::read(project, inside, LARGEST)?;
    String::from_utf8(bytes).map_err(|_| FileError::when("read", path)(sys_fs::NotText.into()))
}

/// Bytes of a `fleet.toml` of others.
const LARGEST: u64 = 64 << 20;

/// Validates the text of a `fleet.toml` that stands at `path`, without looking at any other file.
pub fn parse(path: &Path, text: &str) -> Result<Fleet, InvalidFile> {
    read(path, text, &FileScope::Nothing, None)
}

/// Which files a fleet is looked up in.
enum FileScope<'a> {
    Nothing,
    /// Where its paths lead, in plain sight.
    Plain,
    /// Those of a checkout, and what is allowed beside it.
    Confined(&'a Confinement),
}

fn read(
    path: &Path,
    text: &str,
    reach: &FileScope<'_>,
    artifacts: Option<&ArtifactPlace>,
) -> Result<Fleet, InvalidFile> {
    // Fails only for an empty path and where the working directory is gone; both stay as they are.
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let file = absolute(path);
    let root = file.parent().unwrap_or(Path::new("/"));
    let project = match reach {
        FileScope::Confined(confinement) => absolute(&confinement.checkout),
        FileScope::Plain | FileScope::Nothing => root.to_owned(),
    };
    let mut problems = Problems::default();
    let file = syntax::parse(text, &mut problems)
        .and_then(|document| FleetFile::from_toml(&document, &mut problems));
    let fleet = file.and_then(|file| {
        let source = SourceText { path: path.to_owned(), text: text.to_owned() };
        let (mut fleet, mentions) = validate::validate(root, &project, source, &file, &mut problems);
        if let (Ok(fleet), Some(place)) = (&mut fleet, artifacts) {
            fleet.artifacts = Some(place.clone());
        }
        // A host that takes what others built needs nothing that it is built of.
        let takes = fleet.as_ref().is_ok_and(|fleet| fleet.artifacts.is_some());
        let is_needed = |mention: &Mention| !(takes && mention.only_to_build && mention.is_absent());
        let needed: Vec<_> = mentions.into_iter().filter(is_needed).collect();
        look_up(&needed, &SourceFiles::within(root, &project), reach, &mut problems);
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

fn look_up(mentions: &[Mention], files: &SourceFiles, reach: &FileScope<'_>, problems: &mut Problems) {
    match reach {
        FileScope::Nothing => {}
        FileScope::Plain => check::check_files(mentions, files, None, problems),
        FileScope::Confined(Confinement { allowed, .. }) => {
            check::check_files(mentions, files, Some(allowed), problems);
        }
    }
}

/// The JSON Schema of `fleet.toml` (draft 2020-12).
pub fn schema() -> serde_json::Value {
    reader::file_schema::<FleetFile>("fleet.toml")
}

#[cfg(test)]
mod tests;
