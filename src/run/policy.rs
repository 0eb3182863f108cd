//! Policy: what guests may reach, in words and in nft's, and which line of `fleet.toml` says so. No root is needed, and no host.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::Ipv4Net;

use crate::base::{GuestName, Label, Rate};
use crate::fleet::{Budget, Fleet, NetworkPolicy, Preset, Publish, SourceText, suggest};
use crate::host::address_list;
use crate::host::policy::{
    Clause, Lists, PacketVerdict, PolicyAnswer, Question, QuestionTarget, clauses, clauses_on,
    explain as answers, lists_v4,
};
use crate::host::resolver::list::NameList;
use crate::lock::model::Lock;
use crate::sys::fs;

use super::error::GuestError;
use super::guests::declared;
use super::names::{self, ExplainedName};
use super::place::{FilePlace, file_place};
use super::{RunError, Workspace, facts};

/// A policy, in the order in which its clauses win.
#[derive(Clone, Debug)]
pub struct ShownPolicy {
    pub network: Label,
    pub preset: Option<Preset>,
    /// Who has it.
    pub guests: Vec<GuestName>,
    pub clauses: Vec<(Clause, Option<FilePlace>)>,
    /// How many names stand in each list of those that it denies, and of the only ones that it allows.
    pub names: BTreeMap<PathBuf, (NameListKind, usize)>,
    /// How much stands in each list that it names.
    pub lists: BTreeMap<PathBuf, usize>,
    pub rate_down: Option<Rate>,
    pub rate_up: Option<Rate>,
    pub budget: Budget,
    pub publish: Vec<(Publish, FilePlace)>,
}

/// The policies of a fleet, or the one of that name, or that of the guest of that name.
pub fn show(workspace: &Workspace<'_>, name: Option<&str>) -> Result<Vec<ShownPolicy>, RunError> {
    let fleet = workspace.fleet()?;
    let read = facts::address_lists(fleet.networks.values())?;
    let lists = lists_v4(&read);
    let names = facts::name_lists(fleet.networks.values())?;
    let only = name.map(|name| network_of(&fleet, name)).transpose()?;
    let networks = fleet.networks.iter().filter(|(label, _)| only.as_ref().is_none_or(|only| only == *label));
    let shown = networks.map(|(label, policy)| {
        let clauses = clauses(policy, &read, fleet.host.subnet);
        let guests = fleet.guests.iter().filter(|(_, guest)| guest.network == *label);
        let named = clauses.iter().filter_map(|clause| clause.list.as_ref());
        ShownPolicy {
            network: label.clone(),
            preset: policy.preset,
            guests: guests.map(|(name, _)| name.clone()).collect(),
            lists: named.map(|path| (path.clone(), lists.get(path).map_or(0, Vec::len))).collect(),
            clauses: clauses.into_iter().map(|clause| with_place(&fleet.source, clause)).collect(),
            names: shown_names(policy, &names),
            rate_down: policy.rate_down,
            rate_up: policy.rate_up,
            budget: policy.budget,
            publish: policy
                .publish
                .iter()
                .map(|way| (way.clone(), file_place(&fleet.source, &way.place)))
                .collect(),
        }
    });
    Ok(shown.collect())
}

/// What a list of names is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameListKind {
    Deny,
    Allow,
}

fn shown_names(
    policy: &NetworkPolicy,
    read: &BTreeMap<PathBuf, Arc<NameList>>,
) -> BTreeMap<PathBuf, (NameListKind, usize)> {
    let Some(names) = &policy.names else { return BTreeMap::new() };
    let allow = names.allow.iter().flatten().map(|path| (path, NameListKind::Allow));
    let all = allow.chain(names.deny.iter().map(|path| (path, NameListKind::Deny)));
    all.map(|(path, kind)| (path.clone(), (kind, read.get(path).map_or(0, |list| list.len())))).collect()
}

/// The policy of that name, or that of the guest of that name.
pub(super) fn network_of(fleet: &Fleet, name: &str) -> Result<Label, RunError> {
    let network = fleet.networks.keys().find(|label| label.as_str() == name);
    let guest = fleet.guests.iter().find(|(guest, _)| guest.as_str() == name);
    let found = network.or(guest.map(|(_, spec)| &spec.network));
    let unknown = || GuestError::UnknownNetwork {
        name: name.to_owned(),
        hint: suggest(
            "networks and guests",
            name,
            fleet.networks.keys().map(Label::as_str).chain(fleet.guests.keys().map(GuestName::as_str)),
        ),
    };
    Ok(found.cloned().ok_or_else(unknown)?)
}

fn with_place(source: &SourceText, clause: Clause) -> (Clause, Option<FilePlace>) {
    let place = clause.place.as_ref().map(|place| file_place(source, place));
    (clause, place)
}

