//! Doctor: is this host ready for the fleet, and hardened.

use crate::apply::facts;
use crate::base::FleetName;
use crate::fleet::HostSpec;
use crate::host::doctor::{Check, Fix, FleetRequirements, checks};
use crate::host::layout::Layout;

use super::{RunError, Workspace};

/// What a host is judged by.
pub struct Doctor {
    requirements: FleetRequirements,
    layout: Layout,
    /// Whether there is a fleet; otherwise the host is judged by what any fleet needs.
    pub has_fleet: bool,
}

impl Doctor {
    /// For the fleet that counts, where there is one.
    pub fn new(workspace: &Workspace<'_>) -> Result<Self, RunError> {
        let fleet = workspace.settings.file.exists().then(|| workspace.fleet()).transpose()?;
        let layout = match &fleet {
            Some(fleet) => fleet.head().layout(),
            None => Layout::new(&HostSpec::default(), &nobody()),
        };
        let requirements = FleetRequirements::of(fleet.as_ref());
        Ok(Self { requirements, layout, has_fleet: fleet.is_some() })
    }

    /// What every check says of the host as it is now.
    pub fn checks(&self) -> Vec<Check> {
        checks(&facts::read(&self.requirements, &self.layout), &self.requirements)
    }
}

/// The name of no fleet.
fn nobody() -> FleetName {
    "none".parse().unwrap_or_else(|error| unreachable!("a name that is none: {error}"))
}

/// All that is safe to set on a host, by what its checks found.
pub fn fixes(found: &[Check]) -> Vec<Fix> {
    found.iter().flat_map(|check| check.fixes.clone()).collect()
}

/// Sets them until the next boot.
pub fn set(fixes: &[Fix]) -> Result<(), RunError> {
    Ok(fixes.iter().try_for_each(facts::fix)?)
}
