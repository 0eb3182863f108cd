//! The only place that turns errors of the library into words for people: message, causes, hint, exit status.

use std::error::Error;
use std::io::ErrorKind;

use serde_json::json;

use crate::apk::{IndexError, PackageError, Refusal, SignatureError, SolveError};
use crate::apply::ApplyError;
use crate::apply::snapshot::SnapshotError;
use crate::build::vmlinux::VmlinuxError;
use crate::build::{BuildError, ProjectError, VendorError};
use crate::fleet::{InvalidFile, LoadError};
use crate::host::desired::DesiredError;
use crate::host::versions::VersionError;
use crate::image::read::{Flaw, ReadError};
use crate::lock::kernel_source::KernelSourceError;
use crate::lock::repository::RepositoryError;
use crate::lock::resolve::ResolveError;
use crate::sys::registry::RegistryError;
use crate::sys::tool::ToolError;

use super::render;
use super::settings::Settings;

/// How a command ended that did not do its work.
#[derive(Debug)]
pub struct CliError {
    /// 1 failed; 2 wrong usage or invalid configuration.
    pub status: u8,
    body: Body,
}

#[derive(Debug)]
enum Body {
    /// Everything was said already.
    Said,
    /// Files with problems in them.
    Files(Vec<InvalidFile>),
    Words {
        message: String,
        causes: Vec<String>,
        hint: Option<String>,
    },
}

impl CliError {
    /// A failure in words.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::words(1, message)
    }

    /// Wrong usage or configuration.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::words(2, message)
    }

    /// What was wrong has been printed already.
    pub fn said(status: u8) -> Self {
        Self { status, body: Body::Said }
    }

    /// Everything that is wrong with the files of a fleet.
    fn invalid_files(files: Vec<InvalidFile>) -> Self {
        Self { status: 2, body: Body::Files(files) }
    }

    fn words(status: u8, message: impl Into<String>) -> Self {
        Self { status, body: Body::Words { message: message.into(), causes: Vec::new(), hint: None } }
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        if let Body::Words { hint, .. } = &mut self.body {
            *hint = Some(text.into());
        }
        self
    }

    /// A failure for each of these reasons.
    pub fn because(message: impl Into<String>, causes: impl IntoIterator<Item = impl ToString>) -> Self {
        let causes = causes.into_iter().map(|cause| cause.to_string()).collect();
        Self { status: 1, body: Body::Words { message: message.into(), causes, hint: None } }
    }

    /// Wishes for packages that cannot be met together.
    pub fn unsolvable(error: &SolveError) -> Self {
        Self::because("there is no way to install these packages together", &error.problems)
    }

    /// What failed, without causes and hint.
    pub fn message(&self) -> String {
        match &self.body {
            Body::Said => String::new(),
            Body::Files(files) => files.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            Body::Words { message, .. } => message.clone(),
        }
    }

    /// Prints the error on stderr, or as one object on stdout with `--json`.
    pub fn print(&self, settings: &Settings) {
        match &self.body {
            Body::Said => {}
            Body::Files(files) if settings.json => render::json(&problems(files, &self.message())),
            Body::Files(files) => {
                let shown = files.iter().map(|file| crate::fleet::render(file, settings.color));
                eprint!("{}", shown.collect::<Vec<_>>().join("\n"));
            }
            Body::Words { message, causes, hint } if settings.json => {
                render::json(&json!({ "error": message, "causes": causes, "hint": hint }));
            }
            Body::Words { message, causes, hint } => {
                let (red, bold, plain) =
                    if settings.color { ("\x1b[1;31m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
                eprintln!("{red}error{plain}{bold}:{plain} {message}");
                for cause in causes {
                    eprintln!("  because: {}", cause.trim_end().replace('\n', "\n    "));
                }
                if let Some(hint) = hint {
                    eprintln!("  help: {hint}");
                }
            }
        }
    }
}

fn problems(files: &[InvalidFile], message: &str) -> serde_json::Value {
    let of_file = |file: &InvalidFile| -> Vec<serde_json::Value> {
        let problems = file.problems.iter().map(|problem| {
            let (line, column) = file.line_column(problem.span.start);
            json!({
                "file": file.path, "line": line, "column": column,
                "message": problem.message, "hint": problem.hint,
            })
        });
        problems.collect()
    };
    json!({ "error": message, "problems": files.iter().flat_map(of_file).collect::<Vec<_>>() })
}

impl From<LoadError> for CliError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Invalid(invalid) => Self::invalid_files(vec![invalid]),
            LoadError::Read(error) => {
                let hint = match error.source.kind() {
                    ErrorKind::NotFound => {
                        "run `sisforge init` for a fleet.toml to start from, or name one with --file"
                    }
                    ErrorKind::IsADirectory => "name the file itself, as in --file DIR/fleet.toml",
                    ErrorKind::InvalidData => "save it as UTF-8",
                    _ => "make it readable for you, or name another with --file",
                };
                Self { status: 2, ..from_error(&error) }.hint(hint)
            }
        }
    }
}

