//! `session ls`.

use std::process::ExitCode;

use crate::base::Label;
use crate::base::text::printable;
use crate::cli::error::CliError;
use crate::cli::output::SessionJson;
use crate::cli::render;
use crate::cli::ui::Ui;
use crate::host::state::Session;
use crate::run::session::{self, PoolGuest, PoolGuestState};

#[derive(clap::Args)]
pub struct Args {}

pub fn run(_: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let found = session::list(&ui.workspace())?;
    if ui.settings.json {
        render::json(&found.iter().map(SessionJson::from).collect::<Vec<_>>());
    } else if ui.settings.quiet {
        let in_use = found.iter().filter(|guest| matches!(guest.state, PoolGuestState::InUse(_)));
        in_use.for_each(|guest| render::text(&format!("{}\n", guest.guest)));
    } else {
        let head = ["GUEST", "POOL", "STATE", "FOR", "STARTED", "EXPIRES", "ENDS WITH", "DISK"]
            .map(str::to_owned)
            .to_vec();
        let rows: Vec<_> = std::iter::once(head).chain(found.iter().map(row)).collect();
        render::text(&render::table(&rows));
        for PoolGuest { guest, .. } in found.iter().filter(|guest| is_held_back(guest)) {
            ui.say(&format!("{guest} is handed out to nobody before `sisforge release {guest}`"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn is_held_back(guest: &PoolGuest) -> bool {
    guest.state == PoolGuestState::Spare && guest.quarantined.is_some()
}

fn row(guest: &PoolGuest) -> Vec<String> {
    let nothing = || "-".to_owned();
    let (state, cells) = match &guest.state {
        PoolGuestState::Spare => ("spare", [const { None }; 5]),
        PoolGuestState::InUse(session) => {
            let Session { label, started, expires, disk, ends_with, .. } = session.clone();
            let [disk, container] = [disk, ends_with].map(|name| name.map(|name| name.to_string()));
            ("in use", [label.map(|label| printable(&label)), started, expires, container, disk])
        }
        PoolGuestState::Over => ("over", [const { None }; 5]),
    };
    let cut_off = if guest.quarantined.is_some() { ", quarantined" } else { "" };
    let names = [
        guest.guest.to_string(),
        guest.pool.as_ref().map_or_else(nothing, Label::to_string),
        format!("{state}{cut_off}"),
    ];
    names.into_iter().chain(cells.into_iter().map(|cell| cell.unwrap_or_else(nothing))).collect()
}
