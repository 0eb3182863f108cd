//! `make` in a Linux source tree.

use std::path::{Path, PathBuf};

use super::tool::{Tool, ToolError};

/// A kernel source tree, and the settings that make its bytes depend on nothing but its inputs
/// (Documentation/kbuild/reproducible-builds.rst).
#[derive(Clone, Debug)]
pub struct KernelTree {
    pub dir: PathBuf,
    /// `x86_64` or `arm64`, as the kernel's `ARCH`.
    pub arch: &'static str,
    pub jobs: usize,
}

/// Time stamp that every kernel carries.
const BUILD_TIME: &str = "1970-01-01 00:00:00 UTC";

impl KernelTree {
    fn make(&self) -> Tool {
        let prefix = format!("-ffile-prefix-map={}=.", self.dir.display());
        Tool::new("make")
            .dir(&self.dir)
            .arg(format!("ARCH={}", self.arch))
            .env("KBUILD_BUILD_TIMESTAMP", BUILD_TIME)
            .env("KBUILD_BUILD_USER", "sisforge")
            .env("KBUILD_BUILD_HOST", "sisforge")
            .env("KBUILD_BUILD_VERSION", "1")
            .env("SOURCE_DATE_EPOCH", "0")
            .env("KCFLAGS", &prefix)
            .env("KAFLAGS", &prefix)
    }

    /// Makes `.config`: everything off but what `allconfig` asks for, then defaults for what that opened.
    pub fn configure(&self, allconfig: &Path) -> Result<(), ToolError> {
        self.make().env("KCONFIG_ALLCONFIG", allconfig).arg("allnoconfig").run()?;
        self.make().arg("olddefconfig").run()?;
        Ok(())
    }

    /// Builds `vmlinux`; each line of make's output is given to `line`. Where it fails, the error holds the last lines.
    pub fn build(&self, line: impl FnMut(&str)) -> Result<PathBuf, ToolError> {
        self.make().arg(format!("-j{}", self.jobs)).arg("vmlinux").lines(line)?;
        Ok(self.dir.join("vmlinux"))
    }

    /// The release of the sources, such as `6.1.164`.
    pub fn version(&self) -> Result<String, ToolError> {
        Ok(self.make().args(["-s", "kernelversion"]).text()?.trim().to_owned())
    }
}

/// The compiler, assembler and linker, one line each: another toolchain makes other bytes.
pub fn toolchain() -> Result<String, ToolError> {
    let first_line = |program: &str| -> Result<String, ToolError> {
        let text = Tool::new(program).arg("--version").text()?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    };
    Ok(["gcc", "as", "ld"].into_iter().map(first_line).collect::<Result<Vec<_>, _>>()?.join("; "))
}

/// Tries a patch and applies it to a source tree. Where it does not apply, nothing is changed.
pub fn patch(dir: &Path, patch: &[u8]) -> Result<(), ToolError> {
    let call =
        || Tool::new("patch").dir(dir).args(["-p1", "--batch", "--forward", "--no-backup-if-mismatch"]);
    // It says on stdout which hunks it refuses.
    call().arg("--dry-run").stdin(patch).lines(|_| {})?;
    call().stdin(patch).lines(|_| {})
}

/// Reads one line of make's output: what it works on, if the line says that a target is made.
///
/// Kbuild prints `  CC      net/core/dev.o`.
pub fn parse_target(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("  ")?;
    let (verb, target) = rest.split_once(' ')?;
    let is_verb = !verb.is_empty() && verb.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
    is_verb.then(|| target.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_told_from_other_lines() {
        assert_eq!(parse_target("  CC      net/core/dev.o"), Some("net/core/dev.o"));
        assert_eq!(parse_target("  LD      vmlinux"), Some("vmlinux"));
        assert_eq!(parse_target("make[1]: Entering directory"), None);
        assert_eq!(parse_target("  scripts/kconfig/conf --olddefconfig Kconfig"), None);
    }
}
