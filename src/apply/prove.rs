//! The kernel's word on a policy: the rules in a network of their own, the packet itself, and what nft traces of it.
//!
//! ```text
//! sender eth0 --- the guest's TAP | rules | the uplink --- nobody
//! ```
//!
//! The network is that of this process, which `run/proof.rs` starts in one of its own, and a second one in which a
//! process sleeps. Both end with their processes, so nothing is left of them, whatever happens.

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::base::network::host_side;
use crate::base::{InterfaceName, MacAddress};
use crate::host::policy::Transport;
use crate::sys::raw::{self, RawPacket, RawSocket};
use crate::sys::tool::{Follow, Tool};
use crate::sys::{ip, netns, nft};

use crate::base::{Class, Diagnosis, Diagnostic};
use crate::sys::ip::IpError;
use crate::sys::netns::NetnsError;
use crate::sys::nft::NftError;
use crate::sys::tool::ToolError;

/// Why the kernel was not asked.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    #[error(transparent)]
    Tool(#[from] ToolError),
    #[error(transparent)]
    Ip(#[from] IpError),
    #[error(transparent)]
    Nft(#[from] NftError),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error("cannot send a packet in a network of its own")]
    Send(#[source] io::Error),
    #[error("nft traces nothing of a packet that was sent")]
    NoTrace,
    #[error("there is nothing to prove: --prove takes an address of IPv4 with a port, or with a protocol")]
    Nothing,
    #[error(
        "internal error: by the kernel and these rules {}, against what is said of the policy:{}", if .0.passed { "it passes" } else { "it does not pass" }, lines(&.0.path)
    )]
    Disproved(Proof),
}

fn lines(path: &[String]) -> String {
    path.iter().map(|rule| format!("\n  {rule}")).collect()
}

impl Diagnostic for ProveError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Tool(error) => error.diagnosis(),
            Self::Ip(error) => error.diagnosis(),
            Self::Nft(error) => error.diagnosis(),
            Self::Netns(error) => error.diagnosis(),
            Self::Send(_) => Class::Failed.no_hint(),
            Self::Nothing => Class::Invalid.no_hint(),
            Self::Disproved(_) => Class::Failed.hint("please report it, with `sisforge policy show --nft`"),
            Self::NoTrace => Class::Failed.hint("this kernel may lack CONFIG_NF_TABLES and nftrace"),
        }
    }
}

/// Who sends, and over which interfaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    pub tap: InterfaceName,
    pub mac: MacAddress,
    pub ip: Ipv4Addr,
    /// The way out, as the rules call it.
    pub uplink: InterfaceName,
}

/// What the kernel did with a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Whether it left by the uplink, or came to the resolver or proxy that it was led to.
    pub passed: bool,
    /// The chains that it went through and the rules in them that fitted, in nft's words.
    pub path: Vec<String>,
}

/// How a packet is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// As the guest itself sends it.
    Own,
    /// By the guest, from another address than its own.
    From(Ipv4Addr),
    /// The first part of a packet, of which more is to come.
    FirstFragment,
    /// A later part, without ports.
    LaterFragment,
    /// By somebody beyond the uplink, to the guest.
    Inward,
}

/// A network with a sender.
pub struct Scratch {
    sender: Sender,
    guest: RawSocket,
    beyond: RawSocket,
    /// Of the rules that were there when it began: it knows those alone by their words.
    monitor: Option<Follow>,
    /// Of the last packet: by this the traces of packets are told from each other.
    id: u16,
    /// Whose namespaces those of the guest and of the network beyond are.
    _sleepers: [Follow; 2],
}

/// A packet is waited for this long, even where the machine is busy.
const PATIENCE: Duration = Duration::from_secs(20);
/// A packet whose trace does not begin within this is sent again: nft tells nobody when it has begun to listen.
const UNHEARD: Duration = Duration::from_millis(200);

const TABLE: &str = "sisforge.prove";

/// Beyond the uplink.
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The uplink's own address.
const OUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

impl Scratch {
    /// Lays it out in this process's network, which must have nothing in it.
    pub fn build(sender: Sender) -> Result<Self, ProveError> {
        let sleepers = [sleeper()?, sleeper()?];
        let [guest, beyond] = [sleepers[0].pid(), sleepers[1].pid()];
        let Sender { tap, mac, ip, uplink } = &sender;
        let host = host_side(*ip);
        batch(&format!(
            "link set lo up\n\
             link add {tap} type veth peer name eth0 address {mac} netns {guest}\n\
             addr add {host}/30 dev {tap}\nlink set {tap} up\n\
             link add {uplink} type veth peer name eth0 netns {beyond}\n\
             addr add {OUTER}/30 dev {uplink}\nlink set {uplink} up\n\
             route add default via {ROUTER} dev {uplink}\n"
        ))?;
        ip::set_sysctl("net.ipv4.ip_forward", "1")?;
        nft::load(&tracing(tap, uplink))?;
        let open = |pid: u32, address: Ipv4Addr, via: Ipv4Addr| {
            let work = || -> Result<RawSocket, ProveError> {
                batch(&format!(
                    "link set lo up\nlink set eth0 up\naddr add {address}/30 dev eth0\nroute add default via {via}\n"
                ))?;
                raw::open().map_err(ProveError::Send)
            };
            netns::within_path(Path::new(&format!("/proc/{pid}/ns/net")), work)?
        };
        let (guest, beyond) = (open(guest, *ip, host)?, open(beyond, ROUTER, OUTER)?);
        Ok(Self { sender, guest, beyond, monitor: None, id: 0, _sleepers: sleepers })
    }

