//! The guest kernel: sources and options become a compact `vmlinux`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::base::Sha256;
use crate::lock::kernel::RequestedOptions;
use crate::sys::beneath;
use crate::sys::fs::{self as files, FileError};
use crate::sys::make::{self, KernelTree};
use crate::sys::report::{Report, Unit};
use crate::sys::sandbox::Sandbox;

use super::compact::{LAYOUT, compact};
use super::configured::Configured;
use super::kernel_error::KernelError;
use super::kernel_notes::{KernelNotes, LastBuild};
use super::key::{BuildKey, KeyBuilder};
use super::series::of_release;
use super::source;
use super::tools::{missing_tools, programs};

/// Everything that a kernel's bytes depend on.
#[derive(Clone, Debug)]
pub struct KernelInputs {
    /// A tarball or a directory on this machine.
    pub source: PathBuf,
    pub source_sha256: Sha256,
    pub requested: RequestedOptions,
    /// The series that the requested options are for, where it is known. It plays no part in the key: the source decides.
    pub series: Option<String>,
    /// Patches in the order they are applied.
    pub patches: Vec<PathBuf>,
    pub patch_sha256: Vec<Sha256>,
    /// From [`make::toolchain`].
    pub toolchain: String,
}

impl KernelInputs {
    /// The key of the kernel that these inputs make.
    pub fn key(&self) -> BuildKey {
        let key = KeyBuilder::new("kernel")
            .input("source", self.source_sha256.0)
            .input("config", self.requested.to_allconfig())
            .input("toolchain", &self.toolchain)
            .input("layout", LAYOUT);
        self.patch_sha256.iter().fold(key, |key, patch| key.input("patch", patch.0)).finish()
    }
}

/// Bytes of a `vmlinux`, whose symbols of debuggers may be a GiB.
const LARGEST_VMLINUX: u64 = 4 << 30;

/// Bytes of a build's log that are kept.
const LARGEST_LOG: u64 = 256 << 20;

/// Builds `vmlinux`, `config` and `build.log` into `dir`, an empty directory; the sources are unpacked below it and removed.
pub fn build(
    inputs: &KernelInputs,
    dir: &Path,
    notes: &KernelNotes,
    jobs: usize,
    report: &dyn Report,
) -> Result<(), KernelError> {
    let (tree, configured) = prepare(inputs, &dir.join("src"), jobs, report)?;
    notes.keep_configured(&inputs.key(), &configured)?;
    configured.check(&inputs.requested)?;
    files::write(&dir.join("config"), configured.text.as_bytes(), 0o644)?;
    let vmlinux = compile(&tree, &dir.join("build.log"), notes)?;
    let vmlinux = beneath::read(&tree.dir, &vmlinux, LARGEST_VMLINUX)?;
    files::write(&dir.join("vmlinux"), &compact(&vmlinux)?, 0o644)?;
    Ok(files::remove(&tree.dir)?)
}

/// What Kconfig makes of the requested options, found without building; `scratch` is a directory for the sources, which may be
/// needed. Requested options that did not survive are no error here.
pub fn configure(
    inputs: &KernelInputs,
    scratch: &Path,
    notes: &KernelNotes,
    report: &dyn Report,
) -> Result<Configured, KernelError> {
    if let Some(configured) = notes.configured(&inputs.key()) {
        return Ok(configured);
    }
    let (_, configured) = prepare(inputs, scratch, 1, report)?;
    notes.keep_configured(&inputs.key(), &configured)?;
    Ok(configured)
}

