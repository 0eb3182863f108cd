//! Where revisions come from: a file, or the commits of a branch, each in a checkout of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::Sha256;
use crate::base::text::printable;
use crate::fleet::Confinement;
use crate::run::workspace::Revision;
use crate::run::{RunError, Workspace};
use crate::sys::fs::{self, FileError};
use crate::sys::git::{self, GitError};
use crate::sys::ssh_signature::SshSignatureError;

use super::fetching::Fetching;

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
const MIRROR: &str = "repository";
/// Which commit of which branch was applied last.
const APPLIED: &str = "applied";
/// Leads to the checkout of that commit.
const CURRENT: &str = "current";

/// What is followed, and whose file it is.
pub struct RevisionSource<'a> {
    base: &'a Workspace<'a>,
    pub followed: Followed,
    /// What the repository was asked and has not answered.
    fetching: Option<Fetching>,
    /// Whether the mirror was made anew since it last gave the files of a commit: that is not done again and again.
    was_recloned: bool,
}

impl<'a> RevisionSource<'a> {
    pub fn new(base: &'a Workspace<'a>, followed: Followed) -> Result<Self, RunError> {
        if matches!(followed, Followed::Branch { .. }) && base.settings.file.is_absolute() {
            return Err(RunError::AbsoluteFile);
        }
        if let Followed::Branch { signers: Some(signers), .. } = &followed {
            fs::open(signers).map_err(SshSignatureError::Signers)?;
        }
        Ok(Self { base, followed, fetching: None, was_recloned: false })
    }

    /// What the newest revision is called; `None` where the repository has not answered by then. It is then asked no second time: the
    /// next call waits on. Of a commit nothing is checked out yet.
    pub fn newest(&mut self, patience: Duration) -> Option<Result<String, RunError>> {
        let Followed::Branch { url, branch, .. } = &self.followed else { return Some(self.digest_of_file()) };
        let mirror = self.dir().join(MIRROR);
        let fetching = self.fetching.take().unwrap_or_else(|| Fetching::update(url, branch, mirror));
        match fetching.answer(patience) {
            Ok(answer) => Some(answer.map_err(RunError::from)),
            Err(fetching) => {
                self.fetching = Some(fetching);
                None
            }
        }
    }

    fn digest_of_file(&self) -> Result<String, RunError> {
        let lock = fs::read_text_if_present(&self.base.lock_path())?.unwrap_or_default();
        Ok(Sha256::of(fs::read_text(&self.base.settings.file)? + &lock).to_string())
    }

    /// Where a revision is. Where the mirror does not give a commit's files, it is made anew.
    pub fn checkout_of(&mut self, revision: &str) -> Result<Revision, RunError> {
        let found = self.checked_out(revision);
        if let (Followed::Branch { url, branch, .. }, false, true) =
            (&self.followed, self.was_recloned, is_of_mirror(&found))
        {
            self.fetching = Some(Fetching::reclone(url, branch, self.dir().join(MIRROR)));
            self.was_recloned = true;
        } else {
            self.was_recloned &= found.is_err();
        }
        found
    }

    /// Whether the mirror is being made anew, so that what failed for it is worth another look.
    pub fn is_recloning(&self) -> bool {
        self.was_recloned && self.fetching.is_some()
    }

    /// Has the checkout of a revision be as it was committed, as far as the mirror tells.
    pub fn repair_checkout(&self, revision: &Revision) -> Result<(), RunError> {
        let checkout = revision.confinement.as_ref().map(|confinement| &confinement.checkout);
        let Some((checkout, commit)) = checkout.and_then(|it| Some((it, it.file_name()?.to_str()?))) else {
            return Ok(());
        };
        let told = git::is_checked_out(&self.dir().join(MIRROR), commit, checkout);
        if checkout.exists() && matches!(told, Ok(true) | Err(GitError::Tool { .. })) {
            return Ok(());
        }
        let found = self.checked_out(commit);
        // A mirror that cannot tell is mended by the next fetch.
        if is_of_mirror(&found) { Ok(()) } else { found.map(drop) }
    }

    /// Where a revision is. A commit is held to the keys that may sign commits, and to what it may take of the disk, before any file
    /// of it is written.
    fn checked_out(&self, revision: &str) -> Result<Revision, RunError> {
        if matches!(self.followed, Followed::File) {
            return Ok(Revision { file: self.base.settings.file.clone(), confinement: None });
        }
        self.verify(revision)?;
        let dir = self.dir();
        let tree = dir.join(revision);
        // A loss of power leaves files without their bytes.
        if tree.exists() && !git::is_checked_out(&dir.join(MIRROR), revision, &tree)? {
            fs::remove(&tree)?;
        }
        if !tree.exists() {
            let scratch =
                tempfile::tempdir_in(&dir).map_err(FileError::when("create a directory in", &dir))?;
            let submodules = git::checkout(&dir.join(MIRROR), revision, scratch.path())?;
            self.name_submodules(&submodules);
            std::fs::rename(scratch.path(), &tree).map_err(FileError::when("create", &tree))?;
        }
        Ok(self.revision_in(&tree))
    }

