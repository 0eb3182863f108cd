//! Connections of guests that go: they end before an address is given again, and with one look at the kernel's tables for all guests
//! of a command. Which ones is noted before a TAP goes, which alone tells its guest's address: whoever comes after one that was killed
//! goes on with it. Tables and notes go with the boot alike.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::host::layout::Layout;
use crate::sys::conntrack::{self, TrackedConnection};
use crate::sys::fs::{self as files, FileError};
use crate::sys::netns::{self, Presence};
use crate::sys::nft::NftError;

use super::ApplyError;

/// Notes that the connections of these addresses are to end.
pub(super) fn note(layout: &Layout, guests: &[Ipv4Addr]) -> Result<(), FileError> {
    let path = layout.ending();
    files::create_private_dir(path.parent().unwrap_or(Path::new("/")))?;
    let lines: String = guests.iter().map(|guest| format!("{guest}\n")).collect();
    let append = |mut file: File| file.write_all(lines.as_bytes());
    File::options()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(append)
        .map_err(FileError::when("write", path))
}

/// Ends those that were noted, in the fleet's network and in the host's own.
pub(super) fn end_noted(layout: &Layout) -> Result<(), ApplyError> {
    let path = layout.ending();
    let Some(text) = files::read_text_if_present(&path)? else { return Ok(()) };
    let guests: BTreeSet<Ipv4Addr> = text.lines().filter_map(|line| line.parse().ok()).collect();
    let is_over =
        |connection: &TrackedConnection| guests.contains(&connection.from) || guests.contains(&connection.to);
    let end = || -> Result<(), NftError> { conntrack::end(&conntrack::list(is_over)?).map(drop) };
    let netns = layout.netns();
    if netns::presence(&netns)? == Presence::There {
        netns::within(&netns, end)??;
    }
    end()?;
    Ok(files::remove(&path)?)
}
