//! What machines need of this host: the files that they name, and the Firecracker that is installed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::base::FileDigest;
use crate::base::Sha256;
use crate::fleet::{Fleet, VmmKind};
use crate::host::{machine_file, versions};
use crate::sys::firecracker::{self, Version};
use crate::sys::fs;

use super::context::Context;
use super::error::CliError;

/// Digests of all files that machines of the fleet name, each of which is what it is for.
pub fn machine_files(fleet: &Fleet) -> Result<BTreeMap<PathBuf, FileDigest>, CliError> {
    let mut digests = BTreeMap::new();
    let mut wrong = Vec::new();
    for (file, path) in fleet.guests.values().flat_map(|guest| guest.machine.files()) {
        if digests.contains_key(path) {
            continue;
        }
        let content = fs::read(path)?;
        wrong
            .extend(machine_file::check(file, &content).err().map(|why| format!("{} {why}", path.display())));
        digests.insert(path.clone(), Sha256::of(&content).into());
    }
    if wrong.is_empty() { Ok(digests) } else { Err(CliError::invalid(wrong.join("\n"))) }
}

impl Context {
    /// The version of Firecracker that the fleet runs on; `None` where it runs on another VMM, or none is installed.
    ///
    /// # Errors
    /// Where firecracker and jailer are of different versions, or too old.
    pub fn firecracker(&self, fleet: &Fleet) -> Result<Option<Version>, CliError> {
        if fleet.vmm != VmmKind::Firecracker {
            return Ok(None);
        }
        let Some((firecracker, jailer)) = firecracker::installed()? else { return Ok(None) };
        versions::check(firecracker, jailer)?;
        if let Some(note) = versions::note(firecracker) {
            self.say(&format!("note: {note}"));
        }
        Ok(Some(firecracker))
    }
}
