//! What stands in a jail once its VMM runs, node by node, with the call that starts it: the data that `tree` writes beside a
//! tree, for what a tree alone cannot tell (owners and devices, where no root writes it) and what the jailer adds.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::base::FileDigest;
use crate::base::{GuestName, Sha256};
use crate::fleet::VmmKind;
use crate::sys::jailer::{DeviceNode, FOLDERS};

use super::jail::{Jail, JailEntryKind};
use super::layout::Layout;
use super::state::{CPU_PERIOD, CgroupLimits};
use super::vmm;

/// A whole jail. Paths outside it are below the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JailManifest {
    pub guest: GuestName,
    pub vmm: VmmKind,
    /// The jail's root, which is the VMM's `/`.
    pub root: PathBuf,
    pub uid: u32,
    pub gid: u32,
    /// What is run in `root`, in the cgroup.
    pub command: Vec<String>,
    pub cgroup: Limited,
    /// Sorted by path; the root itself is `.`.
    pub entries: Vec<ManifestEntry>,
    /// What the VMM makes when it starts, and what comes and goes while it runs.
    pub run_time: Vec<String>,
}

/// A cgroup, below the root of each hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Limited {
    pub path: String,
    /// In bytes.
    pub memory: u64,
    pub pids: u64,
    /// Of `cpu_period`, in microseconds.
    pub cpu_quota: u64,
    pub cpu_period: u64,
    pub cpu_weight: u64,
    /// On the device that holds the jail, in a second; `null` is no limit.
    pub read_bytes: Option<u64>,
    pub write_bytes: Option<u64>,
    pub read_operations: Option<u64>,
    pub write_operations: Option<u64>,
}

impl Limited {
    fn new(path: String, limits: &CgroupLimits) -> Self {
        let io = &limits.io;
        Self {
            path,
            memory: limits.memory,
            pids: limits.pids,
            cpu_quota: limits.cpu_quota,
            cpu_period: CPU_PERIOD,
            cpu_weight: limits.cpu_weight,
            read_bytes: io.read_bytes,
            write_bytes: io.write_bytes,
            read_operations: io.read_operations,
            write_operations: io.write_operations,
        }
    }
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ManifestEntry {
    pub path: String,
    #[serde(flatten)]
    pub node: ManifestNode,
    /// Permissions in octal, such as `0444`.
    pub mode: String,
    pub uid: u32,
    pub gid: u32,
    pub made_by: Maker,
}

/// Who makes a node. What the jailer makes is not in a tree, because it refuses a jail that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Maker {
    Sisforge,
    Jailer,
}

/// What it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum ManifestNode {
    Directory,
    /// A tmpfs is mounted here.
    Tmpfs {
        /// In bytes.
        size: u64,
    },
    File {
        /// In bytes, holes included; unknown of a program that is not installed here.
        size: Option<u64>,
        /// `verity-` and what `fsverity digest` prints.
        digest: Option<String>,
        /// The file of the store that this is another name of.
        #[serde(skip_serializing_if = "Option::is_none")]
        link: Option<PathBuf>,
        /// Whether the VMM may change it.
        writable: bool,
    },
    Pipe,
    CharacterDevice {
        major: u32,
        minor: u32,
    },
}

/// What the jailer copies into the jail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedProgram {
    pub mode: u32,
    pub size: u64,
    pub digest: FileDigest,
}

/// What a manifest tells beyond the jail itself.
pub struct ManifestFacts<'a> {
    pub layout: &'a Layout,
    pub root: &'a Path,
    pub command: Vec<String>,
    pub cgroup: CgroupLimits,
    /// What a kept disk is a copy of while it is new.
    pub disk: Option<FileDigest>,
    /// The Firecracker that is installed here.
    pub program: Option<&'a CopiedProgram>,
    /// What the jailer makes here.
    pub devices: &'a [DeviceNode],
    /// Length of a stored file.
    pub size_of: &'a dyn Fn(&FileDigest) -> Option<u64>,
}

