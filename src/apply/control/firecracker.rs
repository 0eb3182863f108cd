//! Firecracker, through its API.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use crate::apply::ApplyError;
use crate::host::names::{FROZEN_MEMORY, FROZEN_STATE, RESTORED_MEMORY, RESTORED_STATE};
use crate::host::snapshot::SavedPages;
use crate::host::state::Machine;
use crate::host::vmm::{adjustments, session_disk_change};
use crate::sys::firecracker::snapshot::{Load, SnapshotType, format_version};
use crate::sys::firecracker::{Api, VmState};
use crate::sys::socket::Socket;

use super::{Driver, LoadFlags, PAUSE_LIMIT, VmmControl};

pub(super) struct FirecrackerDriver;

impl Driver for FirecrackerDriver {
    fn connect(&self, socket: Socket, patience: Duration) -> Result<Box<dyn VmmControl>, ApplyError> {
        Ok(Box::new(Api::connect_within(socket, patience)?))
    }

    fn state_format(&self, program: &Path) -> Result<Option<String>, ApplyError> {
        Ok(Some(format_version(program)?))
    }
}

impl VmmControl for Api {
    fn runs(&mut self) -> Result<bool, ApplyError> {
        Ok(self.instance_info()?.state == VmState::Running)
    }

    fn pause(&mut self) -> Result<(), ApplyError> {
        Ok(Self::pause(&self.clone().with_timeout(PAUSE_LIMIT))?)
    }

    fn resume(&mut self, limit: Duration) -> Result<(), ApplyError> {
        Ok(Self::resume(&self.clone().with_timeout(limit))?)
    }

    /// Into files of its jail.
    fn save(&mut self, _: &File, pages: SavedPages, limit: Duration) -> Result<(), ApplyError> {
        let [state, memory] = [FROZEN_STATE, FROZEN_MEMORY].map(|name| format!("/{name}"));
        let kind = match pages {
            SavedPages::All => SnapshotType::Full,
            SavedPages::Touched => SnapshotType::Diff,
        };
        Ok(self.clone().with_timeout(limit).create_snapshot(&state, &memory, kind)?)
    }

    /// The memory that it saves is a file of its own already.
    fn write_core(&mut self, _: &File, _: Duration) -> Result<(), ApplyError> {
        Ok(())
    }

    fn load(
        &mut self,
        machine: &Machine,
        how: &LoadFlags,
        _: &File,
        limit: Duration,
    ) -> Result<(), ApplyError> {
        let [state, memory] = [RESTORED_STATE, RESTORED_MEMORY].map(|name| format!("/{name}"));
        let load = Load {
            state: &state,
            memory: &memory,
            tap: how.other_tap.then_some(("eth0", machine.tap.as_str())),
            clock_realtime: how.clock_realtime,
        };
        Ok(self.clone().with_timeout(limit).load_snapshot(&load)?)
    }

    /// By Ctrl-Alt-Del.
    fn shut_down(self: Box<Self>, limit: Duration) -> Result<(), ApplyError> {
        Ok(self.with_timeout(limit).send_ctrl_alt_del()?)
    }

    /// It opens the file, and tells the guest's driver of the size by itself.
    fn change_session_disk(&mut self, path: &str, _: u64) -> Result<(), ApplyError> {
        let (api, body) = session_disk_change(path);
        Ok(self.patch(&api, &body)?)
    }

    fn adjust(&mut self, running: &Machine, machine: &Machine) -> Result<(), ApplyError> {
        for (path, body) in adjustments(running, machine) {
            self.patch(&path, &body)?;
        }
        Ok(())
    }
}
