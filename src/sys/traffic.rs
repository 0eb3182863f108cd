//! How much passed over network interfaces.

use std::collections::BTreeMap;
use std::path::Path;

use super::fs::{self, FileError};

/// What an interface counted since it was made, as this host sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceTraffic {
    pub received_bytes: u64,
    pub received_packets: u64,
    pub sent_bytes: u64,
    pub sent_packets: u64,
}

/// Of each interface of the calling thread's network namespace.
pub fn interfaces() -> Result<BTreeMap<String, InterfaceTraffic>, FileError> {
    Ok(parse(&fs::read_text(Path::new("/proc/thread-self/net/dev"))?))
}

/// Reads `/proc/net/dev` (proc(5)): two lines of titles, then `name:` and eight numbers for each direction.
fn parse(text: &str) -> BTreeMap<String, InterfaceTraffic> {
    let line = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().map_while(|number| number.parse().ok()).collect();
        let [received_bytes, received_packets, _, _, _, _, _, _, sent_bytes, sent_packets, ..] = numbers[..]
        else {
            return None;
        };
        Some((
            name.trim().to_owned(),
            InterfaceTraffic { received_bytes, received_packets, sent_bytes, sent_packets },
        ))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_interface_is_read() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo: 100 2 0 0 0 0 0 0 300 4 0 0 0 0 0 0\nsis-alice: 5 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n";
        let found = parse(text);
        let alice =
            InterfaceTraffic { received_bytes: 5, received_packets: 1, sent_bytes: 7, sent_packets: 1 };
        assert_eq!((found.len(), found["sis-alice"], found["lo"].sent_bytes), (2, alice, 300));
    }
}
