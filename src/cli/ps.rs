//! `ps`: guests that run.

use std::process::ExitCode;

use crate::apply::status::GuestStatus;
use crate::run::status;

use super::error::CliError;
use super::ui::Ui;
use super::{output, render};

#[derive(clap::Args)]
pub struct Args {
    /// Guests that do not run as well
    #[arg(short, long)]
    all: bool,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let guests = status::guests(&ui.workspace(), args.all)?;
    if ui.settings.json {
        render::json(&guests.iter().map(output::Guest::from).collect::<Vec<_>>());
    } else if ui.settings.quiet {
        guests.iter().for_each(|guest| render::text(&format!("{}\n", guest.name)));
    } else {
        let head = HEAD.map(str::to_owned).to_vec();
        let rows: Vec<_> = std::iter::once(head).chain(guests.iter().map(row)).collect();
        render::text(&render::table(&rows));
    }
    Ok(ExitCode::SUCCESS)
}

/// Over the cells of [`row`].
pub const HEAD: [&str; 9] = ["NAME", "STATE", "PID", "UID", "IP", "UPTIME", "MEMORY", "IMAGE", "PORTS"];

fn state(guest: &GuestStatus) -> String {
    let cut_off = guest.quarantined.as_ref().map(|_| "quarantined".to_owned());
    let words = [Some(guest.state.word().to_owned()), cut_off, guest.note.clone()];
    words.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The cells of one guest.
pub fn row(guest: &GuestStatus) -> Vec<String> {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    vec![
        guest.name.to_string(),
        state(guest),
        or_dash(guest.pid.map(|pid| pid.to_string())),
        or_dash(guest.uid.map(|uid| uid.to_string())),
        or_dash(guest.ip.map(|ip| ip.to_string())),
        or_dash(guest.uptime.map(render::duration)),
        or_dash(guest.memory.map(|bytes| format!("{} MiB", bytes >> 20))),
        or_dash(guest.machine.as_ref().map(|machine| machine.image.short())),
        or_dash(ports(guest)),
    ]
}

/// The ways in to a guest, as `screen 20000->6080/tcp`.
fn ports(guest: &GuestStatus) -> Option<String> {
    let all: Vec<_> = guest.published.iter().map(ToString::to_string).collect();
    (!all.is_empty()).then(|| all.join(", "))
}
