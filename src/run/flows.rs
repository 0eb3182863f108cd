//! What a guest sends and is sent, as it happens: what is dropped, and connections that begin and end. [`super::flow_log`] keeps it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use crate::apply::ApplyError;
use crate::base::text::printable;
use crate::base::{GuestName, InterfaceName, Label};
use crate::fleet::Fleet;
use crate::host::firewall::noted::{DropReason, reason};
use crate::host::firewall::verdicts::Decider;
use crate::host::policy::{Clause, ClauseKind, PacketVerdict, clauses};
use crate::sys::conntrack::{self, FlowEvent, TrackedConnection};
use crate::sys::netns;
use crate::sys::nflog::{LoggedPacket, NetfilterEvent, NetfilterListener};

use super::error::GuestError;
use super::error::HostNetworkError;
use super::place::{FilePlace, file_place};
use super::{RunError, Workspace, facts, reach};

/// The names by which a guest came to addresses.
pub type AskedNames = BTreeMap<Ipv4Addr, String>;

/// A guest that runs, as its packets show it.
struct Seen {
    guest: GuestName,
    ip: Ipv4Addr,
    tap: InterfaceName,
    netns: netns::Netns,
    names: AskedNames,
}

fn seen(workspace: &Workspace<'_>, name: &str, names: AskedNames) -> Result<Seen, RunError> {
    let (host, guest) = reach::running(workspace, name)?;
    let machine = host.guest(&guest).machine().map_err(ApplyError::from)?;
    let machine = machine.ok_or_else(|| GuestError::NotRunning(guest.clone()))?;
    Ok(Seen { names, ip: machine.ip, tap: machine.tap, netns: host.layout.netns(), guest })
}

/// A packet that was dropped.
#[derive(Clone, Debug)]
pub struct Dropped {
    pub time: SystemTime,
    pub verdict: PacketVerdict,
    /// In words; of a rule, what it says.
    pub why: String,
    /// Where `fleet.toml` has that rule.
    pub place: Option<FilePlace>,
    pub packet: LoggedPacket,
    /// The name by which the guest had asked for its destination, where that was kept.
    pub name: Option<String>,
}

/// A connection that is open, began or ended.
#[derive(Clone, Debug)]
pub struct Flow {
    pub time: SystemTime,
    /// `None` where it is open.
    pub began: Option<bool>,
    pub connection: TrackedConnection,
    /// The name by which the guest had asked for its destination, where that was kept.
    pub name: Option<String>,
}

/// What comes of a guest.
#[derive(Clone, Debug)]
pub enum Received<T> {
    Of(T),
    /// Some came faster than it was read.
    Lost,
}

/// How long is waited for what comes next.
const PATIENCE: Duration = Duration::from_millis(500);

/// Packets of a guest that are dropped, from now on.
pub struct Drops {
    seen: Seen,
    /// Whose policy says why.
    fleet: Fleet,
    network: Label,
    tap: Option<u32>,
    listener: NetfilterListener,
    clauses: Vec<Clause>,
}

impl Drops {
    /// Begins to listen.
    ///
    /// # Errors
    /// Where somebody else does already: the kernel tells one alone.
    pub fn of(workspace: &Workspace<'_>, name: &str, names: AskedNames) -> Result<Self, RunError> {
        let seen = seen(workspace, name, names)?;
        let fleet = workspace.fleet()?;
        let network = fleet.guests.get(&seen.guest).map(|spec| spec.network.clone());
        let network = network.ok_or_else(|| GuestError::NotRunning(seen.guest.clone()))?;
        let listen = || {
            Ok::<_, ApplyError>((NetfilterListener::to_packets()?, netns::interface_index(seen.tap.as_str())))
        };
        let (listener, tap) = netns::within(&seen.netns, listen).map_err(ApplyError::from)??;
        let listener = listener.ok_or_else(|| HostNetworkError::Listened(fleet.name.clone()))?;
        let policy = fleet.networks.get(&network).cloned().unwrap_or_default();
        let clauses = clauses(&policy, &facts::address_lists([&policy])?, fleet.host.subnet);
        Ok(Self { tap, listener, clauses, seen, fleet, network })
    }

    /// Whose they are.
    pub fn guest(&self) -> &GuestName {
        &self.seen.guest
    }

    /// What came since it was last asked; waits a while where nothing did.
    pub fn next(&self) -> Result<Vec<Received<Dropped>>, RunError> {
        let events = self.listener.events(PATIENCE).map_err(listening)?;
        let told = events.into_iter().filter_map(|event| match event {
            NetfilterEvent::Packet(packet) => self.dropped(packet).map(Received::Of),
            NetfilterEvent::Lost => Some(Received::Lost),
            NetfilterEvent::Flow(_) => None,
        });
        Ok(told.collect())
    }

