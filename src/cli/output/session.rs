//! Guests of pools that are handed out.

use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::Serialize;

use crate::apply::record::quarantine::CutOff;
use crate::apply::session_disk::DiskMount;
use crate::host::state::Session;
use crate::run::session::{PoolGuest, PoolGuestState};

use super::PublishedJson;

/// A guest of a pool.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SessionJson {
    pub guest: String,
    /// `null` where neither its record nor `fleet.toml` can be read.
    pub pool: Option<String>,
    /// The guest's address.
    pub ip: Option<Ipv4Addr>,
    pub state: SessionStateJson,
    /// Since when it is cut off (RFC 3339, UTC), if it is: nobody is given such a guest. Empty where that is not known.
    pub quarantined: Option<String>,
    /// `null` unless somebody has it.
    pub session: Option<HandedOutJson>,
    /// Whether `session start` saw the guest mount the disk that was brought: `false` where the guest cannot, or had not yet; `null`
    /// where its image does not tell, where there is no disk, and for all others.
    pub disk_mounted: Option<bool>,
    /// Ports of the host that lead to it.
    pub published: Vec<PublishedJson>,
}

/// How a guest of a pool is.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SessionStateJson {
    /// It is booted, and waits to be handed out.
    Spare,
    /// Somebody has it.
    InUse,
    /// Its session is over, and it is about to be removed.
    Over,
}

/// That a guest was handed out.
#[derive(Debug, Serialize, JsonSchema)]
pub struct HandedOutJson {
    /// Whom it is for, as `--for` said.
    pub label: Option<String>,
    /// RFC 3339, in UTC; `null` where whoever takes it has not said yet, or no record of it can be read.
    pub started: Option<String>,
    /// When it ends by itself (RFC 3339, UTC); `null` where it does not.
    pub expires: Option<String>,
    /// The kept disk that it brought; `null` where it brought none.
    pub disk: Option<String>,
    /// The container with which it ends; `null` where it ends with none.
    pub ends_with: Option<String>,
}

/// A session that was ended.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SessionEndedJson {
    pub guest: String,
    /// What is worth knowing, one sentence each.
    pub notes: Vec<String>,
}

/// Since when a guest is cut off, if it is; empty where that is not known.
pub(super) fn since(cut_off: Option<&CutOff>) -> Option<String> {
    cut_off.map(|cut_off| cut_off.since.clone().unwrap_or_default())
}

impl From<&PoolGuest> for SessionJson {
    fn from(guest: &PoolGuest) -> Self {
        let (state, session) = match &guest.state {
            PoolGuestState::Spare => (SessionStateJson::Spare, None),
            PoolGuestState::InUse(session) => (SessionStateJson::InUse, Some(session.into())),
            PoolGuestState::Over => (SessionStateJson::Over, None),
        };
        Self {
            guest: guest.guest.to_string(),
            pool: guest.pool.as_ref().map(ToString::to_string),
            ip: guest.ip,
            state,
            quarantined: since(guest.quarantined.as_ref()),
            session,
            disk_mounted: match guest.mount {
                Some(DiskMount::Mounted) => Some(true),
                Some(DiskMount::Failed | DiskMount::Late(_)) => Some(false),
                Some(DiskMount::Untold) | None => None,
            },
            published: guest.published.iter().map(PublishedJson::from).collect(),
        }
    }
}

impl From<&Session> for HandedOutJson {
    fn from(session: &Session) -> Self {
        let Session { label, started, expires, disk, ends_with, .. } = session.clone();
        let [disk, ends_with] = [disk, ends_with].map(|name| name.map(|name| name.to_string()));
        Self { label, started, expires, disk, ends_with }
    }
}
