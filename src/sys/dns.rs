//! Questions to name servers, and their answers, as far as they tell which name led where (RFC 1035, section 4).

use std::net::Ipv4Addr;

const HEADER: usize = 12;
/// In the third byte of the header: it is an answer.
const IS_ANSWER: u8 = 0x80;
/// The highest bits of a length: a pointer to an earlier name.
const POINTER: u8 = 0xc0;
const ADDRESS: u16 = 1;

/// A question for the addresses of a name, by this number.
pub fn question(number: u16, name: &str) -> Vec<u8> {
    const RECURSION: [u8; 10] = [1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let mut message = [&number.to_be_bytes()[..], &RECURSION].concat();
    for label in name.split('.') {
        // Labels have at most 63 bytes.
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, ADDRESS as u8, 0, 1]);
    message
}

/// The name that was asked for, and the addresses of IPv4 that it leads to. `None` of what is no answer, and of names with
/// other letters than those of hosts. What is cut off is not read.
pub fn answer(message: &[u8]) -> Option<(String, Vec<Ipv4Addr>)> {
    let header = message.first_chunk::<HEADER>()?;
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    if header[2] & IS_ANSWER == 0 || count(4) != 1 {
        return None;
    }
    let (name, after) = name(message, HEADER)?;
    let (mut at, mut addresses) = (after + 4, Vec::new());
    for _ in 0..count(6) {
        let Some((address, next)) = record(message, at) else { break };
        addresses.extend(address);
        at = next;
    }
    Some((name, addresses))
}

/// A name in lower case, and where it ends.
fn name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        match length {
            0 => return Some((name, at)),
            64.. => return None,
            _ => {}
        }
        let label = message.get(at..at + length)?;
        let is_fit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !label.iter().all(is_fit) || name.len() + length > 253 {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
        at += length;
    }
}

/// The address that a record tells, if it is of such, and where the record ends.
fn record(message: &[u8], mut at: usize) -> Option<(Option<Ipv4Addr>, usize)> {
    loop {
        let length = *message.get(at)?;
        at += 1;
        if length & POINTER == POINTER {
            at += 1;
            break;
        }
        if length == 0 {
            break;
        }
        at += usize::from(length);
    }
    let fixed = message.get(at..)?.first_chunk::<10>()?;
    let (kind, length) = (u16::from_be_bytes([fixed[0], fixed[1]]), u16::from_be_bytes([fixed[8], fixed[9]]));
    let (from, to) = (at + 10, at + 10 + usize::from(length));
    let content = message.get(from..to)?;
    let address = content.first_chunk::<4>().filter(|_| kind == ADDRESS && length == 4);
    Some((address.map(|bytes| Ipv4Addr::from(*bytes)), to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(flags: u8, answers: &[u8], count: u8) -> Vec<u8> {
        let header = [0, 1, flags, 0, 0, 1, 0, count, 0, 0, 0, 0];
        [&header[..], b"\x03WWW\x07example\x00\x00\x01\x00\x01", answers].concat()
    }

    #[test]
    fn a_name_is_told_with_its_addresses_over_aliases() {
        let alias = b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x04\x01a\xc0\x10";
        let address = b"\x01a\xc0\x10\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc6\x33\x64\x14";
        let both = [&alias[..], address].concat();
        let told = |addresses: &[&str]| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            Some(("www.example".to_owned(), addresses))
        };
        assert_eq!(answer(&message(0x81, &both, 2)), told(&["198.51.100.20"]));
        assert_eq!(answer(&message(0x81, &both[..both.len() - 1], 2)), told(&[]), "it is cut off");
        assert_eq!(answer(&message(0x01, &both, 2)), None, "it is a question");
    }

    #[test]
    fn a_question_is_read_as_one_for_its_name() {
        let mut message = question(7, "www.example");
        assert_eq!(answer(&message), None, "it is no answer");
        message[2] |= IS_ANSWER;
        assert_eq!(answer(&message), Some(("www.example".to_owned(), Vec::new())));
    }

    #[test]
    fn what_is_no_message_is_not_read() {
        let whole = message(0x81, b"", 0);
        for length in 0..whole.len() - 4 {
            assert_eq!(answer(&whole[..length]), None, "{length}");
        }
        assert_eq!(answer(&[&whole[..HEADER], b"\x03a\x1bb\x00\x00\x01\x00\x01"].concat()), None);
    }
}
