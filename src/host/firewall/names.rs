//! The rules that lead port 53 of guests, whomever they ask, to the resolver of their policy or to its name servers, and the web of
//! guests whose policy allows some names alone to its proxy; and those that hold resolvers, proxies and VMMs to what they are for.
//!
//! The first packet of a connection is turned before the policy sees it, so the policy judges where it really goes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};

use crate::base::{InterfaceName, Label};
use crate::fleet::{NetworkPolicy, PolicyRule};
use crate::host::resolver::{Resolver, ResolverProgram, Seat, servers};

use super::verdicts::v4;
use super::{AddressSet, noted};

/// All that the rules are made of.
#[derive(Clone, Copy, Debug)]
pub struct NameRules<'a> {
    /// Addresses of guests and their policies.
    pub guests: &'a [(Ipv4Addr, &'a Label)],
    pub policies: &'a BTreeMap<&'a Label, &'a NetworkPolicy>,
    pub resolvers: &'a BTreeMap<Label, Resolver>,
    /// Contents of the lists of addresses.
    pub addresses: &'a BTreeMap<PathBuf, Vec<IpNet>>,
    /// The same as sets of the table.
    pub sets: &'a BTreeMap<PathBuf, AddressSet>,
    /// The guests' own.
    pub subnet: Ipv4Net,
    /// What leads out of the namespace.
    pub uplink: &'a InterfaceName,
}

impl NameRules<'_> {
    fn servers(&self, policy: &NetworkPolicy) -> Vec<Ipv4Addr> {
        servers(policy, self.addresses, self.subnet)
    }
}

/// Maps and chains, to stand in the fleet's table. VMMs are in the namespace, too, and have nothing to send but their guests' frames:
/// what has taken one over would otherwise be past its guest's policy. Of packets that are nobody's, such as a reset, there is no uid
/// to match; a resolver that the rules do not know yet answers whoever looks whether it is there.
pub fn render(rules: &NameRules<'_>) -> String {
    let mut text = String::new();
    maps(&mut text, rules);
    let _ = write!(
        text,
        r#"  chain asking {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname != @taps accept
    meta l4proto {{ tcp, udp }} th dport 53 redirect to :ip saddr map @dns_ports
    tcp dport 443 redirect to :ip saddr map @tls_ports
    tcp dport 80 redirect to :ip saddr map @http_ports
    meta l4proto {{ tcp, udp }} th dport 53 ip saddr vmap @name_servers
  }}
  chain sending {{
    type filter hook output priority filter - 5; policy accept;
    meta skuid vmap @senders
    oifname "lo" ct direction reply accept
    meta skuid != 0 counter drop
  }}
"#
    );
    for (label, policy) in rules.policies {
        match rules.resolvers.get(*label) {
            Some(resolver) => senders(&mut text, rules, policy, resolver),
            None => ask(&mut text, label, &rules.servers(policy)),
        }
    }
    text
}

fn map(text: &mut String, name: &str, declaration: &str, elements: &[String]) {
    super::elements(text, &format!("map {name} {{ type {declaration}"), elements);
}

/// Declarations of the maps that those are in for a while who are led nowhere any more.
const TO_RESOLVER: &str = "ipv4_addr . inet_proto . inet_service : verdict; flags timeout";
const SENDERS: &str = "uid : verdict; flags timeout";

/// How long one that guests are no more led to is still held to what it is for, in seconds: longer than it is left.
const LEAVING: u32 = 60;

/// Whom a policy's resolver serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedGuests {
    pub seat: u16,
    pub guests: Vec<Ipv4Addr>,
}

/// Who is led to the resolvers, by policy.
pub fn led(rules: &NameRules<'_>) -> BTreeMap<Label, LedGuests> {
    let led = |(label, resolver): (&Label, &Resolver)| {
        let guests = rules.guests.iter().filter(|(_, policy)| *policy == label).map(|(ip, _)| *ip).collect();
        (label.clone(), LedGuests { seat: resolver.seat.number, guests })
    };
    rules.resolvers.iter().map(led).collect()
}

