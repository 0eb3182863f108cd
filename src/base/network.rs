//! The network device of a guest: its hardware address and the name of the TAP that it is attached to; and the pair of
//! interfaces that leads from a fleet's network namespace to its host.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;

use super::{FleetName, GuestName, InterfaceName, InvalidValue, Sha256};

/// Names of TAPs are this and the guest's name.
pub const TAP_NAME_PREFIX: &str = "sis-";

/// Prefix length of the network between host and guest.
pub const TAP_PREFIX: u8 = 30;

/// The TAP of a guest; its name fits, because a guest's name is as short as it is for that.
pub fn tap_name(guest: &GuestName) -> Result<InterfaceName, InvalidValue> {
    format!("{TAP_NAME_PREFIX}{guest}").parse()
}

/// The guest whose TAP is called so: a link tells whose it is by its name alone, which [`tap_name`] gave it. Whoever finds
/// links asks here; everybody else has guest and TAP beside each other.
pub fn guest_of_tap(interface: &str) -> Option<GuestName> {
    interface.strip_prefix(TAP_NAME_PREFIX)?.parse().ok()
}

/// The end of the pair in a fleet's namespace.
pub const INNER_UPLINK: &str = "uplink";

/// The end of the pair on the host. A fleet's name may be longer than that of an interface; no guest is called so, since
/// TAPs that an earlier sisforge left on the host have names of guests.
pub fn pair_name(fleet: &FleetName) -> Result<InterfaceName, InvalidValue> {
    let digest = Sha256::of(fleet.as_str()).to_string();
    format!("{TAP_NAME_PREFIX}_{:.10}", digest).parse()
}

/// Where either end of the pair sends what is for the other: addresses of the two ends, alike in all fleets, since no route
/// leads to them but that which names the pair. RFC 3927 reserves 169.254.255.0/24, so no host gives itself such an address.
pub const PAIR_HOST: Ipv4Addr = Ipv4Addr::new(169, 254, 255, 1);
pub const PAIR_INNER: Ipv4Addr = Ipv4Addr::new(169, 254, 255, 2);
/// The hardware addresses of the two ends; nobody else is on the pair.
pub const PAIR_HOST_MAC: MacAddress = MacAddress([0x02, 0x53, 0, 0, 0, 1]);
pub const PAIR_INNER_MAC: MacAddress = MacAddress([0x02, 0x53, 0, 0, 0, 2]);

/// An entry of a routing table of IPv4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRoute {
    /// `unicast`, `local`, `unreachable` and the like.
    pub kind: String,
    /// Such as `main`.
    pub table: String,
    pub to: Ipv4Net,
    /// The interface that it leads to; `None` where it leads to none, and where that went meanwhile.
    pub interface: Option<String>,
    pub gateway: Option<Ipv4Addr>,
    /// The least is taken.
    pub metric: u32,
}

/// The host's address in a guest's /30, one below the guest's.
pub fn host_side(guest: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(guest).saturating_sub(1))
}

/// The guest's address in its /30, one above the host's.
pub fn guest_side(host: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(host).saturating_add(1))
}

/// A hardware address, written as six pairs of hexadecimal digits: `02:53:0a:6b:00:02`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// That of the guest with this address: locally administered, unicast, and unique because the address is.
    pub fn of_guest(ip: Ipv4Addr) -> Self {
        let [a, b, c, d] = ip.octets();
        Self([0x02, 0x53, a, b, c, d])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let wrong = || InvalidValue("must be a hardware address such as 02:53:0a:6b:00:02".to_owned());
        let mut bytes = [0; 6];
        let mut pairs = text.split(':');
        for byte in &mut bytes {
            let pair = pairs.next().ok_or_else(wrong)?;
            hex::decode_to_slice(pair, std::slice::from_mut(byte)).map_err(|_| wrong())?;
        }
        if pairs.next().is_none() { Ok(Self(bytes)) } else { Err(wrong()) }
    }
}

serde_as_text!(MacAddress);

/// One change of a table of nft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ElementChange {
    /// A counter of the family `inet` comes or goes, by its name.
    Counter { name: String, comes: bool },
    /// Elements come or go. `kind` is the type of the set, and of what it maps to, in nft's words (`ifname . ipv4_addr : verdict`), as
    /// are the elements; one that goes is its key alone.
    Elements { family: &'static str, set: String, kind: String, elements: Vec<String>, comes: bool },
}

/// A protocol above IP as people call it.
pub fn protocol_word(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        number => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardware_address_is_six_pairs() {
        let address = MacAddress::of_guest([10, 107, 0, 2].into());
        assert_eq!(address.to_string(), "02:53:0a:6b:00:02");
        assert_eq!("02:53:0a:6b:00:02".parse(), Ok(address));
        for wrong in ["", "02:53:0a:6b:00", "02:53:0a:6b:00:02:03", "2:53:0a:6b:00:02", "02-53-0a-6b-00-02"] {
            assert!(wrong.parse::<MacAddress>().is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn a_tap_tells_its_guest() {
        let alice: GuestName = "alice".parse().unwrap();
        let tap = tap_name(&alice).unwrap();
        assert_eq!((tap.as_str(), guest_of_tap(tap.as_str())), ("sis-alice", Some(alice)));
        assert_eq!(guest_of_tap("eth0"), None);
    }

    #[test]
    fn a_pair_of_any_fleet_has_a_name_that_is_no_guests() {
        let pair = |fleet: &str| pair_name(&fleet.parse().unwrap()).unwrap();
        assert_ne!(pair("a"), pair("b"));
        assert_eq!(guest_of_tap(pair(&"x".repeat(32)).as_str()), None);
        assert_eq!(pair("sis").as_str().len(), 15);
    }
}
