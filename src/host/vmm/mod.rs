//! What depends on which VMM runs a guest: one trait, with a home for each. What all guests' kernels are told stands here, too.

use std::net::Ipv4Addr;
use std::path::Path;

use crate::base::FileDigest;
use crate::base::GuestName;
use crate::fleet::{MachineSpec, VmmKind};
use crate::sys::jailer::Cause;
use crate::sys::tool::Tool;

use super::layout::Layout;
use super::logs::LogStream;
use super::state::Machine;

mod firecracker;
mod qemu;

pub use firecracker::{adjustments, session_disk_change};
pub use qemu::{SESSION_FILE, SESSION_NODE, balloon_target};

/// A VMM, as far as it is data.
pub trait VmmProfile: Sync {
    /// Its program, by which it is found and asked for its version.
    fn program(&self) -> &'static str;

    /// The programs that a host needs to start it.
    fn needed_programs(&self) -> &'static [&'static str];

    /// Its program where a jailer copies it into the jail and makes devices there; `None` where it enters its jail by itself.
    fn jailed_program(&self) -> Option<&'static str>;

    /// Whether it runs guests by KVM, and by nothing else.
    fn needs_kvm(&self) -> bool;

    /// What starts it in the root of its jail, which is laid out.
    fn command(&self, start: &VmmStart<'_>) -> Tool;

    /// Bytes that it takes beside its guest's memory; page tables and socket buffers count, too.
    fn memory_overhead(&self, kvm: bool) -> u64;

    /// Its own part of the kernel command line, of a machine that KVM runs or that it emulates.
    fn boot_words(&self, kvm: bool) -> &'static [&'static str];

    /// The configuration that stands in its jail, where it reads one.
    fn configuration(&self, machine: &Machine) -> Option<Vec<u8>>;

    /// Pipes that it opens by their names in its jail.
    fn pipes(&self, machine: &Machine) -> Vec<&'static str>;

    /// Its pipes, where the jail's root is `root`. That of the serial port comes first: it is the VMM's stdout, so it ends when
    /// the VMM does.
    fn log_streams(&self, layout: &Layout, guest: &GuestName, root: &Path) -> Vec<LogStream>;

    /// The socket in its jail by which it is controlled.
    fn control_socket(&self) -> &'static str;

    /// What it makes in its jail when it starts, and what comes and goes while it runs.
    fn run_time_files(&self) -> &'static [&'static str];

    /// Whether it shapes its guest's traffic by the rates of a network policy: what exceeds them then waits there instead of being
    /// dropped by the host's rules.
    fn shapes_traffic(&self) -> bool;

    /// Whether its guest's clock goes on while its processors stand still.
    fn keeps_time_while_paused(&self) -> bool;

    /// Makes of a machine what it is when it starts: not all can be said before.
    fn reduce_to_start(&self, machine: &mut Machine);

    /// Takes over all that can be changed while a guest runs.
    fn adjust(&self, spec: &mut MachineSpec<FileDigest>, wanted: &MachineSpec<FileDigest>);

    /// Whether a snapshot of such a machine could be restored.
    fn can_freeze(&self, machine: &Machine) -> bool;

    /// Whether a snapshot's files stand in the jail by name, its memory in one of its own. Otherwise both come over one open file.
    fn has_snapshot_in_jail(&self) -> bool;

    /// Whether the state of a guest depends on the processor and the kernel beneath. Software emulation does not.
    fn needs_its_host(&self, machine: &Machine) -> bool;

    /// Whether this version can give a guest another TAP than that with which it was frozen.
    fn can_change_tap(&self, version: &str) -> bool;

    /// Whether this version can write a snapshot without the pages that its guest never touched.
    fn can_leave_untouched(&self, version: &str) -> bool;

    /// What a version, a build and a snapshot's format of it are called.
    fn origin_words(&self) -> [&'static str; 3];

    /// Why it ended, by what it said.
    fn cause(&self, log: &str) -> Option<Cause>;

    /// What an exit status of it means.
    fn exit_reason(&self, status: i32) -> Option<&'static str>;

    /// What helps against an end with such a status.
    fn exit_remedy(&self, status: i32) -> Option<&'static str>;
}

