//! Who made a commit.

use std::fs;
use std::path::Path;

use crate::base::text::excerpt;
use crate::sys::fs::FileError;
use crate::sys::tool::Tool;

use super::{GitError, beside, failed, git, safe_directories};

/// The author of a commit of the bare repository `dir`, as `Name <address>`.
pub fn author_of(dir: &Path, commit: &str) -> Result<String, GitError> {
    let scratch = beside(dir)?;
    let config = scratch.path().join("gitconfig");
    fs::write(&config, safe_directories(&[dir])).map_err(FileError::when("write", &config))?;
    let log = Tool::new("git").args(["log", "-1", "--format=%an <%ae>", commit]).dir(dir);
    let told = git(log, &config).text().map_err(failed(format!("tell the author of commit {commit}")))?;
    Ok(excerpt(&told))
}
