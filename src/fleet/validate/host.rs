//! `[host]`, and whether its numbers suffice for all guests.

use ipnet::Ipv4Net;
use toml::Spanned;

use super::super::file::{FleetFile, HostSection, LogsSection};
use super::super::model::{HostSpec, LogLimits, NEVER};
use super::super::scalar::{AbsolutePath, Auto, GuestNet};
use super::Validator;
use crate::base::problem::{Problem, Read};
use crate::base::{ByteSize, Rates};

/// Less would be less than a line of some.
const LOG_SIZE_MIN: ByteSize = ByteSize::from_bytes(4 << 10);

impl Validator<'_> {
    pub(super) fn host(&mut self, section: Read<&Option<HostSection>>) -> Read<HostSpec> {
        let default = HostSpec::default();
        let Some(section) = section? else {
            return Ok(default);
        };
        Ok(HostSpec {
            uplink: section.uplink.clone()?.and_then(Auto::given),
            uplink_rates: match section.uplink_rate.as_ref().map_err(Clone::clone)? {
                Some(rate) => Rates { up: rate.up?, down: rate.down? },
                None => default.uplink_rates,
            },
            subnet: self.subnet(section.subnet.clone()?)?.unwrap_or(default.subnet),
            uids: section.uids.clone()?.map_or(default.uids, |uids| uids.into_inner().0),
            store: section.store.clone()?.map_or(default.store, |AbsolutePath(store)| store),
            jails: section.jails.clone()?.map(|AbsolutePath(jails)| jails),
            logs: self.logs(section.logs.as_ref().map_err(Clone::clone)?)?,
        })
    }

    /// Addresses that hosts and networks take for something else are nobody's to give out.
    fn subnet(&mut self, subnet: Option<Spanned<GuestNet>>) -> Read<Option<Ipv4Net>> {
        let Some(subnet) = subnet else { return Ok(None) };
        let own = subnet.get_ref().0;
        match NEVER.iter().find(|net| net.contains(&own) || own.contains(*net)) {
            None => Ok(Some(own)),
            Some(net) => Err(self.problems.report(
                Problem::new(
                    subnet.span(),
                    format!("{own} overlaps {net}, where no guest can have an address"),
                )
                .label("loopback, link-local, multicast, metadata services and the like are spoken for")
                .hint("take a private network that nobody around has, such as \"10.107.0.0/16\""),
            )),
        }
    }

    fn logs(&mut self, section: &Option<LogsSection>) -> Read<LogLimits> {
        let default = LogLimits::default();
        let Some(section) = section else { return Ok(default) };
        let size = match section.size.clone()? {
            Some(size) if *size.get_ref() < LOG_SIZE_MIN => {
                return Err(self.problems.report(
                    Problem::new(size.span(), "a log needs at least 4KiB").hint("the default is \"4MiB\""),
                ));
            }
            Some(size) => size.into_inner(),
            None => default.size,
        };
        Ok(LogLimits { size, keep: section.keep?.map_or(default.keep, |keep| keep.0) })
    }

    /// Tells where there are more guests than addresses or user ids.
    pub(super) fn capacity(&mut self, file: &FleetFile, host: &HostSpec, guests: usize) {
        let section = file.host.as_ref().ok().and_then(Option::as_ref);
        let place = |span: Option<std::ops::Range<usize>>| {
            span.or(section.map(|host| host.place.clone())).unwrap_or(file.place.clone())
        };
        let guests = guests as u64;
        if guests > host.address_capacity() {
            let span = section.and_then(|host| host.subnet.as_ref().ok()?.as_ref().map(Spanned::span));
            self.problems.report(
                Problem::new(
                    place(span),
                    format!(
                        "{} has room for {} guests, but there are {guests}",
                        host.subnet,
                        host.address_capacity()
                    ),
                )
                .label("a /30 for each guest")
                .hint("widen `subnet`, or lower the `replicas` of a pool"),
            );
        }
        if guests > host.uid_capacity() {
            let span = section.and_then(|host| host.uids.as_ref().ok()?.as_ref().map(Spanned::span));
            self.problems.report(
                Problem::new(
                    place(span),
                    format!(
                        "{}-{} are {} user ids, but there are {guests} guests",
                        host.uids.start(),
                        host.uids.end(),
                        host.uid_capacity()
                    ),
                )
                .label("one for each guest")
                .hint("widen `uids`, or lower the `replicas` of a pool"),
            );
        }
    }
}
