//! Reach: a guest that runs, and the ways into it.

use crate::apply::linux::LinuxHost;
use crate::apply::record::{self, Ready};
use crate::base::GuestName;
use crate::sys::ssh::Target;

use super::error::GuestError;
use super::fleet_host::OpenedHost;
use super::guests::declared_or_there;
use super::session::refuse_spare;
use super::{RunError, Workspace};

/// A guest by its name, and the host that it is on.
pub fn guest(workspace: &Workspace<'_>, name: &str) -> Result<(LinuxHost, GuestName), RunError> {
    let OpenedHost { host, declared } = OpenedHost::open(workspace)?;
    let guest = declared_or_there(name, &declared, &host)?;
    Ok((host, guest))
}

/// The guests whose logs are asked for: those named, else all that the fleet declares or the host has something of.
pub fn with_logs(
    workspace: &Workspace<'_>,
    names: &[String],
) -> Result<(LinuxHost, Vec<GuestName>), RunError> {
    let OpenedHost { host, mut declared } = OpenedHost::open(workspace)?;
    if names.is_empty() {
        declared.extend(record::guests(&host.layout)?);
        return Ok((host, declared.into_iter().collect()));
    }
    let guests =
        names.iter().map(|name| declared_or_there(name, &declared, &host)).collect::<Result<_, _>>()?;
    Ok((host, guests))
}

/// A guest whose VMM runs.
pub fn running(workspace: &Workspace<'_>, name: &str) -> Result<(LinuxHost, GuestName), RunError> {
    let (host, guest) = guest(workspace, name)?;
    refuse_spare(&host, &guest)?;
    match host.guest(&guest).vmm() {
        Some(_) => Ok((host, guest)),
        None => Err(GuestError::NotRunning(guest).into()),
    }
}

/// How a guest that is ready is logged in to, as its user.
pub fn ssh(workspace: &Workspace<'_>, name: &str) -> Result<Target, RunError> {
    ready(workspace, name).map(|(.., target)| target)
}

/// A guest that is ready, what it said of itself, and how it is logged in to.
pub fn ready(workspace: &Workspace<'_>, name: &str) -> Result<(GuestName, Ready, Target), RunError> {
    let (host, guest) = guest(workspace, name)?;
    refuse_spare(&host, &guest)?;
    let vmm = host.guest(&guest).vmm();
    let Some(ready) = host.guest(&guest).ready(vmm.as_ref())? else {
        return Err(GuestError::NotReady { guest, runs: vmm.is_some() }.into());
    };
    match host.guest(&guest).ssh_target(&ready)? {
        Some(target) => Ok((guest, ready, target)),
        None => Err(GuestError::NoSshd(guest).into()),
    }
}
