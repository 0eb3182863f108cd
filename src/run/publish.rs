//! Publish: the ports of the host that lead to guests, by fleet.toml and fleet.lock, and by what runs where this host is the fleet's.

use crate::base::{FleetName, GuestName};
use crate::host::desired::HostFacts;
use crate::host::publish::{PublishedPort, published};
use crate::lock::model::Lock;

use super::{RunError, Workspace, host};

/// The fleet's name, and all that it publishes.
pub fn all(workspace: &Workspace<'_>) -> Result<(FleetName, Vec<PublishedPort>), RunError> {
    let fleet = workspace.fleet()?;
    let path = workspace.lock_path();
    let lock = Lock::read(&path)?.ok_or(RunError::NoLock(path))?;
    // One that was brought back from a snapshot has the address that it brought along.
    let restored = HostFacts::restored(&host::look(&fleet.head())?);
    let address = |guest: &GuestName| {
        let locked = lock.guest.get(guest).map(|numbers| numbers.ip);
        restored.get(guest).map(|machine| machine.ip).or(locked)
    };
    let ways = published(&fleet, &lock, address);
    Ok((fleet.name, ways))
}
