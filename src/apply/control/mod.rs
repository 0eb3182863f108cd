//! What a running VMM is told, whichever it is: one trait, with a home for each.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use crate::fleet::VmmKind;
use crate::host::snapshot::SavedPages;
use crate::host::state::Machine;
use crate::host::vmm;
use crate::sys::process::ProcessInfo;
use crate::sys::socket::{Peer, Socket};

use super::ApplyError;

mod firecracker;
mod qemu;

/// How long a VMM may take to stop its virtual CPUs (Firecracker itself waits up to 30 s for one).
pub(super) const PAUSE_LIMIT: Duration = Duration::from_secs(40);
/// How long it may take to connect, and to answer what is answered at once.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to one VMM. After an error, connect again.
pub(super) trait VmmControl {
    /// Whether the guest's CPUs run.
    fn runs(&mut self) -> Result<bool, ApplyError>;

    /// Stops the guest's CPUs.
    fn pause(&mut self) -> Result<(), ApplyError>;

    /// Lets the guest's CPUs run again, within `limit`; it is no error where they do.
    fn resume(&mut self, limit: Duration) -> Result<(), ApplyError>;

    /// Writes the memory and the state of a paused guest, into files of its jail or into `state`.
    fn save(&mut self, state: &File, pages: SavedPages, limit: Duration) -> Result<(), ApplyError>;

    /// Writes the memory of a paused guest as an ELF core, where the VMM can and what it [saves](Self::save) is none.
    fn write_core(&mut self, core: &File, limit: Duration) -> Result<(), ApplyError>;

    /// Loads a snapshot into a VMM that waits for one, and lets its CPUs run.
    fn load(
        &mut self,
        machine: &Machine,
        how: &LoadFlags,
        state: &File,
        limit: Duration,
    ) -> Result<(), ApplyError>;

    /// Asks the guest's init to shut down; the VMM may take as long as `limit` to say that it passed that on.
    fn shut_down(self: Box<Self>, limit: Duration) -> Result<(), ApplyError>;

    /// Gives the place of a session's disk, of a guest that runs or stands still, a file of its jail. `path` is below the jail's root,
    /// `size` in bytes.
    fn change_session_disk(&mut self, path: &str, size: u64) -> Result<(), ApplyError>;

    /// Makes the machine that runs another of [`Machine::adjusted_to`].
    fn adjust(&mut self, running: &Machine, machine: &Machine) -> Result<(), ApplyError>;
}

/// What a load says beside its files, as far as the VMM understands it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LoadFlags {
    /// Whether the TAP is not the one that was there when the guest was frozen.
    pub other_tap: bool,
    /// Whether the guest's clock is put forward to the host's.
    pub clock_realtime: bool,
}

/// How one kind of VMM is talked to.
pub(super) trait Driver {
    /// Connecting, and each answer that needs no work, may take as long as `patience`.
    fn connect(&self, socket: Socket, patience: Duration) -> Result<Box<dyn VmmControl>, ApplyError>;

    /// The version of a snapshot's state as a program writes it; `None` where it tells none.
    fn state_format(&self, program: &Path) -> Result<Option<String>, ApplyError>;
}

/// The one home of a kind of VMM.
pub(super) fn driver(kind: VmmKind) -> &'static dyn Driver {
    match kind {
        VmmKind::Firecracker => &firecracker::FirecrackerDriver,
        VmmKind::Qemu => &qemu::QemuDriver,
    }
}

/// To the VMM of a machine, whose jail is below `root`. Its socket stands where the VMM may put another in its place, so that
/// nobody is talked to but that process.
pub(super) fn connect(
    root: &Path,
    machine: &Machine,
    vmm: &ProcessInfo,
    patience: Duration,
) -> Result<Box<dyn VmmControl>, ApplyError> {
    let peer = Peer { pid: vmm.id.pid, uid: machine.uid };
    let socket = Socket::within(root, vmm::of(machine.vmm).control_socket(), peer);
    driver(machine.vmm).connect(socket, patience)
}
