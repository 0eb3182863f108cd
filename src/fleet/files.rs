//! Recipes and kernel configs: those beside `fleet.toml`, and behind them those that come with sisforge.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};

use crate::sys::beneath;
use crate::sys::fs::{FileError, refuse_pointer};

use super::builtin;

/// The files that belong to a fleet, by their path relative to `fleet.toml` with `/` between its parts.
///
/// A recipe beside `fleet.toml` replaces the built-in one of the same name as a whole, every other file
/// the built-in one of the same path. No link is followed out of the project, and nothing but regular files is read.
#[derive(Clone, Debug)]
pub struct SourceFiles {
    root: PathBuf,
    project: PathBuf,
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
        let root = root.into();
        Self { project: root.clone(), root }
    }

    /// The same, where links may lead to other parts of a project that `root` is a part of.
    pub fn within(root: impl Into<PathBuf>, project: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), project: project.into() }
    }

    /// What no link leads out of.
    pub fn project(&self) -> &Path {
        &self.project
    }

    /// Where a path below the project's directory really is; `None` where there is nothing.
    ///
    /// # Errors
    /// Where a link leads out of the project, which [`beneath::LeadsOut`] names.
    pub fn find(&self, path: &Path) -> Result<Option<PathBuf>, FileError> {
        let found = beneath::find(&self.project, path).map_err(FileError::when("read", path))?;
        Ok(found.map(|inside| self.project.join(inside)))
    }

    /// Reads a file; `None` where there is none. What would lead out of the fleet's directory is refused.
    pub fn read(&self, relative: &str) -> Result<Option<SourceFile>, FileError> {
        let path = self.beside(relative)?;
        let found = beneath::find(&self.project, &path).map_err(FileError::when("read", &path))?;
        if let Some(inside) = found {
            let mut bytes = Vec::new();
            let mut file = beneath::open(&self.project, &inside)?;
            let read = file.read_to_end(&mut bytes).and_then(|_| refuse_pointer(&bytes));
            read.map_err(FileError::when("read", path))?;
            return Ok(Some(SourceFile { origin: relative.to_owned(), bytes: Cow::Owned(bytes) }));
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
        let is_beside = self.find(&self.beside(relative)?)?.is_some_and(|path| path.is_file());
        Ok(is_beside || (!self.replaces_builtin(relative)? && builtin::read(relative).is_some()))
    }

    /// Names of the files and directories directly in a directory; none where it does not exist.
    pub fn list(&self, relative: &str) -> Result<BTreeSet<String>, FileError> {
        let mut names = BTreeSet::new();
        if let Some(path) = self.find(&self.beside(relative)?)? {
            match fs::read_dir(&path) {
                Ok(entries) => {
                    for entry in entries {
                        let entry = entry.map_err(FileError::when("read directory", &path))?;
                        names.extend(entry.file_name().into_string().ok());
                    }
                }
                Err(error) if beneath::is_absent(&error) => {}
                Err(error) => return Err(FileError::when("read directory", path)(error)),
            }
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
            (Some("recipes"), Some(name)) => {
                let recipe = self.find(&self.beside(&format!("recipes/{name}"))?)?;
                Ok(recipe.is_some_and(|path| path.is_dir()))
            }
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
    #[test]
    fn no_link_leads_out_of_the_project_and_no_pipe_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("project/fleet");
        sys_fs::write(&dir.path().join("secret"), b"secret", 0o644).unwrap();
        sys_fs::write(&dir.path().join("project/shared"), b"shared", 0o644).unwrap();
        let recipe = root.join("recipes/r");
        fs::create_dir_all(&recipe).unwrap();
        std::os::unix::fs::symlink("../../../../secret", recipe.join("out")).unwrap();
        std::os::unix::fs::symlink("../../../shared", recipe.join("shared")).unwrap();
        std::os::unix::fs::symlink("../../..", recipe.join("above")).unwrap();
        sys_fs::make_pipe(&recipe.join("pipe")).unwrap();
        let (alone, part) = (SourceFiles::new(&root), SourceFiles::within(&root, dir.path().join("project")));
        for files in [&alone, &part] {
            let error = files.read("recipes/r/out").unwrap_err();
            assert!(error.source.to_string().contains("recipes/r/out is a link to "), "{error:?}");
            assert!(files.exists("recipes/r/out").is_err() && files.read("recipes/r/pipe").is_err());
        }
        assert!(alone.read("recipes/r/shared").is_err() && alone.list("recipes/r/above").is_err());
        assert_eq!(&*part.read("recipes/r/shared").unwrap().unwrap().bytes, b"shared");
    }
}
