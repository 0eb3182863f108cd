//! `session start`.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use crate::apply::session_disk::DiskMount;
use crate::base::time::parse_duration;
use crate::base::{self, Label};
use crate::cli::error::CliError;
use crate::cli::output::SessionJson;
use crate::cli::ui::Ui;
use crate::host::publish::PublishedPort;
use crate::host::state::Session;
use crate::run::session::{self, PoolGuest, PoolGuestState, SessionRequest};
use crate::sys::socket::is_hung_up;

#[derive(clap::Args)]
pub struct Args {
    /// The pool
    pool: Label,
    /// Whom it is for: a word of your own, which `session ls` shows
    #[arg(long = "for", value_name = "LABEL", value_parser = session::label)]
    label: Option<String>,
    /// When the session ends by itself, such as 8h; as the pool says unless given
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    ttl: Option<Duration>,
    /// A kept disk of its user's own, which is made on first use; the pool must have a place for it (`session = { disk = SIZE }`)
    #[arg(long, value_name = "NAME")]
    disk: Option<Label>,
    /// How long to wait for a guest where none is ready
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    wait: Option<Duration>,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let Args { pool, label, ttl, disk, wait } = args;
    let wait = wait.unwrap_or_default();
    let request = SessionRequest { label: label.clone(), ttl: *ttl, wait, disk: disk.clone() };
    let taken = match session::start(&ui.workspace(), pool, &request, &|| !is_hung_up(io::stdout())) {
        Err(error) if is_hung_up(io::stdout()) => return Ok(super::aside(&error.into(), ui)),
        taken => taken?,
    };
    let answer = match ui.settings.json {
        true => base::text::json(&SessionJson::from(&taken)) + "\n",
        false if ui.settings.quiet => format!("{}\n", taken.guest),
        false => text(&taken),
    };
    Ok(super::deliver(ui, &taken, &answer))
}

fn text(taken: &PoolGuest) -> String {
    let PoolGuest { guest, ip, published, .. } = taken;
    let address = ip.map(|ip| format!(" at {ip}")).unwrap_or_default();
    let mut text = format!("{guest}{address}, {}\n", super::until(taken));
    for PublishedPort { name, protocol, port, guest_port, .. } in published {
        text += &format!("port {port}/{} of this host leads to its {name}, port {guest_port}\n", protocol);
    }
    if let PoolGuestState::InUse(Session { disk: Some(disk), .. }) = &taken.state {
        text += &format!("it has the kept disk {disk}{}\n", mounted(taken));
    }
    text + &format!("`sisforge ssh {guest}` logs in\n")
}

/// What is to be known of the disk that it brought.
fn mounted(PoolGuest { guest, mount, .. }: &PoolGuest) -> String {
    match mount {
        Some(DiskMount::Mounted) => ", and has mounted it".to_owned(),
        Some(DiskMount::Failed) => format!(", and cannot mount it: `sisforge logs {guest}` shows why"),
        Some(DiskMount::Late(limit)) => {
            format!(
                ", and has not mounted it within {} s: `sisforge logs {guest}` shows whether it did",
                limit.as_secs()
            )
        }
        Some(DiskMount::Untold) => "; its image does not tell when it has mounted it".to_owned(),
        None => String::new(),
    }
}
