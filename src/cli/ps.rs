//! `ps`: guests that run, and containers in them.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use crate::apply::containers::{ContainerState, ContainerStatus};
use crate::apply::status::{GuestPhase, GuestStatus};
use crate::run::status;

use super::error::CliError;
use super::ui::Ui;
use super::{output, render};

#[derive(clap::Args)]
pub struct Args {
    /// Guests that do not run as well
    #[arg(short, long)]
    all: bool,
    /// Go on, and print a guest again when it changes (uptime and memory aside)
    #[arg(short, long)]
    watch: bool,
    /// Containers that were started in guests instead, and how they are: each guest is asked
    #[arg(short, long, conflicts_with_all = ["all", "watch"])]
    containers: bool,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    if args.containers {
        containers(ui, &status::containers(&ui.workspace())?);
        return Ok(ExitCode::SUCCESS);
    }
    let guests = status::guests(&ui.workspace(), args.all)?;
    if args.watch {
        return follow(args, ui, &guests);
    }
    if ui.settings.json {
        render::json(&guests.iter().map(output::Guest::from).collect::<Vec<_>>());
    } else if ui.settings.quiet {
        guests.iter().for_each(|guest| render::text(&format!("{}\n", guest.name)));
    } else {
        render::text(&render::table(&table(&guests)));
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints containers; why a guest did not say how its own are stands in notes.
pub fn containers(ui: &Ui, found: &[ContainerStatus]) {
    if ui.settings.json {
        render::json(&found.iter().map(output::ContainerJson::from).collect::<Vec<_>>());
        return;
    }
    if ui.settings.quiet {
        found.iter().for_each(|one| render::text(&format!("{} {}\n", one.guest, one.name)));
        return;
    }
    for of_guest in found.chunk_by(|a, b| a.guest == b.guest) {
        if let ContainerState::Unknown(why) = &of_guest[0].state {
            ui.note(&format!("containers of {} are not known: {why}", of_guest[0].guest));
        }
    }
    render::text(&render::table(&containers_table(found)));
}

/// The cells of containers.
fn containers_table(found: &[ContainerStatus]) -> Vec<Vec<String>> {
    let head = ["GUEST", "CONTAINER", "IMAGE", "STATE", "HEALTH"].map(str::to_owned).to_vec();
    let row = |one: &ContainerStatus| {
        let state = match &one.state {
            ContainerState::Exited(status) => format!("exited ({status})"),
            state => state.word().to_owned(),
        };
        let image = one.image.clone().unwrap_or_else(|| "kube".to_owned());
        let health = one.health.clone().unwrap_or_else(|| "-".to_owned());
        vec![one.guest.to_string(), one.name.to_string(), image, state, health]
    };
    std::iter::once(head).chain(found.iter().map(row)).collect()
}

/// Time between two looks.
const POLL: Duration = Duration::from_secs(1);

/// Prints the table, and then a row for each guest that changed, until somebody ends it.
fn follow(args: &Args, ui: &Ui, first: &[GuestStatus]) -> Result<ExitCode, CliError> {
    let rows = table(first);
    let widths = render::widths(&rows);
    let print = |guest: &GuestStatus| {
        if ui.settings.json {
            render::json(&output::Guest::from(guest));
        } else if ui.settings.quiet {
            render::text(&format!("{}\n", guest.name));
        } else {
            render::text(&render::line(&row(guest), &widths));
        }
    };
    if !ui.settings.json && !ui.settings.quiet {
        render::text(&render::line(&rows[0], &widths));
    }
    let mut shown = BTreeMap::new();
    for guest in first {
        print(guest);
        shown.insert(guest.name.clone(), lasting(guest));
    }
    loop {
        std::thread::sleep(POLL);
        for guest in status::guests(&ui.workspace(), true)? {
            // One that is down and was never shown is none of the list.
            let is_listed = args.all || guest.state != GuestPhase::Down || shown.contains_key(&guest.name);
            if is_listed && shown.insert(guest.name.clone(), lasting(&guest)) != Some(lasting(&guest)) {
                print(&guest);
            }
        }
    }
}

/// The cells of a guest that do not change by themselves.
fn lasting(guest: &GuestStatus) -> Vec<String> {
    let cells = HEAD.into_iter().zip(row(guest));
    cells.filter(|(title, _)| !["UPTIME", "MEMORY"].contains(title)).map(|(_, cell)| cell).collect()
}

fn table(guests: &[GuestStatus]) -> Vec<Vec<String>> {
    let head = HEAD.map(str::to_owned).to_vec();
    std::iter::once(head).chain(guests.iter().map(row)).collect()
}

/// Over the cells of [`row`].
pub const HEAD: [&str; 9] = ["NAME", "STATE", "PID", "UID", "IP", "UPTIME", "MEMORY", "IMAGE", "PORTS"];

pub fn state(guest: &GuestStatus) -> String {
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
