//! Whether what was checked out is still what was committed.

use std::fs;
use std::path::Path;

use crate::sys::fs::{FileError, remove};
use crate::sys::tool::{Tool, ToolError};

use super::{GitError, beside, failed, git, safe_directories};

/// Status of a `git update-index --refresh` that found a file which is not as the index has it.
const DIFFERS: i32 = 1;

/// Whether every file of a commit of the bare repository `dir` is in `tree` as it was committed. Files are read again only where they
/// were touched since the last time: what is known of them is in the repository's index, which a bare one needs for nothing else.
pub fn is_checked_out(dir: &Path, commit: &str, tree: &Path) -> Result<bool, GitError> {
    let open = |path: &Path| fs::canonicalize(path).map_err(FileError::when("open", path));
    let (dir, tree) = (open(dir)?, open(tree)?);
    let scratch = beside(&dir)?;
    let config = scratch.path().join("gitconfig");
    fs::write(&config, safe_directories(&[&dir])).map_err(FileError::when("write", &config))?;
    let index = dir.join("index");
    let call = |args: &[&str]| {
        let tool = Tool::new("git").args(["-c", "core.autocrlf=false", "-c", "core.bare=false"]);
        let tool = tool.arg("--git-dir").arg(&dir).arg("--work-tree").arg(&tree).args(args).dir(&tree);
        git(tool.env("GIT_INDEX_FILE", &index), &config)
    };
    let compare =
        |error: ToolError| failed(format!("compare {} with commit {commit}", tree.display()))(error);
    let read = call(&["read-tree", "-m", commit]);
    if read.run().is_err() {
        // Damaged, or left locked by one that was killed.
        [index.clone(), dir.join("index.lock")].iter().try_for_each(|path| remove(path))?;
        read.run().map_err(compare)?;
    }
    match call(&["update-index", "--refresh"]).run() {
        Ok(_) => Ok(true),
        Err(ToolError::Failed { code: Some(DIFFERS), .. }) => Ok(false),
        Err(error) => Err(compare(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::{checkout, update_mirror};
    use super::*;

    fn in_repository(dir: &Path, args: &[&str]) -> String {
        let tool = Tool::new("git").args(["-c", "user.name=t", "-c", "user.email=t@example.org"]);
        tool.args(args).dir(dir).text().unwrap().trim().to_owned()
    }

    /// A repository whose branch `main` has these files, and the commit.
    fn repository(dir: &Path, files: &[(&str, &str)]) -> String {
        fs::create_dir_all(dir).unwrap();
        in_repository(dir, &["init", "--quiet", "--initial-branch=main"]);
        for (name, text) in files {
            fs::write(dir.join(name), text).unwrap();
            in_repository(dir, &["add", "--all"]);
            in_repository(dir, &["commit", "--quiet", "--message", "change"]);
        }
        in_repository(dir, &["rev-parse", "HEAD"])
    }

    fn files_below(dir: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn a_checkout_that_is_not_as_it_was_committed_is_told() {
        if crate::sys::tool::find("git").is_none() {
            return eprintln!("SKIPPED: git is not installed");
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let tip =
            repository(&at("source"), &[("a", "a\r\n"), ("b", "b\n"), (".gitattributes", "* text=auto\n")]);
        let (mirror, tree) = (at("mirror"), at("tree"));
        update_mirror(at("source").to_str().unwrap(), "main", &mirror).unwrap();
        checkout(&mirror, &tip, &tree).unwrap();
        let is_whole = || is_checked_out(&mirror, &tip, &tree).unwrap();
        assert!(is_whole() && is_whole());
        fs::write(tree.join("b"), "c\n").unwrap();
        assert!(!is_whole() && !is_whole());
        fs::write(tree.join("b"), "b\n").unwrap();
        assert!(is_whole());
        fs::write(mirror.join("index"), "damaged").unwrap();
        fs::write(mirror.join("index.lock"), "").unwrap();
        assert!(is_whole());
        fs::remove_file(tree.join("a")).unwrap();
        assert!(!is_whole());
    }

    #[test]
    fn however_a_mirror_is_damaged_it_is_made_anew() {
        if crate::sys::tool::find("git").is_none() {
            return eprintln!("SKIPPED: git is not installed");
        }
        let dir = tempfile::tempdir().unwrap();
        let (source, mirror) = (dir.path().join("source"), dir.path().join("mirror"));
        let tip = repository(&source, &[("a", "a\n")]);
        let fetched = || update_mirror(source.to_str().unwrap(), "main", &mirror).unwrap();
        let damages: [fn(&Path); 5] = [
            |mirror| {
                remove(mirror).unwrap();
                fs::write(mirror, "").unwrap();
            },
            |mirror| fs::write(mirror.join("config"), "[core").unwrap(),
            |mirror| {
                remove(&mirror.join("packed-refs")).unwrap();
                fs::create_dir(mirror.join("packed-refs")).unwrap();
            },
            |mirror| {
                files_below(&mirror.join("objects")).iter().for_each(|file| fs::write(file, "").unwrap())
            },
            |mirror| fs::write(mirror.join("refs/heads/followed"), "").unwrap(),
        ];
        for damage in damages {
            assert_eq!(fetched(), tip);
            damage(&mirror);
            assert_eq!(fetched(), tip);
            let tree = dir.path().join("tree");
            checkout(&mirror, &tip, &tree).unwrap();
            remove(&tree).unwrap();
        }
        // Nobody takes the last one away where there is nothing in its place.
        fs::write(mirror.join("config"), "[core").unwrap();
        remove(&source).unwrap();
        assert!(
            update_mirror(source.to_str().unwrap(), "main", &mirror).is_err()
                && mirror.join("objects").exists()
        );
    }
}
