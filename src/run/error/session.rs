//! What stands against a session.

use crate::base::{Class, Diagnosis, Diagnostic, GuestName, Label, SnapshotName};

/// Why no guest was handed out, or none taken back; and what nobody does to one that is handed out.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("no session has a guest {name:?}")]
    NoSession { name: String, hint: String },
    #[error("no session has a guest \"{0}\": nobody has it")]
    Nobodys(GuestName),
    #[error("the session of {0} is over")]
    Over(GuestName),
    #[error("there is no pool `{name}`")]
    NoPool { name: String, hint: String },
    #[error("the pool {0} has a fixed number of guests, which are handed out to nobody")]
    FixedPool(Label),
    #[error("no guest of {pool} is spare: {in_use} of at most {max} are in use{}", but(cut_off))]
    NoSpare {
        pool: Label,
        in_use: usize,
        max: u32,
        /// Guests of the pool that nobody is given before they are released.
        cut_off: Vec<GuestName>,
    },
    #[error("whoever asked for a guest of {0} is gone, and none was handed out")]
    NobodyAsks(Label),
    #[error("{guest} is a spare of {pool}: it is nobody's before it is handed out")]
    Spare { guest: GuestName, pool: Label },
    #[error("somebody has {0}: what is started in its place would not be theirs")]
    InUse(GuestName),
    #[error("{0} is handed out: a snapshot would bring back what one user had where another is")]
    NoSnapshot(GuestName),
    #[error(
        "snapshot {snapshot} cannot be restored as {guest}, whose pool hands it out: nobody is given what another had"
    )]
    NoRestore { snapshot: SnapshotName, guest: GuestName },
}

const SPARES_COME: &str = "`watch`, or `sisforge up`, has others ready as long as there are fewer than `max`; `--wait 30s` waits \
     for one";

fn but(cut_off: &[GuestName]) -> String {
    match names(cut_off).as_str() {
        "" => String::new(),
        names if cut_off.len() == 1 => format!(", and {names} is quarantined"),
        names => format!(", and {names} are quarantined"),
    }
}

fn names(guests: &[GuestName]) -> String {
    guests.iter().map(GuestName::as_str).collect::<Vec<_>>().join(", ")
}

impl SessionError {
    /// Whether it is otherwise in a while.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::NoSpare { .. })
    }
}

impl Diagnostic for SessionError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::NoSession { hint, .. } | Self::NoPool { hint, .. } => Class::Invalid.hint(hint.clone()),
            Self::Nobodys(_) => Class::Invalid.hint("`sisforge session ls` lists the guests that somebody has"),
            Self::Over(guest) => Class::Invalid.hint(format!(
                "`sisforge session end {guest}`, `watch` or the next `up` removes the guest; `session start` hands out another"
            )),
            Self::FixedPool(_) => Class::Invalid.hint("give it `spare` and `max` in place of `replicas`"),
            Self::NoSpare { cut_off, .. } if cut_off.is_empty() => Class::Failed.hint(SPARES_COME),
            Self::NoSpare { in_use, max, cut_off, .. } => {
                let release = format!("`sisforge release {}` has it handed out again", cut_off[0]);
                let is_full = in_use + cut_off.len() >= *max as usize;
                Class::Failed.hint(if is_full { release } else { format!("{release}; {SPARES_COME}") })
            }
            Self::NobodyAsks(_) => Class::Failed.no_hint(),
            Self::Spare { pool, .. } => {
                Class::Failed.hint(format!("`sisforge session start {pool}` hands one out"))
            }
            Self::InUse(guest) => Class::Failed.hint(format!(
                "`sisforge session end {guest}` ends the session, and `watch` or the next `up` starts another guest"
            )),
            Self::NoSnapshot(guest) => Class::Invalid.hint(format!(
                "`sisforge forensics {guest}` captures it, as evidence that nobody restores"
            )),
            Self::NoRestore { snapshot, .. } => Class::Invalid.hint(format!(
                "`sisforge snapshot restore {snapshot} --as GUEST` brings it back as a guest of no such pool"
            )),
        }
    }
}
