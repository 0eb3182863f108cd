//! `[network.NAME]`: what guests may reach.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net};
use toml::Spanned;

use super::super::file::{NetworkSection, RuleSection};
use super::super::model::{NetworkPolicy, PolicyRule};
use super::super::scalar::{DefaultAction, NameServer, Ports};
use super::{Thing, Validator, all};
use crate::base::problem::{Problem, Read, ReadRef};

impl Validator<'_> {
    /// `subnet` is that of the guests; `None` where it is not known.
    pub(super) fn network(
        &mut self,
        section: &NetworkSection,
        subnet: Option<Ipv4Net>,
    ) -> Read<NetworkPolicy> {
        let dns = self.name_servers(section, subnet);
        let allow = self.rules(&section.allow);
        let deny = self.rules(&section.deny);
        let (rate_down, rate_up) = match section.rate.by_ref()? {
            Some(rate) => (rate.down, rate.up),
            None => (Ok(None), Ok(None)),
        };
        Ok(NetworkPolicy {
            default_allow: section.default? == Some(DefaultAction::Allow),
            dns: dns?,
            allow: allow?,
            deny: deny?,
            rate_down: rate_down?,
            rate_up: rate_up?,
        })
    }

    fn name_servers(&mut self, section: &NetworkSection, subnet: Option<Ipv4Net>) -> Read<Vec<IpAddr>> {
        let check = |server: &Read<Spanned<NameServer>>| {
            let server = server.by_ref()?;
            let address = server.get_ref().0;
            match subnet.filter(|subnet| subnet.contains(&address)) {
                None => Ok(IpAddr::V4(address)),
                Some(subnet) => Err(self.problems.tell(
                    Problem::new(
                        server.span(),
                        format!("{address} is an address of the guests' own {subnet}"),
                    )
                    .hint("name a server outside of [host] subnet: guests reach neither host nor each other"),
                )),
            }
        };
        all(section.dns.by_ref()?.iter().map(check))
    }

    fn rules(&mut self, rules: &Read<Vec<Read<RuleSection>>>) -> Read<Vec<PolicyRule>> {
        all(rules.by_ref()?.iter().map(|rule| self.rule(rule.by_ref()?)))
    }

    fn rule(&mut self, section: &RuleSection) -> Read<PolicyRule> {
        let list = section.list.clone().map(|list| list.map(|list| self.path(&list, Thing::File)));
        let to = section.to.by_ref()?;
        if to.is_none() && list == Ok(None) {
            return Err(self.problems.tell(
                Problem::new(section.place.clone(), "the rule has neither `to` nor `list`")
                    .hint("name destinations; everything is to = [\"0.0.0.0/0\", \"::/0\"]"),
            ));
        }
        if let Some(to) = to.as_ref().filter(|to| to.get_ref().is_empty()) {
            return Err(self.problems.tell(
                Problem::new(to.span(), "the rule has no destination")
                    .hint("name destinations; everything is to = [\"0.0.0.0/0\", \"::/0\"]"),
            ));
        }
        let to: Read<Vec<IpNet>> =
            to.iter().flat_map(|to| to.get_ref()).map(|to| to.clone().map(|to| to.into_inner().0)).collect();
        Ok(PolicyRule {
            to: to?,
            list: list?,
            tcp: ports(&section.tcp)?,
            udp: ports(&section.udp)?,
            icmp: section.icmp?.unwrap_or(false),
        })
    }
}

fn ports(list: &Read<Vec<Read<Ports>>>) -> Read<Vec<RangeInclusive<u16>>> {
    list.by_ref()?.iter().map(|ports| ports.clone().map(|ports| ports.0)).collect()
}
