//! What `watch` keeps of guests' packets that are dropped and of their connections: a bounded log for each guest, so that no guest
//! drives another's out of it. One process listens for a whole fleet, since the kernel tells packets to one alone.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use crate::apply::{ApplyError, network};
use crate::base::GuestName;
use crate::base::network::{guest_of_tap, guest_side};
use crate::base::text::excerpt;
use crate::base::time::{parse_rfc3339, rfc3339_millis};
use crate::host::firewall::noted::ANSWER;
use crate::host::layout::Layout;
use crate::host::policy::{PacketVerdict, Policies};
use crate::sys::fs::FileLock;
use crate::sys::log::{LogBounds, Writer};
use crate::sys::netns;
use crate::sys::nflog::{self, LoggedPacket, NetfilterEvent, NetfilterListener};
use crate::sys::{dns, ip};

use super::flows::{AskedNames, Dropped, Flow, judged, listening};
use super::log_lines::{self, LogLine, LogReader};
use super::{RunError, Workspace, reach};

/// How much is kept of each guest: twice 2 MiB, about 15,000 lines.
const KEPT: LogBounds = LogBounds { size: 2 << 20, keep: 1 };
/// How long is waited before a network is looked for again that is not there.
const AGAIN: Duration = Duration::from_secs(1);
/// How long is waited for what comes next, and how old what is known of guests may be.
const PATIENCE: Duration = Duration::from_millis(500);
const FRESH: Duration = Duration::from_secs(2);
/// Logs that are open at once, and names that are known of one guest.
const OPEN_MAX: usize = 64;
const NAMES_MAX: usize = 2048;

/// A line of the log.
#[derive(Debug, Serialize, Deserialize)]
struct NotedLine {
    /// RFC 3339, UTC.
    time: String,
    /// The name by which the guest had asked for the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(flatten)]
    what: NotedKind,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum NotedKind {
    Dropped {
        verdict: PacketVerdict,
        why: String,
        packet: LoggedPacket,
    },
    Flow(nflog::FlowEvent),
    /// Some came faster than they were read.
    Lost(bool),
}

/// What was kept, as it is told.
#[derive(Debug)]
pub enum Noted {
    Dropped(Dropped),
    Flow(Flow),
    Lost,
    /// Why a line cannot be shown.
    Unread(String),
}

/// What is kept of a guest, as it grows.
#[derive(Debug)]
pub struct Kept {
    log: LogReader<NotedLine>,
    lock: PathBuf,
}

impl Kept {
    /// Of the guest of that name, from the beginning.
    pub fn of(workspace: &Workspace<'_>, name: &str) -> Result<Self, RunError> {
        let (host, guest) = reach::guest(workspace, name)?;
        let log = LogReader::new(host.layout.guest(&guest).flows());
        Ok(Self { log, lock: host.layout.flows_lock() })
    }

    /// Whether nothing was ever kept of it.
    pub fn is_empty(&self) -> bool {
        self.log.is_empty()
    }

    /// Whether somebody keeps what comes now.
    pub fn is_growing(&self) -> bool {
        self.lock.exists() && matches!(FileLock::attempt(&self.lock), Ok(None))
    }

    /// What was kept since it was last asked.
    pub fn unread(&mut self) -> Result<Vec<Noted>, RunError> {
        Ok(self.log.unread()?.into_iter().map(noted).collect())
    }
}

/// The names by which a guest came to addresses, as far as that was kept.
pub fn names(workspace: &Workspace<'_>, guest: &str) -> Result<AskedNames, RunError> {
    let name = |noted: Noted| match noted {
        Noted::Dropped(dropped) => Some((dropped.packet.to, dropped.name?)),
        Noted::Flow(flow) => Some((flow.connection.to, flow.name?)),
        Noted::Lost | Noted::Unread(_) => None,
    };
    Ok(Kept::of(workspace, guest)?.unread()?.into_iter().filter_map(name).collect())
}

fn noted(line: LogLine<NotedLine>) -> Noted {
    let NotedLine { time, name, what } = match line {
        LogLine::Known(line) => line,
        LogLine::Gap(_) => return Noted::Lost,
        LogLine::Unread(why) => return Noted::Unread(why),
    };
    let Ok(time) = parse_rfc3339(&time) else {
        return Noted::Unread(format!("a line is left out: {} is no time", excerpt(&time)));
    };
    match what {
        NotedKind::Dropped { verdict, why, packet } => {
            Noted::Dropped(Dropped { time, verdict, why, place: None, packet, name })
        }
        NotedKind::Flow(event) => {
            Noted::Flow(Flow { time, began: Some(event.began), connection: event.connection, name })
        }
        NotedKind::Lost(_) => Noted::Lost,
    }
}

/// Keeps what comes of the fleet that `file` names, whenever its network is there, for ever. Nothing else suffers where that cannot
/// be.
pub fn keep(file: impl Fn() -> PathBuf) -> ! {
    loop {
        // What fails is tried again: a network that is on its way, a store that is full.
        let _ = keep_while_there(&file());
        thread::sleep(AGAIN);
    }
}

fn keep_while_there(file: &Path) -> Result<(), RunError> {
    let head = crate::fleet::head(file)?;
    let layout = head.layout();
    let netns = layout.netns();
    let Some(identity) = netns::identity(&netns) else { return Ok(()) };
    let Some(_held) = FileLock::attempt(&layout.flows_lock())? else { return Ok(()) };
    let listen = || {
        let (drops, answers) = (NetfilterListener::to_packets()?, NetfilterListener::to_answers()?);
        Ok::<_, ApplyError>((drops, answers, NetfilterListener::to_flows()?))
    };
    let (Some(drops), Some(answers), flows) = netns::within(&netns, listen).map_err(ApplyError::from)??
    else {
        return Ok(());
    };
    // Names first: who asks for one goes there next.
    let listeners = [&answers, &drops, &flows];
    let mut keeper = Keeper::new(&layout);
    while netns::identity(&netns) == Some(identity) {
        nflog::wait(&listeners, PATIENCE).map_err(listening)?;
        for listener in listeners {
            for event in listener.events(Duration::ZERO).map_err(listening)? {
                keeper.take(event);
            }
        }
    }
    Ok(())
}

/// What is known while it is kept.
struct Keeper<'a> {
    layout: &'a Layout,
    looked: Option<Instant>,
    by_index: BTreeMap<u32, GuestName>,
    by_address: BTreeMap<Ipv4Addr, GuestName>,
    policies: Policies,
    /// When the record of those was written.
    written: Option<SystemTime>,
    /// By the guest's address, and by that which its name led to.
    names: BTreeMap<Ipv4Addr, AskedNames>,
    writers: BTreeMap<GuestName, Writer>,
}

