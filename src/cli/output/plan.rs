//! `plan` and `tree`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use super::publish::PublishedChangeJson;
use crate::base::GuestName;
use crate::host::policy::PolicyChange;
use crate::plan::{self, Step};

/// What `up` would do. Lists are carried out in the order of the keys; the guests of one list are independent of each other.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PlanJson {
    /// Whether there is nothing to do.
    pub empty: bool,
    /// Steps on the host before any guest is touched, in words.
    pub prepare: Vec<String>,
    /// Guests that are stopped.
    pub stop: Vec<GuestStepsJson>,
    /// Steps that change the firewall's rules, in words.
    pub rules: Vec<String>,
    /// What the new rules open and close for guests that stay.
    pub policy_changes: Vec<PolicyChangeJson>,
    /// Ports of the host that lead to guests from then on, or no longer.
    pub published_changes: Vec<PublishedChangeJson>,
    /// Guests that are started or repaired.
    pub start: Vec<GuestStepsJson>,
    pub counts: CountsJson,
    /// What is worth knowing: what `up` would not do, what it copies, what was brought up to date for this plan.
    pub notes: Vec<String>,
}

/// Destinations or names that become reachable, or cease to be, by one line of a policy.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PolicyChangeJson {
    /// The policy that the guests have then.
    pub network: String,
    pub guests: Vec<String>,
    /// Whether they become reachable.
    pub opens: bool,
    /// Protocols and ports, in words; `names` where it is about those.
    pub traffic: String,
    /// Destinations or names, in words.
    pub to: String,
    /// The line that then decides, in words.
    pub by: String,
    /// Where fleet.toml has it; `null` for what a preset brings.
    pub line: Option<usize>,
}

/// What happens to one guest.
#[derive(Debug, Serialize, JsonSchema)]
pub struct GuestStepsJson {
    pub guest: String,
    /// Such as `new` or `vcpus 1 -> 2`.
    pub why: String,
    /// What is to be otherwise, with both values where they can be told in a few words.
    pub changes: Vec<ChangeJson>,
    /// Each step in words, in order.
    pub steps: Vec<String>,
}

/// One thing that is to be otherwise.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ChangeJson {
    /// Such as `memory`.
    pub what: String,
    /// How it is; `null` where that is no few words.
    pub from: Option<String>,
    /// How it will be; `null` where that is no few words.
    pub to: Option<String>,
}

/// How many guests a plan does what to.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CountsJson {
    /// Guests that do not run yet.
    pub start: usize,
    /// Guests that are stopped and come back as another machine.
    pub restart: usize,
    /// Guests that go.
    pub stop: usize,
    /// Guests that stay as they run, of which something is put right.
    pub change: usize,
    /// Steps that are for no one guest.
    pub host: usize,
}

/// Jails that were written.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TreeJson {
    /// The root directory of each guest's jail, by guest.
    pub jails: BTreeMap<String, PathBuf>,
    /// What is worth knowing, one sentence each.
    pub notes: Vec<String>,
}

impl PlanJson {
    /// In words of this contract; `notes` were told on the way, those of the plan come behind them.
    pub fn new(plan: &plan::Plan, mut notes: Vec<String>) -> Self {
        let words = |steps: &[Step]| steps.iter().map(ToString::to_string).collect();
        let guests = |all: &[plan::GuestSteps]| all.iter().map(GuestStepsJson::from).collect();
        notes.extend(plan.notes.iter().cloned());
        Self {
            empty: plan.is_empty(),
            prepare: words(&plan.prepare),
            stop: guests(&plan.stop),
            rules: words(&plan.rules),
            policy_changes: plan.policy_changes.iter().map(PolicyChangeJson::from).collect(),
            published_changes: plan.published_changes.iter().map(PublishedChangeJson::from).collect(),
            start: guests(&plan.start),
            counts: CountsJson::from(plan.counts()),
            notes,
        }
    }
}

impl From<&plan::Change> for ChangeJson {
    fn from(change: &plan::Change) -> Self {
        let (from, to) = change.values.clone().unzip();
        Self { what: change.what.to_string(), from, to }
    }
}

impl From<plan::PlanCounts> for CountsJson {
    fn from(plan::PlanCounts { start, restart, stop, change, host }: plan::PlanCounts) -> Self {
        Self { start, restart, stop, change, host }
    }
}

impl From<&PolicyChange> for PolicyChangeJson {
    fn from(change: &PolicyChange) -> Self {
        Self {
            network: change.policy.to_string(),
            guests: change.guests.iter().map(ToString::to_string).collect(),
            opens: change.opens,
            traffic: change.what.as_ref().map_or_else(|| "names".to_owned(), ToString::to_string),
            to: change.to.clone(),
            by: change.by.clone(),
            line: change.line,
        }
    }
}

impl From<&plan::GuestSteps> for GuestStepsJson {
    fn from(guest: &plan::GuestSteps) -> Self {
        let steps = guest.all().map(ToString::to_string).collect();
        let changes = guest.why.changes.iter().map(ChangeJson::from).collect();
        Self { guest: guest.guest.to_string(), why: guest.why.to_string(), changes, steps }
    }
}

impl TreeJson {
    /// With the notes that were told on the way.
    pub fn new(jails: &BTreeMap<GuestName, PathBuf>, notes: Vec<String>) -> Self {
        let jails = jails.iter().map(|(guest, root)| (guest.to_string(), root.clone()));
        Self { jails: jails.collect(), notes }
    }
}