/// What becomes of what a guest sends somewhere.
#[derive(Clone, Debug)]
pub struct Explained {
    pub guest: GuestName,
    pub network: Label,
    pub question: Question,
    /// What this host has, where it is the fleet's.
    pub closed: Vec<Ipv4Net>,
    /// Where a name was asked about.
    pub name: Option<ExplainedName>,
    /// One for each clause that decides; none for an address of IPv6, which guests do not have, and for a name.
    pub answers: Vec<ExplainedAnswer>,
    /// What the policy publishes for the address that was asked about.
    pub ways_in: Vec<ExplainedWay>,
    /// Whether the guest is cut off, as far as whoever asks may know: nothing passes then, whatever its policy says.
    pub quarantined: bool,
}

/// How the address that was asked about comes in.
#[derive(Clone, Debug)]
pub struct ExplainedWay {
    pub way: Publish,
    /// The host's port, if fleet.lock has it.
    pub port: Option<u16>,
    pub place: FilePlace,
}

/// An answer, and where its lines are.
#[derive(Clone, Debug)]
pub struct ExplainedAnswer {
    pub answer: PolicyAnswer,
    /// In `fleet.toml`.
    pub place: Option<FilePlace>,
    /// Of the entry in the list that it names.
    pub entry: Option<FilePlace>,
}

impl Explained {
    /// Whether anything of what was asked about passes.
    pub fn passes(&self) -> bool {
        self.is_allowed() && !self.quarantined
    }

    /// Whether the policy lets anything pass of what was asked about.
    pub fn is_allowed(&self) -> bool {
        let leads_on = |name: &ExplainedName| name.leads_on(self.question.transport);
        self.name.as_ref().is_some_and(leads_on)
            || self.answers.iter().any(|answer| answer.answer.verdict == PacketVerdict::Allowed)
    }
}

/// Says what the policy of a guest makes of a question.
pub fn explain(workspace: &Workspace<'_>, guest: &str, question: Question) -> Result<Explained, RunError> {
    let fleet = workspace.fleet()?;
    let guest = declared(guest, &fleet)?;
    refuse_guest(workspace, &fleet, &question.to)?;
    let network = fleet.guests[&guest].network.clone();
    let policy = fleet.networks.get(&network).cloned().unwrap_or_default();
    let read = facts::address_lists([&policy])?;
    let (lists, clauses) = (lists_v4(&read), clauses(&policy, &read, fleet.host.subnet));
    let closed = facts::closed(&fleet)?;
    let clauses = clauses_on(clauses, &closed);
    let name = match &question.to {
        QuestionTarget::Name(name) => Some(names::explain(&fleet, &policy, name)?),
        QuestionTarget::Address(_) => None,
    };
    let found = question.v4().map(|to| answers(&clauses, &lists, to, question.transport)).unwrap_or_default();
    let answers = found.into_iter().map(|answer| {
        let place = answer.clause.place.as_ref().map(|place| file_place(&fleet.source, place));
        let entry = answer.list.as_ref().map(|list| entry_place(list, &lists, answer.entry)).transpose()?;
        Ok(ExplainedAnswer { answer, place, entry: entry.flatten() })
    });
    let answers: Result<Vec<_>, RunError> = answers.collect();
    let lock = Lock::read(&workspace.lock_path()).ok().flatten();
    let ports = lock.and_then(|lock| lock.guest.get(&guest).map(|numbers| numbers.ports.clone()));
    let ways_in = policy
        .publish
        .iter()
        .filter(|way| question.v4().is_some_and(|address| way.from.iter().any(|net| net.contains(&address))));
    let ways_in = ways_in.map(|way| ExplainedWay {
        port: ports.as_ref().and_then(|ports| ports.get(&way.name).copied()),
        place: file_place(&fleet.source, &way.place),
        way: way.clone(),
    });
    let ways_in = ways_in.collect();
    let quarantined = fleet.head().layout().quarantined(&guest).exists();
    Ok(Explained { guest, network, question, closed, name, answers: answers?, ways_in, quarantined })
}

/// A guest is no name that any other looks up.
fn refuse_guest(workspace: &Workspace<'_>, fleet: &Fleet, to: &QuestionTarget) -> Result<(), RunError> {
    let QuestionTarget::Name(name) = to else { return Ok(()) };
    let Some(guest) = fleet.guests.keys().find(|guest| guest.as_str() == name) else { return Ok(()) };
    let lock = Lock::read(&workspace.lock_path()).ok().flatten();
    let address = lock.and_then(|lock| lock.guest.get(guest).map(|numbers| numbers.ip));
    Err(GuestError::NoDestination { guest: guest.clone(), address }.into())
}

/// The line of a list that has an entry.
fn entry_place(list: &Path, lists: &Lists, entry: Ipv4Net) -> Result<Option<FilePlace>, RunError> {
    if !lists.contains_key(list) {
        return Ok(None);
    }
    let line = address_list::line_of(&fs::read_text(list)?, entry);
    Ok(line.map(|line| FilePlace { file: list.to_owned(), line, column: 1 }))
}
