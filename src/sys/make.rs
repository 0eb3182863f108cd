//! `make` in a Linux source tree.

use std::path::PathBuf;

use super::report::Report;
use super::sandbox::{self, Sandbox};
use super::tool::{Tool, ToolError};

/// A kernel source tree, and the settings that make its bytes depend on nothing but its inputs
/// (Documentation/kbuild/reproducible-builds.rst).
#[derive(Clone)]
pub struct KernelTree<'a> {
    pub dir: PathBuf,
    /// `x86_64` or `arm64`, as the kernel's `ARCH`.
    pub arch: &'static str,
    pub jobs: usize,
    /// What the sources say is run there.
    pub sandbox: Sandbox,
    /// Key of the kernel that is made of it, and who says whether it is still wanted.
    pub key: String,
    pub report: &'a dyn Report,
}

/// Time stamp that every kernel carries.
const BUILD_TIME: &str = "1970-01-01 00:00:00 UTC";

impl KernelTree<'_> {
    fn make(&self) -> Tool {
        let prefix = format!("-ffile-prefix-map={}=.", self.sandbox.inside(&self.dir).display());
        self.sandbox
            .call("make", &self.dir)
            .arg(format!("ARCH={}", self.arch))
            .env("KBUILD_BUILD_TIMESTAMP", BUILD_TIME)
            .env("KBUILD_BUILD_USER", "sisforge")
            .env("KBUILD_BUILD_HOST", "sisforge")
            .env("KBUILD_BUILD_VERSION", "1")
            .env("SOURCE_DATE_EPOCH", "0")
            .env("KCFLAGS", &prefix)
            .env("KAFLAGS", &prefix)
    }

    fn lines(&self, call: Tool, line: impl FnMut(&str)) -> Result<(), ToolError> {
        let is_unwanted = || !self.report.is_wanted(&self.key);
        let exceeded = || is_unwanted().then(|| "what it makes is no longer wanted".to_owned());
        self.sandbox.lines(&call, &self.dir, &exceeded, line)
    }

    /// Tries a patch and applies it.
    pub fn patch(&self, patch: &[u8]) -> Result<(), ToolError> {
        let call = || {
            let tool = self.sandbox.call("patch", &self.dir);
            tool.args(["-p1", "--batch", "--forward", "--no-backup-if-mismatch"])
        };
        // It says on stdout which hunks it refuses.
        self.lines(call().arg("--dry-run").stdin(patch), |_| {})?;
        self.lines(call().stdin(patch), |_| {})
    }

    /// Makes `.config` of the options in a file of the tree: everything off but what they ask for, then defaults for what
    /// that opened.
    pub fn configure(&self, options: &str) -> Result<(), ToolError> {
        let options = self.sandbox.inside(&self.dir).join(options);
        self.lines(self.make().env("KCONFIG_ALLCONFIG", options).arg("allnoconfig"), |_| {})?;
        self.lines(self.make().arg("olddefconfig"), |_| {})
    }

    /// Builds `vmlinux`, and gives its path in the tree; each line of make's output is given to `line`.
    pub fn build(&self, line: impl FnMut(&str)) -> Result<PathBuf, ToolError> {
        self.lines(self.make().arg(format!("-j{}", self.jobs)).arg("vmlinux"), line)?;
        Ok("vmlinux".into())
    }

    /// The release of the sources, such as `6.1.164`.
    pub fn version(&self) -> Result<String, ToolError> {
        let mut release = None;
        self.lines(self.make().args(["-s", "kernelversion"]), |line| {
            // Whatever make warns of comes between.
            if release.is_none() && line.starts_with(|c: char| c.is_ascii_digit()) {
                release = Some(line.to_owned());
            }
        })?;
        Ok(release.unwrap_or_default())
    }
}

/// The compiler, assembler and linker, one line each: another toolchain makes other bytes.
pub fn toolchain() -> Result<String, ToolError> {
    let first_line = |program: &str| -> Result<String, ToolError> {
        let text = Tool::new(program).env("PATH", sandbox::search_path()).arg("--version").text()?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    };
    Ok(["gcc", "as", "ld"].into_iter().map(first_line).collect::<Result<Vec<_>, _>>()?.join("; "))
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
