//! Lists of addresses that policies allow or block: one address or prefix a line, `#` begins a comment.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use memchr::{memchr_iter, memmem};

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
    let mut nets = Vec::with_capacity(text.len() / SHORT_LINE);
    let (mut rest, mut line) = (text, 0);
    while !rest.is_empty() {
        line += 1;
        // Most lines are an address and nothing else, and long lists are read for each question.
        if let Some((address, length)) = leading_address(rest.as_bytes()) {
            nets.push(IpNet::V4(address.into()));
            rest = &rest[length..];
            continue;
        }
        let (this, after) = rest.split_once('\n').unwrap_or((rest, ""));
        if let Some(entry) = entry(this) {
            nets.push(net(entry).ok_or_else(|| NoAddress { line, entry: entry.to_owned() })?);
        }
        rest = after;
    }
    Ok(nets)
}

/// Bytes of a line of a list, about.
const SHORT_LINE: usize = 14;

/// The first line, from 1, that has an entry.
pub fn line_of(text: &str, wanted: Ipv4Net) -> Option<usize> {
    if wanted.prefix_len() == 32 {
        // A single address is written in one way, so the line is found before its number is counted.
        let address = wanted.addr().to_string();
        let line = |at: usize| {
            let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
            let line = text[start..].lines().next().unwrap_or_default();
            let (_, entry) = entries(line).next()?;
            let is_it = net(entry) == Some(IpNet::V4(wanted));
            is_it.then(|| memchr_iter(b'\n', &text.as_bytes()[..start]).count() + 1)
        };
        return memmem::find_iter(text.as_bytes(), &address).find_map(line);
    }
    let is_it = |entry| matches!(net(entry), Some(IpNet::V4(net)) if net.trunc() == wanted);
    entries(text).find(|(_, entry)| is_it(entry)).map(|(line, _)| line)
}

/// What stands on each line that is neither empty nor a comment.
fn entries(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().filter_map(|(index, line)| Some((index + 1, entry(line)?)))
}

/// What stands on a line before a comment.
fn entry(line: &str) -> Option<&str> {
    let entry = line.split('#').next().unwrap_or_default().trim();
    (!entry.is_empty()).then_some(entry)
}

fn net(entry: &str) -> Option<IpNet> {
    if let Some(address) = address(entry.as_bytes()) {
        return Some(IpNet::V4(address.into()));
    }
    entry.parse::<IpNet>().or_else(|_| entry.parse::<IpAddr>().map(IpNet::from)).ok()
}

fn address(entry: &[u8]) -> Option<Ipv4Addr> {
    leading_address(entry).map(|(address, _)| address)
}

/// The address of IPv4 that a text begins with, alone on its line, and where the next line begins. It is as most are written: four
/// numbers without zeros before them.
fn leading_address(text: &[u8]) -> Option<(Ipv4Addr, usize)> {
    let (mut address, mut at) = (0_u32, 0);
    for part in 0..4 {
        let (mut number, first) = (0_u32, at);
        while let Some(digit @ 0..=9) = text.get(at).map(|byte| byte.wrapping_sub(b'0')) {
            (number, at) = (number * 10 + u32::from(digit), at + 1);
            if number > 255 {
                return None;
            }
        }
        let has_zeros = at > first + 1 && text[first] == b'0';
        if at == first || has_zeros {
            return None;
        }
        address = address << 8 | number;
        if part < 3 {
            text.get(at).filter(|byte| **byte == b'.')?;
            at += 1;
        }
    }
    match text.get(at) {
        None => Some((address.into(), at)),
        Some(b'\n') => Some((address.into(), at + 1)),
        Some(_) => None,
    }
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
        let text = "192.0.2.1 # not 192.0.2.11\n192.0.2.110\n 192.0.2.11/32\n192.0.2.11\n";
        let line = |net: &str| line_of(text, net.parse().unwrap());
        assert_eq!(
            (line("192.0.2.11/32"), line("192.0.2.1/32"), line("92.0.2.1/32")),
            (Some(3), Some(1), None)
        );
        for (entry, is_one) in [
            ("0.0.0.0", true),
            ("255.255.255.255", true),
            ("1.2.3.04", false),
            ("1.2.3.256", false),
            ("1.2.3", false),
            ("1.2.3.4.5", false),
            ("1..2.3", false),
        ] {
            assert_eq!(address(entry.as_bytes()).is_some(), is_one, "{entry}");
            assert_eq!(entry.parse::<Ipv4Addr>().ok(), address(entry.as_bytes()), "{entry}");
        }
        assert_eq!(parse("\nexample.org\n").unwrap_err(), NoAddress { line: 2, entry: "example.org".into() });
        let mixed = "192.0.2.1\r\n192.0.2.2 \n\n192.0.2.3\n000.1.2.3";
        assert_eq!(parse(mixed).unwrap_err(), NoAddress { line: 5, entry: "000.1.2.3".into() });
        assert_eq!(parse(mixed.rsplit_once('\n').unwrap().0).unwrap().len(), 3);
    }
}