/// What holds a resolver to what it is for that runs while guests are led to the one in its place: it answers what it was asked
/// before, by what the rules say of that one. It stands behind the rules, in the same transaction, and goes by itself.
pub fn leaving(table: &str, led: &BTreeMap<Label, LedGuests>, running: &RunningResolver<'_>) -> String {
    let RunningResolver { policy, seat, programs } = running;
    let Some(led) = led.get(*policy).filter(|led| led.seat != seat.number) else { return String::new() };
    let mut text = String::new();
    let senders = programs.iter().map(|program| {
        let (uid, chain) = (program.uid(*seat), sender(*program));
        format!("{uid} timeout {LEAVING}s : goto {chain}-{policy}")
    });
    add(&mut text, table, "senders", &senders.collect::<Vec<_>>());
    let turned = led.guests.iter().flat_map(|ip| {
        let services = services(programs.iter().copied(), *seat).into_iter();
        services.map(move |(protocol, port)| {
            format!("{ip} . {protocol} . {port} timeout {LEAVING}s : goto asked-{policy}")
        })
    });
    add(&mut text, table, "to_resolver", &turned.collect::<Vec<_>>());
    text
}

fn add(text: &mut String, table: &str, map: &str, elements: &[String]) {
    if !elements.is_empty() {
        let _ = writeln!(text, "add element inet {table} {map} {{ {} }}", elements.join(", "));
    }
}

/// A resolver that was started.
#[derive(Clone, Copy, Debug)]
pub struct RunningResolver<'a> {
    pub policy: &'a Label,
    pub seat: Seat,
    pub programs: &'a [ResolverProgram],
}

/// What the chain is called that holds a program to what it is for, before the policy's name.
fn sender(program: ResolverProgram) -> &'static str {
    match program {
        ResolverProgram::Dnsmasq => "resolver",
        ResolverProgram::Haproxy => "proxy",
    }
}

fn maps(text: &mut String, rules: &NameRules<'_>) {
    let of = |(ip, label): &(Ipv4Addr, &Label)| Some((*ip, rules.resolvers.get(*label)?));
    let resolved: Vec<_> = rules.guests.iter().filter_map(of).collect();
    let ports = |port: fn(&Resolver) -> Option<u16>| {
        let port = |(ip, resolver): &(Ipv4Addr, &Resolver)| Some(format!("{ip} : {}", port(resolver)?));
        resolved.iter().filter_map(port).collect::<Vec<_>>()
    };
    let types = "ipv4_addr : inet_service";
    map(text, "dns_ports", types, &ports(|it| Some(it.seat.dns_port())));
    map(text, "tls_ports", types, &ports(|it| it.has_proxy().then(|| it.seat.tls_port())));
    map(text, "http_ports", types, &ports(|it| it.has_proxy().then(|| it.seat.http_port())));
    let turned = resolved.iter().flat_map(|(ip, resolver)| {
        let goto = format!("goto asked-{}", resolver.policy);
        let services = services(resolver.programs(), resolver.seat).into_iter();
        services.map(move |(protocol, port)| format!("{ip} . {protocol} . {port} : {goto}"))
    });
    map(text, "to_resolver", TO_RESOLVER, &turned.collect::<Vec<_>>());
    let asks = |label: &&Label| {
        let policy = rules.policies.get(*label);
        policy.is_some_and(|policy| !rules.servers(policy).is_empty())
            && !rules.resolvers.contains_key(*label)
    };
    let asking = rules.guests.iter().filter(|(_, label)| asks(label));
    let asking: Vec<_> = asking.map(|(ip, label)| format!("{ip} : goto ask-{label}")).collect();
    map(text, "name_servers", "ipv4_addr : verdict", &asking);
    let senders = rules.resolvers.iter().flat_map(|(label, resolver)| {
        let goto = move |program: ResolverProgram| {
            format!("{} : goto {}-{label}", program.uid(resolver.seat), sender(program))
        };
        resolver.programs().map(goto)
    });
    map(text, "senders", SENDERS, &senders.collect::<Vec<_>>());
}

