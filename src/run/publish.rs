//! Publish: the ports of the host that lead to guests, by fleet.toml and fleet.lock alone.

use crate::base::FleetName;
use crate::host::publish::{PublishedPort, published};
use crate::lock::model::Lock;

use super::{RunError, Workspace};

/// The fleet's name, and all that it publishes.
pub fn all(workspace: &Workspace<'_>) -> Result<(FleetName, Vec<PublishedPort>), RunError> {
    let fleet = workspace.fleet()?;
    let path = workspace.lock_path();
    let lock = Lock::read(&path)?.ok_or(RunError::NoLock(path))?;
    let ways = published(&fleet, &lock, |guest| lock.guest.get(guest).map(|numbers| numbers.ip));
    Ok((fleet.name, ways))
}
