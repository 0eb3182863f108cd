//! What a running VMM is told, whichever it is.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use crate::fleet::VmmKind;
use crate::host::names::{
    API_SOCKET, FROZEN_MEMORY, FROZEN_STATE, QMP_SOCKET, RESTORED_MEMORY, RESTORED_STATE,
};
use crate::host::state::Machine;
use crate::sys::firecracker::snapshot::Load;
use crate::sys::firecracker::{Api, VmState};
use crate::sys::process::ProcessInfo;
use crate::sys::qemu::Qmp;
use crate::sys::socket::{Peer, Socket};

use super::ApplyError;

/// How long a VMM may take to stop its virtual CPUs (Firecracker itself waits up to 30 s for one).
pub(super) const PAUSE_LIMIT: Duration = Duration::from_secs(40);
/// How long it may take to connect, and to answer what is answered at once.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The control socket of a machine's VMM, whose jail is below `root`. It stands where the VMM may put another in its place, so
/// that nobody is talked to but that process.
pub(super) fn socket(root: &Path, machine: &Machine, vmm: &ProcessInfo) -> Socket {
    let name = match machine.vmm {
        VmmKind::Firecracker => API_SOCKET,
        VmmKind::Qemu => QMP_SOCKET,
    };
    Socket::within(root, name, Peer { pid: vmm.pid, uid: machine.uid })
}

/// The control socket of one VMM. After an error, connect again.
pub(super) enum Control {
    Firecracker(Api),
    Qemu(Qmp),
}

impl Control {
    /// To the VMM in a jail; connecting, and each answer that needs no work, may take as long as `patience`.
    ///
    /// # Errors
    /// Where it does not listen, or another does.
    pub fn connect(
        root: &Path,
        machine: &Machine,
        vmm: &ProcessInfo,
        patience: Duration,
    ) -> Result<Self, ApplyError> {
        let socket = socket(root, machine, vmm);
        Ok(match machine.vmm {
            VmmKind::Firecracker => Self::Firecracker(Api::connect_within(socket, patience)?),
            VmmKind::Qemu => Self::Qemu(Qmp::connect_within(socket, patience)?),
        })
    }

    /// Whether the guest's CPUs run.
    pub fn runs(&mut self) -> Result<bool, ApplyError> {
        Ok(match self {
            Self::Firecracker(api) => api.instance_info()?.state == VmState::Running,
            Self::Qemu(qmp) => qmp.query_status()? == "running",
        })
    }

    /// Stops the guest's CPUs.
    pub fn pause(&mut self) -> Result<(), ApplyError> {
        match self {
            Self::Firecracker(api) => Ok(api.clone().with_timeout(PAUSE_LIMIT).pause()?),
            Self::Qemu(qmp) => Ok(qmp.stop()?),
        }
    }

    /// Lets the guest's CPUs run again, within `limit`; it is no error where they do.
    pub fn resume(&mut self, limit: Duration) -> Result<(), ApplyError> {
        match self {
            Self::Firecracker(api) => Ok(api.clone().with_timeout(limit).resume()?),
            Self::Qemu(qmp) => Ok(qmp.cont()?),
        }
    }

    /// Writes the memory and the state of a paused guest. Firecracker writes into files of its jail, QEMU into `state`.
    pub fn save(&mut self, state: &File, limit: Duration) -> Result<(), ApplyError> {
        match self {
            Self::Firecracker(api) => {
                let [state, memory] = [FROZEN_STATE, FROZEN_MEMORY].map(|name| format!("/{name}"));
                Ok(api.clone().with_timeout(limit).create_snapshot(&state, &memory)?)
            }
            Self::Qemu(qmp) => Ok(qmp.save(state, limit)?),
        }
    }

    /// Loads a snapshot into a VMM that waits for one, and lets its CPUs run.
    pub fn load(
        &mut self,
        machine: &Machine,
        how: &LoadFlags,
        state: &File,
        limit: Duration,
    ) -> Result<(), ApplyError> {
        match self {
            Self::Firecracker(api) => {
                let [state, memory] = [RESTORED_STATE, RESTORED_MEMORY].map(|name| format!("/{name}"));
                let load = Load {
                    state: &state,
                    memory: &memory,
                    tap: how.other_tap.then_some(("eth0", machine.tap.as_str())),
                    clock_realtime: how.clock_realtime,
                };
                Ok(api.clone().with_timeout(limit).load_snapshot(&load)?)
            }
            Self::Qemu(qmp) => {
                qmp.load(state, limit)?;
                Ok(qmp.cont()?)
            }
        }
    }
}

/// What a load says beside its files, as far as the VMM understands it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LoadFlags {
    /// Whether the TAP is not the one that was there when the guest was frozen.
    pub other_tap: bool,
    /// Whether the guest's clock is put forward to the host's.
    pub clock_realtime: bool,
}
