//! Mirrors of repositories and of the kernel's source.

use insta::assert_snapshot;

use super::*;

#[test]
fn mirrors_are_read_in_their_order() {
    let fleet = at(FULL).unwrap();
    assert_eq!(
        fleet.repositories[0].mirrors,
        ["https://mirror.example.org/alpine/v3.22/main", "http://mirror.example.com/alpine/v3.22/main"]
    );
    let KernelSpec::Build(kernel) = fleet.kernel else { panic!("not a kernel to build") };
    assert_eq!(kernel.mirrors.len(), 1);
    assert_eq!(at(SMALL).unwrap().repositories[0].mirrors, [""; 0]);
}

#[test]
fn mirrors_are_other_urls_of_something_in_the_network() {
    let url = "url = \"https://example.org/main\"";
    let with = |more: &str| SMALL.replace(url, &format!("{url}\nmirrors = {more}"));
    assert_snapshot!(shown(&with("[\"ftp://a/b\", \"mirror\", \"https://c/\", \"https://example.org/main/\", \"https://c\"]")), @"");
    assert_snapshot!(shown(&with("\"https://a/b\"")), @"");
    assert_snapshot!(shown(&SMALL.replace(url, "url = \"here\"\nmirrors = [\"https://a/b\"]")), @"");
    refused(&[("base =", "mirrors = [\"https://a/b\"]\nbase =", "what is on this machine has no `mirrors`")]);
}
