//! What a machine must have to build a kernel.

use std::path::Path;

use crate::sys::{sandbox, tool};

/// A program or header that a kernel build needs, and the packages that bring it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingTool {
    pub what: &'static str,
    pub debian: &'static str,
    pub alpine: &'static str,
}

const fn needs(what: &'static str, debian: &'static str, alpine: &'static str) -> MissingTool {
    MissingTool { what, debian, alpine }
}

/// Programs that a build runs. Nothing is needed to unpack: tarballs are read by this program itself.
const PROGRAMS: [MissingTool; 9] = [
    needs("make", "make", "make"),
    needs("gcc", "gcc", "gcc"),
    needs("as", "binutils", "binutils"),
    needs("ld", "binutils", "binutils"),
    needs("objcopy", "binutils", "binutils"),
    needs("flex", "flex", "flex"),
    needs("bison", "bison", "bison"),
    needs("bc", "bc", "bc"),
    needs("patch", "patch", "patch"),
];

/// Headers that the kernel's own tools include.
const HEADERS: [MissingTool; 3] = [
    needs("/usr/include/stdlib.h", "libc6-dev", "musl-dev"),
    needs("/usr/include/linux/types.h", "linux-libc-dev", "linux-headers"),
    needs("/usr/include/libelf.h", "libelf-dev", "elfutils-dev"),
];

/// What is missing on this machine to build a kernel.
pub fn missing_tools() -> Vec<MissingTool> {
    let path = sandbox::search_path();
    missing(|program| tool::find_on(&path, program).is_some(), |header| Path::new(header).exists())
}

/// Names of the programs that a build runs.
pub fn programs() -> [&'static str; 9] {
    PROGRAMS.map(|tool| tool.what)
}

fn missing(has_program: impl Fn(&str) -> bool, has_header: impl Fn(&str) -> bool) -> Vec<MissingTool> {
    let programs = PROGRAMS.into_iter().filter(|tool| !has_program(tool.what));
    programs.chain(HEADERS.into_iter().filter(|header| !has_header(header.what))).collect()
}

/// What is missing in words, and how to get it.
pub fn named(missing: &[MissingTool]) -> String {
    let list = |of: fn(&MissingTool) -> &'static str| {
        let mut names: Vec<_> = missing.iter().map(of).collect();
        names.dedup();
        names
    };
    format!(
        "{} (on Debian: apt-get install {}; on Alpine: apk add {})",
        list(|tool| tool.what).join(", "),
        list(|tool| tool.debian).join(" "),
        list(|tool| tool.alpine).join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_the_packages_that_bring_it() {
        let found =
            missing(|program| !["flex", "as", "ld"].contains(&program), |header| !header.contains("elf"));
        assert_eq!(
            named(&found),
            "as, ld, flex, /usr/include/libelf.h (on Debian: apt-get install binutils flex libelf-dev; \
             on Alpine: apk add binutils flex elfutils-dev)"
        );
        assert_eq!(missing(|_| true, |_| true), []);
    }
}