    /// Holds a commit to the keys that may sign commits, where there are some.
    fn verify(&self, commit: &str) -> Result<(), RunError> {
        let Followed::Branch { signers: Some(signers), .. } = &self.followed else { return Ok(()) };
        Ok(git::verify(&self.dir().join(MIRROR), commit, signers)?)
    }

    fn name_submodules(&self, paths: &[String]) {
        if !paths.is_empty() {
            let paths = printable(&paths.join(", "));
            self.base.report.note(&format!(
                "{paths}: submodules are not fetched; if the fleet needs their files, commit them"
            ));
        }
    }

    /// Who made a commit, where commits are followed and that can be told.
    pub fn author(&self, commit: &str) -> Option<String> {
        let Followed::Branch { .. } = &self.followed else { return None };
        git::author_of(&self.dir().join(MIRROR), commit).ok()
    }

    /// Words about a revision, with paths of its files as its repository has them.
    pub fn without_place(&self, words: &str, revision: Option<&str>) -> String {
        match (revision, &self.followed) {
            (Some(commit), Followed::Branch { .. }) => {
                words.replace(&format!("{}/", self.dir().join(commit).display()), "")
            }
            _ => words.to_owned(),
        }
    }

    /// Remembers the last good commit, which is repaired to after a restart while the repository cannot be fetched.
    pub fn remember(&self, commit: &str) -> Result<(), RunError> {
        let Followed::Branch { url, branch, .. } = &self.followed else { return Ok(()) };
        let text = format!("{commit} {branch} {url}\n");
        fs::write(&self.dir().join(APPLIED), text.as_bytes(), 0o600)?;
        // Whoever asks what runs here has a fleet file to name, whichever commit that is.
        let (current, new) = (self.dir().join(CURRENT), self.dir().join(".current"));
        fs::remove(&new)?;
        let link = || std::os::unix::fs::symlink(commit, &new).and_then(|()| std::fs::rename(&new, &current));
        Ok(link().map_err(FileError::when("link", &current))?)
    }

    /// The commit of this branch that was applied last, where its checkout is still there and its signature still counts.
    pub fn remembered(&self) -> Option<Revision> {
        let Followed::Branch { url, branch, .. } = &self.followed else { return None };
        let text = std::fs::read_to_string(self.dir().join(APPLIED)).ok()?;
        let commit = text.strip_suffix(&format!(" {branch} {url}\n"))?;
        let tree = self.dir().join(commit);
        let is_commit = !commit.is_empty() && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
        let holds = is_commit && tree.is_dir() && self.verify(commit).is_ok();
        holds.then(|| self.revision_in(&tree))
    }

    /// The clone and the checkouts.
    fn dir(&self) -> PathBuf {
        self.base.settings.out.join(".watch")
    }

    /// Removes what is checked out but for this revision and the one that was applied last.
    pub fn clear_for(&self, revision: &str) -> Result<(), RunError> {
        if !matches!(self.followed, Followed::Branch { .. }) {
            return Ok(());
        }
        let applied = self.applied();
        for name in fs::names_in(&self.dir())? {
            // What a fetch that is under way needs goes with the next one.
            let is_kept = self.fetching.is_some() && name.starts_with('.')
                || [MIRROR, APPLIED, CURRENT, revision].contains(&name.as_str())
                || applied.contains(&name);
            if !is_kept {
                fs::remove(&self.dir().join(name))?;
            }
        }
        Ok(())
    }

    /// Removes the checkout of a revision that is not applied, unless that is the one that was applied last.
    pub fn discard(&self, revision: &str) {
        if matches!(self.followed, Followed::Branch { .. }) && !self.applied().iter().any(|it| it == revision)
        {
            // What cannot be removed now is when the next revision comes.
            let _ = fs::remove(&self.dir().join(revision));
        }
    }

    /// The commit that was applied last, by its record and by the link to its checkout, which come one after the other.
    fn applied(&self) -> Vec<String> {
        let link = std::fs::read_link(self.dir().join(CURRENT)).ok();
        let link = link.and_then(|link| link.into_os_string().into_string().ok());
        let text = std::fs::read_to_string(self.dir().join(APPLIED)).ok();
        let recorded = text.and_then(|text| Some(text.split_once(' ')?.0.to_owned()));
        link.into_iter().chain(recorded).collect()
    }

    /// The revision that is checked out in a directory.
    fn revision_in(&self, tree: &Path) -> Revision {
        let allowed = match &self.followed {
            Followed::Branch { allowed, .. } => allowed.clone(),
            Followed::File => Vec::new(),
        };
        let confinement = Confinement { checkout: tree.to_owned(), allowed };
        Revision { file: tree.join(&self.base.settings.file), confinement: Some(confinement) }
    }
}

/// Whether files of a commit were not had for what the mirror is.
fn is_of_mirror(found: &Result<Revision, RunError>) -> bool {
    matches!(found, Err(RunError::Git(GitError::Tool { .. })))
}