/// Any other error of the library: its words, those of its causes, and a hint where one is known.
macro_rules! from_library {
    ($($error:ty => $status:expr),+ $(,)?) => {$(
        impl From<$error> for CliError {
            fn from(error: $error) -> Self {
                let status: fn(&$error) -> u8 = $status;
                Self { status: status(&error), ..from_error(&error) }
            }
        }
    )+};
}

from_library! {
    // A name that is not there is a wrong use, as that of a guest is.
    ApplyError => |error| if matches!(error, ApplyError::Snapshot(SnapshotError::None(_))) { 2 } else { 1 },
    ToolError => |_| 1,
    crate::sys::fs::FileError => |_| 1,
    crate::sys::cgroup::CgroupError => |_| 1,
    crate::sys::ip::IpError => |_| 1,
    crate::sys::ssh::SshError => |_| 1,
    crate::sys::git::GitError => |_| 1,
    crate::sys::launch::LaunchError => |_| 1,
    crate::sys::firecracker::UnknownVersion => |_| 1,
    crate::host::versions::VersionError => |_| 1,
    crate::host::desired::DesiredError => |_| 2,
    crate::apk::PackError => |_| 2,
    crate::apk::ConvertError => |_| 2,
    crate::apk::ContentsError => |_| 2,
    crate::apk::RepositoryError => |_| 2,
    crate::apk::KeyError => |_| 2,
    crate::lock::model::LockFileError => |_| 2,
    RepositoryError => repository_status,
    crate::image::read::ReadError => |_| 2,
}

impl From<ProjectError> for CliError {
    fn from(error: ProjectError) -> Self {
        match error {
            ProjectError::Invalid(files) => Self::invalid_files(files),
            ProjectError::Resolve(ResolveError::Registry(error)) => {
                Self { status: container_status(&error), ..from_error(&error) }
            }
            // A network that fails is no fault of whoever asked: `watch` tries again.
            ProjectError::Resolve(ResolveError::Repository(error)) if error.may_pass() => {
                Self { status: 1, ..from_error(&error) }
            }
            ProjectError::Resolve(ResolveError::Kernel(KernelSourceError::Fetch(error)))
                if error.may_pass() =>
            {
                Self { status: 1, ..from_error(&KernelSourceError::Fetch(error)) }
            }
            error => Self { status: 2, ..from_error(&error) },
        }
    }
}

impl From<BuildError> for CliError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Invalid(file) => Self::invalid_files(vec![file]),
            error => Self { status: build_status(&error), ..from_error(&error) },
        }
    }
}

/// What the configuration asks for and cannot be had is the configuration's fault; all else is a failure.
fn build_status(error: &crate::build::BuildError) -> u8 {
    use crate::build::BuildError as E;
    use crate::build::kernel::KernelError as K;
    match error {
        E::Stale(_)
        | E::Vendor(VendorError::Foreign(_) | VendorError::Place { .. })
        | E::NotLocked(_)
        | E::Unknown { .. }
        | E::ReadyKernel
        | E::UnpinnedKernel(_)
        | E::Layout { .. }
        | E::DiskLayout { .. }
        | E::ImagesLayout { .. }
        | E::Vmlinux(_) => 2,
        E::Registry(error) => container_status(error),
        E::Kernel(K::Unmet(_) | K::Needs(_) | K::ConfigLine(_) | K::Patch { .. }) => 2,
        _ => 1,
    }
}

/// A registry that fails is no fault of whoever asked, and may be in order at the next look.
fn container_status(error: &RegistryError) -> u8 {
    match error {
        RegistryError::Unsupported { .. } | RegistryError::Malformed { .. } => 2,
        _ => 1,
    }
}

/// A network that fails is no fault of whoever asked.
fn repository_status(error: &RepositoryError) -> u8 {
    use RepositoryError as E;
    if matches!(error, E::Offline { .. } | E::FetchIndex { .. } | E::FetchPackage { .. }) { 1 } else { 2 }
}

