//! Elements and counters of a table that come and go, in one transaction, over netlink (`linux/netfilter/nf_tables.h`): before it adds
//! an element, `nft` 1.0.6 reads back those of every set of intervals.

use std::io;
use std::net::Ipv4Addr;

use crate::base::network::ElementChange;
use crate::sys::netlink::{MessageKind, NESTED, Netfilter, NetfilterBatch, push};

use super::NftError;
use super::table::{NF_TABLES, number};

/// Changes as the kernel is told them.
#[derive(Clone, Debug)]
pub struct ElementBatch(NetfilterBatch);

const NEW_ELEMENTS: MessageKind = MessageKind(NF_TABLES, 12);
const DELETE_ELEMENTS: MessageKind = MessageKind(NF_TABLES, 14);
const NEW_OBJECT: MessageKind = MessageKind(NF_TABLES, 18);
const DELETE_OBJECT: MessageKind = MessageKind(NF_TABLES, 20);
/// Attributes of objects (`NFTA_OBJ_*`), and the type of counters.
const OBJECT_TABLE: u16 = 1;
const OBJECT_NAME: u16 = 2;
const OBJECT_TYPE: u16 = 3;
const OBJECT_DATA: u16 = 4;
const COUNTER: u32 = 1;
/// Attributes of lists of elements (`NFTA_SET_ELEM_LIST_*`), and of each (`NFTA_SET_ELEM_*`).
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const KEY: u16 = 1;
const DATA: u16 = 2;
const OBJECT: u16 = 9;
/// What a key or a datum is (`NFTA_DATA_*`), and a verdict (`NFTA_VERDICT_*`).
const VALUE: u16 = 1;
const VERDICT: u16 = 2;
const CODE: u16 = 1;
const CHAIN: u16 = 2;
const GOTO: i32 = -4;
const ACCEPT: i32 = 1;
const DROP: i32 = 0;
/// Elements of one message, whose list has a length of 16 bits.
const ELEMENTS_AT_ONCE: usize = 400;
/// Bytes of a batch: what a socket takes unless it is told otherwise is 208 KiB.
const LARGEST: usize = 200_000;

impl ElementBatch {
    /// Changes of the tables of this name; `None` where they are too many, or not of a kind that is known here.
    pub fn of(table: &str, changes: &[ElementChange]) -> Option<Self> {
        let mut batch = NetfilterBatch::of(NF_TABLES);
        for change in changes {
            match change {
                ElementChange::Counter { name, comes } => {
                    let kind = if *comes { NEW_OBJECT } else { DELETE_OBJECT };
                    let mut object = Vec::new();
                    push_text(&mut object, OBJECT_TABLE, table);
                    push_text(&mut object, OBJECT_NAME, name);
                    push(&mut object, OBJECT_TYPE, &COUNTER.to_be_bytes());
                    push(&mut object, OBJECT_DATA | NESTED, &[]);
                    batch.push(kind, number("inet"), &object);
                }
                ElementChange::Elements { family: of, set, kind, elements, comes } => {
                    let message = if *comes { NEW_ELEMENTS } else { DELETE_ELEMENTS };
                    for some in elements.chunks(ELEMENTS_AT_ONCE) {
                        let mut list = Vec::new();
                        for element in some {
                            push(&mut list, 1 | NESTED, &encoded(kind, element)?);
                        }
                        let mut change = Vec::new();
                        push_text(&mut change, LIST_TABLE, table);
                        push_text(&mut change, LIST_SET, set);
                        push(&mut change, LIST_ELEMENTS | NESTED, &list);
                        batch.push(message, number(of), &change);
                    }
                }
            }
        }
        (batch.len() < LARGEST).then_some(Self(batch))
    }

    /// Makes the changes in this thread's network namespace: all, or none.
    pub fn commit(self) -> Result<(), NftError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let done = Netfilter::open().and_then(|socket| socket.run(self.0));
        done.map_err(|source: io::Error| NftError::Kernel {
            action: "change elements of nft sets".into(),
            source,
        })
    }
}

fn push_text(message: &mut Vec<u8>, number: u16, text: &str) {
    push(message, number, format!("{text}\0").as_bytes());
}

/// An element, such as `"sis-a" . 10.0.0.2 : goto from-x`.
fn encoded(kind: &str, element: &str) -> Option<Vec<u8>> {
    let (kinds, mapped) = kind.split_once(" : ").map_or((kind, None), |(key, data)| (key, Some(data)));
    let (key, data) = element.split_once(" : ").map_or((element, None), |(key, data)| (key, Some(data)));
    let (mut all, mut nested) = (Vec::new(), Vec::new());
    push(&mut nested, VALUE, &value(kinds, key)?);
    push(&mut all, KEY | NESTED, &nested);
    match (mapped, data) {
        (_, None) => {}
        (Some("counter"), Some(name)) => push_text(&mut all, OBJECT, unquoted(name)),
        (Some("verdict"), Some(verdict)) => push(&mut all, DATA | NESTED, &verdict_of(verdict)?),
        (Some(kinds), Some(data)) => {
            let mut nested = Vec::new();
            push(&mut nested, VALUE, &value(kinds, data)?);
            push(&mut all, DATA | NESTED, &nested);
        }
        (None, Some(_)) => return None,
    }
    Some(all)
}

