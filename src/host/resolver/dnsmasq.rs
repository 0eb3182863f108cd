//! dnsmasq's configuration (dnsmasq(8)), as Debian 12 has it (2.90).

use std::fmt::Write as _;
use std::sync::Arc;

use super::Resolver;
use super::list::{NameList, NameTree};

/// Queries that wait for an answer. A guest's budget lets it have far fewer; a name server that does not answer holds each
/// for ten seconds.
const WAITING: u32 = 10_000;
/// Queries by TCP at the same time, each with a process. A guest has a few of them.
pub const BY_TCP: u32 = 200;
/// Names whose answers are kept.
const CACHE: u32 = 10_000;

/// What has no name but those that are told.
const NOTHING_ELSE: &str = "address=/#/";

/// The configuration.
pub fn config(resolver: &Resolver) -> String {
    let mut text = String::with_capacity(resolver.names() * 48 + 4096);
    settings(&mut text, resolver);
    match &resolver.allow {
        None => {
            for server in &resolver.servers {
                let _ = writeln!(text, "server={server}");
            }
        }
        Some(allow) => {
            text.push_str(NOTHING_ELSE);
            text.push('\n');
            allowed(resolver, allow, |name| {
                for server in &resolver.servers {
                    let _ = writeln!(text, "server=/{name}/{server}");
                }
            });
        }
    }
    for name in denied(resolver) {
        text.push_str("address=/");
        text.push_str(name);
        text.push_str("/\n");
    }
    text
}

/// What has nothing to do with names. It is started as who it is to be. Guests have no IPv6, and no answer tells of it. Records that
/// tell browsers addresses beside those of A, or keys that hide a name from the proxy (ECH), are left out, and so is all of ANY but
/// addresses.
fn settings(text: &mut String, resolver: &Resolver) {
    let _ = write!(
        text,
        "port={}
pid-file
user=
group=
log-facility=/dev/null
no-resolv
no-hosts
no-poll
dns-forward-max={WAITING}
cache-size={CACHE}
filter-AAAA
filter-rr=HTTPS,SVCB,ANY
max-tcp-connections={BY_TCP}
fast-dns-retry=1000,4000
",
        resolver.seat.dns_port()
    );
    for net in &resolver.refused {
        let _ = writeln!(text, "bogus-nxdomain={net}");
    }
}

fn denied(resolver: &Resolver) -> impl Iterator<Item = &str> {
    resolver.deny.iter().flat_map(|list| list.names())
}

/// The only names that there are. Of two entries for a name, dnsmasq takes that of the longer one, so an allowed name within a
/// denied one is left out.
fn allowed(resolver: &Resolver, allow: &[Arc<NameList>], each: impl FnMut(&str)) {
    let tree = NameTree::of(denied(resolver));
    let allowed = allow.iter().flat_map(|list| list.names());
    allowed.filter(|name| tree.holder(name).is_none()).for_each(each);
}

/// The names that a resolver answers for by itself, by which one is compared with another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfiguredNames {
    denied: NameLines,
    allowed: Option<NameLines>,
}

impl ConfiguredNames {
    /// Those of a resolver that is to run.
    pub fn wanted(resolver: &Resolver) -> Self {
        let denied = denied(resolver).fold(NameLines::default(), NameLines::with);
        let allowed = resolver.allow.as_ref().map(|allow| {
            let mut names = NameLines::default();
            allowed(resolver, allow, |name| names.add(name));
            names
        });
        Self { denied, allowed }
    }

    /// Those of a configuration, by which a resolver was started.
    pub fn observed(config: &str) -> Self {
        let entries = config.lines().filter_map(|line| line.strip_prefix("address=/")?.strip_suffix('/'));
        let denied = entries.filter(|name| *name != "#").fold(NameLines::default(), NameLines::with);
        let is_only_allowed = config.lines().any(|line| line == NOTHING_ELSE);
        let servers =
            config.lines().filter_map(|line| Some(line.strip_prefix("server=/")?.split_once('/')?.0));
        let allowed = is_only_allowed.then(|| servers.fold(NameLines::default(), NameLines::with));
        Self { denied, allowed }
    }

    /// Those that do not exist.
    pub fn denied(&self) -> impl Iterator<Item = &str> {
        self.denied.iter()
    }

    /// Those that exist, where no others do.
    pub fn allowed(&self) -> Option<impl Iterator<Item = &str>> {
        self.allowed.as_ref().map(NameLines::iter)
    }
}

/// Names, each on a line of its own: a million of them are not a million allocations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct NameLines(String);

impl NameLines {
    /// Adds one, unless it is the last one: a configuration has an allowed name once for each name server.
    fn add(&mut self, name: &str) {
        if self.0.lines().next_back() != Some(name) {
            self.0.push_str(name);
            self.0.push('\n');
        }
    }

    fn with(mut self, name: &str) -> Self {
        self.add(name);
        self
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.lines()
    }
}