fn from_error(error: &(dyn Error + 'static)) -> CliError {
    let mut causes = Vec::new();
    let mut said = error.to_string();
    let message = said.clone();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // A transparent error says what its source says, and others end with it.
        if !said.ends_with(&text) {
            causes.push(text.clone());
            said = text;
        }
        next = cause.source();
    }
    CliError { status: 1, body: Body::Words { message, causes, hint: hint_for(error) } }
}

/// What to do about an error, found at any depth of its causes.
fn hint_for(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(hint) = hint_of(error) {
            return Some(hint);
        }
        next = error.source();
    }
    None
}

fn hint_of(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(ToolError::Missing { tool }) = error.downcast_ref() {
        return Some(match package_of(tool) {
            Some(package) => format!("install it: on Debian, `apt-get install {package}`"),
            None => format!("install {tool}, or put it on PATH"),
        });
    }
    if let Some(hint) = configuration_hint(error)
        .or_else(|| host_hint(error))
        .or_else(|| version_hint(error))
        .or_else(|| image_hint(error))
    {
        return Some(hint.to_owned());
    }
    let io: &std::io::Error = error.downcast_ref()?;
    match io.kind() {
        ErrorKind::PermissionDenied => Some("run it as root, or change the owner of that path".into()),
        ErrorKind::StorageFull => Some("free some space, then run the same command again".into()),
        ErrorKind::ReadOnlyFilesystem => Some("that file system is mounted read-only".into()),
        _ => None,
    }
}

/// What to do about a fleet that asks for what cannot be had.
fn configuration_hint(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let vmlinux = "[kernel] image takes a vmlinux, the ELF file at the top of a kernel's build directory; \
                   its scripts/extract-vmlinux gets it out of a bzImage";
    if let Some(error) = error.downcast_ref() {
        return repository_hint(error);
    }
    if let Some(DesiredError::Unsupported(_)) = error.downcast_ref() {
        return Some("install a Firecracker that has it, or remove the key");
    }
    if let Some(error) = error.downcast_ref() {
        return match error {
            ProjectError::Resolve(ResolveError::Repository(error)) => repository_hint(error),
            ProjectError::Resolve(ResolveError::Solve { .. }) => {
                Some("change the image's `packages`, those of its recipes, or the repositories")
            }
            ProjectError::Vmlinux(VmlinuxError::Unusable { .. }) => Some(vmlinux),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref() {
        return registry_hint(error);
    }
    match error.downcast_ref()? {
        BuildError::Repository(error) => repository_hint(error),
        BuildError::Registry(error) => registry_hint(error),
        BuildError::Vmlinux(VmlinuxError::Unusable { .. }) => Some(vmlinux),
        BuildError::UnpinnedKernel(_) => Some("`sisforge lock` finds it out"),
        BuildError::Vendor(VendorError::Foreign(_)) => {
            Some("name a directory that is empty or not there yet")
        }
        _ => None,
    }
}

fn registry_hint(error: &RegistryError) -> Option<&'static str> {
    let needs_login = matches!(error, RegistryError::Denied { .. } | RegistryError::Challenge { .. });
    needs_login.then_some(
        "images that everybody may pull are taken; of another, `skopeo copy docker://... oci-archive:FILE` makes a file",
    )
}

fn repository_hint(error: &RepositoryError) -> Option<&'static str> {
    Some(match error {
        RepositoryError::Index {
            source: IndexError::Signature(SignatureError::Untrusted { .. }), ..
        } => {
            "if you trust whoever signed it, put that key into the directory of trusted keys (`keys` of the [[repository]], --keys)"
        }
        RepositoryError::Package { source: PackageError { reason: Refusal::Digest { .. }, .. }, .. } => {
            "fleet.lock pins other bytes: get that file back, or take the new one with `sisforge lock --update`"
        }
        RepositoryError::Index { .. } | RepositoryError::Package { .. } => {
            "it was damaged or changed on its way: get it again, or make its index anew"
        }
        RepositoryError::Offline { .. } => "run once without --offline",
        RepositoryError::Nowhere { errors, .. } => return errors.first().and_then(repository_hint),
        _ => return None,
    })
}

