//! Status: how guests are, and what has drifted from the fleet.

use std::collections::BTreeSet;

use crate::apply::containers::{self, ContainerStatus};
use crate::apply::linux::LinuxHost;
use crate::apply::status::{self, GuestPhase, GuestStatus};
use crate::base::GuestName;
use crate::host::observed::ObservedHost;
use crate::plan::{GuestScope, Plan, Step, diff};

use super::fleet_host::FleetHost;
use super::{Deployment, Inputs, RunError, Workspace};

/// The guests that run, or all of them, by name.
pub fn guests(workspace: &Workspace<'_>, all: bool) -> Result<Vec<GuestStatus>, RunError> {
    let found = FleetHost::look(workspace)?;
    if all {
        return Ok(every_guest(&found.host, &found.observed, &found.declared));
    }
    let mut guests = status::guests(&found.host, &found.observed);
    guests.retain(|guest| guest.state != GuestPhase::Down);
    Ok(guests)
}

/// What became of the containers that were started in guests: each guest that is ready is asked, and waited for no longer than
/// seconds.
pub fn containers(workspace: &Workspace<'_>) -> Result<Vec<ContainerStatus>, RunError> {
    let found = FleetHost::look(workspace)?;
    Ok(containers_of(&found.host, &found.observed))
}

fn containers_of(host: &LinuxHost, observed: &ObservedHost) -> Vec<ContainerStatus> {
    let with = observed
        .guests
        .iter()
        .filter(|(_, guest)| guest.vmm.as_ref().is_some_and(|vmm| vmm.ready && !vmm.containers.is_empty()));
    containers::all(host, &with.map(|(name, _)| name.clone()).collect::<Vec<_>>())
}

/// Every guest that the fleet declares, or that the host has anything of.
pub(super) fn every_guest<'a>(
    host: &LinuxHost,
    observed: &'a ObservedHost,
    declared: impl IntoIterator<Item = &'a GuestName>,
) -> Vec<GuestStatus> {
    let names: BTreeSet<_> = observed.guests.keys().chain(declared).collect();
    names.into_iter().map(|name| status::guest(host, observed, name)).collect()
}

/// Every guest, and how the host differs from what the fleet wants.
#[derive(Debug)]
pub struct Status {
    pub guests: Vec<GuestStatus>,
    /// What became of containers: guests that have some are asked.
    pub containers: Vec<ContainerStatus>,
    /// What `up` would do; an error where that is not known, as before everything is built.
    pub drift: Result<Plan, RunError>,
}

impl Status {
    /// Why `up` would touch a guest.
    pub fn drift_of(&self, guest: &GuestName) -> Option<String> {
        let plan = self.drift.as_ref().ok()?;
        let steps = plan.stop.iter().chain(&plan.start).find(|steps| steps.guest == *guest)?;
        Some(steps.why.to_string())
    }

    /// What `up` would do to the host itself.
    pub fn host_steps(&self) -> impl Iterator<Item = &Step> {
        self.drift.iter().flat_map(|plan| plan.prepare.iter().chain(&plan.rules))
    }
}

/// Looks, and builds nothing and writes no lock: what is not there cannot be compared with.
pub fn status(workspace: &Workspace<'_>) -> Result<Status, RunError> {
    let mut deployment = Deployment::look(workspace, workspace.fleet()?)?;
    let drift = deployment
        .wanted(Inputs::AsTheyAre)
        .map(|wanted| diff(&deployment.observed, &wanted, GuestScope::All));
    let Deployment { fleet, host, observed, .. } = &deployment;
    let containers = containers_of(host, observed);
    Ok(Status { guests: every_guest(host, observed, fleet.guests.keys()), containers, drift })
}
