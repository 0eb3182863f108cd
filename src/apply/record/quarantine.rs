//! Cutting guests off, and bringing them back: a record in the store, which alone decides, and an element of a set in the kernel.
//!
//! Whoever does this holds nothing: it works beside an `up` that loads rules. The record is written before the element is added,
//! and read after the set is, so that whoever loads rules meanwhile never takes out what was just put in.
//!
//! Who is in the kernel's set and has no record was cut off with another store: that guest stays so, and gets one. To be brought back
//! is two steps, so whoever does that and whoever loads the set wait for each other; to be cut off waits for nobody.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use serde::{Deserialize, Serialize};

use crate::base::network::{guest_of_tap, tap_name};
use crate::base::{Class, Diagnosis, Diagnostic, GuestName, InterfaceName, Sha256, time};
use crate::host::firewall::table_name;
use crate::host::layout::Layout;
use crate::host::quarantine::{QUARANTINED, changes, quarantine_table, table};
use crate::host::state::Machine;
use crate::sys::conntrack;
use crate::sys::fs::{self as files, FileError, FileLock};
use crate::sys::netns::{self, NetnsError, Presence};
use crate::sys::nft::{self, ElementBatch, NftError, SetDigests};

use super::{KernelRules, Record, Unwritten, read, write, write_synced};

/// A guest that was not cut off, or not brought back.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Unwritten(#[from] Unwritten),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Nft(#[from] NftError),
    #[error("{guest} is cut off now, but that cannot be put down")]
    NotNoted { guest: GuestName, source: Box<Unwritten> },
}

impl Diagnostic for QuarantineError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::File(error) => error.diagnosis().of(Class::Failed),
            Self::Unwritten(error) => error.diagnosis(),
            Self::Netns(error) => error.diagnosis(),
            Self::Nft(error) => error.diagnosis(),
            Self::NotNoted { guest, source } => Class::Failed.hint(format!(
                "{}, and run `sisforge quarantine {guest}` again: `down` or a reboot would bring it back",
                remedy(source)
            )),
        }
    }
}

/// What lets the store take a record again.
fn remedy(unwritten: &Unwritten) -> &'static str {
    let Unwritten::File(error) = unwritten else { return "mend the store" };
    match error.source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room in the store",
        ErrorKind::ReadOnlyFilesystem => "make the store's file system writable (`dmesg` says why it is not)",
        _ => "mend the store",
    }
}

/// `quarantine/<guest>.json`: the guest is cut off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutOff {
    /// RFC 3339, in UTC; `None` where no record says it.
    pub since: Option<String>,
}

impl Record for CutOff {}

/// `quarantine.json`: what the kernel held of the table right after it was loaded, so that someone else's change shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LoadedQuarantine {
    listing: Sha256,
    /// Whether that is in the kernel's words; earlier versions had those of nft.
    #[serde(default)]
    by_kernel: bool,
}

impl Record for LoadedQuarantine {}

/// All guests that are cut off. A record that cannot be read counts.
pub fn all(layout: &Layout) -> Result<BTreeSet<GuestName>, QuarantineError> {
    let names = files::names_in(&layout.quarantine())?;
    Ok(names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect())
}

/// Whether a guest is cut off, and since when as far as its record can be read.
pub fn of(layout: &Layout, guest: &GuestName) -> Option<CutOff> {
    read(&layout.quarantined(guest)).unwrap_or(Some(CutOff { since: None }))
}

/// Cuts a guest off, at once and until it is released. One that is stays so, since the same time.
pub fn cut_off(layout: &Layout, guest: &GuestName) -> Result<(), QuarantineError> {
    let noted = note(layout, guest);
    change(layout, &taps([guest]), &BTreeSet::new())?;
    // What is open would end with its next packet; so it ends now, and is seen to.
    if let Some(machine) = read::<Machine>(&layout.guest(guest).machine()).ok().flatten() {
        in_network(layout, || conntrack::end_of(machine.ip))?.map(drop)?;
    }
    // Nothing may keep a guest from being cut off, not even a store that it has filled itself.
    noted.map_err(|source| QuarantineError::NotNoted { guest: guest.clone(), source: source.into() })
}

/// Puts down that a guest is cut off. Where there is no room for a record, an empty file says so, without since when.
fn note(layout: &Layout, guest: &GuestName) -> Result<(), Unwritten> {
    let path = layout.quarantined(guest);
    if path.exists() {
        return Ok(());
    }
    files::create_private_dir(&layout.quarantine())?;
    let Err(error) = write_synced(&path, &CutOff { since: Some(time::now()) }) else { return Ok(()) };
    match std::fs::File::create_new(&path) {
        Ok(_) => Ok(()),
        Err(_) => Err(error),
    }
}

/// Brings a guest back. Gives whether it was cut off.
pub fn release(layout: &Layout, guest: &GuestName) -> Result<bool, QuarantineError> {
    // A store that takes no file more keeps nobody from it.
    let _lock = FileLock::wait(&layout.quarantine_lock()).ok();
    let was = layout.quarantined(guest).exists() || unrecorded(layout)?.contains(guest);
    files::remove(&layout.quarantined(guest))?;
    change(layout, &BTreeSet::new(), &taps([guest]))?;
    Ok(was)
}

/// Guests whom the kernel cuts off and of whom this store has no record: they were with another store.
pub fn unrecorded(layout: &Layout) -> Result<BTreeSet<GuestName>, QuarantineError> {
    // Read in this order: who is cut off meanwhile has a record first.
    let there = in_kernel(layout)?;
    let recorded = all(layout)?;
    let guests = there.iter().filter_map(|tap| guest_of_tap(tap.as_str()));
    Ok(guests.filter(|guest| !recorded.contains(guest)).collect())
}

