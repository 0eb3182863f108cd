//! `session`: a guest of a pool is handed out, and taken back.

use std::process::ExitCode;

use crate::run::session::{PoolGuest, PoolGuestState};

use super::error::CliError;
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
    /// For a login portal that is not root: a request is {"command": "start", "pool": "kiosk", "for": "jo", "ttl": "8h", "wait": "30s", "disk": "jo"},
    /// {"command": "ls"}, {"command": "extend", "guest": "kiosk-0", "ttl": "2h"} or {"command": "end", "guest": "kiosk-0"}; the answer
    /// is what the command prints with --json. The kernel tells who asks.
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
