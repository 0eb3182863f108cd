//! Resolvers and proxies of policies that name names: dnsmasq and HAProxy, each in a cgroup of its own beside those of guests,
//! in the fleet's network namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::base::text::printable;
use crate::base::{Class, Diagnosis, Diagnostic, Label, Sha256};
use crate::host::firewall::Ruleset;
use crate::host::firewall::names::{self, RunningResolver};
use crate::host::layout::Layout;
use crate::host::observed::{ObservedHost, ObservedResolver};
use crate::host::resolver::{
    BY_TCP, ConfiguredNames, Resolver, ResolverProgram, Seat, proxy_config, resolver_config,
};
use crate::sys::cgroup::{CgroupError, Hierarchy, Limits};
use crate::sys::fs::{self as files, FileError};
use crate::sys::launch::{LaunchError, LaunchRequest};
use crate::sys::netns::{NetnsError, Presence};
use crate::sys::nft::NftError;
use crate::sys::remove::remove_tree;
use crate::sys::service::{self, CONFIG, SandboxedService};
use crate::sys::tool::{Tool, ToolError};
use crate::sys::{conntrack, dns, launch, netns, process};

use super::record::{self, Record, Unwritten};

/// Why a resolver does not run, or does not end.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Tool(#[from] ToolError),
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error(transparent)]
    Unwritten(#[from] Unwritten),
    #[error(transparent)]
    Conntrack(#[from] NftError),
    #[error("{program} does not begin to serve network {policy}{}", if said.is_empty() { String::new() } else { format!(": {said}") })]
    NoService { program: &'static str, policy: Label, said: String },
}

impl Diagnostic for ResolverError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::File(error) => error.diagnosis().of(Class::Failed),
            Self::Cgroup(error) => error.diagnosis(),
            Self::Netns(error) => error.diagnosis(),
            Self::Tool(error) => error.diagnosis(),
            Self::Launch(error) => error.diagnosis().of(Class::Failed),
            Self::Unwritten(error) => error.diagnosis(),
            Self::Conntrack(error) => error.diagnosis(),
            Self::NoService { .. } => Class::Failed.no_hint(),
        }
    }
}

/// `resolver.json`: what was started in a seat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartedResolver {
    pub policy: Label,
    pub digest: Sha256,
    /// Who runs each program that belongs to it.
    pub uids: BTreeMap<ResolverProgram, u32>,
}

impl Record for StartedResolver {
    const VERSION: u32 = 1;
}

/// How long one may take until it answers: that with a million names takes seconds, and more on a busy host.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);
/// How long a connection to it may take while it reads its names.
const CONNECT: Duration = Duration::from_secs(1);
/// How long one that guests are no more led to has for what it was asked before: a name server that answers has done so by then,
/// or its client has asked again.
const LEAVE: Duration = Duration::from_secs(5);
/// How long it takes at most from an answer of a name server until the guest has it.
const PASSED_ON: Duration = Duration::from_millis(200);
/// Processes and threads of one: dnsmasq has a process for each query by TCP.
const PROCESSES: u64 = 64 + BY_TCP as u64;

/// The resolvers of a fleet, by their seats. What is left of one counts.
pub(super) fn observe(
    layout: &Layout,
    hierarchy: &Hierarchy,
) -> Result<BTreeMap<u16, ObservedResolver>, ResolverError> {
    let children = hierarchy.children(&layout.cgroups());
    let by_cgroup = ResolverProgram::ALL.into_iter().flat_map(|program| {
        children.iter().filter_map(move |child| child.strip_prefix(program.cgroup_prefix())?.parse().ok())
    });
    let by_record = files::names_in(&layout.resolvers())?;
    let by_record = by_record.iter().filter_map(|name| name.parse().ok());
    let seats: BTreeSet<u16> = by_cgroup.chain(by_record).collect();
    let state = |seat: u16| {
        let started: Option<StartedResolver> = record::read(&layout.resolver_record(seat)).ok().flatten();
        let runs = |program: ResolverProgram, uid: u32| {
            let pids = hierarchy.procs(&layout.resolver_cgroup(program, seat));
            pids.into_iter().filter_map(process::inspect).any(|process| process::uid(&process) == Some(uid))
        };
        let whole = started.filter(|it| it.uids.iter().all(|(program, uid)| runs(*program, *uid)));
        whole.map_or(ObservedResolver::Broken, |it| ObservedResolver::Running(it.digest))
    };
    Ok(seats.into_iter().map(|seat| (seat, state(seat))).collect())
}

