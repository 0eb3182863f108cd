//! What all programs of a sandbox may take of memory together: a cgroup of their own, where this process may make one.

use std::ffi::OsString;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::sys::cgroup::{self, CgroupError, Hierarchy, Limits};
use crate::sys::memory;

/// What the cgroups of builds are below: beside those of fleets, which go with their last guest.
const ABOVE: &str = "sisforge-build";

/// Bytes of memory that one process may ask for at least, and all may take together where the host has so much; more, on a host that
/// has more.
const LEAST: u64 = 4 << 30;

/// Has a process join cgroups before it becomes what comes behind `--`, which nothing but a shell does without a program of its own.
const JOIN: &str = r#"while [ "$1" != -- ]; do echo 0 > "$1" || exit 125; shift; done; shift; exec "$@""#;

/// What one process may ask for, in bytes: half of the host's memory.
pub fn of_one() -> u64 {
    (memory::total().unwrap_or(0) / 2).max(LEAST)
}

/// What all may take together, in bytes: half of the host's memory, and of a small host a little less than all.
pub fn of_all() -> u64 {
    let total = memory::total().unwrap_or(u64::MAX);
    of_one().min(total / 8 * 7)
}

/// A cgroup that holds what runs in a sandbox to a bound. It goes when this is dropped, with whatever is left in it.
#[derive(Debug)]
pub struct MemoryGroup {
    hierarchy: Hierarchy,
    path: String,
    bytes: u64,
}

impl MemoryGroup {
    /// Makes one.
    ///
    /// # Errors
    /// Where this host has no cgroups, or this process may make none.
    pub fn create(bytes: u64) -> Result<Self, CgroupError> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let hierarchy = cgroup::detect()?;
        remove_left(&hierarchy);
        let path = format!("{ABOVE}/{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        // What is half made goes with it.
        let group = Self { hierarchy, path, bytes };
        group.hierarchy.create(&group.path, &Limits { memory: Some(bytes), ..Limits::NONE })?;
        Ok(group)
    }

    /// The words before a program that has it join.
    pub fn join(&self) -> Vec<OsString> {
        let files = self.hierarchy.join_files(&self.path).into_iter().map(Into::into);
        let before = ["/bin/sh", "-c", JOIN, "sh"].map(OsString::from);
        before.into_iter().chain(files).chain(["--".into()]).collect()
    }

    /// That a process was killed since there was no memory for it, in words.
    pub fn exceeded(&self) -> Option<String> {
        (self.hierarchy.oom_kills(&self.path) > 0).then(|| {
            format!(
                "it ran out of memory, of which all its programs may take {} MiB together",
                self.bytes >> 20
            )
        })
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        remove(&self.hierarchy, &self.path);
    }
}

/// Removes those of processes that were killed. What ran in them ended with these.
fn remove_left(hierarchy: &Hierarchy) {
    let is_over = |name: &String| {
        let pid = name.split('-').next().unwrap_or_default();
        !Path::new("/proc").join(pid).exists()
    };
    for name in hierarchy.children(ABOVE).iter().filter(|name| is_over(name)) {
        remove(hierarchy, &format!("{ABOVE}/{name}"));
    }
}

fn remove(hierarchy: &Hierarchy, path: &str) {
    // What cannot be removed now is by the next build.
    let _ = hierarchy.kill(path).and_then(|()| hierarchy.remove(path));
    if hierarchy.children(ABOVE).is_empty() {
        let _ = hierarchy.remove(ABOVE);
    }
}

/// Adds to what a program said that it could not get more, which a bound on each process may be the cause of.
pub fn told(said: &mut String) {
    let words = said.to_lowercase();
    if ["out of memory", "cannot allocate memory", "memory exhausted"]
        .iter()
        .any(|cause| words.contains(cause))
    {
        said.push_str(&format!("\none process of a build may ask for {} MiB of memory", of_one() >> 20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::sandbox::Sandbox;
    use crate::sys::tool::ToolError;

    #[test]
    fn programs_take_no_more_memory_together_than_they_may() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("SKIPPED: only root has a cgroup for a build");
        }
        let dir = tempfile::tempdir().unwrap();
        let sandbox = match Sandbox::find(&[]) {
            Ok(sandbox) => sandbox.bounded(96 << 20).unwrap(),
            Err(error) => return eprintln!("SKIPPED: {error}"),
        };
        let run = |script: &str| {
            sandbox.lines(&sandbox.call("sh", dir.path()).args(["-c", script]), dir.path(), &|| None, |_| {})
        };
        run("head -c 8000000 /dev/zero | tail | wc -c").unwrap();
        // Each of four takes 40 MiB, and would get them alone; who goes on although one is killed does not succeed.
        let error = run(
            "for each in 1 2 3 4; do (head -c 41943040 /dev/zero | tail | { sleep 2; wc -c; }) & done; wait",
        )
        .unwrap_err();
        let told = matches!(&error, ToolError::Exceeded { bound, .. } if bound.contains("out of memory") && bound.contains("96 MiB"));
        assert!(told, "{error}");
        let path = sandbox.memory_group().unwrap().path.clone();
        drop(sandbox);
        let hierarchy = cgroup::detect().unwrap();
        assert!(hierarchy.limits(&path).is_none(), "{path} is left");
    }

    #[test]
    fn one_process_that_gets_no_more_is_told_how_much_it_may_have() {
        let mut said = "cc1: Out of Memory allocating 65536 bytes".to_owned();
        told(&mut said);
        assert!(said.ends_with("MiB of memory"), "{said}");
        let mut said = "error: expected ';'".to_owned();
        told(&mut said);
        assert_eq!(said, "error: expected ';'");
    }

    #[test]
    fn a_small_host_keeps_some_memory_for_itself() {
        assert!(of_all() <= of_one() && of_one() >= LEAST);
        assert!(memory::total().is_none_or(|total| of_all() < total));
    }
}