/// The one home of a kind of VMM.
pub fn of(kind: VmmKind) -> &'static dyn VmmProfile {
    match kind {
        VmmKind::Firecracker => &firecracker::Firecracker,
        VmmKind::Qemu => &qemu::Qemu,
    }
}

/// A VMM that is to be started.
#[derive(Clone, Copy, Debug)]
pub struct VmmStart<'a> {
    pub guest: &'a GuestName,
    /// That of its jail.
    pub attempt: u32,
    pub machine: &'a Machine,
    pub layout: &'a Layout,
    pub files: FileLimits,
    /// The binary that the jailer copies, static; nothing where no jailer does.
    pub executable: &'a Path,
}

/// What a VMM may do with files; nothing that it writes to grows beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLimits {
    /// At a time.
    pub open: u64,
    /// Of a file that it writes, in bytes.
    pub size: u64,
}

/// The jailer's own default.
const OPEN_FILES: u64 = 2048;
/// Room beside the largest file, for what a VMM writes with a snapshot.
const FILE_MARGIN: u64 = 64 << 20;

/// The limits of a machine whose data disk has so many bytes. A snapshot writes the guest's memory to one file, and a session's disk
/// is no larger than its place.
pub fn file_limits(machine: &Machine, disk: u64) -> FileLimits {
    let memory = machine.memory_mib << 20;
    // QEMU names each page that it writes.
    let largest = disk.max(machine.session_disk.unwrap_or_default()).max(memory + memory / 64);
    FileLimits { open: OPEN_FILES, size: largest + FILE_MARGIN }
}

impl Machine {
    /// What the VMM of this machine is when it starts.
    #[must_use]
    pub fn as_started(&self) -> Self {
        let mut started = self.clone();
        of(self.vmm).reduce_to_start(&mut started);
        started
    }

    /// This machine as `other` is in all that its VMM can change while the guest runs: rates, and the balloon's size.
    #[must_use]
    pub fn adjusted_to(&self, other: &Self) -> Self {
        let mut adjusted = self.clone();
        of(self.vmm).adjust(&mut adjusted.spec, &other.spec);
        adjusted
    }
}

/// The size of a balloon that is there, as it is wanted.
fn adjust_balloon(spec: &mut MachineSpec<FileDigest>, wanted: &MachineSpec<FileDigest>) {
    if let (Some(balloon), Some(wanted)) = (&mut spec.balloon, &wanted.balloon) {
        balloon.size_mib = wanted.size_mib;
    }
}

/// What the guest's kernel is told of itself.
#[derive(Clone, Debug)]
pub struct BootInfo<'a> {
    pub guest: &'a GuestName,
    pub ip: Ipv4Addr,
    pub host: Ipv4Addr,
    /// Whom it is to ask for names.
    pub dns: Option<Ipv4Addr>,
    /// Base64 part of the ed25519 key that may log in; none where there is no key yet.
    pub ssh_key: Option<&'a str>,
    /// The block device that has the place of a session's disk, such as `vdc`.
    pub session_disk: Option<&'static str>,
}

/// Longest command line that Firecracker and the x86 kernel take, in bytes.
pub const COMMAND_LINE_MAX: usize = 2048;

/// The kernel command line. Firecracker appends `root=` and what finds its devices; QEMU's microvm machine
/// describes its devices by ACPI and appends nothing.
pub fn command_line(vmm: VmmKind, kvm: bool, boot: &BootInfo<'_>) -> String {
    let (ip, host, guest) = (boot.ip, boot.host, boot.guest);
    let mut words = vec![
        "console=ttyS0".to_owned(),
        "panic=-1".to_owned(),
        "nomodule".to_owned(),
        // Per-CPU memory grows by 2 MiB a CPU otherwise, and memory cgroups keep 4 MiB of books on each such piece: the first
        // container of a guest would cost it that.
        "percpu_alloc=page".to_owned(),
        "quiet".to_owned(),
        format!("ip={ip}::{host}:255.255.255.252:{guest}:eth0:off"),
    ];
    words.extend(of(vmm).boot_words(kvm).iter().map(|word| (*word).to_owned()));
    words.extend(boot.dns.map(|server| format!("sisforge.dns={server}")));
    words.extend(boot.session_disk.map(|device| format!("sisforge.session-disk={device}")));
    if let Some(key) = boot.ssh_key {
        words.push(format!("sisforge.key={key}"));
    }
    words.join(" ")
}
