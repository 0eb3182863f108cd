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
    assert_snapshot!(shown(&with("[\"ftp://a/b\", \"mirror\", \"https://c/\", \"https://example.org/main/\", \"https://c\"]")), @r#"
    error: "ftp://a/b" must begin with http:// or https://
     --> /f/fleet.toml:8:12
      |
    8 | mirrors = ["ftp://a/b", "mirror", "https://c/", "https://example.org/main/", "https://c"]
      |            ^^^^^^^^^^^

    error: "mirror" must begin with http:// or https://
     --> /f/fleet.toml:8:25
      |
    8 | mirrors = ["ftp://a/b", "mirror", "https://c/", "https://example.org/main/", "https://c"]
      |                         ^^^^^^^^

    error: this URL is given twice
     --> /f/fleet.toml:8:49
      |
    7 | url = "https://example.org/main"
      |       -------------------------- first
    8 | mirrors = ["ftp://a/b", "mirror", "https://c/", "https://example.org/main/", "https://c"]
      |                                                 ^^^^^^^^^^^^^^^^^^^^^^^^^^^ again
      |
      = help: keep one of the two

    error: this URL is given twice
     --> /f/fleet.toml:8:78
      |
    8 | mirrors = ["ftp://a/b", "mirror", "https://c/", "https://example.org/main/", "https://c"]
      |                                   ------------ first                         ^^^^^^^^^^^ again
      |
      = help: keep one of the two
    "#);
    assert_snapshot!(shown(&with("\"https://a/b\"")), @r#"
    error: expected an array, found a string
     --> /f/fleet.toml:8:11
      |
    8 | mirrors = "https://a/b"
      |           ^^^^^^^^^^^^^
    "#);
    assert_snapshot!(shown(&SMALL.replace(url, "url = \"here\"\nmirrors = [\"https://a/b\"]")), @r#"
    error: a local path cannot have `mirrors`
     --> /f/fleet.toml:8:11
      |
    7 | url = "here"
      |       ------ a path
    8 | mirrors = ["https://a/b"]
      |           ^^^^^^^^^^^^^^^
      |
      = help: remove `mirrors`, or begin with http:// or https://
    "#);
    refused(&[("base =", "mirrors = [\"https://a/b\"]\nbase =", "a local path cannot have `mirrors`")]);
}
