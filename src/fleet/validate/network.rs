//! `[network.NAME]`: what guests may reach.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};

use ipnet::{IpNet, Ipv4Net};
use toml::Spanned;

use super::super::file::{BudgetSection, NetworkSection, PublishSection, RuleSection};
use super::super::model::{
    Budget, GuestSpec, NEVER, NamePolicy, NetworkPolicy, PolicyPlaces, PolicyRule, Preset, Protocol, Publish,
};
use super::super::scalar::{DefaultAction, Destination, NameServer, Ports, RuleList};
use super::{MentionTarget, Validator, all};
use crate::base::problem::{Problem, Read, ReadRef};
use crate::base::{GuestName, Label};

impl Validator<'_> {
    /// `subnet` is that of the guests; `None` where it is not known.
    pub(super) fn network(
        &mut self,
        section: &NetworkSection,
        subnet: Option<Ipv4Net>,
    ) -> Read<NetworkPolicy> {
        let default_allow = self.default_allow(section);
        let dns = self.name_servers(section, subnet);
        let never = NEVER.into_iter().chain(subnet).collect::<Vec<_>>();
        let allow = self.rules(&section.allow, &never);
        let deny = self.rules(&section.deny, &[]);
        let publish = self.publish(&section.publish);
        let names = self.names(section);
        let budget = section.budget.by_ref().and_then(|section| budget(section.as_ref()));
        let (rate_down, rate_up) = match section.rate.by_ref()? {
            Some(rate) => (rate.down, rate.up),
            None => (Ok(None), Ok(None)),
        };
        let preset = section.preset.clone()?.map(Spanned::into_inner);
        let with = |rules: Vec<PolicyRule>, more: fn(Preset) -> Vec<PolicyRule>| -> Vec<PolicyRule> {
            rules.into_iter().chain(preset.into_iter().flat_map(more)).collect()
        };
        let names = names?;
        Ok(NetworkPolicy {
            places: places(section),
            preset,
            default_allow: default_allow?,
            dns: dns?,
            allow: with(allow?, Preset::allow),
            deny: with_names(with(deny?, Preset::deny), names.as_ref()),
            names,
            rate_down: rate_down?,
            rate_up: rate_up?,
            budget: budget?,
            publish: publish?,
        })
    }

    /// What happens to packets that no rule names: the preset says it, or `default` does.
    fn default_allow(&mut self, section: &NetworkSection) -> Read<bool> {
        let (preset, default) = (section.preset.clone()?, section.default.clone()?);
        match (preset, default) {
            (Some(preset), Some(default)) => Err(self.problems.report(
                Problem::new(
                    default.span(),
                    "the preset already sets the default for packets that match no rule",
                )
                .also(preset.span(), "the preset")
                .hint("remove one of the two"),
            )),
            (Some(preset), None) => Ok(preset.get_ref().default_allow()),
            (None, default) => Ok(default.is_some_and(|default| *default.get_ref() == DefaultAction::Allow)),
        }
    }

    fn name_servers(&mut self, section: &NetworkSection, subnet: Option<Ipv4Net>) -> Read<Vec<IpAddr>> {
        let check = |server: &Read<Spanned<NameServer>>| {
            let server = server.by_ref()?;
            let address = server.get_ref().0;
            match subnet.filter(|subnet| subnet.contains(&address)) {
                None => Ok(IpAddr::V4(address)),
                Some(subnet) => Err(self.problems.report(
                    Problem::new(
                        server.span(),
                        format!("{address} is in {subnet}, the guests' own subnet"),
                    )
                    .hint("use a server outside of [host] subnet: guests can reach neither the host nor each other"),
                )),
            }
        };
        all(section.dns.by_ref()?.iter().map(check))
    }

    fn publish(&mut self, sections: &Read<Vec<Read<PublishSection>>>) -> Read<Vec<Publish>> {
        let mut names = BTreeSet::new();
        all(sections.by_ref()?.iter().map(|section| {
            let way = self.way(section.by_ref()?)?;
            if names.insert(way.name.clone()) {
                return Ok(way);
            }
            Err(self.problems.report(
                Problem::new(way.place, format!("two ways in are called {}", way.name))
                    .hint("give each a name of its own: fleet.lock keeps their ports by it"),
            ))
        }))
    }

    fn way(&mut self, section: &PublishSection) -> Read<Publish> {
        let from = section.from.by_ref()?;
        let nets: Vec<IpNet> =
            all(from.get_ref().iter().map(|net| net.clone().map(|net| net.into_inner().0)))?;
        let v4 = |net: &IpNet| match net {
            IpNet::V4(net) => Some(net.trunc()),
            IpNet::V6(_) => None,
        };
        let v4: Vec<Ipv4Net> = nets.iter().filter_map(v4).collect();
        if v4.is_empty() || v4.len() < nets.len() {
            return Err(self.problems.report(
                Problem::new(from.span(), "`from` names who may come in, by IPv4: guests have no other")
                    .hint("name them, such as [\"10.1.0.0/16\"]; everybody is [\"0.0.0.0/0\"]"),
            ));
        }
        let host = section.host.clone()?;
        Ok(Publish {
            place: host.span(),
            name: section.name.clone()?.into_inner(),
            protocol: section.proto?.unwrap_or(Protocol::Tcp),
            // Count<1, 65535> has made sure that it fits.
            guest: u16::try_from(section.guest?.0).unwrap_or(u16::MAX),
            host: host.into_inner().0,
            from: v4,
        })
    }

    /// Tells where a policy has more guests than a way in to them has ports.
    pub(super) fn ports_suffice(
        &mut self,
        networks: &BTreeMap<Label, NetworkPolicy>,
        guests: &BTreeMap<GuestName, GuestSpec>,
    ) -> Read<()> {
        let of = |label: &Label| guests.values().filter(|guest| guest.network == *label).count();
        let short = networks.iter().flat_map(|(label, policy)| {
            policy.publish.iter().filter(|way| way.host.len() < of(label)).map(|way| (label.clone(), way))
        });
        all(short.map(|(label, way)| {
            let (ports, guests) = (way.host.len(), of(&label));
            Err(self.problems.report(
                Problem::new(
                    way.place.clone(),
                    format!("{ports} ports for {guests} guests with the network {label}"),
                )
                .label("each guest has one")
                .hint("widen the range, such as \"20000-20999\""),
            ))
        }))
    }

    /// `never` are destinations that the rules cannot open.
    fn rules(&mut self, rules: &Read<Vec<Read<RuleSection>>>, never: &[Ipv4Net]) -> Read<Vec<PolicyRule>> {
        all(rules.by_ref()?.iter().map(|rule| {
            let section = rule.by_ref()?;
            let rule = self.rule(section);
            let has_effect = self.has_effect(section, never);
            rule.and_then(|rule| has_effect.map(|()| rule))
        }))
    }

    fn rule(&mut self, section: &RuleSection) -> Read<PolicyRule> {
        let given = section.list.clone()?;
        let to = section.to.by_ref()?;
        if to.is_none() && given.is_none() {
            return Err(self.problems.report(
                Problem::new(section.place.clone(), "the rule has neither `to` nor `list`")
                    .hint("set destinations; everything is to = [\"0.0.0.0/0\", \"::/0\"]"),
            ));
        }
        if let Some(to) = to.as_ref().filter(|to| to.get_ref().is_empty()) {
            return Err(self.problems.report(
                Problem::new(to.span(), "the rule has no destination")
                    .hint("set destinations; everything is to = [\"0.0.0.0/0\", \"::/0\"]"),
            ));
        }
        let to: Read<Vec<IpNet>> =
            to.iter().flat_map(|to| to.get_ref()).map(|to| to.clone().map(|to| to.into_inner().0)).collect();
        let mut rule = PolicyRule {
            place: Some(section.place.clone()),
            to: to?,
            tcp: ports(&section.tcp)?,
            udp: ports(&section.udp)?,
            icmp: section.icmp.clone()?.is_some_and(Spanned::into_inner),
            ..PolicyRule::default()
        };
        let Some(given) = given else { return Ok(rule) };
        match given.get_ref() {
            RuleList::File(path) => {
                rule.list = Some(self.path(&Spanned::new(given.span(), path.clone()), MentionTarget::File));
                Ok(rule)
            }
            RuleList::Builtin(list) => self.builtin(rule, list.rule(), given.span()),
        }
    }

    /// Tells of what would do nothing, or the opposite of what it seems to say.
    fn has_effect(&mut self, section: &RuleSection, never: &[Ipv4Net]) -> Read<()> {
        let mut idle = Vec::new();
        idle.extend(no_ports(section));
        idle.extend(no_icmp(section));
        idle.extend(of_ipv6_alone(section));
        let entries = section.to.iter().flatten().flat_map(|to| to.get_ref()).flatten();
        idle.extend(entries.filter_map(|entry| never_open(entry, never)));
        idle.extend(section.list.iter().flatten().filter_map(|list| never_open_list(list, never)));
        let told: Vec<_> = idle.into_iter().map(|problem| self.problems.report(problem)).collect();
        told.first().map_or(Ok(()), |told| Err(*told))
    }

    /// A rule with a list that comes with sisforge: its destinations, and its ports where it has some.
    fn builtin(&mut self, rule: PolicyRule, list: PolicyRule, place: Range<usize>) -> Read<PolicyRule> {
        let names_ports = |rule: &PolicyRule| !rule.tcp.is_empty() || !rule.udp.is_empty();
        let wrong = if !rule.to.is_empty() {
            "a built-in list cannot be combined with `to`"
        } else if names_ports(&list) && (names_ports(&rule) || rule.icmp) {
            "this list already includes its ports"
        } else {
            let (tcp, udp) = if names_ports(&list) { (list.tcp, list.udp) } else { (rule.tcp, rule.udp) };
            return Ok(PolicyRule { builtin: list.builtin, to: list.to, tcp, udp, ..rule });
        };
        Err(self.problems.report(Problem::new(place, wrong).hint("write two rules")))
    }
}

