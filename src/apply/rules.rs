//! Putting the rules of a fleet's guests into the kernel, and telling what it holds of them.
//!
//! Reading back a long list takes longer than anything else here. The kernel counts each change of any table in a network
//! namespace (`NFTA_GEN_ID`), and in a fleet's own nobody else changes any: what was read after a load holds for as long as that
//! number stays. Where it does not, all is read again.

use crate::base::network::ElementChange;
use crate::base::{FleetName, Sha256};
use crate::host::firewall::{Ruleset, swap, table_name};
use crate::sys::fs::boot_id;
use crate::sys::netns;
use crate::sys::nft::{self, ElementBatch, NftError, SetDigests, TableContent};

use super::record::{KernelElements, KernelRules};

/// What the two tables of a fleet hold.
struct FleetTables {
    inet: TableContent,
    arp: Option<TableContent>,
    digest: Sha256,
}

/// Reads them but for `known` elements; `None` where there are none.
fn content(name: &str, known: &KernelElements) -> Result<Option<FleetTables>, NftError> {
    let Some(inet) = nft::read_beside("inet", name, &known.inet)? else { return Ok(None) };
    let arp = nft::read_beside("arp", name, &known.arp)?;
    let digest = digest_of(inet.digest, arp.as_ref().map(|arp| arp.digest));
    Ok(Some(FleetTables { inet, arp, digest }))
}

fn digest_of(inet: Sha256, arp: Option<Sha256>) -> Sha256 {
    Sha256::of([inet.0, arp.map_or([0; 32], |arp| arp.0)].concat())
}

/// What was loaded before.
#[derive(Clone, Debug)]
pub struct KnownRules {
    /// What the kernel then held.
    pub listing: Sha256,
    /// Whether that is made of all elements at once, as earlier versions had it.
    pub is_flat: bool,
    /// What was read then; `None` where no record has it.
    pub held: Option<KernelRules>,
    /// By which the next ones are compared; `None` where no record has it.
    pub body: Option<String>,
}

/// What the tables of a fleet hold; `None` where there is none. It is not read where it is what was held before, and `held` is what
/// was read.
pub fn look(fleet: &FleetName, known: Option<&KnownRules>) -> Result<Option<LoadedRules>, NftError> {
    let table = table_name(fleet);
    let generation = nft::generation()?;
    let held = known.and_then(|known| known.held.as_ref());
    if let Some(held) = held.filter(|held| held.is_now(generation)) {
        return Ok(Some(LoadedRules { listing: held.listing, held: None }));
    }
    if known.is_some_and(|known| known.is_flat) {
        return Ok(flat(&table)?.map(|listing| LoadedRules { listing, held: None }));
    }
    let there = content(&table, &KernelElements::default())?;
    Ok(there.map(|there| LoadedRules { listing: there.digest, held: held_at(generation, there) }))
}

/// Only what they hold.
pub fn digest(fleet: &FleetName, known: Option<&KnownRules>) -> Result<Option<Sha256>, NftError> {
    Ok(look(fleet, known)?.map(|rules| rules.listing))
}

fn flat(name: &str) -> Result<Option<Sha256>, NftError> {
    let Some(inet) = nft::flat_digest("inet", name)? else { return Ok(None) };
    Ok(Some(digest_of(inet, nft::flat_digest("arp", name)?)))
}

/// What was read at a generation; `None` where somebody changed something since.
fn held_at(generation: u32, tables: FleetTables) -> Option<KernelRules> {
    let namespace = netns::own_identity().filter(|_| nft::generation().is_ok_and(|now| now == generation))?;
    let elements = KernelElements {
        inet: tables.inet.elements,
        arp: tables.arp.map(|arp| arp.elements).unwrap_or_default(),
    };
    Some(KernelRules { boot: boot_id(), namespace, generation, listing: tables.digest, elements })
}

/// What the kernel holds, after a load or at a look.
#[derive(Clone, Debug)]
pub struct LoadedRules {
    pub listing: Sha256,
    /// `None` where somebody else changed something meanwhile, and where nothing was read.
    pub held: Option<KernelRules>,
}

/// Puts rules in the place of those that are there, and gives what the kernel then holds. Where that was not `known` before,
/// nothing of it is kept: not what was counted, and no list. `leaving` comes with them, in the same transaction.
pub fn load(
    fleet: &FleetName,
    ruleset: &Ruleset,
    leaving: &str,
    known: Option<&KnownRules>,
) -> Result<Option<LoadedRules>, NftError> {
    let table = table_name(fleet);
    let begun = nft::generation()?;
    let held = known.and_then(|known| known.held.as_ref()).filter(|held| held.is_now(begun));
    let there = content(&table, &held.map(|held| held.elements.clone()).unwrap_or_default())?;
    let is_known = match (known, &there) {
        (Some(known), Some(_)) if known.is_flat => flat(&table)? == Some(known.listing),
        (known, there) => there.as_ref().map(|there| there.digest) == known.map(|known| known.listing),
    };
    let (changes, untouched) = if there.is_none() || is_known {
        let body = known.and_then(|known| known.body.as_deref());
        change(ruleset, leaving, body, there)?
    } else {
        nft::load(&format!("{}{leaving}", ruleset.text))?;
        (1, KernelElements::default())
    };
    let generation = nft::generation()?;
    // What somebody else did meanwhile may have been anywhere.
    let is_ours = generation == begun.wrapping_add(changes);
    let untouched = if is_ours { untouched } else { KernelElements::default() };
    let Some(after) = content(&table, &untouched)? else { return Ok(None) };
    Ok(Some(LoadedRules { listing: after.digest, held: held_at(generation, after) }))
}

/// Changes what is there; gives in how many transactions, and the elements that none of them touched.
fn change(
    ruleset: &Ruleset,
    leaving: &str,
    body: Option<&str>,
    there: Option<FleetTables>,
) -> Result<(u32, KernelElements), NftError> {
    let parts = &ruleset.parts;
    let mut untouched = KernelElements::default();
    let present = there.map(|FleetTables { inet, arp, .. }| {
        untouched.inet = inet.elements;
        untouched.arp = arp.map(|arp| arp.elements).unwrap_or_default();
        let TableContent { chains, sets, counters, has_leaving, .. } = inet;
        swap::Present { chains, sets, counters, has_leaving }
    });
    let alone = body.zip(present.as_ref()).filter(|_| leaving.is_empty());
    let alone = alone.and_then(|(body, there)| swap::elements_alone(body, parts, there));
    if let Some((changes, batch)) =
        alone.and_then(|alone| ElementBatch::of(&parts.table, &alone).map(|it| (alone, it)))
    {
        batch.commit()?;
        for change in &changes {
            if let ElementChange::Elements { family, set, .. } = change {
                let sets: &mut SetDigests =
                    if *family == "arp" { &mut untouched.arp } else { &mut untouched.inet };
                sets.remove(set);
            }
        }
        return Ok((u32::from(!changes.is_empty()), untouched));
    }
    let mut calls = swap::calls(parts, present.as_ref());
    if let Some(swap) = calls.last_mut() {
        swap.push_str(leaving);
    }
    calls.iter().try_for_each(|call| nft::load(call))?;
    untouched.inet.retain(|set, _| swap::is_list(set));
    untouched.arp.clear();
    Ok((calls.len() as u32, untouched))
}
