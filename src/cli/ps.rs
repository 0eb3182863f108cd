//! `ps`: guests that run.

use std::process::ExitCode;

use crate::apply::status::{self, GuestPhase, GuestStatus};

use super::context::{Context, observed};
use super::error::CliError;
use super::render;

#[derive(clap::Args)]
pub struct Args {
    /// Guests that do not run as well
    #[arg(short, long)]
    all: bool,
}

pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let fleet = context.fleet()?;
    let host = context.host(&fleet)?;
    let observed = observed(&host)?;
    let mut guests = status::guests(&host, &observed);
    if args.all {
        let missing = fleet.guests.keys().filter(|name| !observed.guests.contains_key(name));
        guests.extend(missing.map(|name| status::guest(&host, &observed, name)));
        guests.sort_by(|a, b| a.name.cmp(&b.name));
    } else {
        guests.retain(|guest| guest.state != GuestPhase::Down);
    }
    if context.settings.json {
        render::json(&guests);
    } else if context.settings.quiet {
        guests.iter().for_each(|guest| render::text(&format!("{}\n", guest.name)));
    } else {
        let head =
            ["NAME", "STATE", "PID", "UID", "IP", "UPTIME", "MEMORY", "IMAGE"].map(str::to_owned).to_vec();
        let rows: Vec<_> = std::iter::once(head).chain(guests.iter().map(row)).collect();
        render::text(&render::table(&rows));
    }
    Ok(ExitCode::SUCCESS)
}

/// The cells of one guest.
pub fn row(guest: &GuestStatus) -> Vec<String> {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    vec![
        guest.name.to_string(),
        match &guest.note {
            Some(note) => format!("{}, {note}", guest.state.word()),
            None => guest.state.word().to_owned(),
        },
        or_dash(guest.pid.map(|pid| pid.to_string())),
        or_dash(guest.uid.map(|uid| uid.to_string())),
        or_dash(guest.ip.map(|ip| ip.to_string())),
        or_dash(guest.uptime.map(render::duration)),
        or_dash(guest.memory.map(|bytes| format!("{} MiB", bytes >> 20))),
        or_dash(guest.machine.as_ref().map(|machine| machine.image.short())),
    ]
}
