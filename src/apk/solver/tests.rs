//! Small worlds for each rule, after the rules of apk-tools' solver.

use super::{Repository, solve, solve_by};
use crate::apk::dependency::{Checksum, Dependency};
use crate::apk::index::Index;
use crate::apk::rules::Rules;

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
        "error: v: no package has this name; it is provided by a, b; add one of them to the world (needed \
         by needs-1)",
    );
    check(virtuals, "needs b", "b-1 needs-1");
    check("a-1 p:v k:1\nb-1 p:v k:2\nneeds-1 D:v", "needs", "b-1 needs-1");
}

#[test]
fn a_versioned_provide_owns_the_name() {
    check("a-1 p:v=1\nb-1 p:v=2\nneeds-1 D:v", "needs", "b-1 needs-1");
    check("a-1 p:v=1\nb-1 p:v=2", "a b", "error: a-1 and b-1 cannot be installed together: both are v");
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

/// Several worlds over one universe; `error` where only that is asked.
#[track_caller]
fn check_all(index_text: &str, worlds: &[(&str, &str)]) {
    let index = index(index_text);
    for (world, expected) in worlds {
        let found = answer(world, &[Repository { index: &index, tag: None }]);
        let found = if *expected == "error" { found.split(':').next().unwrap().to_owned() } else { found };
        assert_eq!(found, *expected, "{world}");
    }
}

#[test]
fn a_diamond_and_a_cycle_are_installed_once() {
    check_all(
        "top-1 D:left right\nleft-1 D:base>=1\nright-1 D:base<3\nbase-1\nbase-2\nbase-3",
        &[("top", "base-2 left-1 right-1 top-1"), ("right left", "base-2 left-1 right-1")],
    );
    // A cycle is cut where it is entered.
    let cycle = "a-1 D:b\nb-1 D:c\nc-1 D:a";
    check_all(cycle, &[("a", "c-1 b-1 a-1"), ("b", "a-1 c-1 b-1"), ("c b", "a-1 c-1 b-1")]);
}

#[test]
fn operators_bound_versions() {
    check_all(
        "a-1.0\na-1.1\na-2.0_rc1\nb-1 D:a<2\nc-1 D:a>1.0",
        &[
            ("a", "a-2.0_rc1"),
            ("a=1.0", "a-1.0"),
            ("a~1", "a-1.1"),
            ("a>1.1", "a-2.0_rc1"),
            ("a>=2.0", "error"),
            ("b", "a-1.1 b-1"),
            ("c a~1", "a-1.1 c-1"),
            ("c a<=1.0", "error"),
        ],
    );
    check_all(
        "a-1.2.3\na-1.20\nb-1 D:a~1.2\nc-1 D:a>~1.2\nd-1 D:a<~1.2",
        &[
            ("b", "a-1.2.3 b-1"),
            ("c", "a-1.20 c-1"),
            ("d", "a-1.2.3 d-1"),
            ("a~1.20", "a-1.20"),
            ("a~1.3", "error"),
        ],
    );
}

#[test]
fn conflicts_reach_names_that_others_provide() {
    check_all(
        "a-1 D:!b\na-2 D:!c\nb-1\nc-1\nd-1 D:!a\ne-1 p:b=5",
        &[
            ("a b", "a-2 e-1"),
            ("a e", "a-2 e-1"),
            ("!e a b", "a-2 b-1"),
            ("!a<2 a", "a-2"),
            ("a d", "error: d-1 conflicts with a, but a-2 is asked for"),
            // apk never goes back to a-1.
            ("a c", "error: a-2 conflicts with c, but c-1 is asked for"),
        ],
    );
}

#[test]
fn priorities_decide_between_virtual_names_until_one_is_named() {
    check_all(
        "user-1 D:mail\nmutt-1 p:mail k:10\npine-2 p:mail k:20\nelm-3 p:mail",
        &[
            ("user", "pine-2 user-1"),
            ("mail", "pine-2"),
            ("user elm", "elm-3 user-1"),
            ("user !pine", "mutt-1 user-1"),
            ("elm pine user", "elm-3 pine-2 user-1"),
        ],
    );
}

#[test]
fn provided_versions_count_like_real_ones() {
    check_all(
        "user-1 D:mail>1\nmutt-1 p:mail=1\npine-1 p:mail=2\nelm-1 p:mail=3 k:5\nmail-2",
        &[
            ("user", "elm-1 user-1"),
            ("mail<3", "pine-1"),
            ("mail=1", "mutt-1"),
            ("user !elm", "pine-1 user-1"),
            ("pine user", "pine-1 user-1"),
            ("mutt pine", "error"),
        ],
    );
    check_all(
        "lib-1.1 p:so:z.1=1.1\nlib-2.0 p:so:z.2=2.0\nnew-1 D:so:z.2\nold-1 D:so:z.1\ntool-1 D:cmd:zip pc:z>=1\n\
         zip-1 p:cmd:zip=1\ndev-1 p:pc:z=1.3 D:lib>1",
        &[
            ("old", "lib-1.1 old-1"),
            ("new", "lib-2.0 new-1"),
            (
                "old new",
                "error: lib-2.0 (needed by new-1) and lib-1.1 (needed by old-1) cannot be installed together: both \
                 are lib",
            ),
            ("tool", "zip-1 lib-2.0 dev-1 tool-1"),
            ("tool old", "lib-1.1 old-1 zip-1 dev-1 tool-1"),
        ],
    );
}

#[test]
fn one_package_that_provides_all_is_found_by_what_is_common() {
    check_all(
        "a-1 p:x=1 y=1\nb-1 p:x=1\nc-1 p:y=1\nu-1 D:x y\nv-1 D:y\nw-1 D:x",
        &[("u", "a-1 u-1"), ("v w", "a-1 v-1 w-1"), ("v b", "b-1 c-1 v-1"), ("w c v", "c-1 v-1 b-1 w-1")],
    );
    check_all(
        "u-1 D:v\na-1 p:v k:1 D:common\nb-1 p:v k:2 D:common\ncommon-1\ncommon-2\nw-1 D:common<2",
        &[("u", "common-2 b-1 u-1"), ("u w", "common-1 b-1 u-1 w-1"), ("w u a", "common-1 a-1 u-1 w-1")],
    );
}

#[test]
fn install_if_follows_virtual_names_and_other_install_ifs() {
    check_all(
        "a-1\na-doc-1 D:docs i:a=1 docs\ndocs-1\na-ssl-1 i:a ssl\nlibressl-1 p:ssl=3\nopenssl-1 p:ssl=1 k:1\n\
         a-extra-1 i:a-doc a-ssl",
        &[
            ("docs a ssl", "a-1 docs-1 a-doc-1 libressl-1 a-ssl-1 a-extra-1"),
            ("a docs openssl", "a-1 docs-1 a-doc-1 openssl-1 a-ssl-1 a-extra-1"),
            ("a libressl", "a-1 libressl-1 a-ssl-1"),
        ],
    );
    // What it lacks is an error: nothing else is tried.
    check("a-1\nb-1 i:a D:gone", "a", "error: gone: no such package (needed by a-1 -> b-1)");
    // It brings what it needs, and is left out where that cannot be.
    check_all(
        "a-1\nb-1\nx-1 i:a b D:y\ny-1\nz-1 i:x",
        &[("a", "a-1"), ("a b", "a-1 b-1 y-1 x-1 z-1"), ("a b !y", "a-1 b-1"), ("x", "y-1 x-1 z-1")],
    );
}

/// Labels, so that the tags are seen.
fn labels(world: &str, repositories: &[Repository<'_>]) -> String {
    match solve(&Dependency::parse_list(world).unwrap(), repositories, "x") {
        Ok(chosen) => chosen.iter().map(|chosen| chosen.label()).collect::<Vec<_>>().join(", "),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn a_tag_holds_for_a_dependency_and_for_what_that_needs() {
    let (main, edge) = (index("a-1 D:b\nb-1\nc-1 D:b>=1"), index("a-2 D:b>1\nb-2\nd-1 D:b"));
    let both = [Repository { index: &main, tag: None }, Repository { index: &edge, tag: Some("edge") }];
    for (world, expected) in [
        ("a", "b (1), a (1)"),
        ("a@edge", "b@edge (2), a@edge (2)"),
        ("a@edge c", "b@edge (2), a@edge (2), c (1)"),
        ("d@edge", "b (1), d@edge (1)"),
        ("c b@edge", "b@edge (2), c (1)"),
        ("a@edge=2", "b@edge (2), a@edge (2)"),
        ("a@edge<2", "b (1), a (1)"),
        ("d", "error: d-1 is only in the repository with the tag edge; write d@edge to take it from there"),
        ("a@egde", "error: a@egde: no repository has the tag egde; there are edge"),
    ] {
        assert_eq!(labels(world, &both), expected, "{world}");
    }
    let (old_main, old) = (index("a-3 D:l\nl-1\nl-3"), index("a-2 D:l\nl-2"));
    let both = [Repository { index: &old_main, tag: None }, Repository { index: &old, tag: Some("old") }];
    assert_eq!(labels("a@old", &both), "l (3), a@old (2)");
    assert_eq!(labels("a@old l@old", &both), "l@old (2), a@old (2)");
}

#[test]
fn messages_say_which_dependency_by_way_of_what_and_what_would_do() {
    check_all(
        "app-1 D:lib=1\ntool-1 D:mid\nmid-1 D:lib=2\nlib-1\nlib-2\nneedy-2 D:gone\nviewer-1 D:needy>1 cmd:show\n\
         drill-1 p:cmd:dig=1\nlibfoo-1 p:so:libfoo.so.1=1.0\nfit-1 D:lib>=2 so:libfoo.so.1>2",
        &[
            ("dig", "error: dig: no such package; the command dig is in drill"),
            ("so:libfo.so.1", "error: so:libfo.so.1: no package provides it; did you mean so:libfoo.so.1?"),
            ("lib>2", "error: lib>2: the repositories have lib 1, 2"),
            (
                "fit",
                "error: so:libfoo.so.1>2: the repositories have it in 1.0; it is provided by libfoo (needed \
                 by fit-1)",
            ),
            (
                "app tool",
                "error: lib=2: lib-2 cannot be installed: app-1 wants lib=1 (needed by tool-1 -> mid-1)",
            ),
            ("app lib>1", "error: lib=1: lib-1 cannot be installed: the world needs lib>1 (needed by app-1)"),
            (
                "viewer",
                "error: cmd:show: no package provides it (needed by viewer-1)\n\
                 gone: no such package (needed by viewer-1 -> needy-2)",
            ),
            ("tool !mid", "error: !mid: but mid-1 is needed by tool-1"),
        ],
    );
}

#[test]
fn a_record_that_apk_would_not_install_is_told_with_the_reason() {
    let text = format!("C:{}\nP:odd\nV:1\nA:x\nS:1\nI:1\nX:?\n\n", Checksum::of("odd"));
    let index = Index::parse(&text);
    assert_eq!(
        answer("odd", &[Repository { index: &index, tag: None }]),
        "error: odd: odd-1 cannot be installed: field 'X' is not known; fields whose letter is upper case \
         must be"
    );
}

/// Each answer is that of the genuine apk 2.14.4 and of 3.0.8.
#[test]
fn the_two_apks_differ_in_names_without_a_version_and_in_conflicts() {
    let plain = "a-1 p:v\nb-1 D:v<2\nc-1 D:v=2\nd-1 D:v>2\n";
    let by_name = "a-1 p:v k:1\nb-1 p:v=1\nn-1 D:v\n";
    for (text, world, by_2, by_3) in [
        (plain, "b a", "error", "a-1 b-1"),
        (plain, "c a", "error", "error"),
        (plain, "d a", "error", "error"),
        (plain, "a !v<2", "a-1", "error"),
        (plain, "a !v=2", "a-1", "a-1"),
        (by_name, "n", "a-1 n-1", "b-1 n-1"),
        (by_name, "v", "a-1", "b-1"),
        ("a-1\nb-1 i:a !c\nc-1", "a", "a-1", "a-1 b-1"),
        ("a-1 D:!v p:v", "a", "error", "a-1"),
        ("a-1 p:v=x9\nn-1 D:v<1", "n", "a-1 n-1", "a-1 n-1"),
    ] {
        let index = index(text);
        let answer = |rules| {
            let repositories = [Repository { index: &index, tag: None }];
            match solve_by(rules, &Dependency::parse_list(world).unwrap(), &repositories, "x") {
                Ok(chosen) => chosen.iter().map(|chosen| chosen.info.id()).collect::<Vec<_>>().join(" "),
                Err(_) => "error".to_owned(),
            }
        };
        assert_eq!(
            (answer(Rules::Apk2), answer(Rules::Apk3)),
            (by_2.into(), by_3.into()),
            "{world} of {text}"
        );
    }
}

#[test]
fn the_apk_that_the_repositories_hold_decides() {
    let held = |version: &str| {
        let index = index(&format!("a-1\nb-1 i:a !c\nc-1\napk-tools-{version}"));
        answer("a", &[Repository { index: &index, tag: None }])
    };
    assert_eq!([held("2.14.10"), held("3.0.3")], ["a-1".to_owned(), "a-1 b-1".to_owned()]);
}
