//! `session`: a guest of a pool is handed out, and taken back.

use std::process::ExitCode;

use crate::base::diagnostic::one_line;
use crate::run::session::{self, PoolGuest, PoolGuestState, SessionEnding};

use super::error::CliError;
use super::render;
use super::settings::Settings;
use super::ui::Ui;

mod end;
mod extend;
mod ls;
mod socket;
mod start;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Hand out a guest of a pool that is booted and waits
    ///
    /// Whoever is given it has it alone. `watch`, or the next `up`, has another one wait in its place.
    Start(start::Args),
    /// List guests of pools that somebody has, or that wait
    Ls(ls::Args),
    /// Let a session last longer
    Extend(extend::Args),
    /// End a session: its guest is gone, with all that it had
    End(end::Args),
    /// Answer requests over a connection that systemd accepted, a line of JSON each
    ///
    /// For a login portal that is not root: a request is {"command": "start", "pool": "kiosk", "for": "jo", "ttl": "8h", "wait":
    /// "30s", "disk": "jo"}, {"command": "ls"}, {"command": "extend", "guest": "kiosk-0", "ttl": "2h"} or {"command": "end", "guest":
    /// "kiosk-0"}; the answer is what the command prints with --json. The kernel tells who asks.
    Socket(socket::Args),
}

pub fn run(command: &Command, ui: &Ui) -> Result<ExitCode, CliError> {
    match command {
        Command::Start(args) => start::run(args, ui),
        Command::Ls(args) => ls::run(args, ui),
        Command::Extend(args) => extend::run(args, ui),
        Command::End(args) => end::run(args, ui),
        Command::Socket(args) => socket::run(args, ui),
    }
}

/// Writes the answer that hands out a guest. Where nobody takes it, nobody knows of the guest: its session is ended, and stderr says
/// so.
fn deliver(ui: &Ui, taken: &PoolGuest, answer: &str) -> ExitCode {
    let Err(unwritten) = render::attempt(answer.as_bytes()) else { return ExitCode::SUCCESS };
    let guest = &taken.guest;
    let told = |what: &str| {
        CliError::failed(format!("cannot write to stdout that {guest} was handed out: {unwritten}; {what}"))
    };
    match session::end(&ui.workspace(), guest.as_str()).and_then(SessionEnding::carry_out) {
        Ok(_) => aside(&told("its session was ended"), ui),
        Err(error) => {
            let error = told(&format!("its guest is still there: {}", one_line(&error)));
            aside(&error.hint(format!("`sisforge session end {guest}` removes it")), ui)
        }
    }
}

/// Prints an error on stderr, where nobody reads stdout.
fn aside(error: &CliError, ui: &Ui) -> ExitCode {
    error.print(&Settings { json: false, ..ui.settings.clone() });
    ExitCode::FAILURE
}

/// When a session ends, in words.
fn until(guest: &PoolGuest) -> String {
    match &guest.state {
        PoolGuestState::InUse(session) => {
            let end = match &session.expires {
                Some(time) => format!("until {time}"),
                None => format!("until `sisforge session end {}`", guest.guest),
            };
            let container = session.ends_with.as_ref();
            end + &container.map(|name| format!(", or until its container {name} ends")).unwrap_or_default()
        }
        PoolGuestState::Spare | PoolGuestState::Over => String::new(),
    }
}
