//! QEMU, through its machine protocol.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use crate::apply::ApplyError;
use crate::host::snapshot::SavedPages;
use crate::host::state::Machine;
use crate::host::vmm::{SESSION_FILE, SESSION_NODE, balloon_target};
use crate::sys::qemu::Qmp;
use crate::sys::socket::Socket;

use super::{Driver, LoadFlags, VmmControl};

pub(super) struct QemuDriver;

impl Driver for QemuDriver {
    fn connect(&self, socket: Socket, patience: Duration) -> Result<Box<dyn VmmControl>, ApplyError> {
        Ok(Box::new(Connection(Qmp::connect_within(socket, patience)?)))
    }

    fn state_format(&self, _: &Path) -> Result<Option<String>, ApplyError> {
        Ok(None)
    }
}

struct Connection(Qmp);

impl VmmControl for Connection {
    fn runs(&mut self) -> Result<bool, ApplyError> {
        Ok(self.0.query_status()? == "running")
    }

    fn pause(&mut self) -> Result<(), ApplyError> {
        Ok(self.0.stop()?)
    }

    fn resume(&mut self, _: Duration) -> Result<(), ApplyError> {
        Ok(self.0.cont()?)
    }

    /// Into `state`, the memory with it, but for pages of zeros.
    fn save(&mut self, state: &File, _: SavedPages, limit: Duration) -> Result<(), ApplyError> {
        Ok(self.0.save(state, limit)?)
    }

    fn write_core(&mut self, core: &File, limit: Duration) -> Result<(), ApplyError> {
        Ok(self.0.write_core(core, limit)?)
    }

    fn load(&mut self, _: &Machine, _: &LoadFlags, state: &File, limit: Duration) -> Result<(), ApplyError> {
        self.0.load(state, limit)?;
        Ok(self.0.cont()?)
    }

    /// By the power button.
    fn shut_down(self: Box<Self>, limit: Duration) -> Result<(), ApplyError> {
        Ok(self.0.with_timeout(limit).system_powerdown()?)
    }

    /// The disk's node is opened anew upon another file, and then told the size of that file, which nobody makes larger or smaller
    /// by it.
    fn change_session_disk(&mut self, path: &str, size: u64) -> Result<(), ApplyError> {
        Ok(self.0.change_file(SESSION_NODE, SESSION_FILE, path, size)?)
    }

    /// How much memory the balloon leaves to the guest; no argument of its command line says that.
    fn adjust(&mut self, _: &Machine, machine: &Machine) -> Result<(), ApplyError> {
        match balloon_target(machine) {
            Some(target) => Ok(self.0.balloon(target)?),
            None => Ok(()),
        }
    }
}
