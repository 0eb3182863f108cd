//! What a policy says of a domain name, and which line says so.

use std::path::PathBuf;

use crate::fleet::{Fleet, NamePolicy, NetworkPolicy};
use crate::host::policy::{ClauseKind, Transport, clauses};
use crate::host::resolver::list::{NameTree, line_of};
use crate::sys::fs;

use super::place::{FilePlace, file_place};
use super::{RunError, facts};

/// What becomes of a name that a guest asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedName {
    pub verdict: NameVerdict,
    /// Where `fleet.toml` says so.
    pub place: Option<FilePlace>,
    /// The name by which a list has it, itself or one above it, and where.
    pub entry: Option<(String, FilePlace)>,
}

/// What decides on a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameVerdict {
    /// The guest has nobody to ask.
    NoServer,
    /// `dns` is asked, whatever the name.
    Unlisted,
    /// `names.deny` has it.
    Denied,
    /// `names.allow` has it: the web is reached by it through the proxy.
    Allowed,
    /// `names.allow` does not have it.
    NotAllowed,
}

impl NameVerdict {
    /// Whether the guest is told what the name leads to.
    pub fn exists(self) -> bool {
        matches!(self, Self::Unlisted | Self::Allowed)
    }
}

impl ExplainedName {
    /// Whether its name leads the guest there: with a port of the web, where names alone count; else only as far as to addresses.
    pub fn leads_on(&self, transport: Option<Transport>) -> bool {
        let is_quic = transport == Some(Transport::Udp(443));
        self.verdict.exists() && !(self.verdict == NameVerdict::Allowed && is_quic)
    }
}

/// Says what a policy makes of a name, which is in lower case.
pub(super) fn explain(fleet: &Fleet, policy: &NetworkPolicy, name: &str) -> Result<ExplainedName, RunError> {
    let lists = facts::address_lists([policy])?;
    let clauses = clauses(policy, &lists, fleet.host.subnet);
    let asks = |kind: &ClauseKind| matches!(kind, ClauseKind::NameServers | ClauseKind::Resolver);
    let server = clauses.iter().find(|clause| asks(&clause.kind) && !clause.servers.is_empty());
    let told = |verdict, place: Option<std::ops::Range<usize>>, entry| ExplainedName {
        verdict,
        place: place.map(|place| file_place(&fleet.source, &place)),
        entry,
    };
    let Some(server) = server else {
        return Ok(told(NameVerdict::NoServer, policy.places.table.clone(), None));
    };
    let Some(NamePolicy { place, deny, allow }) = &policy.names else {
        return Ok(told(NameVerdict::Unlisted, server.place.clone(), None));
    };
    let place = Some(place.clone());
    if let Some(entry) = entry(deny, name)? {
        return Ok(told(NameVerdict::Denied, place, Some(entry)));
    }
    let Some(allow) = allow else { return Ok(told(NameVerdict::Unlisted, place, None)) };
    let entry = entry(allow, name)?;
    let verdict = if entry.is_some() { NameVerdict::Allowed } else { NameVerdict::NotAllowed };
    Ok(told(verdict, place, entry))
}

/// The name by which one of these lists has a name, and where.
fn entry(lists: &[PathBuf], name: &str) -> Result<Option<(String, FilePlace)>, RunError> {
    for path in lists {
        let list = facts::name_list(path)?;
        if let Some(holder) = NameTree::of(list.names()).holder(name) {
            let line = line_of(&fs::read_text(path)?, holder);
            let place = line.map(|line| FilePlace { file: path.clone(), line, column: 1 });
            return Ok(place.map(|place| (holder.to_owned(), place)));
        }
    }
    Ok(None)
}