fn places(section: &NetworkSection) -> PolicyPlaces {
    let preset = section.preset.iter().flatten().map(Spanned::span);
    let default = section.default.iter().flatten().map(Spanned::span);
    let dns = section.dns.iter().flatten().flatten().next();
    PolicyPlaces {
        table: Some(section.place.clone()),
        dns: dns.map(Spanned::span),
        default: default.chain(preset).next(),
    }
}

/// The budget that is written, the defaults for what is not.
fn budget(section: Option<&BudgetSection>) -> Read<Budget> {
    let default = Budget::default();
    let Some(section) = section else { return Ok(default) };
    Ok(Budget {
        connections: section.connections?.map_or(default.connections, |count| count.0),
        new_connections: section.new_connections?.unwrap_or(default.new_connections),
        dns_queries: section.dns_queries?.unwrap_or(default.dns_queries),
    })
}

type PortSection = Read<Option<Spanned<Vec<Read<Ports>>>>>;

fn ports(list: &PortSection) -> Read<Vec<RangeInclusive<u16>>> {
    let list = list.by_ref()?.iter().flat_map(|list| list.get_ref());
    list.map(|ports| ports.clone().map(|ports| ports.0)).collect()
}

/// A list of ports without any would mean all protocols and ports, as if it were not there.
fn no_ports(section: &RuleSection) -> Vec<Problem> {
    let lists = [&section.tcp, &section.udp].into_iter().flatten().flatten();
    let empty = lists.filter(|list| list.get_ref().is_empty());
    let problem = |list: &Spanned<Vec<Read<Ports>>>| {
        Problem::new(list.span(), "the list of ports is empty")
            .hint("name ports, or remove the key; a rule without ports means every protocol and port")
    };
    empty.map(problem).collect()
}

