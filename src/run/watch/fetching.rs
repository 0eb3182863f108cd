//! Fetching a repository for its newest commit, beside everything else: a server that hangs holds nothing up.

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::sys::git::{self, GitError};

/// How the commit at the tip of a branch comes into a mirror.
type Fetch = fn(&str, &str, &Path) -> Result<String, GitError>;

/// A question that is under way. What asks ends with this process.
#[derive(Debug)]
pub struct Fetching {
    over: Receiver<()>,
    work: JoinHandle<Result<String, GitError>>,
}

impl Fetching {
    /// Brings the mirror of a branch up to date.
    pub fn update(url: &str, branch: &str, mirror: PathBuf) -> Self {
        Self::by(git::update_mirror, url, branch, mirror)
    }

    /// Makes the mirror of a branch anew.
    pub fn reclone(url: &str, branch: &str, mirror: PathBuf) -> Self {
        Self::by(git::reclone, url, branch, mirror)
    }

    fn by(fetch: Fetch, url: &str, branch: &str, mirror: PathBuf) -> Self {
        let (url, branch) = (url.to_owned(), branch.to_owned());
        let (working, over) = mpsc::channel::<()>();
        let work = thread::spawn(move || {
            let _working = working;
            fetch(&url, &branch, &mirror)
        });
        Self { over, work }
    }

    /// The commit at the tip of the branch; the question again where there is no answer by then.
    pub fn answer(self, patience: Duration) -> Result<Result<String, GitError>, Self> {
        if self.over.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            return Err(self);
        }
        Ok(self.work.join().unwrap_or_else(|panic| resume_unwind(panic)))
    }
}
