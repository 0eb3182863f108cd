//! Violations that are planted in small sources: each is reported, at its place.

use super::allowed::{CHANGES, ENVIRONMENT, INPUT_OUTPUT, ORDER, PROCESSES};
use super::rules::{self, Allowed, Violations};
use super::source::Tree;

fn tree(sources: &[(&str, &str)]) -> Tree {
    let texts: Vec<_> = sources.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    Tree::new(&texts)
}

/// There is one violation, and it tells all of this.
#[track_caller]
fn one(found: &Violations, tells: &[&str]) {
    assert_eq!(found.len(), 1, "{found:#?}");
    for tell in tells {
        assert!(found[0].contains(tell), "{tell:?} is not in {found:#?}");
    }
}

#[test]
fn a_stage_that_uses_one_below_it() {
    let tree = tree(&[("src/plan/diff.rs", "use crate::{base::Sha256, apply::{disk, jail as prison}};")]);
    let found = rules::stages(&tree, &ORDER);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].starts_with("src/plan/diff.rs:1: plan uses apply"), "{found:#?}");
}

#[test]
fn a_stage_that_uses_one_below_it_in_a_macro() {
    let tree = tree(&[("src/sys/nft.rs", "fn f() {\n    println!(\"{}\", crate::fleet::WORD);\n}")]);
    one(&rules::stages(&tree, &ORDER), &["src/sys/nft.rs:2: sys uses fleet"]);
}

#[test]
fn a_stage_that_is_left_by_super() {
    let tree = tree(&[("src/sys/log/read.rs", "use super::super::super::sys::fs;")]);
    one(&rules::stages(&tree, &ORDER), &["src/sys/log/read.rs:1: `super`"]);
}

#[test]
fn stages_that_are_declared_out_of_order_or_in_no_place() {
    let tree = tree(&[("src/lib.rs", "pub mod sys;\npub mod base;\npub mod attic;")]);
    let found = rules::stages(&tree, &ORDER);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(
        found[0].contains("base stands below") && found[1].contains("attic is in no place"),
        "{found:#?}"
    );
}

#[test]
fn a_process_that_is_started_elsewhere() {
    let text = "use std::process::Command as Program;\nfn f() {\n    Program::new(\"sh\");\n}";
    let found = rules::only_in(&tree(&[("src/apply/vmm.rs", text)]), &["src/"], &PROCESSES, &[], "LIST");
    one(&found, &["src/apply/vmm.rs:3", "`f`", "std::process::Command::new", "LIST"]);
}

#[test]
fn an_environment_that_is_read_elsewhere() {
    let text = "use std::env;\nstruct S {\n    #[arg(long, env = \"X\")]\n    x: u8,\n}\nfn f() {\n    env::var_os(\"X\");\n}";
    let found = rules::only_in(&tree(&[("src/cli/up.rs", text)]), &["src/"], &ENVIRONMENT, &[], "LIST");
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].contains("up.rs:3") && found[1].contains("up.rs:7"), "{found:#?}");
}

#[test]
fn a_host_that_is_changed_by_a_command() {
    let text = "use crate::sys::fs as files;\nfn f(host: &H) {\n    files::remove(p);\n    host.hierarchy.kill(p);\n}";
    let found = rules::only_in(&tree(&[("src/cli/down.rs", text)]), &["src/cli/"], CHANGES, &[], "LIST");
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].contains("crate::sys::fs::remove") && found[1].contains("hierarchy.kill"), "{found:#?}");
}

#[test]
fn a_host_that_is_changed_behind_a_reexport() {
    let sources = [
        ("src/apply/mod.rs", "pub use crate::sys::nft::load as swap;"),
        ("src/apply/rules.rs", "use super::swap;\nfn f() {\n    swap(text);\n}"),
    ];
    let found = rules::only_in(&tree(&sources), &["src/apply/"], CHANGES, &[], "LIST");
    one(&found, &["src/apply/rules.rs:3", "crate::sys::nft::load"]);
}

#[test]
fn an_entry_that_nothing_needs_or_without_a_reason() {
    let entry = [Allowed { file: "src/cli/a.rs", functions: &["f", "g"], why: "" }];
    let tree = tree(&[("src/cli/a.rs", "fn f() { std::fs::write(a, b); }\nfn g() {}")]);
    let found = rules::only_in(&tree, &["src/"], CHANGES, &entry, "LIST");
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].contains("no reason") && found[1].contains("`g` no longer"), "{found:#?}");
}

