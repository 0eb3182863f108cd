//! What a table of nf_tables holds, read from the kernel (`linux/netfilter/nf_tables.h`).

use std::collections::BTreeSet;
use std::io;

use crate::base::Sha256;
use crate::sys::netlink::{self, MessageKind, Netfilter, find, text};

use super::NftError;

/// What is in a table, by name, and a digest of it all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableContent {
    pub chains: BTreeSet<String>,
    /// Sets and maps with names of their own.
    pub sets: BTreeSet<String>,
    /// Named counters.
    pub counters: BTreeSet<String>,
    /// Whether there are elements that go by themselves.
    pub has_leaving: bool,
    /// Of the table's flags, of chains, rules, sets and their elements; what packets change, and what goes by itself, is left out.
    pub digest: Sha256,
}

/// Address families of tables (`NFPROTO_*`).
const FAMILIES: [(&str, u8); 3] = [("inet", 1), ("ip", 2), ("arp", 3)];
const NF_TABLES: u8 = 10;
const GET_TABLE: MessageKind = MessageKind(NF_TABLES, 1);
const GET_CHAIN: MessageKind = MessageKind(NF_TABLES, 4);
const GET_RULE: MessageKind = MessageKind(NF_TABLES, 7);
const GET_SET: MessageKind = MessageKind(NF_TABLES, 10);
const GET_ELEMENTS: MessageKind = MessageKind(NF_TABLES, 13);
const GET_OBJECT: MessageKind = MessageKind(NF_TABLES, 19);
/// The table's name is the first attribute of whatever is in one.
const TABLE: u16 = 1;
/// One that is dormant has no hooks, and its rules hold nobody.
const TABLE_PARTS: [u16; 1] = [2];
const CHAIN_NAME: u16 = 3;
/// Hook, policy and type of a chain.
const CHAIN_PARTS: [u16; 3] = [4, 5, 7];
const RULE_PARTS: [u16; 2] = [2, 4];
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_PARTS: [u16; 6] = [2, 3, 4, 5, 6, 7];
const SET_ANONYMOUS: u32 = 1;
/// Elements come from packets.
const SET_DYNAMIC: u32 = 0x20;
/// Of an element that goes by itself.
const ELEMENT_TIMEOUT: u16 = 4;
const ELEMENTS: u16 = 3;
const OBJECT_NAME: u16 = 2;

/// Reads a table; `None` where it is absent.
pub fn read(family: &str, name: &str) -> Result<Option<TableContent>, NftError> {
    read_table(family, name)
        .map_err(|source| NftError::Kernel { action: format!("read the nft table {family} {name}"), source })
}

fn read_table(family: &str, name: &str) -> io::Result<Option<TableContent>> {
    let number = FAMILIES.iter().find(|(word, _)| *word == family).map_or(0, |(_, number)| *number);
    let socket = Netfilter::open()?;
    let reader = TableReader { socket, family: number, name };
    let Some(table) = reader.all(GET_TABLE)?.into_iter().next() else { return Ok(None) };
    let (mut chains, mut sets, mut counters) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    // The order in which the kernel tells chains, sets and elements is its own; that of rules counts.
    let mut unordered = vec![parts(b"table", &table, &TABLE_PARTS)];
    let mut has_leaving = false;
    for chain in reader.all(GET_CHAIN)? {
        chains.extend(text(&chain, CHAIN_NAME));
        unordered.push(parts(b"chain", &chain, &[&[CHAIN_NAME][..], &CHAIN_PARTS].concat()));
    }
    for set in reader.all(GET_SET)? {
        let flags = find(&set, SET_FLAGS).and_then(|flags| flags.first_chunk());
        let flags = flags.map_or(0, |flags| u32::from_be_bytes(*flags));
        let Some(set_name) = text(&set, SET_NAME) else { continue };
        unordered.push(parts(b"set", &set, &SET_PARTS));
        if flags & SET_DYNAMIC == 0 {
            has_leaving |= reader.elements(&set_name, &mut unordered)?;
        }
        if flags & SET_ANONYMOUS == 0 {
            sets.insert(set_name);
        }
    }
    for object in reader.all(GET_OBJECT)? {
        counters.extend(text(&object, OBJECT_NAME));
    }
    unordered.sort_unstable();
    let rules = reader.all(GET_RULE)?;
    let rules = rules.iter().map(|rule| parts(b"rule", rule, &RULE_PARTS));
    let all: Vec<u8> = unordered.into_iter().chain(rules).flatten().collect();
    Ok(Some(TableContent { chains, sets, counters, has_leaving, digest: Sha256::of(all) }))
}

/// Some attributes, each behind its length, so that no two read alike.
fn parts(what: &[u8], bytes: &[u8], numbers: &[u16]) -> Vec<u8> {
    let mut all = what.to_vec();
    for number in numbers {
        let content = find(bytes, *number).unwrap_or_default();
        all.extend((content.len() as u32).to_be_bytes());
        all.extend(content);
    }
    all
}

struct TableReader<'a> {
    socket: Netfilter,
    family: u8,
    name: &'a str,
}

impl TableReader<'_> {
    /// Everything of a kind in the table.
    fn all(&self, kind: MessageKind) -> io::Result<Vec<Vec<u8>>> {
        let mut request = Vec::new();
        netlink::push(&mut request, TABLE, format!("{}\0", self.name).as_bytes());
        // Some dumps tell of all tables, whatever was asked.
        let mut all = self.socket.dump(kind, self.family, &request)?;
        all.retain(|item| text(item, TABLE).as_deref() == Some(self.name));
        Ok(all)
    }

    /// The elements of a set, but for those that go by themselves; says whether there are such.
    fn elements(&self, set: &str, into: &mut Vec<Vec<u8>>) -> io::Result<bool> {
        let mut has_leaving = false;
        let mut request = Vec::new();
        netlink::push(&mut request, TABLE, format!("{}\0", self.name).as_bytes());
        netlink::push(&mut request, SET_NAME, format!("{set}\0").as_bytes());
        for message in self.socket.dump(GET_ELEMENTS, self.family, &request)? {
            let all = netlink::attributes(find(&message, ELEMENTS).unwrap_or_default());
            for (_, element) in all {
                match find(element, ELEMENT_TIMEOUT) {
                    None => into.push([set.as_bytes(), element].concat()),
                    Some(_) => has_leaving = true,
                }
            }
        }
        Ok(has_leaving)
    }
}
