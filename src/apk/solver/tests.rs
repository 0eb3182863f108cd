//! Small worlds for each rule, after the rules of apk-tools' solver.

use super::{Repository, solve};
use crate::apk::dependency::{Checksum, Dependency};
use crate::apk::index::Index;

/// An index from lines like `a-1 D:b p:c=2 i:d k:10`.
fn index(text: &str) -> Index {
    let record = |line: &str| {
        let mut words = line.split_whitespace();
        let id = words.next().unwrap();
        let (name, version) = id.rsplit_once('-').unwrap();
        let mut record = format!("C:{}\nP:{name}\nV:{version}\nA:x\nS:1\nI:1\n", Checksum::of(id));
        for word in words {
            record += &if word.contains(':') && word.as_bytes()[1] == b':' {
                format!("\n{word}")
            } else {
                format!(" {word}")
            };
        }
        record.replace("\n\n", "\n") + "\n\n"
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let index = Index::parse(&lines.map(record).collect::<String>());
    assert_eq!(index.rejected, []);
    index
}

fn answer(world: &str, repositories: &[Repository<'_>]) -> String {
    match solve(&Dependency::parse_list(world).unwrap(), repositories, "x") {
        Ok(chosen) => chosen.iter().map(|chosen| chosen.info.id()).collect::<Vec<_>>().join(" "),
        Err(error) => format!("error: {error}"),
    }
}

#[track_caller]
fn check(index_text: &str, world: &str, expected: &str) {
    let index = index(index_text);
    assert_eq!(answer(world, &[Repository { index: &index, tag: None }]), expected);
}

#[test]
fn dependencies_come_first_and_once() {
    check("a-1 D:c b\nb-1 D:c\nc-1", "b a", "c-1 b-1 a-1");
}

#[test]
fn the_newest_version_that_fits_is_taken() {
    let versions = "a-1\na-2\na-3\nb-1 D:a<3";
    check(versions, "a", "a-3");
    check(versions, "a b", "a-2 b-1");
    check(versions, "a~1", "a-1");
}

#[test]
fn a_version_that_cannot_stand_with_the_rest_is_passed_over() {
    check("a-1\na-2 D:b>1\nb-1\nb-2", "a b=1", "a-1 b-1");
    // apk never goes back: the newest is taken before it shows that it needs what is not there.
    check("a-1\na-2 D:missing", "a", "error: missing: no such package (needed by a-2)");
}

#[test]
fn a_virtual_name_needs_a_priority_or_a_named_provider() {
    let virtuals = "a-1 p:v\nb-1 p:v\nneeds-1 D:v";
    check(
        virtuals,
        "needs",
        "error: v: no package is called so; it is provided by a, b; name one of them in the world (needed by needs-1)",
    );
    check(virtuals, "needs b", "b-1 needs-1");
    check("a-1 p:v k:1\nb-1 p:v k:2\nneeds-1 D:v", "needs", "b-1 needs-1");
}

#[test]
fn a_versioned_provide_owns_the_name() {
    check("a-1 p:v=1\nb-1 p:v=2\nneeds-1 D:v", "needs", "b-1 needs-1");
    check("a-1 p:v=1\nb-1 p:v=2", "a b", "error: a-1 and b-1 cannot stand together: both are v");
    check("a-1 p:v\nb-1 p:v", "a b", "a-1 b-1");
    check("a-1 p:v=1 v=2", "a", "error: a-1 cannot be installed: it is v twice");
}

#[test]
fn a_conflict_shuts_a_package_out() {
    check("a-1 D:b\nb-1 p:v=1\nc-1 p:v=2\nd-1 D:v", "d !c", "b-1 d-1");
    check("a-1 D:!v p:v", "a", "a-1");
    check("a-1 D:!v p:v\nb-1 p:v", "a b", "error: b-1 cannot be installed: a-1 wants !v");
    check("a-1 D:b\nb-1", "a !b", "error: !b: but b-1 is needed by a-1");
}

#[test]
fn install_if_follows_when_all_of_it_is_there() {
    let docs = "a-1\na-doc-1 i:a=1 docs\ndocs-1";
    check(docs, "a", "a-1");
    check(docs, "a docs", "a-1 docs-1 a-doc-1");
    check(docs, "a docs !a-doc", "a-1 docs-1");
    check("a-1\nb-1 i:a !c !nowhere\nc-1", "a", "a-1 b-1");
    check("a-1\nb-1 i:a !c !nowhere\nc-1", "a c", "a-1 c-1");
}

#[test]
fn a_tagged_repository_is_used_where_the_tag_is_written() {
    let (main, edge) = (index("a-1 D:b\nb-1"), index("a-2 D:b>1\nb-2\nc-1"));
    let both = [Repository { index: &main, tag: None }, Repository { index: &edge, tag: Some("edge") }];
    assert_eq!(answer("a", &both), "b-1 a-1");
    assert_eq!(answer("a@edge<2", &both), "b-1 a-1");
    assert_eq!(answer("a@edge", &both), "b-2 a-2");
    assert_eq!(
        answer("c", &both),
        "error: c-1 is only in the repository with the tag edge; write c@edge to take it from there"
    );
}

#[test]
fn the_first_of_equal_repositories_is_taken() {
    let (first, second) = (index("a-1"), index("a-1\nb-1"));
    let both = [Repository { index: &first, tag: None }, Repository { index: &second, tag: None }];
    let world = Dependency::parse_list("a b").unwrap();
    let chosen = solve(&world, &both, "x").unwrap();
    assert_eq!(chosen.iter().map(|chosen| chosen.repository).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn what_is_missing_is_named_with_the_way_to_it_and_the_nearest_name() {
    check(
        "a-1 D:b\nb-1 D:shadow-uidmap\nshadow-subids-4",
        "a",
        "error: shadow-uidmap: no such package; did you mean shadow-subids? (needed by a-1 -> b-1)",
    );
    check("a-1\na-2", "a>2", "error: a>2: the repositories have a 1, 2");
}

#[test]
fn packages_for_another_machine_are_not_taken() {
    let index = index("a-1");
    let error = solve(&[Dependency::any("a")], &[Repository { index: &index, tag: None }], "y").unwrap_err();
    assert_eq!(error.to_string(), "a-1 is for x");
}

#[test]
fn a_chain_of_a_hundred_thousand_packages_does_not_overflow() {
    let text: String = (0..100_000).map(|n| format!("a{n}-1 D:a{}\n", n + 1)).collect();
    let index = index(&(text + "a100000-1"));
    let world = [Dependency::any("a0")];
    let chosen = solve(&world, &[Repository { index: &index, tag: None }], "x").unwrap();
    assert_eq!(chosen.len(), 100_001);
    assert_eq!(chosen[0].info.name, "a100000");
}
