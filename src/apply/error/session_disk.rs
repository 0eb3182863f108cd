//! What stands against a session's disk.

use crate::base::{ByteSize, Class, Diagnosis, Diagnostic, GuestName, InvalidValue, Label};
use crate::image::ext4::Ext4Error;

/// Why a session does not get its disk.
#[derive(Debug, thiserror::Error)]
pub enum SessionDiskError {
    #[error("the disk {disk} is in {guest}, and no disk is ever in two guests")]
    Taken { disk: Label, guest: GuestName },
    #[error("process {pid} of the guest that had the disk {disk} last has it open still")]
    StillOpen { disk: Label, pid: u32 },
    #[error("another command holds the disk {0}")]
    Busy(Label),
    #[error("{guest} has no place for a session's disk")]
    NoPlace { guest: GuestName },
    #[error("no pool has a place for a disk that sessions bring")]
    NoPool,
    #[error("the name of a session's disk, {name:?}, {reason}")]
    Name { name: String, reason: InvalidValue },
    #[error("the disk {disk} has {there}, but {guest} takes disks of at most {limit}")]
    TooLarge { disk: Label, there: ByteSize, guest: GuestName, limit: ByteSize },
    #[error("the session of {guest} brought the disk {disk}, which no jail of {guest} has")]
    NotInJail { disk: Label, guest: GuestName },
    #[error("the disk {disk} cannot be made")]
    NotMade { disk: Label, source: Ext4Error },
}

impl Diagnostic for SessionDiskError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Taken { guest, .. } => Class::Failed.hint(format!(
                "`sisforge session end {guest}` ends its session; where it is over already, `watch` or `sisforge up` removes what is left"
            )),
            Self::StillOpen { pid, .. } => Class::Failed.hint(format!(
                "it is to end: `sisforge up` tells why it does not; `ls -l /proc/{pid}/fd` shows what it has"
            )),
            Self::Busy(_) => Class::Failed.hint("run the command again when that one has ended"),
            Self::NoPlace { .. } => Class::Invalid.hint(
                "set the size of such disks, as `session = { disk = \"1GiB\" }` in the pool, and run `sisforge up`: spares have the place \
                 from their start on",
            ),
            Self::NoPool => Class::Invalid.hint("set its size, as `session = { disk = \"1GiB\" }` in a pool"),
            Self::Name { .. } => Class::Invalid.no_hint(),
            Self::NotInJail { .. } => Class::Failed.hint("`sisforge disk ls` shows what the store has of it"),
            Self::TooLarge { .. } => {
                Class::Invalid.hint("a disk is never made smaller: raise `disk` of the pool's `session`, and run `sisforge up`")
            }
            Self::NotMade { source, .. } => source.diagnosis().of(Class::Failed),
        }
    }
}
