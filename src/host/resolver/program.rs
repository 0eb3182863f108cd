//! The programs that a resolver is made of.

use serde::{Deserialize, Serialize};

use crate::fleet::NetworkPolicy;

use super::Seat;
use super::haproxy::CONNECTIONS;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResolverProgram {
    /// Answers queries.
    Dnsmasq,
    /// Connects guests with the web by name.
    Haproxy,
}

/// What a host must have installed for these policies' names.
pub fn needed<'a>(policies: impl Iterator<Item = &'a NetworkPolicy>) -> Vec<&'static str> {
    let names: Vec<_> = policies.filter_map(|policy| policy.names.as_ref()).collect();
    if names.is_empty() {
        return Vec::new();
    }
    let proxy = names.iter().any(|names| names.allow.is_some()).then_some(ResolverProgram::Haproxy);
    let programs = [ResolverProgram::Dnsmasq].into_iter().chain(proxy).map(ResolverProgram::name);
    programs.chain(["bwrap", "prlimit", "setpriv"]).collect()
}

impl ResolverProgram {
    /// All of them: who needs another comes after it.
    pub const ALL: [Self; 2] = [Self::Dnsmasq, Self::Haproxy];

    /// What it is called on the search path.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dnsmasq => "dnsmasq",
            Self::Haproxy => "haproxy",
        }
    }

    /// The name of its configuration.
    pub fn config(self) -> &'static str {
        match self {
            Self::Dnsmasq => "dnsmasq.conf",
            Self::Haproxy => "haproxy.cfg",
        }
    }

    /// What its cgroup is called, before the number of the seat: no guest is called so.
    pub fn cgroup_prefix(self) -> &'static str {
        match self {
            Self::Dnsmasq => ".dnsmasq-",
            Self::Haproxy => ".haproxy-",
        }
    }

    /// Who runs it.
    pub fn uid(self, seat: Seat) -> u32 {
        match self {
            Self::Dnsmasq => seat.uid,
            Self::Haproxy => seat.proxy_uid,
        }
    }

    /// Ports of TCP that it listens on.
    pub fn ports(self, seat: Seat) -> Vec<u16> {
        match self {
            Self::Dnsmasq => vec![seat.dns_port()],
            Self::Haproxy => vec![seat.tls_port(), seat.http_port()],
        }
    }

    /// Files and connections that it may have open: HAProxy has two for each connection that it passes on.
    pub fn open_files(self) -> u64 {
        match self {
            Self::Dnsmasq => 1024,
            Self::Haproxy => 2 * u64::from(CONNECTIONS) + 256,
        }
    }
}
