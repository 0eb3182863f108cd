//! Where revisions come from: a file, or the commits of a branch, each in a checkout of its own.

use std::path::{Path, PathBuf};

use crate::base::Sha256;
use crate::base::text::printable;
use crate::fleet::Confinement;
use crate::run::workspace::Revision;
use crate::run::{RunError, Workspace};
use crate::sys::fs::{self, FileError};
use crate::sys::git;
use crate::sys::ssh_signature::SshSignatureError;

/// What is followed.
#[derive(Clone, Debug)]
pub enum Followed {
    /// The workspace's own file.
    File,
    /// A branch of a Git repository; the workspace's file is a path in it.
    Branch {
        url: String,
        branch: String,
        /// Directories of the host that its commits may name files of.
        allowed: Vec<PathBuf>,
        /// File of the SSH keys by which commits must be signed; `None` where any commit will do.
        signers: Option<PathBuf>,
    },
}

/// The clone, beside the checkouts of its commits.
const CLONE: &str = "repository";
/// Which commit of which branch was applied last.
const APPLIED: &str = "applied";
/// Leads to the checkout of that commit.
const CURRENT: &str = "current";

/// What is followed, and whose file it is.
pub struct RevisionSource<'a> {
    base: &'a Workspace<'a>,
    pub followed: Followed,
}

impl<'a> RevisionSource<'a> {
    /// # Errors
    /// Where the file is no path in the repository, or the keys that may sign commits cannot be read.
    pub fn new(base: &'a Workspace<'a>, followed: Followed) -> Result<Self, RunError> {
        if matches!(followed, Followed::Branch { .. }) && base.settings.file.is_absolute() {
            return Err(RunError::AbsoluteFile);
        }
        if let Followed::Branch { signers: Some(signers), .. } = &followed {
            fs::open(signers).map_err(SshSignatureError::Signers)?;
        }
        Ok(Self { base, followed })
    }

    /// What the newest revision is called, and where it is.
    pub fn newest(&self) -> Result<(String, Revision), RunError> {
        let file = &self.base.settings.file;
        let Followed::Branch { url, branch, allowed, .. } = &self.followed else {
            let lock = fs::read_text_if_present(&self.base.lock_path())?.unwrap_or_default();
            let digest = Sha256::of(fs::read_text(file)? + &lock);
            return Ok((digest.to_string(), Revision { file: file.clone(), confinement: None }));
        };
        let dir = self.dir();
        fs::create_dir_all(&dir)?;
        let commit = git::clone_or_fetch(url, branch, &dir.join(CLONE))?;
        let tree = dir.join(&commit);
        if !tree.exists() {
            let scratch =
                tempfile::tempdir_in(&dir).map_err(FileError::when("create a directory in", &dir))?;
            git::checkout(&dir.join(CLONE), &commit, scratch.path())?;
            self.name_submodules(&commit)?;
            std::fs::rename(scratch.path(), &tree).map_err(FileError::when("create", &tree))?;
        }
        Ok((commit, revision_in(&tree, file, allowed)))
    }

    /// Holds a commit to the keys that may sign commits, where there are some.
    pub fn verify(&self, commit: &str) -> Result<(), RunError> {
        let Followed::Branch { signers: Some(signers), .. } = &self.followed else { return Ok(()) };
        Ok(git::verify(&self.dir().join(CLONE), commit, signers)?)
    }

    fn name_submodules(&self, commit: &str) -> Result<(), RunError> {
        let paths = git::submodules(&self.dir().join(CLONE), commit)?;
        if !paths.is_empty() {
            let paths = printable(&paths.join(", "));
            self.base.report.note(&format!(
                "note: {paths}: submodules are not fetched; if the fleet needs their files, commit them"
            ));
        }
        Ok(())
    }

    /// Remembers the last good commit, which is repaired to after a restart while the repository cannot be fetched.
    pub fn remember(&self, commit: &str) -> Result<(), RunError> {
        let Followed::Branch { url, branch, .. } = &self.followed else { return Ok(()) };
        let text = format!("{commit} {branch} {url}\n");
        fs::write_unsynced(&self.dir().join(APPLIED), text.as_bytes(), 0o600)?;
        // Whoever asks what runs here has a fleet file to name, whichever commit that is.
        let (current, new) = (self.dir().join(CURRENT), self.dir().join(".current"));
        fs::remove(&new)?;
        let link = || std::os::unix::fs::symlink(commit, &new).and_then(|()| std::fs::rename(&new, &current));
        Ok(link().map_err(FileError::when("link", &current))?)
    }

    /// The commit of this branch that was applied last, where its checkout is still there.
    pub fn remembered(&self) -> Option<(String, Revision)> {
        let Followed::Branch { url, branch, allowed, .. } = &self.followed else { return None };
        let text = std::fs::read_to_string(self.dir().join(APPLIED)).ok()?;
        let commit = text.strip_suffix(&format!(" {branch} {url}\n"))?;
        let tree = self.dir().join(commit);
        let is_commit = !commit.is_empty() && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
        let revision = || revision_in(&tree, &self.base.settings.file, allowed);
        (is_commit && tree.is_dir()).then(|| (commit.to_owned(), revision()))
    }

    /// The clone and the checkouts.
    fn dir(&self) -> PathBuf {
        self.base.settings.out.join(".watch")
    }

    /// Removes the checkouts of other commits, where commits are followed.
    pub fn remove_checkouts_but(&self, commit: &str) -> Result<(), RunError> {
        if !matches!(self.followed, Followed::Branch { .. }) {
            return Ok(());
        }
        for entry in std::fs::read_dir(self.dir()).into_iter().flatten().flatten() {
            if ![CLONE, APPLIED, CURRENT, commit].iter().any(|name| entry.file_name() == *name) {
                fs::remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// The revision that is checked out in a directory, with `file` in it.
fn revision_in(tree: &Path, file: &Path, allowed: &[PathBuf]) -> Revision {
    let confinement = Confinement { checkout: tree.to_owned(), allowed: allowed.to_vec() };
    Revision { file: tree.join(file), confinement: Some(confinement) }
}
