//! What stands in several files stands there alike.

use std::path::Path;
use std::process::Command;

use proc_macro2::{Literal, TokenStream, TokenTree};

use super::allowed::ORDER;
use super::source::{files, text};

/// Files of a stage may be named from `src/` on.
fn is_there(path: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join(path).exists() || root.join("src").join(path).exists()
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
        let is_of_stage = |word: &&str| {
            let stage = word.split_once('/').map(|(stage, _)| stage);
            word.ends_with(".rs") && stage.is_some_and(|stage| ORDER.contains(&stage))
        };
        (known.iter().any(|start| word.starts_with(start)) || is_of_stage(word))
            && !word.contains(|c: char| c.is_uppercase() || c == ' ')
    };
    text.split('`').skip(1).step_by(2).filter(is_path).collect()
}

#[test]
fn the_files_that_documents_name_are_there() {
    for document in ["CONTRIBUTING.md", "ARCHITECTURE.md"] {
        let text = text(document);
        let paths = paths(&text);
        assert!(paths.len() > 20, "{paths:?}");
        let missing: Vec<_> = paths.iter().filter(|path| !is_there(path)).collect();
        assert!(missing.is_empty(), "{document} names {missing:?}");
    }
}

/// rustfmt wraps no comments.
#[test]
fn comments_are_no_wider_than_135_columns() {
    let is_long = |line: &str| line.trim_start().starts_with("//") && line.chars().count() > 135;
    for below in ["src", "tests"] {
        for path in files(below, "rs") {
            let text = text(&path);
            let long: Vec<_> = text.lines().filter(|line| is_long(line)).collect();
            assert!(long.is_empty(), "{path}: {long:#?}");
        }
    }
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

/// Words that say a thing as nobody else says it. Errors, hints, notes and help texts are string literals, and doc comments of
/// command lines and of the keys of files.
const RIDDLES: [&str; 15] = [
    "an own ",
    "anew",
    "calls itself",
    "can do nothing with",
    "cannot be had",
    "does not run,",
    "is no name",
    "is no number",
    "is no path",
    "is no regular file",
    "is none that",
    "is to be had",
    "ready image",
    "stands here",
    "vouches",
];

/// The string literals of a text with their lines; those of attributes `doc` where asked for.
fn literals(tokens: TokenStream, docs: bool, found: &mut Vec<(usize, String)>) {
    let mut is_doc = false;
    for token in tokens {
        match token {
            TokenTree::Group(group) => literals(group.stream(), docs, found),
            TokenTree::Ident(name) => is_doc = name == "doc",
            TokenTree::Literal(literal) if docs || !is_doc => found.extend(string(&literal)),
            _ => {}
        }
    }
}

fn string(literal: &Literal) -> Option<(usize, String)> {
    let value = syn::parse_str::<syn::LitStr>(&literal.to_string()).ok()?.value();
    Some((literal.span().start().line, value))
}

/// The riddles in what users read of a file.
fn riddles(path: &str, text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let docs = ["src/cli/", "src/fleet/file"].iter().any(|start| path.starts_with(start));
    let mut all = Vec::new();
    literals(text.parse().unwrap(), docs, &mut all);
    let of = |(line, literal): &(usize, String)| {
        let riddle = RIDDLES.iter().find(|riddle| literal.contains(*riddle))?;
        Some(format!("{path}:{line}: {riddle:?} in {literal:?}"))
    };
    all.iter().filter_map(of).collect()
}

#[test]
fn what_users_read_is_no_riddle() {
    let sources = files("src", ".rs").into_iter().filter(|path| !path.contains("tests"));
    let found: Vec<_> = sources.flat_map(|path| riddles(&path, &text(&path))).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_riddle_is_found() {
    let text = r#"
        //! Anew, and not for users.
        #[error("the source cannot be had")]
        struct Gone;
        fn note() -> String { format!("it is made anew: {}", 1) }
    "#;
    assert_eq!(riddles("src/x.rs", text).len(), 2);
    assert_eq!(riddles("src/cli/x.rs", "/// Make it anew\nstruct Args;").len(), 1);
}