    /// Loads rules, in the place of those that are there.
    pub fn load(&mut self, ruleset: &str) -> Result<(), ProveError> {
        self.monitor = None;
        Ok(nft::load(ruleset)?)
    }

    /// The same while packets are sent.
    pub fn load_beside(&self, ruleset: &str) -> JoinHandle<Result<(), ProveError>> {
        let ruleset = ruleset.to_owned();
        std::thread::spawn(move || Ok(nft::load(&ruleset)?))
    }

    /// Sends what begins a connection of the guest, and waits for what becomes of it.
    pub fn send(&mut self, to: Ipv4Addr, transport: Transport) -> Result<Proof, ProveError> {
        self.send_as(to, transport, Shape::Own)
    }

    /// The same of a packet of any shape. For what comes inward, `peer` sends it.
    pub fn send_as(
        &mut self,
        peer: Ipv4Addr,
        transport: Transport,
        shape: Shape,
    ) -> Result<Proof, ProveError> {
        let until = Instant::now() + PATIENCE;
        let monitor = match self.monitor.take() {
            Some(monitor) => monitor,
            None => Tool::new("nft").args(["monitor", "trace"]).follow()?,
        };
        let mut proof = None;
        while proof.is_none() && Instant::now() < until {
            self.throw(peer, transport, shape)?;
            // Behind it, one that ends nowhere: once the kernel is with that, it is done with the other.
            self.throw(ROUTER, Transport::Udp(9), Shape::Own)?;
            proof = self.traced(&monitor, until);
        }
        self.monitor = Some(monitor);
        proof.ok_or(ProveError::NoTrace)
    }

    fn throw(&mut self, peer: Ipv4Addr, transport: Transport, shape: Shape) -> Result<(), ProveError> {
        self.id = if self.id > 40_000 { 1 } else { self.id + 1 };
        let own = self.sender.ip;
        let (from, to) = match shape {
            Shape::From(other) => (other, peer),
            Shape::Inward => (peer, own),
            Shape::Own | Shape::FirstFragment | Shape::LaterFragment => (own, peer),
        };
        let fragment = match shape {
            Shape::FirstFragment => 0x2000,
            Shape::LaterFragment => 2,
            _ => 0,
        };
        let (protocol, content) = content(from, to, transport, 20_000 + self.id);
        let packet = RawPacket { from, to, id: self.id, fragment, protocol, content: &content };
        let (socket, via) = match shape {
            Shape::Inward => (&self.beyond, OUTER),
            _ => (&self.guest, host_side(own)),
        };
        raw::send(socket, &packet, via).map_err(ProveError::Send)
    }

    /// What was traced of the packet before the last one; `None` where nothing is.
    fn traced(&self, monitor: &Follow, until: Instant) -> Option<Proof> {
        let [packet, behind] = [self.id - 1, self.id].map(|id| format!(" ip id {id} "));
        let mut proof = Proof { passed: false, path: Vec::new() };
        let mut trace: Option<String> = None;
        loop {
            let patience =
                if trace.is_some() { until.saturating_duration_since(Instant::now()) } else { UNHEARD };
            let line = monitor.next(patience).ok()?;
            let event = line.strip_prefix("trace id ").and_then(|rest| rest.split_once(' '));
            let Some((id, event)) = event else { continue };
            if event.contains(&behind) {
                // One of the two was not heard of.
                return trace.map(|_| proof);
            }
            if event.contains(&packet) {
                trace.get_or_insert_with(|| id.to_owned());
            }
            if trace.as_deref() != Some(id) || !event.contains(" rule ") {
                continue;
            }
            match event.strip_prefix(&format!("inet {TABLE} ")) {
                Some(ours) => proof.passed |= ours.starts_with("passed ") || ours.starts_with("taken "),
                None => proof.path.push(event.to_owned()),
            }
        }
    }
}

/// A process that has a network namespace of its own, and does nothing in it.
fn sleeper() -> Result<Follow, ProveError> {
    let sleeper =
        Tool::new("unshare").args(["--net", "--", "sh", "-c", "echo there; exec sleep 3600"]).follow()?;
    sleeper.next(PATIENCE).map_err(|_| ProveError::NoTrace)?;
    Ok(sleeper)
}

/// Traces what comes from either side, and tells what leaves by the other, and what is taken in from the guest.
fn tracing(tap: &InterfaceName, uplink: &InterfaceName) -> String {
    format!(
        r#"table inet {TABLE} {{
  chain arriving {{
    type filter hook prerouting priority -500; policy accept;
    iifname {{ "{tap}", "{uplink}" }} meta nftrace set 1
  }}
  chain passed {{
    type filter hook postrouting priority 500; policy accept;
    iifname "{tap}" oifname "{uplink}" accept
    iifname "{uplink}" oifname "{tap}" accept
  }}
  chain taken {{
    type filter hook input priority 500; policy accept;
    iifname "{tap}" accept
  }}
}}
"#
    )
}

fn batch(commands: &str) -> Result<(), ProveError> {
    Tool::new("ip").args(["-batch", "-"]).stdin(commands).run()?;
    Ok(())
}

/// Number of a protocol, and what is behind the IP header.
fn content(from: Ipv4Addr, to: Ipv4Addr, transport: Transport, source: u16) -> (u8, Vec<u8>) {
    match transport {
        Transport::Tcp(port) => (6, raw::tcp_syn(from, to, source, port)),
        Transport::Udp(port) => (17, raw::udp(source, port)),
        Transport::Icmp => (1, raw::echo_request(source)),
        Transport::Other(protocol) => (protocol, vec![0; 16]),
    }
}
