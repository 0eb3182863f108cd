//! A fleet on its host: the way from what is there to what should be, which all use cases go.

use std::ops::{Deref, DerefMut};
use std::sync::mpsc;
use std::time::SystemTime;

use crate::apply::linux::LinuxHost;
use crate::apply::{Applied, Host, apply, disk, preflight, resolver};
use crate::base::GuestName;
use crate::fleet::Fleet;
use crate::host::desired::{Artifacts, HostFacts, desired};
use crate::host::observed::ObservedHost;
use crate::host::policy::PolicyChange;
use crate::host::resolver::{ConfiguredNames, Resolver, resolver_config};
use crate::host::wanted::WantedHost;
use crate::lock::model::Lock;
use crate::plan::{
    GuestScope, GuestSteps, Plan, PolicyNames, Step, Strategy, diff, losses, name_changes, reload, restart,
    shrinking,
};
use crate::sys::fs::FileLock;
use crate::sys::interrupt;
use crate::sys::ssh;

use super::events::{self, FleetEvent};
use super::{Inputs, LockedProject, RunError, Workspace, facts, host, retention};

/// A fleet, its host, and what that has of it.
pub struct Deployment<'a> {
    pub workspace: &'a Workspace<'a>,
    pub fleet: Fleet,
    pub host: LinuxHost,
    pub observed: ObservedHost,
}

/// A deployment whose host this process alone may change, until this is dropped.
pub struct Held<'a> {
    deployment: Deployment<'a>,
    lock: FileLock,
}

impl<'a> Deref for Held<'a> {
    type Target = Deployment<'a>;

    fn deref(&self) -> &Self::Target {
        &self.deployment
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.deployment
    }
}

/// What became of a plan.
#[derive(Debug, Default)]
pub struct Outcome {
    pub plan: Plan,
    pub applied: Applied,
    /// Guests of the plan that were left as they were, since one before them did not get ready; where it was cut short, those
    /// for which not all was done.
    pub left: Vec<GuestName>,
}

/// The guests of a plan whose every step was taken, by what became of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Done<'a> {
    pub started: Vec<&'a GuestName>,
    /// Stopped, and started as another machine.
    pub restarted: Vec<&'a GuestName>,
    pub stopped: Vec<&'a GuestName>,
    /// Put right while they ran.
    pub changed: Vec<&'a GuestName>,
}

impl Outcome {
    /// What became of its guests.
    pub fn done(&self) -> Done<'_> {
        let Self { plan, applied, .. } = self;
        let mut done = Done::default();
        for guest in &applied.started {
            let starts = plan.start.iter().any(|steps| steps.guest == *guest && steps.starts());
            let was_there = applied.stopped.contains(guest);
            match (starts, was_there) {
                (true, true) => done.restarted.push(guest),
                (true, false) => done.started.push(guest),
                (false, _) => done.changed.push(guest),
            }
        }
        let is_back = |guest: &&GuestName| applied.started.contains(guest);
        done.stopped = applied.stopped.iter().filter(|guest| !is_back(guest)).collect();
        done
    }

    /// Whether every step was taken.
    pub fn is_complete(&self) -> bool {
        self.applied.failures.is_empty() && !self.applied.is_cut_short
    }
}

impl<'a> Deployment<'a> {
    /// Looks at a fleet's host, and may not change it.
    pub fn look(workspace: &'a Workspace<'a>, fleet: Fleet) -> Result<Self, RunError> {
        let host = host::open(&fleet.host, &fleet.name)?;
        let observed = host.observe()?;
        Ok(Self { workspace, fleet, host, observed })
    }