fn no_icmp(section: &RuleSection) -> Option<Problem> {
    let icmp = section.icmp.as_ref().ok()?.as_ref().filter(|icmp| !icmp.get_ref())?;
    let has_ports = |list: &PortSection| !matches!(list, Ok(None));
    (!has_ports(&section.tcp) && !has_ports(&section.udp)).then(|| {
        Problem::new(
            icmp.span(),
            "`icmp = false` changes nothing: without ports the rule means every protocol, ICMP too",
        )
        .hint("name ports with `tcp` or `udp`, or remove `icmp`")
    })
}

fn of_ipv6_alone(section: &RuleSection) -> Option<Problem> {
    let to = section.to.as_ref().ok()?.as_ref()?;
    let mut entries = to.get_ref().iter();
    let is_v6 = |entry: &Read<Spanned<Destination>>| {
        entry.as_ref().is_ok_and(|entry| matches!(entry.get_ref().0, IpNet::V6(_)))
    };
    (!to.get_ref().is_empty() && entries.all(is_v6)).then(|| {
        Problem::new(to.span(), "guests have no IPv6, so this rule does nothing")
            .hint("name IPv4 addresses as well, or remove the rule")
    })
}

fn never_open(entry: &Spanned<Destination>, never: &[Ipv4Net]) -> Option<Problem> {
    let IpNet::V4(net) = entry.get_ref().0 else { return None };
    let closed = never.iter().find(|closed| closed.contains(&net.trunc()))?;
    Some(nothing_opens(entry.span(), &net.to_string(), closed))
}

fn never_open_list(list: &Spanned<RuleList>, never: &[Ipv4Net]) -> Option<Problem> {
    let RuleList::Builtin(builtin) = list.get_ref() else { return None };
    let to = builtin.rule().to;
    let all =
        to.iter().all(|net| matches!(net, IpNet::V4(net) if never.iter().any(|closed| closed.contains(net))));
    let closed = never.first().filter(|_| all)?;
    Some(nothing_opens(list.span(), &format!("builtin:{}", builtin.name()), closed))
}

fn nothing_opens(place: Range<usize>, what: &str, closed: &Ipv4Net) -> Problem {
    Problem::new(place, format!("no policy opens {what}, so allowing it does nothing"))
        .label(format!("within what is always closed, such as {closed}"))
        .hint("remove it: this network, loopback, metadata services, multicast and the guests' own subnet stay closed")
}

/// What is denied, and what else is so that guests would get round names by; what stands there already stands there once.
fn with_names(mut deny: Vec<PolicyRule>, names: Option<&NamePolicy>) -> Vec<PolicyRule> {
    let is_there = |rule: &PolicyRule| deny.iter().any(|it| it.builtin == rule.builtin);
    let more = names.into_iter().flat_map(NamePolicy::deny_rules).filter(|rule| !is_there(rule));
    let more: Vec<_> = more.collect();
    deny.extend(more);
    deny
}
