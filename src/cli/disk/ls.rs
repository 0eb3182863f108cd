//! `disk ls`: every data disk.

use std::process::ExitCode;

use crate::apply::disk::DiskBacking;
use crate::apply::session_disk::LISTED;
use crate::base::ByteSize;
use crate::run::disk::{self, Listed};

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

fn row(Listed { disk, orphan }: &Listed) -> Vec<String> {
    let own_name = match &disk.session {
        Some(name) => format!("{LISTED}{name}"),
        None => disk.guest.as_ref().map_or_else(String::new, ToString::to_string),
    };
    let state = match (disk.attached, &disk.guest, orphan) {
        (true, Some(guest), _) if disk.session.is_some() => format!("in {guest}"),
        (true, ..) => "attached".to_owned(),
        (false, _, true) => "orphan".to_owned(),
        (false, ..) if disk.name == own_name => "free".to_owned(),
        (false, ..) => "set aside".to_owned(),
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
