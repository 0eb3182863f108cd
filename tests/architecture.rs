//! What the code's layout promises, read from the code itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules in the order in which data flows: each uses only those before it.
const ORDER: [&str; 11] =
    ["base", "sys", "fleet", "apk", "lock", "image", "build", "host", "plan", "apply", "cli"];

/// Lines of code in one file, without its tests.
const LONGEST: usize = 500;

struct Source {
    /// Below the repository, such as `src/sys/nft.rs`.
    path: String,
    /// Without comments that take a line, and without the tests at the end.
    code: String,
}

impl Source {
    fn module(&self) -> &str {
        let path = self.path.trim_start_matches("src/");
        path.split(['/', '.']).next().unwrap_or_default()
    }

    /// How many `super::` lead from this file to the crate's root.
    fn depth(&self) -> usize {
        let parts = self.path.trim_start_matches("src/").split('/').count();
        if self.path.ends_with("/mod.rs") { parts - 1 } else { parts }
    }
}

fn files(below: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(below)).unwrap();
    let mut found = Vec::new();
    for entry in entries.map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{below}/{name}");
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&path, extension));
        } else if name.ends_with(extension) {
            found.push(path.into());
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn sources() -> Vec<Source> {
    let is_test =
        |path: &Path| path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests");
    let source = |path: PathBuf| {
        let text = read(&path);
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let code = code.collect::<Vec<_>>().join("\n");
        Source { path: path.to_str().unwrap().to_owned(), code }
    };
    let found: Vec<_> = files("src", ".rs").into_iter().filter(|path| !is_test(path)).map(source).collect();
    assert!(found.len() > 50, "the sources are not where they are looked for");
    found
}

/// Paths of the sources whose code fits.
fn where_found(fits: impl Fn(&Source) -> bool) -> Vec<String> {
    sources().into_iter().filter(fits).map(|source| source.path).collect()
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// The modules that a text names behind `crate::`, alone or in a group.
fn used(code: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(identifier(rest));
            continue;
        };
        let mut depth = 1;
        let mut begins = true;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 1 => break,
                '}' => depth -= 1,
                ',' if depth == 1 => begins = true,
                c if begins && !c.is_whitespace() => {
                    found.insert(identifier(&group[at..]));
                    begins = false;
                }
                _ => {}
            }
        }
    }
    found
}

#[test]
fn groups_of_uses_are_read() {
    let code = "use crate::sys::{fs, tool};\nuse crate::{fleet::{Label, model}, lock, plan::Step};\n";
    assert_eq!(used(code), BTreeSet::from(["fleet", "lock", "plan", "sys"]));
}

#[test]
fn a_module_uses_only_what_stands_above_it() {
    let place = |module: &str| ORDER.iter().position(|one| *one == module);
    for source in sources() {
        let Some(own) = place(source.module()) else {
            assert!(
                ["lib", "main"].contains(&source.module()),
                "{} is in no module of the order",
                source.path
            );
            continue;
        };
        for used in used(&source.code) {
            let used_at = place(used).unwrap_or_else(|| panic!("{} uses crate::{used}", source.path));
            assert!(used_at <= own, "{} uses {used}, which stands below it", source.path);
        }
        let to_root = "super::".repeat(source.depth());
        assert!(!source.code.contains(&to_root), "{} leaves its module by `super`", source.path);
    }
}

#[test]
fn the_modules_are_declared_in_their_order() {
    let library = sources().into_iter().find(|source| source.path == "src/lib.rs").unwrap();
    let declared: Vec<_> =
        library.code.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert_eq!(declared, ORDER);
}

#[test]
fn processes_are_started_in_few_places() {
    let starts = |source: &Source| {
        let line = |line: &str| line.contains("std::process::") && line.contains("Command");
        source.code.lines().any(line) || source.code.contains("duct::")
    };
    assert_eq!(where_found(starts), ["src/sys/launch.rs", "src/sys/tool.rs"]);
}

#[test]
fn the_environment_is_read_in_few_places() {
    let reads = |source: &Source| ["env::var", "env::args"].iter().any(|read| source.code.contains(read));
    assert_eq!(where_found(reads), ["src/cli/settings.rs", "src/sys/tool.rs"]);
    assert_eq!(where_found(|source| source.code.contains("env::current_exe")), ["src/cli/context.rs"]);
}

#[test]
fn nothing_is_left_unwritten() {
    let left = |text: &str| ["todo!", "unimplemented!", "#[ignore"].iter().any(|word| text.contains(word));
    assert_eq!(where_found(|source| left(&source.code)), [""; 0]);
    let tests = files("tests", ".rs").into_iter().filter(|path| !path.ends_with("architecture.rs"));
    assert_eq!(tests.filter(|path| left(&read(path))).collect::<Vec<_>>(), [""; 0].map(PathBuf::from));
}

#[test]
fn steps_are_carried_out_in_one_place() {
    const PLACE: &str = "src/apply/host.rs";
    // `tree` lays out files and starts nothing: it has no plan.
    const TREE: &str = "src/apply/tree.rs";
    let all = sources();
    let host = all.iter().find(|source| source.path == PLACE).unwrap();
    let operations: Vec<_> = host
        .code
        .lines()
        .filter_map(|line| line.strip_prefix("    fn ")?.split_once("(&self").map(|(name, _)| name))
        .filter(|name| *name != "observe")
        .collect();
    assert!(operations.len() > 10, "{operations:?}");
    for operation in operations {
        let call = format!("host.{operation}(");
        let callers = all.iter().filter(|source| source.path != TREE && source.code.contains(&call));
        assert_eq!(callers.map(|source| source.path.as_str()).collect::<Vec<_>>(), [PLACE], "{operation}");
    }
}

#[test]
fn files_are_short() {
    let long = |source: &Source| source.code.lines().count() > LONGEST;
    assert_eq!(where_found(long), [""; 0]);
}

#[test]
fn every_kernel_option_stands_below_its_reason() {
    let configs = files("kernel-configs", ".config");
    assert!(configs.len() > 5);
    for path in configs {
        let text = read(&path);
        let is_option = |line: &str| line.starts_with("CONFIG_") || line.starts_with("# CONFIG_");
        for (before, line) in text.lines().zip(text.lines().skip(1)) {
            let is_reason = before.starts_with("# ") && before.len() > 4 && !is_option(before);
            assert!(!is_option(line) || is_reason, "{}: {line} stands below {before:?}", path.display());
        }
    }
}
