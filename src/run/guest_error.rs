//! What stands against a guest that is known.

use std::net::Ipv4Addr;

use crate::base::{Class, Diagnosis, Diagnostic, GuestName};

/// A guest that is known, and is not what it was taken for.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    #[error("{0} was never started on this host")]
    NeverStarted(GuestName),
    #[error("{guest} is a guest, and no name that guests look up")]
    NoDestination { guest: GuestName, address: Option<Ipv4Addr> },
}

impl Diagnostic for GuestError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::NeverStarted(guest) => Class::Failed.hint(format!("`sisforge up {guest}` starts it")),
            Self::NoDestination { address: Some(address), .. } => {
                Class::Invalid.hint(format!("ask about its address: {address}"))
            }
            Self::NoDestination { address: None, .. } => {
                Class::Invalid.hint("ask about its address, which `sisforge lock` gives it")
            }
        }
    }
}
