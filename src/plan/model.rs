//! A plan: what is to be done, in which order, and why.

use std::collections::BTreeSet;
use std::fmt;

use crate::base::GuestName;
use crate::host::policy::PolicyChange;
use crate::host::publish::PublishedChange;

use super::step::Step;
use super::why::StepReason;

/// What happens to one guest, in order, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct GuestSteps {
    pub guest: GuestName,
    /// Such as `new` or `vcpus 1 -> 2`.
    pub why: StepReason,
    pub steps: Vec<Step>,
    /// What clears away after one of `steps` failed.
    pub undo: Vec<Step>,
    /// Taken after all of `steps`; their failure clears nothing away.
    pub then: Vec<Step>,
}

impl GuestSteps {
    /// Steps that nothing follows and nothing undoes.
    pub fn new(guest: &GuestName, why: StepReason, steps: Vec<Step>) -> Self {
        Self { guest: guest.clone(), why, steps, undo: Vec::new(), then: Vec::new() }
    }

    /// Whether a VMM is started by them; those of a guest that stays put something right while it runs.
    pub fn starts(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::StartVmm { .. }))
    }

    /// Every step that is taken where none fails, in order.
    pub fn all(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().chain(&self.then)
    }
}

/// Everything that is to be done. Lists are carried out in the order of the fields; the guests of one list are
/// independent of each other.
///
/// A guest that goes is dead before the rules that held it are swapped, and rules are there before a new guest's
/// TAP is. Where every guest that stops comes back, rules are swapped before anything else ([`Plan::rules_come_first`]).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub prepare: Vec<Step>,
    pub stop: Vec<GuestSteps>,
    pub rules: Vec<Step>,
    /// What the new rules open and close.
    pub policy_changes: Vec<PolicyChange>,
    /// Ports of the host that the new rules open and close.
    pub published_changes: Vec<PublishedChange>,
    pub start: Vec<GuestSteps>,
    /// What `up` will not do, one sentence each.
    pub notes: Vec<String>,
}

impl Plan {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.prepare.is_empty() && self.stop.is_empty() && self.rules.is_empty() && self.start.is_empty()
    }

    /// Takes out all that would be done to these guests, but for the end of what is left of a VMM.
    pub fn leave_out(&mut self, guests: &BTreeSet<GuestName>) {
        let is_end_alone = |steps: &GuestSteps| matches!(steps.steps[..], [Step::StopVmm { .. }]);
        self.stop.retain(|steps| !guests.contains(&steps.guest) || is_end_alone(steps));
        self.start.retain(|steps| !guests.contains(&steps.guest));
    }

    /// Whether a guest that is stopped is started again.
    pub fn comes_back(&self, guest: &GuestName) -> bool {
        self.start.iter().any(|start| start.guest == *guest)
    }

    /// The guests for which not all is done where these were stopped and started.
    pub fn left_by(
        &self,
        stopped: &[GuestName],
        started: &[GuestName],
    ) -> impl Iterator<Item = GuestName> + use<> {
        let stop = self.stop.iter().map(|steps| &steps.guest).filter(|guest| !stopped.contains(guest));
        let start = self.start.iter().map(|steps| &steps.guest).filter(|guest| !started.contains(guest));
        stop.chain(start).cloned().collect::<BTreeSet<_>>().into_iter()
    }

    /// Whether new rules can be loaded before any other step, so that they wait for no guest and no copy: every guest that
    /// is stopped stands in them too, by the same name of its TAP, so that none is ever without rules.
    pub fn rules_come_first(&self) -> bool {
        !self.rules.iter().any(Step::removes_rules)
            && self.stop.iter().all(|stopped| self.comes_back(&stopped.guest))
    }

    /// Each step on a line of its own below the guest that it is for.
    pub fn detailed(&self) -> String {
        self.text(true)
    }

    /// How much there is to do.
    pub fn counts(&self) -> PlanCounts {
        let comes_back = |stop: &&GuestSteps| self.comes_back(&stop.guest);
        let restart = self.stop.iter().filter(comes_back).count();
        let started = self.start.iter().filter(|guest| guest.starts()).count();
        PlanCounts {
            start: started.saturating_sub(restart),
            restart,
            stop: self.stop.len() - restart,
            change: self.start.len() - started,
            host: self.prepare.len() + self.rules.len(),
        }
    }

    fn text(&self, with_steps: bool) -> String {
        use fmt::Write as _;
        let mut text = String::new();
        let host = |text: &mut String, steps: &[Step]| {
            for step in steps {
                let _ = writeln!(text, "{step}");
            }
        };
        let guest = |text: &mut String, verb: &str, guest: &GuestSteps| {
            let _ = writeln!(text, "{verb} {}: {}", guest.guest, guest.why);
            for step in guest.all().filter(|_| with_steps) {
                let _ = writeln!(text, "  {step}");
            }
        };
        host(&mut text, &self.prepare);
        self.stop.iter().for_each(|stopped| guest(&mut text, "stop", stopped));
        host(&mut text, &self.rules);
        for change in self.policy_changes.iter().filter(|_| with_steps) {
            let _ = writeln!(text, "  {change}");
        }
        for change in self.published_changes.iter().filter(|_| with_steps) {
            let _ = writeln!(text, "  {change}");
        }
        for started in &self.start {
            guest(&mut text, if started.starts() { "start" } else { "change" }, started);
        }
        text
    }
}

/// How many guests a plan does what to, and how many steps it takes on the host itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlanCounts {
    /// Guests that do not run yet.
    pub start: usize,
    /// Guests that are stopped and come back as another machine.
    pub restart: usize,
    /// Guests that go.
    pub stop: usize,
    /// Guests that stay as they run.
    pub change: usize,
    /// Steps that are for no one guest.
    pub host: usize,
}

impl fmt::Display for PlanCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, restart, stop, change, host } = *self;
        let guests =
            [(start, "to start"), (restart, "to restart"), (stop, "to stop"), (change, "to change in place")];
        let host = (host, if host == 1 { "step on the host" } else { "steps on the host" });
        let all = guests.into_iter().chain([host]).filter(|(count, _)| *count > 0);
        f.write_str(&all.map(|(count, what)| format!("{count} {what}")).collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(false))
    }
}