fn verdict_of(words: &str) -> Option<Vec<u8>> {
    let (code, chain) = match words.split_once(' ') {
        Some(("goto", chain)) => (GOTO, Some(chain)),
        None if words == "accept" => (ACCEPT, None),
        None if words == "drop" => (DROP, None),
        _ => return None,
    };
    let (mut verdict, mut nested) = (Vec::new(), Vec::new());
    push(&mut verdict, CODE, &code.to_be_bytes());
    if let Some(chain) = chain {
        push_text(&mut verdict, CHAIN, chain);
    }
    push(&mut nested, VERDICT | NESTED, &verdict);
    Some(nested)
}

/// A value of one type, or of several one behind the other, each then filled up to four bytes.
fn value(kinds: &str, words: &str) -> Option<Vec<u8>> {
    let (kinds, words): (Vec<_>, Vec<_>) = (kinds.split(" . ").collect(), words.split(" . ").collect());
    let parts = kinds.iter().zip(&words).map(|(kind, word)| part(kind, word)).collect::<Option<Vec<_>>>()?;
    let fill = |mut part: Vec<u8>| {
        part.resize(part.len().next_multiple_of(4), 0);
        part
    };
    match parts.len() {
        _ if kinds.len() != words.len() => None,
        1 => parts.into_iter().next(),
        _ => Some(parts.into_iter().flat_map(fill).collect()),
    }
}

/// In network order, but for what the kernel has as a number of its own.
fn part(kind: &str, word: &str) -> Option<Vec<u8>> {
    Some(match kind {
        "ifname" => {
            let mut name = unquoted(word).as_bytes().to_vec();
            name.resize(16, 0);
            (name.len() == 16 && name.last() == Some(&0)).then_some(name)?
        }
        "ether_addr" => {
            let bytes = word.split(':').map(|byte| u8::from_str_radix(byte, 16).ok());
            bytes.collect::<Option<Vec<_>>>().filter(|bytes| bytes.len() == 6)?
        }
        "ipv4_addr" => word.parse::<Ipv4Addr>().ok()?.octets().to_vec(),
        "inet_service" => word.parse::<u16>().ok()?.to_be_bytes().to_vec(),
        "inet_proto" => {
            vec![[("icmp", 1), ("tcp", 6), ("udp", 17)].iter().find(|(name, _)| *name == word)?.1]
        }
        "uid" => word.parse::<u32>().ok()?.to_ne_bytes().to_vec(),
        _ => return None,
    })
}

fn unquoted(word: &str) -> &str {
    word.trim_matches('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_as_the_kernel_has_them() {
        let name = [&b"sis-a"[..], &[0; 11]].concat();
        assert_eq!(value("ifname", "\"sis-a\"").unwrap(), name);
        let identity = [&name[..], &[2, 0x53, 10, 0, 0, 2, 0, 0], &[10, 0, 0, 2]].concat();
        let of = |words| value("ifname . ether_addr . ipv4_addr", words);
        assert_eq!(of("\"sis-a\" . 02:53:0a:00:00:02 . 10.0.0.2").unwrap(), identity);
        assert_eq!(
            value("ipv4_addr . inet_proto . inet_service", "10.0.0.2 . tcp . 80").unwrap(),
            [10, 0, 0, 2, 6, 0, 0, 0, 0, 80, 0, 0]
        );
    }

    #[test]
    fn what_is_not_known_is_left_to_nft() {
        for (kind, element) in [
            ("ipv4_addr", "10.0.0.0/8"),
            ("mark", "1"),
            ("ifname", "\"sixteen-letters-\""),
            ("ifname . ipv4_addr", "\"a\""),
            ("ether_addr", "02:53"),
            ("ifname : verdict", "\"a\" : jump x"),
            ("ifname", "\"a\" : drop"),
        ] {
            assert_eq!(encoded(kind, element), None, "{kind} {element}");
        }
        let element = |n: u32| format!("\"{n}\"");
        let change = |count| ElementChange::Elements {
            family: "inet",
            set: "s".into(),
            kind: "ifname".into(),
            elements: (0..count).map(element).collect(),
            comes: true,
        };
        assert!(ElementBatch::of("t", &[change(1000)]).is_some());
        assert!(ElementBatch::of("t", &[change(100_000)]).is_none());
    }
}
