//! What a table of nf_tables holds, read from the kernel (`linux/netfilter/nf_tables.h`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::base::Sha256;
use crate::sys::netlink::{self, MessageKind, Netfilter, find, text};

use super::NftError;

/// Digests of what sets hold, by the names of the sets.
pub type SetDigests = BTreeMap<String, Sha256>;

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
    /// Of all sets but those that packets fill.
    pub elements: SetDigests,
    /// Of the table's flags, of chains, rules, sets and their elements; what packets change, and what goes by itself, is left out.
    pub digest: Sha256,
}

/// Address families of tables (`NFPROTO_*`).
const FAMILIES: [(&str, u8); 3] = [("inet", 1), ("ip", 2), ("arp", 3)];
pub(super) const NF_TABLES: u8 = 10;
const GET_TABLE: MessageKind = MessageKind(NF_TABLES, 1);
const GET_CHAIN: MessageKind = MessageKind(NF_TABLES, 4);
const GET_RULE: MessageKind = MessageKind(NF_TABLES, 7);
const GET_SET: MessageKind = MessageKind(NF_TABLES, 10);
const GET_ELEMENTS: MessageKind = MessageKind(NF_TABLES, 13);
const GET_OBJECT: MessageKind = MessageKind(NF_TABLES, 19);
const GET_GENERATION: MessageKind = MessageKind(NF_TABLES, 16);
const GENERATION: u16 = 1;
/// The table's name is the first attribute of whatever is in one.
const TABLE: u16 = 1;
/// One that is dormant has no hooks, and its rules hold nobody.
const TABLE_PARTS: [u16; 1] = [2];
const CHAIN_NAME: u16 = 3;
/// Hook, policy and type of a chain.
const CHAIN_PARTS: [u16; 3] = [4, 5, 7];
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const EXPRESSION_NAME: u16 = 1;
/// Its data are what packets made of it.
const COUNTER: &str = "counter";
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_PARTS: [u16; 6] = [2, 3, 4, 5, 6, 7];
const SET_ANONYMOUS: u32 = 1;
/// Elements may go by themselves.
const SET_TIMEOUT: u32 = 0x10;
/// Elements come from packets.
const SET_DYNAMIC: u32 = 0x20;
/// Attributes of an element, and of its key.
const ELEMENT_KEY: u16 = 1;
const DATA_VALUE: u16 = 1;
/// Of an element that goes by itself.
const ELEMENT_TIMEOUT: u16 = 4;
const ELEMENTS: u16 = 3;
const OBJECT_NAME: u16 = 2;

/// Reads a table; `None` where it is absent.
pub fn read(family: &str, name: &str) -> Result<Option<TableContent>, NftError> {
    read_beside(family, name, &SetDigests::new())
}

/// The same, but what sets hold of which it is `known` is not read again: nobody may have changed it since.
pub fn read_beside(family: &str, name: &str, known: &SetDigests) -> Result<Option<TableContent>, NftError> {
    read_table(family, name, Some(known)).map_err(failed(family, name))
}

/// The digest of a table that is made of all elements at once, as records of earlier versions have it.
pub fn flat_digest(family: &str, name: &str) -> Result<Option<Sha256>, NftError> {
    let table = read_table(family, name, None).map_err(failed(family, name))?;
    Ok(table.map(|table| table.digest))
}

fn failed(family: &str, name: &str) -> impl FnOnce(io::Error) -> NftError {
    move |source| NftError::Kernel { action: format!("read the nft table {family} {name}"), source }
}

/// Names of all tables of a family.
pub fn tables(family: &str) -> Result<Vec<String>, NftError> {
    let all = Netfilter::open().and_then(|socket| socket.dump(GET_TABLE, number(family), &[]));
    let all = all.map_err(|source| NftError::Kernel { action: "list the nft tables".into(), source })?;
    Ok(all.iter().filter_map(|table| text(table, TABLE)).collect())
}

pub(super) fn number(family: &str) -> u8 {
    FAMILIES.iter().find(|(word, _)| *word == family).map_or(0, |(_, number)| *number)
}