impl<'a> Keeper<'a> {
    fn new(layout: &'a Layout) -> Self {
        Self {
            layout,
            looked: None,
            by_index: BTreeMap::new(),
            by_address: BTreeMap::new(),
            policies: Policies::default(),
            written: None,
            names: BTreeMap::new(),
            writers: BTreeMap::new(),
        }
    }

    fn take(&mut self, event: NetfilterEvent) {
        self.look();
        match event {
            NetfilterEvent::Packet(packet) if packet.prefix == ANSWER => self.learn(&packet),
            NetfilterEvent::Packet(packet) => self.dropped(packet),
            NetfilterEvent::Flow(event) => {
                let (from, to) = (event.connection.from, event.connection.to);
                let found = self.by_address.get(&from).or_else(|| self.by_address.get(&to));
                if let Some(guest) = found.cloned() {
                    self.write(&guest, self.name(from, to), NotedKind::Flow(event));
                }
            }
            NetfilterEvent::Lost => {
                for guest in self.writers.keys().cloned().collect::<Vec<_>>() {
                    self.write(&guest, None, NotedKind::Lost(true));
                }
            }
        }
    }

    /// Looks who is there, and what was loaded for them, unless that was done a moment ago.
    fn look(&mut self) {
        if self.looked.is_some_and(|looked| looked.elapsed() < FRESH) {
            return;
        }
        self.looked = Some(Instant::now());
        let written = self.layout.ruleset().metadata().and_then(|meta| meta.modified()).ok();
        if written != self.written {
            self.policies = network::policies(self.layout).unwrap_or_default();
            self.written = written;
        }
        // All that is there is the fleet's.
        let Ok(Ok(interfaces)) = netns::within(&self.layout.netns(), ip::interfaces) else { return };
        let ours = interfaces
            .iter()
            .filter_map(|found| Some((found.index, found.addresses.first()?.0, guest_of_tap(&found.name)?)));
        let ours: Vec<_> = ours.collect();
        self.by_index = ours.iter().map(|(index, _, guest)| (*index, guest.clone())).collect();
        self.by_address = ours.into_iter().map(|(_, host, guest)| (guest_side(host), guest)).collect();
        self.names.retain(|address, _| self.by_address.contains_key(address));
    }

    fn learn(&mut self, packet: &LoggedPacket) {
        /// Bytes of UDP's header.
        const UDP: usize = 8;
        let Some((name, addresses)) = packet.payload.get(UDP..).and_then(dns::answer) else { return };
        let known = self.names.entry(packet.to).or_default();
        if known.len() + addresses.len() > NAMES_MAX {
            known.clear();
        }
        known.extend(addresses.into_iter().take(NAMES_MAX).map(|address| (address, name.clone())));
    }

    fn name(&self, guest: Ipv4Addr, to: Ipv4Addr) -> Option<String> {
        self.names.get(&guest)?.get(&to).cloned()
    }

    fn dropped(&mut self, packet: LoggedPacket) {
        let mut devices = [packet.indev, packet.outdev].into_iter().flatten();
        let Some(guest) = devices.find_map(|index| self.by_index.get(&index)).cloned() else { return };
        let network = self.policies.guests.get(&guest);
        let clauses = network.and_then(|network| self.policies.policies.get(network));
        let (verdict, why, _) = judged(&packet.prefix, network, clauses.map_or(&[], Vec::as_slice));
        let name = self.name(packet.from, packet.to);
        self.write(&guest, name, NotedKind::Dropped { verdict, why, packet });
    }

    fn write(&mut self, guest: &GuestName, name: Option<String>, what: NotedKind) {
        let now = SystemTime::now();
        if !self.writers.contains_key(guest) {
            if self.writers.len() >= OPEN_MAX {
                self.writers.clear();
            }
            let Ok(writer) = Writer::open(&self.layout.guest(guest).flows(), KEPT) else { return };
            self.writers.insert(guest.clone(), writer);
        }
        let line = NotedLine { time: rfc3339_millis(now), name, what };
        let line = log_lines::line(&line);
        if let Some(writer) = self.writers.get_mut(guest) {
            writer.append(line.as_bytes(), now);
        }
    }
}
