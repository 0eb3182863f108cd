//! `disk ls`: every data disk.

use std::process::ExitCode;

use crate::apply::disk::DiskBacking;
use crate::base::ByteSize;
use crate::run::disk::{self, DiskUse, Listed};

use super::super::error::CliError;
use super::super::ui::Ui;
use super::super::{output, render};

pub fn run(ui: &Ui) -> Result<ExitCode, CliError> {
    let disks = disk::list(&ui.workspace())?;
    if ui.settings.json {
        render::json(&disks.iter().map(output::Disk::from).collect::<Vec<_>>());
        return Ok(ExitCode::SUCCESS);
    }
    let head = ["NAME", "SIZE", "USED", "BACKING", "UID", "LABEL", "STATE"].map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(head).chain(disks.iter().map(row)).collect();
    render::text(&render::table(&rows));
    Ok(ExitCode::SUCCESS)
}

fn row(listed: &Listed) -> Vec<String> {
    let disk = &listed.disk;
    let state = match listed.usage() {
        DiskUse::InSession(guest) => format!("in {guest}"),
        DiskUse::Attached => "attached".to_owned(),
        DiskUse::Orphan => "orphan".to_owned(),
        DiskUse::SetAside => "set aside".to_owned(),
        DiskUse::Free => "free".to_owned(),
    };
    let backing = match disk.backing {
        DiskBacking::File => "file",
        DiskBacking::Jail => "jail",
        DiskBacking::Tmpfs => "tmpfs",
    };
    vec![
        disk.name.clone(),
        ByteSize::from_bytes(disk.size).to_string(),
        render::bytes(disk.used),
        backing.to_owned(),
        disk.uid.to_string(),
        disk.label.as_deref().map_or_else(|| "-".into(), render::plain),
        state,
    ]
}