/// The manifest of a jail.
pub fn manifest(jail: &Jail, facts: &ManifestFacts<'_>) -> JailManifest {
    let vmm = vmm::of(jail.vmm);
    let mut entries: Vec<_> =
        jail.entries.iter().map(|entry| laid_out(jail, entry.path, &entry.kind, facts)).collect();
    let own = |path: &str, node, mode, made_by| entry(path, node, mode, jail.uid, made_by);
    if let Some(program) = vmm.jailed_program() {
        let made: Vec<_> = entries.iter().map(|entry| entry.path.clone()).collect();
        let is_made = |folder: &str| folder.is_empty() || made.iter().any(|path| path == folder);
        let folders = FOLDERS.iter().filter(|folder| !is_made(folder));
        entries.extend(folders.map(|path| own(path, ManifestNode::Directory, 0o700, Maker::Jailer)));
        entries.extend(facts.devices.iter().map(|device| {
            let node = ManifestNode::CharacterDevice { major: device.major, minor: device.minor };
            own(device.path, node, 0o600, Maker::Jailer)
        }));
        let (size, digest) = facts.program.map(|program| (program.size, program.digest.to_string())).unzip();
        let mode = facts.program.map_or(0o755, |program| program.mode);
        let copy = ManifestNode::File { size, digest, link: None, writable: true };
        entries.push(own(program, copy, mode, Maker::Jailer));
    }
    // The jailer gives it to the guest's uid, and it is taken back once the guest is ready.
    entries.push(entry("", ManifestNode::Directory, 0o755, 0, Maker::Sisforge));
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    JailManifest {
        guest: jail.guest.clone(),
        vmm: jail.vmm,
        root: below_store(facts.layout, facts.root),
        uid: jail.uid,
        gid: jail.uid,
        command: facts.command.clone(),
        cgroup: Limited::new(facts.layout.cgroup(&jail.guest), &facts.cgroup),
        entries,
        run_time: vmm.run_time_files().iter().map(|path| (*path).to_owned()).collect(),
    }
}

fn laid_out(jail: &Jail, path: &str, kind: &JailEntryKind, facts: &ManifestFacts<'_>) -> ManifestEntry {
    let own = |node, mode| entry(path, node, mode, jail.uid, Maker::Sisforge);
    let file = |digest: Option<FileDigest>, link: Option<&Path>, writable| ManifestNode::File {
        size: digest.as_ref().and_then(facts.size_of),
        digest: digest.map(|digest| digest.to_string()),
        link: link.map(|link| below_store(facts.layout, link)),
        writable,
    };
    match kind {
        JailEntryKind::OwnDirectory => own(ManifestNode::Directory, 0o700),
        JailEntryKind::Directory => entry(path, ManifestNode::Directory, 0o755, 0, Maker::Sisforge),
        JailEntryKind::Tmpfs { size } => {
            entry(path, ManifestNode::Tmpfs { size: *size }, 0o755, 0, Maker::Sisforge)
        }
        JailEntryKind::SharedLink { from } => {
            entry(path, file(from.digest(), Some(from.path()), false), 0o444, 0, Maker::Sisforge)
        }
        JailEntryKind::OwnLink { from } => own(file(facts.disk, Some(from), true), 0o600),
        JailEntryKind::OwnCopy { from } => own(file(from.digest(), None, true), 0o600),
        JailEntryKind::OwnBlank { size } => {
            own(ManifestNode::File { size: Some(*size), digest: None, link: None, writable: true }, 0o600)
        }
        JailEntryKind::Pipe => own(ManifestNode::Pipe, 0o600),
        JailEntryKind::Bytes(bytes) => {
            let (size, digest) = (Some(bytes.len() as u64), Some(Sha256::of(bytes).to_string()));
            entry(
                path,
                ManifestNode::File { size, digest, link: None, writable: false },
                0o444,
                0,
                Maker::Sisforge,
            )
        }
    }
}

fn entry(path: &str, node: ManifestNode, mode: u32, uid: u32, made_by: Maker) -> ManifestEntry {
    let path = if path.is_empty() { "." } else { path };
    ManifestEntry { path: path.to_owned(), node, mode: format!("{mode:04o}"), uid, gid: uid, made_by }
}

fn below_store(layout: &Layout, path: &Path) -> PathBuf {
    path.strip_prefix(layout.jails_root()).unwrap_or(path).to_owned()
}