    /// Holds a fleet's host, waiting for another process that does, and looks at it.
    pub fn hold(workspace: &'a Workspace<'a>, fleet: Fleet) -> Result<Held<'a>, RunError> {
        let host = host::open(&fleet.host, &fleet.name)?;
        let lock = host::hold(&host.layout, workspace.report)?;
        let observed = host.observe()?;
        host.keep_read_rules();
        Ok(Held { deployment: Self { workspace, fleet, host, observed }, lock })
    }

    /// What the fleet wants of its host, from its lock and what is built by it; the host then knows its artifacts. What
    /// goes on from a snapshot there is wanted as it is.
    pub fn wanted(&mut self, inputs: Inputs) -> Result<WantedHost, RunError> {
        self.basis(inputs)?.state(&self.fleet)
    }

    /// What such a state is made of.
    pub(super) fn basis(&mut self, inputs: Inputs) -> Result<Basis, RunError> {
        facts::subnet_is_free(&self.fleet, &self.host.layout)?;
        let built = BuiltFleet::find(self.workspace, &self.fleet, inputs)?;
        self.basis_of(built)
    }

    /// The same of what was built before.
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
        self.is_converted(guests)?;
        let published = wanted.network.as_ref().map(|network| network.rules.published.as_slice());
        facts::ports_are_free(&self.fleet, &self.observed, published.unwrap_or_default())?;
        plan.notes.extend(losses(&plan, &self.observed, wanted));
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
        let is_one = |step: &Step| matches!(step, Step::LoadRuleset(_) | Step::StartResolver(_));
        let after = wanted.ruleset.as_ref().map(|ruleset| &ruleset.policies);
        let Some((before, after)) = self.observed.policies.as_ref().zip(after) else { return Vec::new() };
        if !plan.rules.iter().any(is_one) {
            return Vec::new();
        }
        let config = |wanted: &Resolver| ConfiguredNames::of(resolver_config(wanted));
        let named = wanted.resolvers.values().map(|wanted| (wanted.policy.clone(), config(wanted))).collect();
        let configured = resolver::configured(&self.host.layout, &self.observed);
        name_changes(
            PolicyNames { policies: before, names: &configured },
            PolicyNames { policies: after, names: &named },
        )
    }

    /// Whether no guest is in the host's own network but those that the plan is for: the rules there would take from the
    /// others what is theirs.
    pub(super) fn is_converted(&self, guests: GuestScope<'_>) -> Result<(), RunError> {
        let mut earlier = self.observed.guests.iter().filter(|(_, guest)| guest.is_in_host());
        match earlier.next() {
            Some((guest, _)) if guests != GuestScope::All => Err(RunError::NotConverted(guest.clone())),
            _ => Ok(()),
        }
    }
}

impl Held<'_> {
    /// Makes the key by which the host reaches its guests, unless it is there. It is part of what each guest is told, so
    /// whoever starts guests does this before it is asked what they should be.
    pub(super) fn make_key(&self) -> Result<(), RunError> {
        Ok(ssh::keygen(&self.host.layout.key(), &self.host.layout.new_key())?)
    }

    /// Carries out a plan, after a look at whether it can be. A guest that fails does not stop the others.
    ///
    /// # Errors
    /// Where a need of the plan is not met; nothing was changed then.
    pub(super) fn carry_out(&self, plan: Plan) -> Result<Outcome, RunError> {
        self.roll_out(plan, Strategy::Recreate)
    }

    /// The same by a strategy.
    pub(super) fn roll_out(&self, plan: Plan, strategy: Strategy) -> Result<Outcome, RunError> {
        carry_out(self.workspace, &self.host, &self.lock, plan, strategy)
    }
}

/// Carries out a plan on a host that is held by this lock.
pub(super) fn carry_out(
    workspace: &Workspace<'_>,
    host: &LinuxHost,
    _held: &FileLock,
    plan: Plan,
    strategy: Strategy,
) -> Result<Outcome, RunError> {
    preflight::check(&plan, host)?;
    let _hold = interrupt::hold();
    plan.notes.iter().for_each(|note| workspace.report.note(&format!("note: {note}")));
    let (said, heard) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || events::record_as_told(&host.layout, &heard));
        let tell = |event| {
            // Who listens does so until this is gone.
            let _ = said.send((SystemTime::now(), event));
        };
        let outcome = in_parts(workspace, host, plan, strategy, &tell);
        drop(said);
        Ok(outcome)
    })
}

/// Carries out each part of a plan where all of the one before was, and tells of what happens.
fn in_parts(
    workspace: &Workspace<'_>,
    host: &LinuxHost,
    plan: Plan,
    strategy: Strategy,
    told: &(dyn Fn(FleetEvent) + Sync),
) -> Outcome {
    let (mut applied, mut left) = (Applied::default(), Vec::new());
    for part in plan.clone().in_parts(strategy) {
        if applied.failures.is_empty() && !applied.is_cut_short {
            let tell = |action, steps: &GuestSteps| told(events::of_guest(action, steps));
            let done = apply(&part, host, workspace.guests_at_once(), workspace.report, &tell);
            done.failures.iter().map(events::of_failure).for_each(told);
            left.extend(part.left_by(&done.stopped, &done.started).filter(|_| done.is_cut_short));
            let Applied { stopped, started, failures, is_cut_short } = done;
            applied.is_cut_short = is_cut_short;
            applied.stopped.extend(stopped);
            applied.started.extend(started);
            applied.failures.extend(failures);
        } else {
            left.extend(part.start.into_iter().map(|steps| steps.guest));
        }
    }
    let left_out = |guest: &GuestName| match applied.is_cut_short {
        true => FleetEvent::CutShort { guest: guest.to_string() },
        false => FleetEvent::LeftOut { guest: guest.to_string() },
    };
    left.iter().map(left_out).for_each(told);
    Outcome { plan, applied, left }
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
        let host = host::open(&fleet.host, &fleet.name)?;
        facts::subnet_is_free(fleet, &host.layout)?;
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
    pub fn state(&self, fleet: &Fleet) -> Result<WantedHost, RunError> {
        Ok(desired(fleet, &self.lock, &self.artifacts, &self.facts)?)
    }
}
