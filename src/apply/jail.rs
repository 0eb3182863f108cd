//! Jail directories: laid out from data, removed without following a link.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use crate::fleet::{GuestName, VmmKind};
use crate::host::jail::{EntryKind, Jail, jail};
use crate::host::layout::{Layout, vmm_folder};
use crate::host::state::Machine;
use crate::sys::fs::{self as files, FileError};
use crate::sys::mount;

use super::ApplyError;
use super::linux::{Scope, copy};

/// Lays out the jail of a machine; there is none before.
///
/// # Errors
/// Where something cannot be made; what was made is removed by the next [`remove`].
pub fn create(layout: &Layout, scope: Scope, guest: &GuestName, machine: &Machine) -> Result<(), ApplyError> {
    prepare_logs(layout, scope, guest, machine)?;
    lay_out(&jail(guest, machine, layout), scope, &layout.jail_root(machine.vmm, guest))
}

/// The logs of a new start: those of the last one are kept beside them.
fn prepare_logs(
    layout: &Layout,
    scope: Scope,
    guest: &GuestName,
    machine: &Machine,
) -> Result<(), ApplyError> {
    files::create_private_dir(&layout.guest(guest))?;
    for log in [layout.serial_log(guest), layout.vmm_log(guest), layout.launch_log(guest)] {
        if log.exists() {
            let previous = log.with_extension("log.1");
            fs::rename(&log, &previous).map_err(FileError::when("rename", &log))?;
        }
        files::write(&log, b"", 0o600)?;
    }
    // Firecracker opens its log itself, as the guest's user.
    scope.chown(&layout.vmm_log(guest), machine.uid)
}

/// Lays out a jail below `root`.
///
/// # Errors
/// Where something cannot be made.
pub fn lay_out(jail: &Jail, scope: Scope, root: &Path) -> Result<(), ApplyError> {
    // Others may pass through, the jails' own parent lets only root in.
    files::create_dirs(root, 0o755)?;
    for entry in &jail.entries {
        let path = root.join(entry.path);
        let failed = |action: &'static str| FileError::when(action, &path);
        match &entry.kind {
            EntryKind::OwnDirectory => own_directory(&path, scope, jail.uid)?,
            EntryKind::Tmpfs { size } => {
                own_directory(&path, scope, jail.uid)?;
                if scope == Scope::WholeHost {
                    mount::tmpfs(&path, *size, jail.uid, jail.uid, 0o700)?;
                }
            }
            EntryKind::SharedLink { from } => fs::hard_link(from, &path).map_err(failed("link"))?,
            EntryKind::OwnLink { from } => {
                scope.chown(from, jail.uid)?;
                fs::hard_link(from, &path).map_err(failed("link"))?;
            }
            EntryKind::OwnCopy { from } => {
                copy(from, &path)?;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
                    .map_err(failed("set the mode of"))?;
                scope.chown(&path, jail.uid)?;
            }
            EntryKind::Bytes(bytes) => files::write(&path, bytes, 0o444)?,
        }
    }
    Ok(())
}

fn own_directory(path: &Path, scope: Scope, uid: u32) -> Result<(), ApplyError> {
    DirBuilder::new().mode(0o700).create(path).map_err(FileError::when("create", path))?;
    scope.chown(path, uid)
}

/// Unmounts and removes whatever jails a guest has.
///
/// # Errors
/// Where something cannot be unmounted or removed.
pub fn remove(layout: &Layout, guest: &GuestName) -> Result<(), ApplyError> {
    for vmm in [VmmKind::Firecracker, VmmKind::Qemu] {
        let dir = layout.jail(vmm, guest);
        for target in mount::mounts_below(&dir)? {
            mount::unmount(&target)?;
        }
        files::remove(&dir)?;
    }
    remove_parents(layout);
    for record in [layout.machine(guest), layout.ready(guest), layout.console_input(guest)] {
        files::remove(&record)?;
    }
    Ok(())
}

/// Removes the directories that jails stand in where they are empty, so that nothing is left of a fleet that is down.
pub fn remove_parents(layout: &Layout) {
    let jails = layout.jails();
    for vmm in [VmmKind::Firecracker, VmmKind::Qemu] {
        // One that is in use stays.
        let _ = fs::remove_dir(jails.join(vmm_folder(vmm)));
    }
    let _ = fs::remove_dir(jails);
}

/// Whether a guest has a jail directory of any VMM.
pub fn exists(layout: &Layout, guest: &GuestName) -> bool {
    [VmmKind::Firecracker, VmmKind::Qemu].iter().any(|vmm| layout.jail(*vmm, guest).exists())
}