#[test]
fn a_pure_stage_that_reads() {
    let text = "fn f(p: &Path) -> bool {\n    p.exists()\n}\nfn g() {\n    std::time::SystemTime::now();\n}\nfn h(f: &std::fs::File) {}";
    let found = rules::pure(&tree(&[("src/plan/diff.rs", text)]), &["src/plan/"], INPUT_OUTPUT, &[]);
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].contains("src/plan/diff.rs:2") && found[1].contains("SystemTime::now"), "{found:#?}");
}

#[test]
fn modules_in_a_circle() {
    let sources = [
        ("src/cli/mod.rs", "mod a;\nmod b;\npub use a::Word;"),
        ("src/cli/a/mod.rs", "mod inner;\npub struct Word;"),
        ("src/cli/a/inner.rs", "fn f() {\n    crate::cli::b::g();\n}"),
        ("src/cli/b.rs", "use super::Word;"),
    ];
    let found = rules::circles(&tree(&sources), &[]);
    one(&found, &["src/cli/", "a uses b (src/cli/a/inner.rs:2)", "b uses a (src/cli/b.rs:1)"]);
    assert_eq!(rules::circles(&tree(&sources), &[&["cli/a", "cli/b"]]), [""; 0]);
    one(&rules::circles(&tree(&sources[..3]), &[&["cli/a", "cli/b"]]), &["no longer one"]);
}

#[test]
fn a_step_that_is_taken_without_a_plan() {
    let sources = [
        ("src/apply/host.rs", "trait Host { fn observe(&self); fn stop_vmm(&self); }"),
        ("src/cli/down.rs", "fn f(host: &dyn Host) {\n    host.observe();\n    host.stop_vmm();\n}"),
    ];
    one(&rules::steps_in_one_place(&tree(&sources), &[]), &["src/cli/down.rs:3", "stop_vmm"]);
}

#[test]
fn a_long_file_but_not_its_tests() {
    let text = "// a comment\nfn a() {}\n\nfn b() {}\n#[cfg(test)]\nmod tests {\n    fn c() {}\n}\n";
    let tree = tree(&[("src/base/x.rs", text)]);
    one(&rules::long_files(&tree, 1), &["src/base/x.rs: 2 lines"]);
    assert_eq!(rules::long_files(&tree, 2), [""; 0]);
}

#[test]
fn a_long_function_and_a_number_that_could_be_smaller() {
    let tree = tree(&[("src/base/x.rs", "impl A {\n    fn f() {\n        g();\n        g();\n    }\n}")]);
    one(&rules::long_functions(&tree, 3, 2, 0), &["src/base/x.rs:2: A::f has 4 lines, at most 3"]);
    one(&rules::long_functions(&tree, 4, 3, 0), &["LONG_FUNCTIONS is 0, now there are 1", "A::f"]);
    one(&rules::long_functions(&tree, 4, 3, 2), &["set it to 1"]);
    one(&rules::long_functions(&tree, 5, 4, 0), &["LONGEST_FUNCTION is 5", "set it to 4"]);
}

#[test]
fn what_is_left_unwritten_in_tests_too() {
    let text = "#[cfg(test)]\nmod tests {\n    #[test]\n    #[ignore = \"slow\"]\n    fn f() {\n        todo!()\n    }\n}";
    let tree = tree(&[("src/base/x.rs", text), ("tests/y.rs", "fn f() { unimplemented!() }")]);
    let found = rules::unwritten(&tree);
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].contains("x.rs:4: #[ignore]") && found[2].contains("tests/y.rs:1"), "{found:#?}");
}

#[test]
fn what_may_panic() {
    let text = "fn f(a: Option<u8>) {\n    a.unwrap();\n    format!(\"{}\", a.expect(\"b\"));\n}\n#[cfg(test)]\nmod tests;";
    let tree = tree(&[("src/base/x.rs", text), ("src/base/x/tests.rs", "fn f() { a.unwrap(); }")]);
    one(&rules::unwraps(&tree, &[]), &["UNWRAPS of src/base/x.rs is 0, now there are 2", "x.rs:2", "x.rs:3"]);
    assert_eq!(rules::unwraps(&tree, &[("src/base/x.rs", 2, "reason")]), [""; 0]);
}

#[test]
fn a_name_that_two_types_bear() {
    let tree =
        tree(&[("src/base/x.rs", "struct Place;"), ("src/sys/y.rs", "section! { pub struct Place {} }")]);
    one(&rules::doubled_names(&tree, 0), &["Place: src/base/x.rs:1, src/sys/y.rs:1"]);
}
