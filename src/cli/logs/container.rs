//! `logs GUEST --container NAME`: what a container says.

use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::process::{ExitCode, Stdio};
use std::thread;

use crate::base::text::json;
use crate::base::time::rfc3339_millis;
use crate::cli::error::CliError;
use crate::cli::output::LogLineJson;
use crate::cli::render;
use crate::cli::ui::Ui;
use crate::run::containers::{self, LogRequest};
use crate::sys::fs::FileError;

use super::Args;

/// Longest piece of a line that is held, in bytes: a container may write one that never ends.
const LONGEST_PIECE: u64 = 64 << 10;

pub fn run(args: &Args, name: &str, ui: &Ui) -> Result<ExitCode, CliError> {
    let [guest] = args.guests.as_slice() else {
        return Err(CliError::invalid("`--container` is of one guest: name no other"));
    };
    let log = containers::log(&ui.workspace(), guest, name)?;
    let request = LogRequest {
        follow: args.follow,
        tail: args.tail,
        since: args.since.map(rfc3339_millis),
        timestamps: args.timestamps,
    };
    let (reader, writer) = io::pipe().map_err(FileError::when("open a pipe for", "ssh"))?;
    let (guest, as_json) = (log.guest().to_string(), ui.settings.json);
    thread::scope(|scope| {
        scope.spawn(|| print(BufReader::new(reader), &guest, as_json));
        log.write(&request, Stdio::from(writer))
    })?;
    Ok(ExitCode::SUCCESS)
}

fn print(mut log: impl BufRead, guest: &str, as_json: bool) {
    let is_terminal = io::stdout().is_terminal();
    let mut line = Vec::new();
    while log.by_ref().take(LONGEST_PIECE).read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let shown = if as_json {
            let line = String::from_utf8_lossy(text).into_owned();
            json(&LogLineJson { guest: guest.to_owned(), time: None, log: "container", line }).into_bytes()
        } else if is_terminal {
            // A container writes what it likes, and a terminal obeys it.
            render::plain(&String::from_utf8_lossy(text)).into_bytes()
        } else {
            text.to_vec()
        };
        render::bytes_as_they_are(&[&shown, &b"\n"[..]].concat());
        line.clear();
    }
}
