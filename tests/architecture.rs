//! What the code's layout promises, held by reading its syntax. The lists to edit are in `allowed.rs`.

mod allowed;
mod habits;
mod planted;
mod rules;
mod source;

use std::sync::OnceLock;

use allowed::*;
use rules::Violations;
use source::{Tree, files, text};

/// Parsed once for all tests.
fn repository() -> &'static Tree {
    static TREE: OnceLock<Tree> = OnceLock::new();
    TREE.get_or_init(Tree::of_repository)
}

fn none(found: Violations) {
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn stages_stand_in_their_order_and_use_only_those_above() {
    none(rules::stages(repository(), &ORDER));
}

#[test]
fn processes_are_started_in_few_places() {
    none(rules::only_in(repository(), &["src/"], &PROCESSES, MAY_START_PROCESSES, "MAY_START_PROCESSES"));
}

#[test]
fn the_environment_is_read_in_few_places() {
    none(rules::only_in(repository(), &["src/"], &ENVIRONMENT, MAY_READ_ENVIRONMENT, "MAY_READ_ENVIRONMENT"));
}

#[test]
fn a_host_is_changed_by_named_functions() {
    let places = ["src/apply/", "src/run/", "src/cli/"];
    none(rules::only_in(repository(), &places, CHANGES, MAY_CHANGE, "MAY_CHANGE"));
}

#[test]
fn pure_stages_read_and_write_nothing() {
    none(rules::pure(repository(), &PURE, INPUT_OUTPUT, PURE_BUT));
}

#[test]
fn modules_use_each_other_in_no_circle() {
    none(rules::circles(repository(), CIRCLES));
}

#[test]
fn steps_are_carried_out_in_one_place() {
    none(rules::steps_in_one_place(repository(), &MAY_TAKE_STEPS));
}

#[test]
fn files_are_short() {
    none(rules::long_files(repository(), LONGEST_FILE));
}

#[test]
fn functions_are_short() {
    none(rules::long_functions(repository(), LONGEST_FUNCTION, FUNCTION_GOAL, LONG_FUNCTIONS));
}

#[test]
fn nothing_is_left_unwritten() {
    none(rules::unwritten(repository()));
}

#[test]
fn what_may_panic_is_counted() {
    none(rules::unwraps(repository(), UNWRAPS));
}

#[test]
fn names_of_types_are_borne_once() {
    none(rules::doubled_names(repository(), DOUBLED_NAMES));
}

#[test]
fn every_kernel_option_stands_below_its_reason() {
    let configs = files("kernel-configs", ".config");
    assert!(configs.len() > 5);
    for path in configs {
        let text = text(&path);
        let is_option = |line: &str| line.starts_with("CONFIG_") || line.starts_with("# CONFIG_");
        for (before, line) in text.lines().zip(text.lines().skip(1)) {
            let is_reason = before.starts_with("# ") && before.len() > 4 && !is_option(before);
            assert!(!is_option(line) || is_reason, "{path}: {line} stands below {before:?}");
        }
    }
}
