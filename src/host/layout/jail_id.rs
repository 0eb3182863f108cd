//! What jails are called.

use crate::base::GuestName;
use crate::fleet::VmmKind;

/// What a jail is called, and the jailer's `--id`: `alice--1`. Jails were once called after their guest alone, which
/// counts as attempt 0.
pub fn jail_id(guest: &GuestName, attempt: u32) -> String {
    if attempt == 0 { guest.to_string() } else { format!("{guest}--{attempt}") }
}

/// The guest and the attempt of a jail; `None` where no jail is called so.
pub fn parse_jail_id(id: &str) -> Option<(GuestName, u32)> {
    let numbered = id.rsplit_once("--").and_then(|(guest, attempt)| {
        let found = (guest.parse().ok()?, attempt.parse().ok()?);
        // A number that is written otherwise is not one of these.
        (jail_id(&found.0, found.1) == id).then_some(found)
    });
    numbered.or_else(|| Some((id.parse().ok()?, 0)))
}

/// Folder of a VMM's jails.
pub fn vmm_folder(vmm: VmmKind) -> &'static str {
    vmm.word()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jail_tells_its_guest_and_its_attempt() {
        for (guest, attempt) in
            [("alice", 1), ("kiosk-0", 12), ("a-", 3), ("a--1", 2), ("0", u32::MAX), ("a--", 0)]
        {
            let guest: GuestName = guest.parse().unwrap();
            let id = jail_id(&guest, attempt);
            assert_eq!(parse_jail_id(&id), Some((guest, attempt)), "{id}");
        }
        assert_eq!(parse_jail_id("alice--01"), Some(("alice--01".parse().unwrap(), 0)));
        for none in ["--1", "alice--1.new", "alice--99999999999", ".."] {
            assert_eq!(parse_jail_id(none), None, "{none}");
        }
    }
}