    fn dropped(&self, packet: LoggedPacket) -> Option<Dropped> {
        let is_of_tap = |device: Option<u32>| device.is_some() && device == self.tap;
        if ![packet.indev, packet.outdev].into_iter().any(is_of_tap) {
            return None;
        }
        let (time, name) = (SystemTime::now(), self.seen.names.get(&packet.to).cloned());
        let (verdict, why, clause) = judged(&packet.prefix, Some(&self.network), &self.clauses);
        let place = clause.and_then(|clause| clause.place.as_ref());
        let place = place.map(|place| file_place(&self.fleet.source, place));
        Some(Dropped { time, verdict, why, place, packet, name })
    }
}

/// What befell a packet that the rules noted with this prefix, why, in words, and the clause that says so, of those of its guest's
/// policy.
pub(super) fn judged<'a>(
    prefix: &str,
    policy: Option<&Label>,
    clauses: &'a [Clause],
) -> (PacketVerdict, String, Option<&'a Clause>) {
    match policy.and_then(|policy| reason(prefix, policy)) {
        Some(DropReason::Rule(decider)) => {
            let clause = clause_of(decider, clauses);
            let why = clause.map_or_else(|| prefix.to_owned(), ToString::to_string);
            (PacketVerdict::Refused, why, clause)
        }
        Some(DropReason::Fixed(why)) => (PacketVerdict::Dropped, why.to_owned(), None),
        None => (PacketVerdict::Dropped, printable(prefix), None),
    }
}

/// What of a policy the rules call so.
fn clause_of(decider: Decider, clauses: &[Clause]) -> Option<&Clause> {
    let nth = |kind, index| {
        clauses.iter().filter(move |clause| clause.kind == kind && !clause.private_alone).nth(index)
    };
    match decider {
        Decider::Protocols => nth(ClauseKind::Protocols, 0),
        Decider::Never => nth(ClauseKind::Never, 0),
        Decider::Deny(index) => nth(ClauseKind::Deny, index),
        Decider::Dns => nth(ClauseKind::NameServers, 0),
        Decider::Private => nth(ClauseKind::Private, 0),
        Decider::Allow(index) => nth(ClauseKind::Allow, index),
        Decider::Rest | Decider::Default => nth(ClauseKind::Default, 0),
    }
}

pub(super) fn listening(source: std::io::Error) -> RunError {
    let action = "listen to the kernel's netfilter".to_owned();
    ApplyError::Nft(crate::sys::nft::NftError::Kernel { action, source }).into()
}

/// Connections of a guest that begin and end, from now on.
pub struct Flows {
    seen: Seen,
    listener: NetfilterListener,
}

impl Flows {
    /// Begins to listen.
    pub fn of(workspace: &Workspace<'_>, name: &str, names: AskedNames) -> Result<Self, RunError> {
        let seen = seen(workspace, name, names)?;
        let listener = netns::within(&seen.netns, NetfilterListener::to_flows).map_err(ApplyError::from)?;
        Ok(Self { listener: listener.map_err(ApplyError::from)?, seen })
    }

    /// What came since it was last asked; waits a while where nothing did.
    pub fn next(&self) -> Result<Vec<Received<Flow>>, RunError> {
        let events = self.listener.events(PATIENCE).map_err(listening)?;
        let told = events.into_iter().filter_map(|event| match event {
            NetfilterEvent::Flow(FlowEvent { began, connection }) if is_of(&connection, self.seen.ip) => {
                let name = self.seen.names.get(&connection.to).cloned();
                Some(Received::Of(Flow { time: SystemTime::now(), began: Some(began), connection, name }))
            }
            NetfilterEvent::Lost => Some(Received::Lost),
            NetfilterEvent::Flow(_) | NetfilterEvent::Packet(_) => None,
        });
        Ok(told.collect())
    }
}

fn is_of(connection: &TrackedConnection, guest: Ipv4Addr) -> bool {
    connection.from == guest || connection.to == guest
}

/// Connections of a guest that are open.
pub fn open(workspace: &Workspace<'_>, name: &str, names: AskedNames) -> Result<Vec<Flow>, RunError> {
    let seen = seen(workspace, name, names)?;
    let list = || conntrack::list(|connection| is_of(connection, seen.ip));
    let all = netns::within(&seen.netns, list).map_err(ApplyError::from)?.map_err(ApplyError::from)?;
    let time = SystemTime::now();
    let flow = |connection: TrackedConnection| {
        let name = seen.names.get(&connection.to).cloned();
        Flow { time, began: None, connection, name }
    };
    Ok(all.into_iter().map(flow).collect())
}
