//! `disk ls`: every data disk.

use std::process::ExitCode;

use crate::apply::disk::{self, DiskFile, Kept};
use crate::apply::linux::LinuxHost;
use crate::base::ByteSize;
use crate::fleet::Fleet;

use super::super::context::Context;
use super::super::error::CliError;
use super::super::render;

pub fn run(fleet: &Fleet, host: &LinuxHost, context: &Context) -> Result<ExitCode, CliError> {
    let disks = disk::all(host)?;
    let is_orphan = |disk: &DiskFile| !fleet.guests.contains_key(&disk.guest);
    if context.settings.json {
        let one = |disk: &DiskFile| {
            let mut value = serde_json::to_value(disk).unwrap_or_default();
            value["orphan"] = is_orphan(disk).into();
            value
        };
        render::json(&disks.iter().map(one).collect::<Vec<_>>());
        return Ok(ExitCode::SUCCESS);
    }
    let head = ["NAME", "SIZE", "USED", "BACKING", "UID", "LABEL", "STATE"].map(str::to_owned).to_vec();
    let row = |disk: &DiskFile| {
        let state = match (disk.attached, is_orphan(disk), disk.name == disk.guest.as_str()) {
            (true, ..) => "attached",
            (false, true, _) => "orphan",
            (false, false, true) => "free",
            (false, false, false) => "set aside",
        };
        let backing = match disk.backing {
            Kept::File => "file",
            Kept::Jail => "jail",
            Kept::Tmpfs => "tmpfs",
        };
        vec![
            disk.name.clone(),
            ByteSize::from_bytes(disk.size).to_string(),
            render::bytes(disk.used),
            backing.to_owned(),
            disk.uid.to_string(),
            disk.label.as_deref().map_or_else(|| "-".into(), render::plain),
            state.to_owned(),
        ]
    };
    let rows: Vec<_> = std::iter::once(head).chain(disks.iter().map(row)).collect();
    render::text(&render::table(&rows));
    Ok(ExitCode::SUCCESS)
}
