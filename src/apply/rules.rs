//! Putting the rules of a fleet's guests into the kernel, and telling what it holds of them.

use crate::base::{FleetName, Sha256};
use crate::host::firewall::{Ruleset, swap, table_name};
use crate::sys::nft::{self, NftError, TableContent};

/// What the tables of a fleet hold; `None` where there is none.
pub(super) fn digest(fleet: &FleetName) -> Result<Option<Sha256>, NftError> {
    let table = table_name(fleet);
    digest_with(nft::read_table("inet", &table)?.as_ref(), &table)
}

fn digest_with(inet: Option<&TableContent>, name: &str) -> Result<Option<Sha256>, NftError> {
    let Some(inet) = inet else { return Ok(None) };
    let arp = nft::read_table("arp", name)?;
    Ok(Some(Sha256::of([inet.digest.0, arp.map_or([0; 32], |arp| arp.digest.0)].concat())))
}

/// What was loaded before.
#[derive(Clone, Debug)]
pub(super) struct KnownRules {
    /// What the kernel then held.
    pub listing: Sha256,
    /// By which the next ones are compared; `None` where no record has it.
    pub body: Option<String>,
}

/// Puts rules in the place of those that are there, and gives what the kernel then holds. Where that was not `known` before,
/// nothing of it is kept: not what was counted, and no list. `leaving` comes with them, in the same transaction.
pub(super) fn load(
    fleet: &FleetName,
    ruleset: &Ruleset,
    leaving: &str,
    known: Option<&KnownRules>,
) -> Result<Option<Sha256>, NftError> {
    let table = table_name(fleet);
    let there = nft::read_table("inet", &table)?;
    let is_known = digest_with(there.as_ref(), &table)? == known.map(|known| known.listing);
    if there.is_none() || is_known {
        let present = there.map(|table| swap::Present {
            chains: table.chains,
            sets: table.sets,
            counters: table.counters,
            has_leaving: table.has_leaving,
        });
        let before = known.and_then(|known| known.body.as_deref()).zip(present.as_ref());
        let elements = before.and_then(|(body, there)| swap::elements_alone(body, &ruleset.parts, there));
        let mut calls = match elements {
            Some(call) => vec![call],
            None => swap::calls(&ruleset.parts, present.as_ref()),
        };
        if let Some(swap) = calls.last_mut() {
            swap.push_str(leaving);
        }
        calls.iter().try_for_each(|call| nft::load(call))?;
    } else {
        nft::load(&format!("{}{leaving}", ruleset.text))?;
    }
    digest(fleet)
}