/// What the resolvers that were started let guests ask for, by policy; what cannot be read is not told.
pub fn configured(layout: &Layout, observed: &ObservedHost) -> BTreeMap<Label, ConfiguredNames> {
    let configured = observed.resolvers.keys().filter_map(|seat| {
        let started: StartedResolver = record::read(&layout.resolver_record(*seat)).ok().flatten()?;
        let config = files::read_text(&config_path(layout, ResolverProgram::Dnsmasq, *seat)).ok()?;
        Some((started.policy, ConfiguredNames::observed(&config)))
    });
    configured.collect()
}

/// What comes with these rules for resolvers that run and are no more to be asked: [`names::leaving`].
pub(super) fn leaving(layout: &Layout, ruleset: &Ruleset) -> Result<String, ResolverError> {
    let (table, led) = (&ruleset.parts.table, &ruleset.parts.led);
    let mut text = String::new();
    for name in files::names_in(&layout.resolvers())? {
        let Ok(number) = name.parse() else { continue };
        let started: Option<StartedResolver> = record::read(&layout.resolver_record(number)).ok().flatten();
        let Some(started) = started else { continue };
        let uid = started.uids.get(&ResolverProgram::Dnsmasq);
        let Some(seat) = uid.and_then(|uid| Seat::of(number, *uid)) else { continue };
        let programs: Vec<_> = started.uids.keys().copied().collect();
        let running = RunningResolver { policy: &started.policy, seat, programs: &programs };
        text.push_str(&names::leaving(table, led, &running));
    }
    Ok(text)
}

/// Where resolvers are started.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResolverHost<'a> {
    pub layout: &'a Layout,
    pub hierarchy: &'a Hierarchy,
    /// This program, which joins cgroup and namespace and becomes the other.
    pub launcher: &'a Path,
}

impl ResolverHost<'_> {
    /// Starts a resolver, with its proxy where it has one, and waits until guests can be led to it. Whatever is in its seat
    /// goes.
    ///
    /// # Errors
    /// Where it does not come up; nothing of it is left then.
    pub fn start(self, resolver: &Resolver) -> Result<(), ResolverError> {
        let (layout, seat) = (self.layout, resolver.seat);
        self.stop(seat.number)?;
        files::create_private_dir(&layout.resolver(seat.number))?;
        let uids = resolver.programs().map(|program| (program, program.uid(seat))).collect();
        let (policy, digest) = (resolver.policy.clone(), resolver.digest);
        record::write(&layout.resolver_record(seat.number), &StartedResolver { policy, digest, uids })?;
        let started = resolver.programs().try_for_each(|program| self.run(resolver, program));
        if started.is_err() {
            // What failed is told, whatever becomes of this.
            let _ = self.stop(seat.number);
        }
        started
    }

    /// Ends a resolver and its proxy that guests are no more led to; absence is fine. What was asked before is answered first, as far
    /// as it is at all, and whoever asks again from the same port is led to the one in its place.
    pub fn retire(self, seat: u16) -> Result<(), ResolverError> {
        let netns = self.layout.netns();
        let is_there = netns::presence(&netns)? == Presence::There;
        let cgroup = self.layout.resolver_cgroup(ResolverProgram::Dnsmasq, seat);
        if is_there && !self.hierarchy.procs(&cgroup).is_empty() {
            netns::within(&netns, || answer_the_last(seat))??;
        }
        self.stop(seat)?;
        if is_there {
            netns::within(&netns, || forget(seat))??;
        }
        Ok(())
    }

    fn stop(self, seat: u16) -> Result<(), ResolverError> {
        for program in ResolverProgram::ALL {
            let cgroup = self.layout.resolver_cgroup(program, seat);
            self.hierarchy.kill(&cgroup)?;
            self.hierarchy.remove(&cgroup)?;
        }
        match remove_tree(&self.layout.resolver(seat)).into_iter().next() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    fn run(self, resolver: &Resolver, program: ResolverProgram) -> Result<(), ResolverError> {
        let (layout, seat) = (self.layout, resolver.seat);
        let text = match program {
            ResolverProgram::Dnsmasq => resolver_config(resolver),
            ResolverProgram::Haproxy => proxy_config(resolver),
        };
        files::write_unsynced(&config_path(layout, program, seat.number), text.as_bytes(), 0o444)?;
        let cgroup = layout.resolver_cgroup(program, seat.number);
        let limits = Limits { memory: Some(resolver.memory(program)), pids: Some(PROCESSES), ..Limits::NONE };
        self.hierarchy.create(&cgroup, &limits)?;
        let netns = layout.netns();
        let argv: Vec<_> = call(layout, resolver, program)?.argv().cloned().collect();
        let launcher = LaunchRequest {
            cgroups: &self.hierarchy.join_files(&cgroup),
            netns: Some(netns.path()),
            argv: &argv,
            ..LaunchRequest::default()
        }
        .command(self.launcher);
        let dir = layout.resolver(seat.number);
        let failed = || FileError::when("create a file in", &dir);
        let mut said = tempfile::tempfile_in(&dir).map_err(failed())?;
        let [stdout, stderr] = [said.try_clone().map_err(failed())?, said.try_clone().map_err(failed())?];
        let stdin = File::open("/dev/null").map_err(FileError::when("open", "/dev/null"))?;
        let pid = launch::spawn(&launcher, stdin, stdout, stderr)?.pid;
        let asked = (program == ResolverProgram::Dnsmasq).then(|| (seat.dns_port(), resolver.own_name()));
        if netns::within(&netns, || answers(pid, &program.ports(seat), asked))? {
            return Ok(());
        }
        let mut text = String::new();
        // What cannot be read is only the reason's wording.
        let _ = said.rewind().and_then(|()| said.read_to_string(&mut text));
        let (policy, said) = (resolver.policy.clone(), printable(text.trim()));
        Err(ResolverError::NoService { program: program.name(), policy, said })
    }
}

