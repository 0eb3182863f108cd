//! Recipes and kernel configs: those beside `fleet.toml`, and behind them those that come with sisforge.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::sys::fs::FileError;

use super::builtin;

/// The files that belong to a fleet, by their path relative to `fleet.toml` with `/` between its parts.
///
/// A recipe beside `fleet.toml` replaces the built-in one of the same name as a whole, every other file
/// the built-in one of the same path.
#[derive(Clone, Debug)]
pub struct SourceFiles {
    root: PathBuf,
}

/// A file and where it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// For people: `recipes/openrc/recipe.toml`, or `recipes/openrc/recipe.toml (built in)`.
    pub origin: String,
    pub bytes: Cow<'static, [u8]>,
}

impl SourceFiles {
    /// The files below `root`, the directory of `fleet.toml`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Reads a file; `None` where there is none. What would lead out of the fleet's directory is refused.
    pub fn read(&self, relative: &str) -> Result<Option<SourceFile>, FileError> {
        let path = self.beside(relative)?;
        match fs::read(&path) {
            Ok(bytes) => {
                return Ok(Some(SourceFile { origin: relative.to_owned(), bytes: Cow::Owned(bytes) }));
            }
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(FileError::when("read", path)(error)),
        }
        if self.replaces_builtin(relative)? {
            return Ok(None);
        }
        let found = builtin::read(relative);
        Ok(found.map(|bytes| SourceFile {
            origin: format!("{relative} (built in)"),
            bytes: Cow::Borrowed(bytes),
        }))
    }

    /// Whether there is such a file.
    pub fn exists(&self, relative: &str) -> Result<bool, FileError> {
        Ok(self.beside(relative)?.is_file()
            || (!self.replaces_builtin(relative)? && builtin::read(relative).is_some()))
    }

    /// Names of the files and directories directly in a directory; none where it does not exist.
    pub fn list(&self, relative: &str) -> Result<BTreeSet<String>, FileError> {
        let path = self.beside(relative)?;
        let mut names = BTreeSet::new();
        match fs::read_dir(&path) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry.map_err(FileError::when("read directory", &path))?;
                    names.extend(entry.file_name().into_string().ok());
                }
            }
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(FileError::when("read directory", path)(error)),
        }
        if !self.replaces_builtin(relative)? {
            names.extend(builtin::list(relative).map(str::to_owned));
        }
        Ok(names)
    }

    /// Whether `relative` belongs to a recipe that is there beside `fleet.toml`.
    fn replaces_builtin(&self, relative: &str) -> Result<bool, FileError> {
        let mut parts = relative.split('/');
        match (parts.next(), parts.next()) {
            (Some("recipes"), Some(name)) => Ok(self.beside(&format!("recipes/{name}"))?.is_dir()),
            _ => Ok(false),
        }
    }

    fn beside(&self, relative: &str) -> Result<PathBuf, FileError> {
        let inside = Path::new(relative).components().all(|part| matches!(part, Component::Normal(_)));
        if inside && !relative.is_empty() {
            Ok(self.root.join(relative))
        } else {
            let outside =
                io::Error::new(io::ErrorKind::InvalidInput, "it leads out of the fleet's directory");
            Err(FileError::when("read", relative)(outside))
        }
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fs as sys_fs;

    #[test]
    fn a_recipe_beside_the_fleet_replaces_the_built_in_one_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let files = SourceFiles::new(dir.path());
        assert!(files.exists("recipes/openrc/inittab").unwrap());
        sys_fs::write(&dir.path().join("recipes/openrc/recipe.toml"), b"mine", 0o644).unwrap();
        let recipe = files.read("recipes/openrc/recipe.toml").unwrap().unwrap();
        assert_eq!((recipe.origin.as_str(), &*recipe.bytes), ("recipes/openrc/recipe.toml", &b"mine"[..]));
        assert_eq!(files.read("recipes/openrc/inittab").unwrap(), None);
        assert!(!files.exists("recipes/openrc/inittab").unwrap());
        assert_eq!(files.list("recipes/openrc").unwrap().len(), 1);
    }

    #[test]
    fn a_kernel_fragment_replaces_the_built_in_one_of_its_name_alone() {
        let dir = tempfile::tempdir().unwrap();
        sys_fs::write(&dir.path().join("kernel-configs/fragments/vsock.config"), b"", 0o644).unwrap();
        let files = SourceFiles::new(dir.path());
        assert_eq!(&*files.read("kernel-configs/fragments/vsock.config").unwrap().unwrap().bytes, b"");
        let other = files.read("kernel-configs/fragments/nftables.config").unwrap().unwrap();
        assert_eq!(other.origin, "kernel-configs/fragments/nftables.config (built in)");
        assert!(files.list("kernel-configs").unwrap().contains("fragments"));
    }

    #[test]
    fn no_path_leads_out_of_the_fleets_directory() {
        let files = SourceFiles::new("/");
        for outside in ["../etc/passwd", "recipes/../../etc/passwd", "/etc/passwd", ""] {
            assert!(files.read(outside).is_err(), "{outside:?} was read");
        }
    }
}
