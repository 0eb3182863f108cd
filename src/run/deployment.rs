//! A fleet on its host: the way from what is there to what should be, which all use cases go.

use std::cell::LazyCell;

use crate::apply::linux::LinuxHost;
use crate::apply::{Host, disk, preflight, resolver};
use crate::base::GuestName;
use crate::fleet::Fleet;
use crate::host::desired::{Artifacts, HostFacts, desired};
use crate::host::observed::ObservedHost;
use crate::host::policy::PolicyChange;
use crate::host::resolver::ConfiguredNames;
use crate::host::wanted::WantedHost;
use crate::lock::model::Lock;
use crate::plan::{
    GuestScope, NetworkStep, Plan, PolicyNames, Step, diff, losses, name_changes, reload, restart, shrinking,
};
use crate::sys::ssh;

use super::error::HostNetworkError;
use super::held::{FoundOnHost, Held};
use super::session_containers::end_with_containers;
use super::{Inputs, LockedProject, RunError, Workspace, facts, host, retention};

/// A fleet, its host, and what that has of it.
pub struct Deployment<'a> {
    pub workspace: &'a Workspace<'a>,
    pub fleet: Fleet,
    pub host: LinuxHost,
    pub observed: ObservedHost,
}

impl FoundOnHost for Deployment<'_> {
    fn workspace_and_host(&self) -> (&Workspace<'_>, &LinuxHost) {
        (self.workspace, &self.host)
    }
}

impl<'a> Deployment<'a> {
    /// Looks at a fleet's host, and may not change it.
    pub fn look(workspace: &'a Workspace<'a>, fleet: Fleet) -> Result<Self, RunError> {
        let host = host::open(&fleet.head())?;
        let observed = host.observe()?;
        Ok(Self { workspace, fleet, host, observed })
    }

    /// Holds a fleet's host, waiting for another process that does, and looks at it.
    pub fn hold(workspace: &'a Workspace<'a>, fleet: Fleet) -> Result<Held<Self>, RunError> {
        let host = host::open(&fleet.head())?;
        let lock = host::hold(&host.layout, workspace.report)?;
        let observed = host.observe()?;
        host.keep_read_rules();
        Ok(Held::new(Self { workspace, fleet, host, observed }, lock))
    }

    /// Builds what is missing of a fleet, and then holds its host. Whoever held that meanwhile may have carried out a newer fleet,
    /// which stands: where the file is another by then, all begins again with that.
    pub(super) fn hold_built(
        workspace: &'a Workspace<'a>,
        mut fleet: Fleet,
        inputs: Inputs,
    ) -> Result<(Held<Self>, BuiltFleet), RunError> {
        loop {
            let built = BuiltFleet::before_hold(workspace, &fleet, inputs)?;
            end_with_containers(&fleet)?;
            let held = Self::hold(workspace, fleet)?;
            fleet = workspace.fleet()?;
            if fleet == held.fleet {
                return Ok((held, built));
            }
            workspace.report.note("fleet.toml was changed meanwhile, so that all begins again");
        }
    }

    /// What the fleet wants of its host, from its lock and what is built by it; the host then knows its artifacts. What
    /// goes on from a snapshot there is wanted as it is.
    pub fn wanted(&mut self, inputs: Inputs) -> Result<WantedHost, RunError> {
        self.basis(inputs)?.wanted(&self.fleet)
    }

    /// What the wanted host is found from: lock, artifacts and facts.
    pub(super) fn basis(&mut self, inputs: Inputs) -> Result<Basis, RunError> {
        facts::check_subnet(&self.fleet, &self.host.layout)?;
        let built = BuiltFleet::find(self.workspace, &self.fleet, inputs)?;
        self.basis_of(built)
    }

    /// The basis of a plan for a fleet that is built already.
    pub(super) fn basis_of(&mut self, built: BuiltFleet) -> Result<Basis, RunError> {
        Basis::find(self.workspace, &self.fleet, built, &mut self.host, &self.observed)
    }

    /// What brings these guests to what is wanted, with what a user is to know of it.
    ///
    /// # Errors
    /// Where a data disk would have to be made smaller.
    pub fn plan(&self, wanted: &WantedHost, guests: GuestScope<'_>) -> Result<Plan, RunError> {
        self.checked(diff(&self.observed, wanted, guests), wanted, guests)
    }

    /// What brings these guests to what is wanted, and starts each anew.
    pub(super) fn restarting(&self, wanted: &WantedHost, guests: &[GuestName]) -> Result<Plan, RunError> {
        let plan = restart(&self.observed, wanted, guests);
        self.checked(plan, wanted, GuestScope::Only(guests))
    }

    /// What brings the rules of the network to what is wanted.
    pub(super) fn reloading(&self, wanted: &WantedHost) -> Result<Plan, RunError> {
        self.checked(reload(&self.observed, wanted), wanted, GuestScope::Only(&[]))
    }

