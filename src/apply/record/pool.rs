//! Who has a guest of a pool: a record beside the guest's others. It is `raised.json` while the guest boots, `spare.json` while it
//! waits, and `session.json` from the rename on by which somebody takes it, so that of two who try one gets it, and nobody needs to
//! hold the host for it. It goes with the guest's jail.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::Label;
use crate::host::state::{Session, SpareSpec};
use crate::sys::process::{ProcessId, ProcessInfo};

use super::Record;

/// `raised.json`, `spare.json` or `session.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRecord {
    /// The VMM's process, so that a later one is not taken for it.
    #[serde(flatten)]
    pub vmm: ProcessId,
    /// `None` where somebody has it, and the record that said so could not be read.
    pub pool: Option<Label>,
    pub paused: bool,
    /// Seconds.
    pub ttl: Option<u64>,
    /// The container with which its session ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_with: Option<Label>,
    /// Written by whoever took it, right after.
    #[serde(default)]
    pub session: Option<Session>,
    /// Whether its session was ended: it is only waited for that it goes.
    #[serde(default)]
    pub is_over: bool,
}

impl Record for PoolRecord {}

impl PoolRecord {
    /// Of a guest that waits from now on.
    pub fn spare(vmm: &ProcessInfo, spare: &SpareSpec) -> Self {
        Self {
            vmm: vmm.id,
            pool: Some(spare.pool.clone()),
            paused: spare.paused,
            ttl: spare.ttl.map(|ttl| ttl.as_secs()),
            ends_with: spare.ends_with.clone(),
            session: None,
            is_over: false,
        }
    }

    /// Of a guest that somebody has, in place of a record that cannot be read.
    pub fn unread(vmm: &ProcessInfo) -> Self {
        Self {
            vmm: vmm.id,
            pool: None,
            paused: false,
            ttl: None,
            ends_with: None,
            session: None,
            is_over: false,
        }
    }

    /// Whether it tells of this VMM, and not of an earlier one of the guest.
    pub fn is_of(&self, vmm: &ProcessInfo) -> bool {
        self.vmm == vmm.id
    }

    /// What its guest waits for; `None` where its pool is not known.
    pub(in crate::apply) fn spec(&self) -> Option<SpareSpec> {
        let (pool, ttl) = (self.pool.clone()?, self.ttl.map(Duration::from_secs));
        Some(SpareSpec { pool, paused: self.paused, ttl, ends_with: self.ends_with.clone() })
    }
}
