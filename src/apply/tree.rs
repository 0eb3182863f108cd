//! A guest's jail as `up` makes it, in a store of its own, with its manifest.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::base::GuestName;
use crate::fleet::VmmKind;
use crate::host::jail::jail;
use crate::host::manifest::{CopiedProgram, JailManifest, ManifestFacts, manifest};
use crate::host::wanted::WantedGuest;
use crate::sys::digest::verity_digest;
use crate::sys::fs::FileError;
use crate::sys::jailer::{self, DeviceNode};
use crate::sys::tool;

use super::linux::LinuxHost;
use super::{ApplyError, steps};
use crate::host::vmm;

/// Where Firecracker is looked for by a tree that is made where it is not installed.
const USUAL_PLACE: &str = "/usr/local/bin/firecracker";

/// What trees of this machine have in common.
pub struct JailerInstallation {
    executable: PathBuf,
    /// `None` where Firecracker is not installed.
    program: Option<CopiedProgram>,
    devices: Vec<DeviceNode>,
}

impl JailerInstallation {
    /// Of this machine, for guests that run on `vmm`.
    pub fn look(vmm: VmmKind) -> Result<Self, ApplyError> {
        let found = vmm::of(vmm).jailed_program().and_then(tool::find);
        let program = found.as_ref().map(|path| {
            let meta = std::fs::metadata(path).map_err(FileError::when("look at", path))?;
            let (digest, size) = verity_digest(path)?;
            // As the jailer copies it, under the umask that it is started with.
            Ok::<_, FileError>(CopiedProgram { mode: meta.permissions().mode() & 0o7755, size, digest })
        });
        Ok(Self {
            executable: found.unwrap_or_else(|| USUAL_PLACE.into()),
            program: program.transpose()?,
            devices: jailer::nodes(&std::fs::read_to_string("/proc/misc").unwrap_or_default()),
        })
    }
}

/// Lays out the jail of a guest as `up` would do it for the first time, with all that it links.
pub fn emit(
    host: &LinuxHost,
    name: &GuestName,
    guest: &WantedGuest,
    around: &JailerInstallation,
) -> Result<JailManifest, ApplyError> {
    let (layout, machine) = (&host.layout, guest.machine());
    for digest in machine.digests().into_iter().chain(guest.disk.map(|disk| disk.base)) {
        steps::store_file(host, &digest)?;
    }
    if let Some(own) = guest.disk {
        host.guest(name).create_disk(&own.base, own.uid)?;
    }
    let id = host.guest(name).create_jail(machine)?;
    let command = host.guest(name).vmm_command(id, machine, &around.executable);
    let facts = ManifestFacts {
        layout,
        root: &id.root(layout, name),
        command: command.argv().map(|word| word.to_string_lossy().into_owned()).collect(),
        cgroup: guest.cgroup,
        disk: guest.disk.map(|disk| disk.base),
        program: around.program.as_ref(),
        devices: &around.devices,
        size_of: &|digest| std::fs::metadata(layout.file(digest)).ok().map(|meta| meta.len()),
    };
    Ok(manifest(&jail(name, machine, layout), &facts))
}
