//! Lists of addresses that policies allow or block: one address or prefix a line, `#` begins a comment.

use std::net::IpAddr;

use ipnet::IpNet;

/// A line that is none of these.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{entry}` is neither an address nor a prefix")]
pub struct NoAddress {
    /// From 1.
    pub line: usize,
    pub entry: String,
}

/// The entries of a list, in its order.
pub fn parse(text: &str) -> Result<Vec<IpNet>, NoAddress> {
    let entries = text.lines().enumerate().filter_map(|(index, line)| {
        let entry = line.split('#').next().unwrap_or_default().trim();
        (!entry.is_empty()).then_some((index + 1, entry))
    });
    let net = |(line, entry): (usize, &str)| {
        let net = entry.parse::<IpNet>().or_else(|_| entry.parse::<IpAddr>().map(IpNet::from));
        net.map_err(|_| NoAddress { line, entry: entry.to_owned() })
    };
    entries.map(net).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_addresses_prefixes_and_comments() {
        let nets = parse("# ours\n10.0.0.0/8\n\n192.0.2.1 # one\n2001:db8::/32\n").unwrap();
        let nets: Vec<_> = nets.iter().map(ToString::to_string).collect();
        assert_eq!(nets, ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"]);
        assert_eq!(parse("\nexample.org\n").unwrap_err(), NoAddress { line: 2, entry: "example.org".into() });
    }
}