fn config_path(layout: &Layout, program: ResolverProgram, seat: u16) -> PathBuf {
    layout.resolver(seat).join(program.config())
}

/// Looks whether all is installed that a resolver needs.
pub(super) fn check_start(layout: &Layout, resolver: &Resolver) -> Result<(), ToolError> {
    resolver.programs().try_for_each(|program| call(layout, resolver, program).map(drop))
}

/// What starts a program of a resolver.
fn call(layout: &Layout, resolver: &Resolver, program: ResolverProgram) -> Result<Tool, ToolError> {
    let config = config_path(layout, program, resolver.seat.number);
    let args: &[&str] = match program {
        ResolverProgram::Dnsmasq => &["--keep-in-foreground", "-C", CONFIG],
        ResolverProgram::Haproxy => &["-db", "-q", "-f", CONFIG],
    };
    service::call(&SandboxedService {
        program: program.name(),
        args,
        config: &config,
        uid: program.uid(resolver.seat),
        open_files: program.open_files(),
    })
}

/// Waits until a process takes connections on all of these ports, in the namespace of this thread, and answers at the port where it is
/// `asked` for a name of its own: it listens before it has read all names. `false` where it ended, or it takes too long.
fn answers(pid: u32, ports: &[u16], asked: Option<(u16, &str)>) -> bool {
    let begun = Instant::now();
    let is_open = |port: &u16| TcpStream::connect_timeout(&here(*port), CONNECT).is_ok();
    while process::inspect(pid).is_some() && begun.elapsed() < PATIENCE {
        if ports.iter().all(is_open) && asked.is_none_or(|(port, name)| is_answered(port, name)) {
            return true;
        }
        thread::sleep(POLL);
    }
    false
}

fn here(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn is_answered(port: u16, name: &str) -> bool {
    let ask = || -> std::io::Result<usize> {
        let socket = UdpSocket::bind(here(0))?;
        socket.connect(here(port))?;
        socket.set_read_timeout(Some(CONNECT))?;
        socket.send(&dns::question(1, name))?;
        socket.recv(&mut [0; 512])
    };
    ask().is_ok()
}

/// Waits until whatever guests have asked in a seat was answered, and what any resolver has asked for them, in the network namespace
/// of this thread; [`LEAVE`] at most.
fn answer_the_last(seat: u16) -> Result<(), NftError> {
    let (begun, ports) = (Instant::now(), Seat::ports_of(seat));
    let is_open = |it: &conntrack::TrackedConnection| {
        let is_asked = it.answering_port.is_some_and(|port| port == 53 || ports.contains(&port));
        is_asked && it.awaits_answer
    };
    let open = conntrack::list(is_open)?;
    let mut left = open.clone();
    while !left.is_empty() && begun.elapsed() < LEAVE {
        thread::sleep(POLL);
        left = conntrack::list(|it| is_open(it) && open.iter().any(|open| open.is_same_as(it)))?;
    }
    if !open.is_empty() {
        thread::sleep(PASSED_ON);
    }
    Ok(())
}

/// Has the kernel forget who was led to a seat.
fn forget(seat: u16) -> Result<(), NftError> {
    let ports = Seat::ports_of(seat);
    let led = |it: &conntrack::TrackedConnection| {
        it.answering_port.is_some_and(|port| ports.contains(&port)) && it.port != it.answering_port
    };
    conntrack::end(&conntrack::list(led)?).map(drop)
}
