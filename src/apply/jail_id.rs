//! Which jails are there.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::base::GuestName;
use crate::fleet::VmmKind;
use crate::host::layout::{Layout, parse_jail_id, vmm_folder};
use crate::sys::fs as files;

use super::ApplyError;

/// One of the jails that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JailId {
    pub attempt: u32,
    pub vmm: VmmKind,
}

impl JailId {
    /// The chroot of this jail.
    pub fn root(self, layout: &Layout, guest: &GuestName) -> PathBuf {
        layout.jail_root(self.vmm, guest, self.attempt)
    }

    /// Its directory.
    pub(super) fn dir(self, layout: &Layout, guest: &GuestName) -> PathBuf {
        layout.jail(self.vmm, guest, self.attempt)
    }
}

/// Every jail of the fleet, those of a guest by their attempts.
pub fn all(layout: &Layout) -> Result<BTreeMap<GuestName, Vec<JailId>>, ApplyError> {
    let mut found: BTreeMap<GuestName, Vec<JailId>> = BTreeMap::new();
    for vmm in VmmKind::ALL {
        for name in files::names_in(&layout.jails().join(vmm_folder(vmm)))? {
            if let Some((guest, attempt)) = parse_jail_id(&name) {
                found.entry(guest).or_default().push(JailId { attempt, vmm });
            }
        }
    }
    found.values_mut().for_each(|jails| jails.sort());
    Ok(found)
}
