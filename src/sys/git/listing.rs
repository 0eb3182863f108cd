//! What a commit would take of a disk, told before any of it is written: a few KiB of Git's trees can name terabytes.

use std::sync::atomic::{AtomicU64, Ordering};

use super::super::tool::Tool;
use super::{GitError, failed};

/// What the smallest file, and a directory, take.
const BLOCK: u64 = 4096;

/// Adds up the lines of `git ls-tree -r -l`.
#[derive(Debug, Default)]
struct CommitSize {
    bytes: u64,
    /// Paths whose files are another repository's.
    submodules: Vec<String>,
    last: String,
}

impl CommitSize {
    /// `100644 blob 0123... 42    path`, and `-` for the size of a submodule. Paths come in order, so that a directory is new where
    /// the path before is not in it.
    fn add(&mut self, line: &str) {
        let Some((mode, size, path)) = fields(line) else { return };
        if mode == "160000" {
            self.submodules.push(path.to_owned());
        } else if let Ok(size) = size.parse::<u64>() {
            let same = path.bytes().zip(self.last.bytes()).take_while(|(this, last)| this == last).count();
            let made = 1 + path.bytes().skip(same).filter(|byte| *byte == b'/').count() as u64;
            let takes = size.div_ceil(BLOCK).max(1).saturating_add(made).saturating_mul(BLOCK);
            self.bytes = self.bytes.saturating_add(takes - BLOCK);
            path.clone_into(&mut self.last);
        }
    }
}

/// Mode, size and path of a line, whose tab was made four spaces.
fn fields(line: &str) -> Option<(&str, &str, &str)> {
    let (mode, rest) = line.split_once(' ')?;
    let (_kind, rest) = rest.split_once(' ')?;
    let (_id, rest) = rest.split_once(' ')?;
    let (size, path) = rest.trim_start().split_once("    ")?;
    Some((mode, size, path))
}

/// Bytes of the disk that a commit takes, and its submodules; `git` is a call of git in its repository.
pub(super) fn listed(git: Tool, commit: &str, most: u64) -> Result<(u64, Vec<String>), GitError> {
    let mut commit_size = CommitSize::default();
    let bytes = AtomicU64::new(0);
    // Nobody waits for the end of a list that is too long.
    let is_over = || (bytes.load(Ordering::Relaxed) > most).then(|| "it lists too much".to_owned());
    let list = git.args(["ls-tree", "-r", "-l", "--full-tree", commit]);
    let done = list.lines_within(&is_over, |line| {
        if commit_size.bytes <= most {
            commit_size.add(line);
            bytes.store(commit_size.bytes, Ordering::Relaxed);
        }
    });
    if commit_size.bytes > most {
        return Err(GitError::TooLarge { commit: commit.to_owned(), most });
    }
    done.map_err(failed(format!("list the files of commit {commit}")))?;
    Ok((commit_size.bytes, commit_size.submodules))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789012345678901234567890123456789";

    #[test]
    fn files_and_directories_count_as_the_blocks_that_they_take() {
        let mut commit = CommitSize::default();
        let mut bytes_of = |mode: &str, kind: &str, size: &str, path: &str| {
            let before = commit.bytes;
            commit.add(&format!("{mode} {kind} {ID} {size:>7}    {path}"));
            (commit.bytes - before) / BLOCK
        };
        assert_eq!(bytes_of("100644", "blob", "0", "a"), 1);
        assert_eq!(bytes_of("100644", "blob", "4097", "b/c/d"), 4);
        assert_eq!(bytes_of("100644", "blob", "1", "b/c/e    f"), 1);
        assert_eq!(bytes_of("120000", "blob", "1", "b/ce/f"), 2);
        assert_eq!(bytes_of("100755", "blob", "99999999", "g"), 24415);
        assert_eq!(bytes_of("160000", "commit", "-", "recipes"), 0);
        commit.add("warning: something else");
        assert_eq!(commit.submodules, ["recipes"]);
    }
}
