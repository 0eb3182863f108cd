//! Guests by the names that a user gives.

use std::collections::BTreeSet;

use crate::apply::linux::LinuxHost;
use crate::base::GuestName;
use crate::fleet::{Fleet, suggest};

use super::RunError;
use super::error::GuestError;

/// Guests that a user named, each of which must be known: the fleet declares it, or the host has something of it.
pub fn named<'a>(
    names: &[String],
    known: impl IntoIterator<Item = &'a GuestName>,
) -> Result<Vec<GuestName>, RunError> {
    // The host's guests and the fleet's are mostly the same.
    let known: BTreeSet<&GuestName> = known.into_iter().collect();
    let find = |name: &String| {
        let found = known.iter().find(|guest| guest.as_str() == name);
        let unknown = || GuestError::Unknown {
            name: name.clone(),
            hint: suggest("guests", name, known.iter().map(|guest| guest.as_str())),
        };
        Ok(found.map(|guest| (*guest).clone()).ok_or_else(unknown)?)
    };
    names.iter().map(find).collect()
}

/// A guest that the fleet declares.
pub fn declared(name: &str, fleet: &Fleet) -> Result<GuestName, RunError> {
    named(&[name.to_owned()], fleet.guests.keys()).map(|mut names| names.remove(0))
}

/// A guest that the fleet declares, or that the host still has something of.
pub(super) fn declared_or_there(
    name: &str,
    declared: &BTreeSet<GuestName>,
    host: &LinuxHost,
) -> Result<GuestName, RunError> {
    let there = name.parse::<GuestName>().ok().filter(|guest| host.layout.guest(guest).exists());
    let known = |name: &str| named(&[name.to_owned()], declared).map(|mut names| names.remove(0));
    there.map_or_else(|| known(name), Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Diagnostic;

    #[test]
    fn a_guest_that_nobody_knows_is_answered_with_the_nearest_one() {
        let known: Vec<GuestName> = ["alice", "bob"].map(|name| name.parse().unwrap()).to_vec();
        let found = named(&["bob".to_owned()], &known).unwrap();
        assert_eq!(found, known[1..]);
        let error = named(&["bob".to_owned(), "alise".to_owned()], &known).unwrap_err();
        assert_eq!(error.to_string(), "there is no guest \"alise\"");
        assert_eq!(error.hint().unwrap(), "did you mean `alice`?");
        let error = named(&["nobody".to_owned()], known.iter().chain(&known)).unwrap_err();
        assert_eq!(error.hint().unwrap(), "the guests are `alice` and `bob`");
    }
}