    fn checked(&self, mut plan: Plan, wanted: &WantedHost, guests: GuestScope<'_>) -> Result<Plan, RunError> {
        let shrinking = shrinking(&self.observed, wanted, guests);
        if !shrinking.is_empty() {
            return Err(RunError::Shrinks(shrinking));
        }
        self.check_host_network(guests)?;
        let published = wanted.network.as_ref().map(|network| network.rules.published.as_slice());
        facts::check_ports(&self.fleet, &self.observed, published.unwrap_or_default())?;
        // A lock that cannot be read is told of by whoever needs it.
        let lock = LazyCell::new(|| Lock::read(&self.workspace.lock_path()).ok().flatten());
        let is_locked = |guest: &GuestName| lock.as_ref().is_some_and(|lock| lock.guest.contains_key(guest));
        plan.notes.extend(losses(&plan, &self.observed, wanted, is_locked));
        let names = self.name_changes(&plan, wanted);
        plan.policy_changes.extend(names);
        // One whose ledger is not whole is told of by whoever wants something of it.
        let outdated = retention::due(&self.host.layout, &self.fleet.snapshots).unwrap_or_default();
        plan.notes.extend(outdated.iter().map(|one| {
            format!(
                "snapshot {} goes with the next `snapshot create`, `gc` or `watch`: {}",
                one.name, one.why
            )
        }));
        plan.notes.extend(disk::promises(&self.host, &self.observed, wanted, guests));
        let shortage =
            preflight::memory_shortage(&plan, &self.host).filter(|shortage| !shortage.is_certain());
        plan.notes.extend(shortage.map(|shortage| shortage.to_string()));
        Ok(plan)
    }

    /// Which names a plan opens and closes, where it is known what guests could ask for.
    fn name_changes(&self, plan: &Plan, wanted: &WantedHost) -> Vec<PolicyChange> {
        let is_one = |step: &Step| {
            matches!(step, Step::Network(NetworkStep::LoadRuleset(_) | NetworkStep::StartResolver(_)))
        };
        let after = wanted.ruleset.as_ref().map(|ruleset| &ruleset.policies);
        let Some((before, after)) = self.observed.policies.as_ref().zip(after) else { return Vec::new() };
        if !plan.rules.iter().any(is_one) {
            return Vec::new();
        }
        let named = wanted.resolvers.values().map(|it| (it.policy.clone(), ConfiguredNames::wanted(it)));
        let configured = resolver::configured(&self.host.layout, &self.observed);
        name_changes(
            PolicyNames { policies: before, names: &configured },
            PolicyNames { policies: after, names: &named.collect() },
        )
    }

    /// Makes the key by which the host reaches its guests, unless it is there. It is part of what each guest is told, so
    /// whoever starts guests holds the host and does this before it is asked what they should be.
    pub(super) fn make_key(&self) -> Result<(), RunError> {
        Ok(ssh::keygen(&self.host.layout.key(), &self.host.layout.new_key())?)
    }

    /// Refuses a plan for some guests while others still run in the host's own network, where an earlier sisforge put them: the new
    /// rules would cut those off.
    pub(super) fn check_host_network(&self, guests: GuestScope<'_>) -> Result<(), RunError> {
        let mut earlier = self.observed.guests.iter().filter(|(_, guest)| guest.is_in_host());
        match earlier.next() {
            Some((guest, _)) if guests != GuestScope::All => {
                Err(HostNetworkError::OthersInHostNetwork(guest.clone()).into())
            }
            _ => Ok(()),
        }
    }
}

/// The guests that were named, or all where none was.
pub(super) fn scope(names: &[GuestName]) -> GuestScope<'_> {
    if names.is_empty() { GuestScope::All } else { GuestScope::Only(names) }
}

/// A fleet's lock, and all that is built by it.
#[derive(Clone)]
pub(super) struct BuiltFleet {
    lock: Lock,
    artifacts: Artifacts,
}

impl BuiltFleet {
    /// Builds what is missing, for whoever is about to hold the host: a build may take hours, and nobody else is to wait for it.
    ///
    /// # Errors
    /// Where the fleet cannot be on this host, which is known before anything is built.
    pub fn before_hold(workspace: &Workspace<'_>, fleet: &Fleet, inputs: Inputs) -> Result<Self, RunError> {
        let host = host::open(&fleet.head())?;
        facts::check_subnet(fleet, &host.layout)?;
        Self::find(workspace, fleet, inputs)
    }

    /// Builds what is missing.
    pub fn find(workspace: &Workspace<'_>, fleet: &Fleet, inputs: Inputs) -> Result<Self, RunError> {
        let mut locked = LockedProject::of(workspace, fleet.clone(), inputs)?;
        let artifacts = locked.artifacts()?;
        Ok(Self { lock: locked.lock, artifacts })
    }
}

/// All that decides what a fleet wants of its host.
pub(super) struct Basis {
    lock: Lock,
    artifacts: Artifacts,
    pub facts: HostFacts,
}

impl Basis {
    /// Finds it out; the host then knows where the files of artifacts are.
    pub fn find(
        workspace: &Workspace<'_>,
        fleet: &Fleet,
        BuiltFleet { lock, artifacts }: BuiltFleet,
        host: &mut LinuxHost,
        observed: &ObservedHost,
    ) -> Result<Self, RunError> {
        let facts = facts::facts(fleet, &host.layout, observed, workspace.report)?;
        let files = artifacts.by_digest();
        host.artifacts =
            files.into_iter().map(|(digest, (artifact, _))| (digest, artifact.path.clone())).collect();
        let of_containers = facts.kube_files.iter().chain(&facts.secrets);
        host.container_files = of_containers.map(|(path, digest)| (*digest, path.clone())).collect();
        host.artifacts.extend(facts.files.iter().map(|(path, digest)| (*digest, path.clone())));
        Ok(Self { lock, artifacts, facts })
    }

    /// What of the artifacts is not built yet, in words.
    pub fn unbuilt(&self) -> Vec<String> {
        self.artifacts.unbuilt()
    }

    /// What the fleet wants.
    pub fn wanted(&self, fleet: &Fleet) -> Result<WantedHost, RunError> {
        Ok(desired(fleet, &self.lock, &self.artifacts, &self.facts)?)
    }
}
