//! `session socket`: the verbs of sessions over a connection, for whoever may hand out guests and is not root.

use std::io::{self, BufRead, BufReader, Read};
use std::process::ExitCode;
use std::time::Duration;

use serde::Deserialize;

use crate::base::diagnostic::one_line;
use crate::base::time::parse_duration;
use crate::base::{self, Label};
use crate::cli::error::CliError;
use crate::cli::output::{SessionEndedJson, SessionJson};
use crate::cli::render;
use crate::cli::settings::Settings;
use crate::cli::ui::Ui;
use crate::run::session::{self, SessionRequest};
use crate::sys::accounts;
use crate::sys::socket::{Peer, is_hung_up, peer_of};

#[derive(clap::Args)]
pub struct Args {
    /// A user, by name or number, who may ask; root may
    #[arg(long = "allow", value_name = "USER")]
    allowed: Vec<String>,
}

/// Bytes of the longest request.
const LONGEST: u64 = 64 << 10;

/// A line that is asked.
#[derive(Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
enum PortalRequest {
    Start {
        pool: Label,
        #[serde(rename = "for")]
        label: Option<String>,
        ttl: Option<String>,
        wait: Option<String>,
        disk: Option<Label>,
    },
    Ls {},
    Extend {
        guest: String,
        ttl: Option<String>,
    },
    End {
        guest: String,
    },
}

/// Answers each line of the connection that is its standard input with a line, until it ends.
pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let ui = Ui::new(Settings { json: true, ..ui.settings.clone() }, false);
    let peer = peer_of(io::stdin()).map_err(|error| {
        let how = "systemd starts this for each connection: `Accept=yes` in a socket unit, `StandardInput=socket` in its service";
        CliError::invalid(format!("standard input is no connection of a Unix socket: {error}")).hint(how)
    })?;
    let mut may_ask = peer.uid == 0;
    for user in &args.allowed {
        let no_user = || CliError::invalid(format!("--allow: there is no user {user}"));
        may_ask |= accounts::uid_of(user).ok_or_else(no_user)? == peer.uid;
    }
    let mut lines = BufReader::new(io::stdin().lock());
    loop {
        let mut line = Vec::new();
        let unread = |error| CliError::failed(format!("cannot read a request: {error}"));
        let length = lines.by_ref().take(LONGEST).read_until(b'\n', &mut line).map_err(unread)?;
        let is_whole = (length as u64) < LONGEST || line.ends_with(b"\n");
        if !is_whole {
            lines.skip_until(b'\n').map_err(unread)?;
        }
        let answered = match length {
            0 => return Ok(ExitCode::SUCCESS),
            // Once it was read: an answer before that would be lost with what was not.
            _ if !may_ask => {
                refused(&peer).print(&ui.settings);
                return Ok(ExitCode::FAILURE);
            }
            _ if is_whole => answer(&line, &ui),
            _ => Err(CliError::invalid(format!("a request is longer than {LONGEST} bytes"))),
        };
        match answered {
            Ok(ExitCode::SUCCESS) => {}
            Ok(failed) => return Ok(failed),
            Err(error) if is_hung_up(io::stdin()) => return Ok(super::aside(&error, &ui)),
            Err(error) => error.print(&ui.settings),
        }
    }
}

/// Answers a line; fails where nobody takes an answer any more.
fn answer(line: &[u8], ui: &Ui) -> Result<ExitCode, CliError> {
    let workspace = ui.workspace();
    match serde_json::from_slice(line).map_err(not_understood)? {
        PortalRequest::Start { pool, label, ttl, wait, disk } => {
            let wait = duration(wait)?.unwrap_or_default();
            let label = label.map(|label| session::label(&label)).transpose();
            let label = label.map_err(|error| CliError::invalid(format!("`for` {error}")))?;
            let request = SessionRequest { label, ttl: duration(ttl)?, wait, disk };
            let taken = session::start(&workspace, &pool, &request, &|| !is_hung_up(io::stdin()))?;
            return Ok(super::deliver(ui, &taken, &(base::text::json(&SessionJson::from(&taken)) + "\n")));
        }
        PortalRequest::Ls {} => {
            let found = session::list(&workspace)?;
            render::json(&found.iter().map(SessionJson::from).collect::<Vec<_>>());
        }
        PortalRequest::Extend { guest, ttl } => {
            let extended = session::extend(&workspace, &guest, duration(ttl)?)?;
            render::json(&SessionJson::from(&extended));
        }
        PortalRequest::End { guest } => {
            let ended = session::end(&workspace, &guest)?.carry_out()?;
            let failures = ended.iter().flat_map(|outcome| &outcome.applied.failures);
            let notes =
                failures.map(|failure| format!("{}: {}", failure.step, one_line(&failure.error))).collect();
            render::json(&SessionEndedJson { guest, notes });
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn refused(peer: &Peer) -> CliError {
    let error = CliError::failed(format!("uid {} may not ask for sessions", peer.uid));
    error.hint("`--allow USER` lets a user ask")
}

fn not_understood(error: serde_json::Error) -> CliError {
    let error = CliError::invalid(format!("the request is not understood: {}", one_line(&error)));
    error.hint(r#"such as {"command": "start", "pool": "kiosk", "for": "jo"}; `sisforge session socket --help` has the others"#)
}

fn duration(text: Option<String>) -> Result<Option<Duration>, CliError> {
    let parsed = text.map(|text| parse_duration(&text)).transpose();
    parsed.map_err(|error| CliError::invalid(format!("a duration {error}")))
}