/// What guests are led to, by protocol and port.
fn services(programs: impl Iterator<Item = ResolverProgram>, seat: Seat) -> Vec<(&'static str, u16)> {
    let tcp = programs.flat_map(|program| program.ports(seat)).map(|port| ("tcp", port));
    tcp.chain([("udp", seat.dns_port())]).collect()
}

/// Who asks is sent to each name server in turn: whoever asks again, because one does not answer, comes to another.
fn ask(text: &mut String, label: &Label, servers: &[Ipv4Addr]) {
    let turn = match servers {
        [] => return,
        [one] => one.to_string(),
        many => {
            let each = many.iter().enumerate().map(|(index, server)| format!("{index} : {server}"));
            format!("numgen inc mod {} map {{ {} }}", many.len(), each.collect::<Vec<_>>().join(", "))
        }
    };
    let _ = writeln!(text, "  chain ask-{label} {{\n    dnat ip to {turn}\n  }}");
}

fn shown<T: ToString>(all: &[T]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What a resolver and its proxy may send. Both answer guests; the one asks its servers, the other connects with the web at
/// addresses that the policy does not deny.
fn senders(text: &mut String, rules: &NameRules<'_>, policy: &NetworkPolicy, resolver: &Resolver) {
    let (label, uplink, port) = (&resolver.policy, rules.uplink, resolver.seat.dns_port());
    let _ = write!(
        text,
        r#"  chain resolver-{label} {{
    oifname @taps {}
{ANSWERS}    oifname "{uplink}" ip daddr {{ {} }} meta l4proto {{ tcp, udp }} th dport 53 accept
    counter drop
  }}
"#,
        noted::answer(),
        shown(&resolver.servers)
    );
    if !resolver.has_proxy() {
        return;
    }
    let _ = write!(
        text,
        r#"  chain proxy-{label} {{
{ANSWERS}    oifname "lo" ip daddr 127.0.0.1 meta l4proto {{ tcp, udp }} th dport {port} accept
    oifname != "{uplink}" counter drop
    ip daddr {{ {} }} counter reject
"#,
        shown(&resolver.unreached)
    );
    for line in policy.deny.iter().flat_map(|rule| denied(rule, rules.sets)) {
        let _ = writeln!(text, "    {line}counter reject");
    }
    text.push_str("    tcp dport { 80, 443 } accept\n    counter drop\n  }\n");
}

/// Answers to guests, as those are counted that go through.
const ANSWERS: &str = "    ct direction reply oifname @taps counter name oifname map @down accept
    ct direction reply accept
";

/// What a rule says of the web, as matches that end in a space: of its own addresses, and of its list.
fn denied(rule: &PolicyRule, sets: &BTreeMap<PathBuf, AddressSet>) -> Vec<String> {
    let is_all = rule.tcp.is_empty() && rule.udp.is_empty() && !rule.icmp;
    let web = [80, 443].into_iter().filter(|port| rule.tcp.iter().any(|ports| ports.contains(port)));
    let ports = match (is_all, web.collect::<Vec<u16>>().as_slice()) {
        (true, _) => String::new(),
        (false, []) => return Vec::new(),
        (false, web) => format!("tcp dport {{ {} }} ", shown(web)),
    };
    if rule.to.is_empty() && rule.list.is_none() {
        return vec![ports];
    }
    let nets = Ipv4Net::aggregate(&v4(&rule.to));
    let own = (!nets.is_empty()).then(|| format!("ip daddr {{ {} }} {ports}", shown(&nets)));
    let listed = rule.list.as_ref().and_then(|path| sets.get(path));
    own.into_iter().chain(listed.map(|set| format!("ip daddr @{} {ports}", set.name))).collect()
}