/// How often tables of this thread's network namespace were changed, by whomever: each transaction that changes anything counts, and
/// what packets do does not.
pub fn generation() -> Result<u32, NftError> {
    let ask = || -> io::Result<u32> {
        let answer = Netfilter::open()?.ask(GET_GENERATION, 0, &[])?;
        let number = answer.first().and_then(|answer| find(answer, GENERATION)?.first_chunk().copied());
        number.map(u32::from_be_bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
    };
    ask().map_err(|source| NftError::Kernel { action: "ask for the generation of nft tables".into(), source })
}

/// Digests of sets where they are told apart.
fn read_table(family: &str, name: &str, known: Option<&SetDigests>) -> io::Result<Option<TableContent>> {
    let socket = Netfilter::open()?;
    let reader = TableReader { socket, family: number(family), name };
    let Some(table) = reader.all(GET_TABLE)?.into_iter().next() else { return Ok(None) };
    let (mut chains, mut sets) = (BTreeSet::new(), BTreeSet::new());
    let (mut has_leaving, mut elements) = (false, SetDigests::new());
    // The order in which the kernel tells chains, sets and elements is its own; that of rules counts.
    let mut unordered = vec![parts(b"table", &table, &TABLE_PARTS)];
    for chain in reader.all(GET_CHAIN)? {
        chains.extend(text(&chain, CHAIN_NAME));
        unordered.push(parts(b"chain", &chain, &[&[CHAIN_NAME][..], &CHAIN_PARTS].concat()));
    }
    for set in reader.all(GET_SET)? {
        let flags =
            find(&set, SET_FLAGS).and_then(|it| it.first_chunk()).map_or(0, |it| u32::from_be_bytes(*it));
        let Some(set_name) = text(&set, SET_NAME) else { continue };
        unordered.push(parts(b"set", &set, &SET_PARTS));
        let is_known = known.and_then(|known| known.get(&set_name)).filter(|_| flags & SET_TIMEOUT == 0);
        if let Some(digest) = is_known {
            elements.insert(set_name.clone(), *digest);
        } else if flags & SET_DYNAMIC == 0 {
            let (held, leaving) = reader.elements(&set_name)?;
            has_leaving |= leaving;
            match known {
                Some(_) => drop(elements.insert(set_name.clone(), Sha256::of(held.concat()))),
                None => unordered.extend(held),
            }
        }
        if flags & SET_ANONYMOUS == 0 {
            sets.insert(set_name);
        }
    }
    let counters = reader.all(GET_OBJECT)?.iter().filter_map(|object| text(object, OBJECT_NAME)).collect();
    unordered.extend(elements.iter().map(|(set, digest)| [set.as_bytes(), &digest.0].concat()));
    unordered.sort_unstable();
    let rules = reader.all(GET_RULE)?;
    let rules = rules.iter().map(|rule| rule_parts(rule));
    let all: Vec<u8> = unordered.into_iter().chain(rules).flatten().collect();
    Ok(Some(TableContent { chains, sets, counters, has_leaving, elements, digest: Sha256::of(all) }))
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

/// A rule as its chain and expressions, without what its counters count.
fn rule_parts(rule: &[u8]) -> Vec<u8> {
    let mut all = parts(b"rule", rule, &[RULE_CHAIN]);
    let expressions = netlink::attributes(find(rule, RULE_EXPRESSIONS).unwrap_or_default());
    for (_, expression) in expressions {
        let is_counter = text(expression, EXPRESSION_NAME).as_deref() == Some(COUNTER);
        let told = if is_counter { COUNTER.as_bytes() } else { expression };
        all.extend((told.len() as u32).to_be_bytes());
        all.extend(told);
    }
    all
}

/// Names of interfaces in a set of them; `None` where there is no such set.
pub fn interfaces_in(family: &str, table: &str, set: &str) -> Result<Option<Vec<String>>, NftError> {
    let look = || -> io::Result<Option<Vec<String>>> {
        let reader = TableReader { socket: Netfilter::open()?, family: number(family), name: table };
        // The kernel answers a question about the sets of no table with an error.
        if reader.all(GET_TABLE)?.is_empty() {
            return Ok(None);
        }
        if !reader.all(GET_SET)?.iter().any(|found| text(found, SET_NAME).as_deref() == Some(set)) {
            return Ok(None);
        }
        let name = |element: &[u8]| text(find(element, ELEMENT_KEY)?, DATA_VALUE);
        let trimmed = |name: String| name.trim_end_matches('\0').to_owned();
        Ok(Some(reader.raw_elements(set)?.iter().filter_map(|element| name(element)).map(trimmed).collect()))
    };
    look().map_err(failed(family, table))
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

    /// The elements of a set, sorted, but for those that go by themselves; says whether there are such.
    fn elements(&self, set: &str) -> io::Result<(Vec<Vec<u8>>, bool)> {
        let (mut held, mut has_leaving) = (Vec::new(), false);
        for element in self.raw_elements(set)? {
            match find(&element, ELEMENT_TIMEOUT) {
                None => held.push([set.as_bytes(), &element].concat()),
                Some(_) => has_leaving = true,
            }
        }
        held.sort_unstable();
        Ok((held, has_leaving))
    }

    /// All of them, each as the kernel tells it.
    fn raw_elements(&self, set: &str) -> io::Result<Vec<Vec<u8>>> {
        let mut request = Vec::new();
        netlink::push(&mut request, TABLE, format!("{}\0", self.name).as_bytes());
        netlink::push(&mut request, SET_NAME, format!("{set}\0").as_bytes());
        let messages = self.socket.dump(GET_ELEMENTS, self.family, &request)?;
        let lists = messages.iter().filter_map(|message| find(message, ELEMENTS));
        Ok(lists.flat_map(netlink::attributes).map(|(_, element)| element.to_vec()).collect())
    }
}
