//! Lists of addresses that policies allow or block: one address or prefix a line, `#` begins a comment.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// A line that is none of these.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{entry}` is not an address or a prefix")]
pub struct NoAddress {
    /// From 1.
    pub line: usize,
    pub entry: String,
}

/// The entries of a list, in its order.
pub fn parse(text: &str) -> Result<Vec<IpNet>, NoAddress> {
    let no_address = |line, entry: &str| NoAddress { line, entry: entry.to_owned() };
    entries(text).map(|(line, entry)| net(entry).ok_or_else(|| no_address(line, entry))).collect()
}

/// The first line, from 1, that has an entry.
pub fn line_of(text: &str, wanted: Ipv4Net) -> Option<usize> {
    let is_it = |entry| matches!(net(entry), Some(IpNet::V4(net)) if net.trunc() == wanted);
    entries(text).find(|(_, entry)| is_it(entry)).map(|(line, _)| line)
}

/// What stands on each line that is neither empty nor a comment.
fn entries(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().filter_map(|(index, line)| {
        let entry = line.split('#').next().unwrap_or_default().trim();
        (!entry.is_empty()).then_some((index + 1, entry))
    })
}

fn net(entry: &str) -> Option<IpNet> {
    entry.parse::<IpNet>().or_else(|_| entry.parse::<IpAddr>().map(IpNet::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_addresses_prefixes_and_comments() {
        let nets = parse("# ours\n10.0.0.0/8\n\n192.0.2.1 # one\n2001:db8::/32\n").unwrap();
        let nets: Vec<_> = nets.iter().map(ToString::to_string).collect();
        assert_eq!(nets, ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"]);
        let line = |net: &str| line_of("# ours\n10.0.0.0/8\n10.1.2.3/16 # one\n", net.parse().unwrap());
        assert_eq!((line("10.1.0.0/16"), line("192.0.2.0/24")), (Some(3), None));
        assert_eq!(parse("\nexample.org\n").unwrap_err(), NoAddress { line: 2, entry: "example.org".into() });
    }
}