/// Unpacks, patches and configures the sources in `dir`.
fn prepare<'a>(
    inputs: &KernelInputs,
    dir: &Path,
    jobs: usize,
    report: &'a dyn Report,
) -> Result<(KernelTree<'a>, Configured), KernelError> {
    let missing = missing_tools();
    if !missing.is_empty() {
        return Err(KernelError::MissingTools(missing));
    }
    let sandbox = Sandbox::find(&programs())?;
    if let Some(why) = sandbox.lacking() {
        report.note(&format!("programs of the kernel source run without a sandbox: {why}"));
    }
    let key = inputs.key().to_string();
    let tree = KernelTree { dir: dir.to_owned(), arch: "x86_64", jobs, sandbox, key, report };
    files::create_dir_all(&tree.dir)?;
    source::unpack(&inputs.source, "x86", &tree.dir, report)?;
    tree.sandbox.hand_over(&tree.dir)?;
    for (index, path) in inputs.patches.iter().enumerate() {
        tree.patch(&files::read(path)?).map_err(|source| KernelError::Patch {
            patch: path.clone(),
            number: index + 1,
            count: inputs.patches.len(),
            kernel: inputs.source.clone(),
            source,
        })?;
    }
    let release = tree.version().map_err(KernelError::Configure)?;
    if let Some(series) =
        inputs.series.as_ref().filter(|series| of_release(&release).as_ref() != Some(series))
    {
        report.note(&format!("the kernel base is for Linux {series}, but the source is {release}"));
    }
    let configured = Configured::make(&tree, "x86", &inputs.requested)?;
    Ok((tree, configured))
}

/// Targets that make names on the way to a guest kernel, where no earlier build tells: about as many as the
/// project's own configuration has.
const USUAL_TARGETS: u64 = 1_700;

fn compile(tree: &KernelTree<'_>, log: &Path, notes: &KernelNotes) -> Result<PathBuf, KernelError> {
    let report = tree.report;
    let mut file = std::fs::File::create(log).map_err(FileError::when("create", log))?;
    let last = notes.last_build();
    if let Some(LastBuild { seconds, jobs, .. }) = last.filter(|last| last.jobs == tree.jobs) {
        report.note(&format!("the last kernel took {} with {jobs} jobs", minutes(seconds)));
    }
    let expected = last.map_or(USUAL_TARGETS, |last| last.targets);
    let task = report.begin("build kernel", Some(expected), Unit::Steps);
    let (begun, mut targets, mut logged, mut unwritten) = (Instant::now(), 0u64, 0u64, None);
    let built = tree.build(|line| {
        logged += line.len() as u64 + 1;
        if logged <= LARGEST_LOG
            && let Err(error) = writeln!(file, "{line}")
        {
            unwritten.get_or_insert(error);
        }
        if let Some(target) = make::parse_target(line) {
            targets += 1;
            task.advance(1);
            task.detail(target);
        }
    });
    if let Some(error) = unwritten {
        return Err(FileError::when("write", log)(error).into());
    }
    match built {
        Ok(vmlinux) => {
            let seconds = begun.elapsed().as_secs();
            notes.keep_last_build(LastBuild { targets, seconds, jobs: tree.jobs })?;
            task.finish("built");
            Ok(vmlinux)
        }
        Err(source) => {
            let kept = notes.failed_log();
            std::fs::copy(log, &kept).map_err(FileError::when("write", &kept))?;
            Err(KernelError::Build { log: kept, source })
        }
    }
}

fn minutes(seconds: u64) -> String {
    if seconds < 60 { format!("{seconds} s") } else { format!("{} min {} s", seconds / 60, seconds % 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_changes_the_key() {
        let inputs = KernelInputs {
            source: "/a/linux.tar".into(),
            source_sha256: Sha256::of("linux"),
            requested: RequestedOptions::default(),
            series: None,
            patches: Vec::new(),
            patch_sha256: Vec::new(),
            toolchain: "gcc 12".into(),
        };
        let elsewhere = KernelInputs { source: "/b/linux.tar".into(), ..inputs.clone() };
        assert_eq!(inputs.key(), elsewhere.key());
        let mut requested = RequestedOptions::default();
        requested.overlay_file("x", "CONFIG_A=y").unwrap();
        for other in [
            KernelInputs { source_sha256: Sha256::of("other"), ..inputs.clone() },
            KernelInputs { requested, ..inputs.clone() },
            KernelInputs { patch_sha256: vec![Sha256::of("p")], ..inputs.clone() },
            KernelInputs { toolchain: "gcc 13".into(), ..inputs.clone() },
        ] {
            assert_ne!(inputs.key(), other.key());
        }
    }
}