/// What to do about a host that cannot take the fleet.
fn host_hint(error: &(dyn Error + 'static)) -> Option<&'static str> {
    if let Some(error) = error.downcast_ref() {
        return snapshot_hint(error);
    }
    match error.downcast_ref()? {
        ApplyError::DiskShared { .. } => Some(
            "stop the guest of that jail; a jail that nothing runs in can be removed, and the disk stays",
        ),
        ApplyError::NoFileSystem { .. } => {
            Some("a raw image of one ext4 file system is taken, without partitions")
        }
        ApplyError::Snapshot(error) => snapshot_hint(error),
        ApplyError::NoRoom { .. } => Some("free some space, or move [host] store to a larger file system"),
        ApplyError::UidTaken { .. } => Some("give the fleet a range that nobody has: [host] uids"),
        ApplyError::NoDevice(_) => {
            Some("remove `io` from the guests, or move [host] store to a file system on a disk")
        }
        ApplyError::Moved { .. } => Some(
            "take the old `jails` back; or with it take the fleet down, move the fleet's directories `disks` and `snapshots` to the new place, and go on there",
        ),
        ApplyError::NotRemoved { .. } => {
            Some("`lsattr` shows files that are immutable, `fuser -vm` shows who uses a mount")
        }
        ApplyError::Ended { why, .. } => why.remedy,
        ApplyError::Binary(_) => Some("install the static program of Firecracker's releases"),
        ApplyError::NoHugePages { .. } => Some(
            "set more aside, as with `sysctl vm.nr_hugepages=COUNT` (2 MiB each), or leave `huge-pages` out",
        ),
        ApplyError::MountedWithout { .. } => {
            Some("mount it otherwise, or move [host] store to another file system")
        }
        ApplyError::OutOfMemory { .. } => Some("give the guest more `memory`, or a smaller disk in memory"),
        _ => None,
    }
}

/// What to do about programs that do not fit.
fn version_hint(error: &(dyn Error + 'static)) -> Option<&'static str> {
    error.downcast_ref::<VersionError>()?;
    Some("install firecracker and jailer of one release, 1.10 to 1.16, and look with `firecracker --version`")
}

/// What to do about a snapshot that is not made or does not come back.
fn snapshot_hint(error: &SnapshotError) -> Option<&'static str> {
    Some(match error {
        SnapshotError::NotRunning(_) => {
            "`sisforge up` brings it up; its data disk is in the store without a snapshot too"
        }
        SnapshotError::NotReady(_) | SnapshotError::Paused(_) => {
            "`sisforge up` brings it to where it should be"
        }
        SnapshotError::HugePages(_) => {
            "leave `huge-pages` out of the machine of a guest that is to be frozen"
        }
        SnapshotError::Exists(_) => {
            "name another with --name, or remove that one with `sisforge snapshot rm`"
        }
        SnapshotError::None(_) => "`sisforge snapshot ls` lists those that there are",
        SnapshotError::Consumed { .. } | SnapshotError::Gone(_) => {
            "`sisforge snapshot ls` lists those that can be restored"
        }
        SnapshotError::Spent { .. } => "`sisforge up` boots the guest anew",
        _ => return None,
    })
}

/// What to do about an image that cannot be read.
fn image_hint(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let ReadError { flaw, .. } = error.downcast_ref()?;
    Some(match flaw {
        Flaw::Open(_) => return None,
        Flaw::NotExt4(_) => "an ext4 image is read, with blocks of 4096 bytes, such as those in out/image/",
        Flaw::Cut { .. } | Flaw::At { .. } => {
            "`e2fsck -fn` says more of it; one in out/ is made anew once its directory there is removed"
        }
        Flaw::TooMuch(_) => "no image of packages is as large: it may be forged",
    })
}

/// The Debian package that brings a tool.
fn package_of(tool: &str) -> Option<&'static str> {
    Some(match tool {
        "ip" => "iproute2",
        "nft" => "nftables",
        "qemu-system-x86_64" => "qemu-system-x86",
        "ssh" | "ssh-keygen" => "openssh-client",
        "git" => "git",
        "gpg" => "gpg",
        "make" => "make",
        "objcopy" => "binutils",
        "gcc" => "gcc",
        "patch" => "patch",
        _ => return None,
    })
}

/// What to do about an error, for a summary.
pub fn help(error: &(dyn Error + 'static)) -> Option<String> {
    hint_for(error)
}

/// The words of an error and of its causes in one line, for a summary.
pub fn one_line(error: &(dyn Error + 'static)) -> String {
    match from_error(error).body {
        Body::Words { message, causes, .. } => {
            std::iter::once(message).chain(causes).collect::<Vec<_>>().join(": ")
        }
        Body::Said | Body::Files(_) => String::new(),
    }
}
