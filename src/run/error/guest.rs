//! What stands against requests about a guest.

use std::net::Ipv4Addr;

use crate::base::{Class, Diagnosis, Diagnostic, GuestName};

/// A guest that is not there, or is not what it was taken for.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    #[error("there is no guest {name:?}")]
    Unknown { name: String, hint: String },
    #[error("there is no network policy and no guest {name:?}")]
    UnknownNetwork { name: String, hint: String },
    #[error("{0} was never started on this host")]
    NeverStarted(GuestName),
    #[error("{0} is not running")]
    NotRunning(GuestName),
    #[error("{guest} {}", if *.runs { "is not ready yet" } else { "is not running" })]
    NotReady { guest: GuestName, runs: bool },
    #[error("{0} has no sshd, so no command can be run in it")]
    NoSshd(GuestName),
    #[error("{guest} is a guest, and guests do not resolve each other's names")]
    NoDestination { guest: GuestName, address: Option<Ipv4Addr> },
}

impl Diagnostic for GuestError {
    fn diagnosis(&self) -> Diagnosis {
        use Class::{Failed, Invalid};
        match self {
            Self::Unknown { hint, .. } | Self::UnknownNetwork { hint, .. } => Invalid.hint(hint.clone()),
            Self::NeverStarted(guest) => Failed.hint(format!("`sisforge up {guest}` starts it")),
            Self::NotRunning(guest) => Failed.hint(format!("start it with `sisforge up {guest}`")),
            Self::NotReady { guest, .. } => Failed.hint(format!(
                "`sisforge up {guest}` starts it, `sisforge logs {guest}` shows its serial console"
            )),
            Self::NoSshd(_) => {
                Failed.hint("its image needs a recipe that starts one, such as rootless-podman")
            }
            Self::NoDestination { address: Some(address), .. } => {
                Invalid.hint(format!("ask about its address: {address}"))
            }
            Self::NoDestination { address: None, .. } => {
                Invalid.hint("ask about its address, which `sisforge lock` gives it")
            }
        }
    }
}
