//! Cutting guests off, and bringing them back: a record in the store, which alone decides, and an element of a set in the kernel.
//!
//! Whoever does this holds nothing: it works beside an `up` that loads rules. The record is written before the element is added,
//! and read after the set is, so that whoever loads rules meanwhile never takes out what was just put in.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::base::network::tap_name;
use crate::base::{GuestName, InterfaceName, time};
use crate::host::firewall::table_name;
use crate::host::layout::Layout;
use crate::host::quarantine::{QUARANTINED, quarantine_table, table};
use crate::sys::fs as files;
use crate::sys::nft;

use super::{Record, read, write_synced};
use crate::apply::ApplyError;

/// `quarantine/<guest>.json`: the guest is cut off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutOff {
    /// RFC 3339, in UTC.
    pub since: String,
}

impl Record for CutOff {
    const VERSION: u32 = 1;
}

/// All guests that are cut off. A record that cannot be read counts, with no time.
///
/// # Errors
/// Where the store cannot be read.
pub fn all(layout: &Layout) -> Result<BTreeMap<GuestName, Option<CutOff>>, ApplyError> {
    let names = files::names_in(&layout.quarantine())?;
    let guests = names.iter().filter_map(|name| name.strip_suffix(".json")?.parse::<GuestName>().ok());
    Ok(guests.map(|guest| (guest.clone(), read(&layout.quarantined(&guest)).ok().flatten())).collect())
}

/// Since when a guest is cut off, if it is; empty where its record does not say it.
pub fn since(layout: &Layout, guest: &GuestName) -> Option<String> {
    match read::<CutOff>(&layout.quarantined(guest)) {
        Ok(cut_off) => cut_off.map(|cut_off| cut_off.since),
        Err(_) => Some(String::new()),
    }
}

/// Cuts a guest off, at once and until it is released. One that is stays so, since the same time.
///
/// # Errors
/// Where the record or the rules cannot be written.
pub fn cut_off(layout: &Layout, guest: &GuestName) -> Result<(), ApplyError> {
    if !layout.quarantined(guest).exists() {
        files::create_private_dir(&layout.quarantine())?;
        write_synced(&layout.quarantined(guest), &CutOff { since: time::now() })?;
    }
    change(layout, &taps([guest]), &BTreeSet::new())
}

/// Brings a guest back. Gives whether it was cut off.
///
/// # Errors
/// Where the record or the rules cannot be written.
pub fn release(layout: &Layout, guest: &GuestName) -> Result<bool, ApplyError> {
    let was = layout.quarantined(guest).exists();
    files::remove(&layout.quarantined(guest))?;
    change(layout, &BTreeSet::new(), &taps([guest]))?;
    Ok(was)
}

/// Makes the kernel's set what the records say, as part of loading the fleet's rules.
///
/// # Errors
/// Where it cannot be read or loaded.
pub(in crate::apply) fn load(layout: &Layout) -> Result<(), ApplyError> {
    let there = in_kernel(layout)?.unwrap_or_default();
    let wanted = taps(all(layout)?.keys());
    let stale = there.difference(&wanted).cloned().collect();
    Ok(nft::load(&table(layout.fleet(), &wanted, &stale))?)
}

/// Whether the kernel's set is what the records say; without any record there need be no set.
///
/// # Errors
/// Where one of the two cannot be read.
pub(in crate::apply) fn is_in_step(layout: &Layout) -> Result<bool, ApplyError> {
    let there = in_kernel(layout)?.unwrap_or_default();
    Ok(there == taps(all(layout)?.keys()))
}

/// Removes the table; records stay.
pub(in crate::apply) fn remove(layout: &Layout) -> Result<(), ApplyError> {
    Ok(nft::delete_table("inet", &quarantine_table(layout.fleet()))?)
}

/// Of a fleet whose rules are not loaded, no guest is there; those that come find the record.
fn change(
    layout: &Layout,
    cut_off: &BTreeSet<InterfaceName>,
    released: &BTreeSet<InterfaceName>,
) -> Result<(), ApplyError> {
    if nft::has_table("inet", &table_name(layout.fleet()))? {
        nft::load(&table(layout.fleet(), cut_off, released))?;
    }
    Ok(())
}

fn in_kernel(layout: &Layout) -> Result<Option<BTreeSet<InterfaceName>>, ApplyError> {
    let elements = nft::elements("inet", &quarantine_table(layout.fleet()), QUARANTINED)?;
    Ok(elements.map(|all| all.iter().filter_map(|tap| tap.parse().ok()).collect()))
}

fn taps<'a>(guests: impl IntoIterator<Item = &'a GuestName>) -> BTreeSet<InterfaceName> {
    guests.into_iter().filter_map(|guest| tap_name(guest).ok()).collect()
}
