//! What stands against a session.

use crate::base::{Class, Diagnosis, Diagnostic, GuestName, Label};

/// Why no guest was handed out, or none taken back.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("no session has a guest {name:?}")]
    NoSession { name: String, hint: String },
    #[error("there is no pool `{name}`")]
    NoPool { name: String, hint: String },
    #[error("the pool {0} has a fixed number of guests, which are handed out to nobody")]
    FixedPool(Label),
    #[error("no guest of {pool} is spare: {in_use} of at most {max} are in use")]
    NoSpare { pool: Label, in_use: usize, max: u32 },
    #[error(
        "{guest} has the disk {disk} of its session, which another session changes before the snapshot is restored"
    )]
    HasDisk { guest: GuestName, disk: Label },
    #[error("{guest} is a spare of {pool}: it is nobody's before it is handed out")]
    Spare { guest: GuestName, pool: Label },
}

const SPARES_COME: &str = "`watch`, or `sisforge up`, has others ready as long as there are fewer than `max`; `--wait 30s` waits \
     for one";

impl Diagnostic for SessionError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::NoSession { hint, .. } | Self::NoPool { hint, .. } => Class::Invalid.hint(hint.clone()),
            Self::FixedPool(_) => Class::Invalid.hint("give it `spare` and `max` in place of `replicas`"),
            Self::NoSpare { .. } => Class::Failed.hint(SPARES_COME),
            Self::HasDisk { guest, .. } => Class::Failed.hint(format!(
                "`sisforge forensics {guest}` captures it with that disk, as evidence that nobody restores"
            )),
            Self::Spare { pool, .. } => {
                Class::Failed.hint(format!("`sisforge session start {pool}` hands one out"))
            }
        }
    }
}
