//! What stands in several files stands there alike.

use std::path::Path;
use std::process::Command;

use super::source::text;

fn is_there(path: &str) -> bool {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists()
}

#[test]
fn the_rust_version_is_the_same_everywhere() {
    let manifest = text("Cargo.toml");
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = \"")?.strip_suffix('"'));
    let version = version.unwrap();
    assert!(
        text("README.md").contains(&format!("Rust {version} or newer")),
        "README.md names another than {version}"
    );
}

/// What is written in backquotes and looks like a path of the repository.
fn paths(text: &str) -> Vec<&str> {
    let is_path = |word: &&str| {
        let known = ["src/", "tests/", "demo/", ".ci/", "recipes/", "kernel-configs/"];
        known.iter().any(|start| word.starts_with(start))
            && !word.contains(|c: char| c.is_uppercase() || c == ' ')
    };
    text.split('`').skip(1).step_by(2).filter(is_path).collect()
}

#[test]
fn the_files_that_contributing_names_are_there() {
    let contributing = text("CONTRIBUTING.md");
    let paths = paths(&contributing);
    assert!(paths.len() > 20, "{paths:?}");
    // A folder that is not there yet holds none of its files.
    let is_begun = |path: &&&str| !path.starts_with("src/run/") || is_there("src/run");
    let missing: Vec<_> = paths.iter().filter(is_begun).filter(|path| !is_there(path)).collect();
    assert!(missing.is_empty(), "CONTRIBUTING.md names {missing:?}");
}

#[test]
fn subjects_of_commits_are_short() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/commit-subjects");
    let output = Command::new(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_long_subject_is_found() {
    let repository = tempfile::tempdir().unwrap();
    let script = repository.path().join(".ci/commit-subjects");
    std::fs::create_dir(script.parent().unwrap()).unwrap();
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/commit-subjects"), &script).unwrap();
    let git = |arguments: &[&str]| {
        let identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"];
        let status = Command::new("git").current_dir(&repository).args(identity).args(arguments).status();
        assert!(status.unwrap().success(), "{arguments:?}");
    };
    let check = || Command::new(&script).output().unwrap();
    assert!(check().status.success(), "where there is no repository there is nothing to say");
    git(&["init", "-q"]);
    git(&["add", "."]);
    git(&["commit", "-qm", &"long before ".repeat(9)]);
    git(&["commit", "-qm", &"x".repeat(72), "--allow-empty"]);
    assert!(check().status.success());
    git(&["commit", "-qm", &"x".repeat(73), "--allow-empty"]);
    let output = check();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains(&"x".repeat(73)));
}