/// Makes the kernel's set and the records one, as part of loading the fleet's rules: who is cut off by either is by both.
pub(in crate::apply) fn load(layout: &Layout) -> Result<(), QuarantineError> {
    let _lock = FileLock::wait(&layout.quarantine_lock())?;
    for guest in unrecorded(layout)? {
        note(layout, &guest)?;
    }
    let there = in_kernel(layout)?;
    let wanted = taps(&all(layout)?);
    let stale = there.difference(&wanted).cloned().collect();
    let text = table(layout.fleet(), &wanted, &stale);
    in_network(layout, || nft::load(&text))??;
    match held(layout)? {
        Some(listing) => {
            Ok(write(&layout.quarantine_rules(), &LoadedQuarantine { listing, by_kernel: true })?)
        }
        None => Ok(()),
    }
}

/// Whether the table is as it was loaded, and its set what the records say.
pub(in crate::apply) fn is_whole(layout: &Layout) -> Result<bool, QuarantineError> {
    Ok(is_as_loaded(layout)? && in_kernel(layout)? == taps(&all(layout)?))
}

fn is_as_loaded(layout: &Layout) -> Result<bool, QuarantineError> {
    let loaded: Option<LoadedQuarantine> = read(&layout.quarantine_rules()).ok().flatten();
    let Some(loaded) = loaded else { return Ok(false) };
    let now = if loaded.by_kernel { held(layout)? } else { listing(layout)? };
    Ok(now == Some(loaded.listing))
}

/// What the kernel holds of the table, without the elements of its set.
fn held(layout: &Layout) -> Result<Option<Sha256>, QuarantineError> {
    let unread = SetDigests::from([(QUARANTINED.to_owned(), Sha256::of(""))]);
    let read = || nft::read_beside("inet", &quarantine_table(layout.fleet()), &unread);
    Ok(in_network(layout, read)??.map(|table| table.digest))
}

/// The same as nft lists it, of which earlier versions kept the digest.
fn listing(layout: &Layout) -> Result<Option<Sha256>, QuarantineError> {
    let list = || nft::list_table("inet", &quarantine_table(layout.fleet()));
    let text = in_network(layout, list)??;
    Ok(text.map(|text| Sha256::of(without_elements(&text))))
}

/// A listing without what stands behind `elements =`, be it on one line or on several.
fn without_elements(listing: &str) -> String {
    let mut within = false;
    let rest = listing.lines().filter(|line| {
        let begins = line.trim_start().starts_with("elements = {");
        let skipped = within || begins;
        within = skipped && !line.trim_end().ends_with('}');
        !skipped
    });
    rest.collect::<Vec<_>>().join("\n")
}

/// Of a fleet whose rules are not loaded, no guest is there; those that come find the record.
fn change(
    layout: &Layout,
    cut_off: &BTreeSet<InterfaceName>,
    released: &BTreeSet<InterfaceName>,
) -> Result<(), QuarantineError> {
    let whole = is_as_loaded(layout)?;
    let known: Option<KernelRules> = read(&layout.ruleset_held()).ok().flatten();
    let work = || {
        if !nft::has_table("inet", &table_name(layout.fleet()))? {
            return Ok(None);
        }
        let is_now = |held: &KernelRules| nft::generation().is_ok_and(|now| held.is_now(now));
        let known = known.filter(is_now);
        // A table that is whole needs no more than its elements.
        let batch = ElementBatch::of(&quarantine_table(layout.fleet()), &changes(cut_off, released));
        match batch.filter(|_| whole).map(ElementBatch::commit) {
            Some(Ok(())) => {}
            _ => nft::load(&table(layout.fleet(), cut_off, released))?,
        }
        let next = known.map(|held| KernelRules { generation: held.generation.wrapping_add(1), ..held });
        Ok::<_, NftError>(next.filter(is_now))
    };
    let next = in_network(layout, work)??;
    // Nothing but this changed anything, so what was read of the fleet's rules still holds. Whoever holds the host knows better.
    if let (Some(next), Ok(Some(_held))) = (next, FileLock::attempt(&layout.lock())) {
        // Without it, the next look reads more.
        let _ = write(&layout.ruleset_held(), &next);
    }
    Ok(())
}

fn in_kernel(layout: &Layout) -> Result<BTreeSet<InterfaceName>, QuarantineError> {
    let look = || nft::interfaces_in("inet", &quarantine_table(layout.fleet()), QUARANTINED);
    let elements = in_network(layout, look)??.unwrap_or_default();
    Ok(elements.iter().filter_map(|tap| tap.parse().ok()).collect())
}

/// Works where the fleet's rules are: in its namespace, where it has one.
fn in_network<T: Send>(layout: &Layout, work: impl FnOnce() -> T + Send) -> Result<T, QuarantineError> {
    let netns = layout.netns();
    match netns::presence(&netns)? {
        Presence::There => Ok(netns::within(&netns, work)?),
        Presence::Absent | Presence::Broken => Ok(work()),
    }
}

fn taps<'a>(guests: impl IntoIterator<Item = &'a GuestName>) -> BTreeSet<InterfaceName> {
    guests.into_iter().filter_map(|guest| tap_name(guest).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_no_part_of_a_listing() {
        let with = |elements: &str| {
            format!("table inet t {{\n\tset s {{\n\t\ttype ifname\n{elements}\t}}\n\tchain c {{\n\t}}\n}}")
        };
        let none = with("");
        let one = with("\t\telements = { \"sis-a\" }\n");
        let many = with("\t\telements = { \"sis-a\",\n\t\t\t     \"sis-b\" }\n");
        assert_eq!([without_elements(&one), without_elements(&many)], [none.clone(), none]);
    }
}
