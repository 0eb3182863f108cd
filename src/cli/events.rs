//! `events`: what happened to the fleet on this host.

use std::process::ExitCode;
use std::time::Duration;

use crate::base::text::printable;
use crate::run::events::{self, HostEvent};
use crate::sys::fs::FileError;
use crate::sys::log::{Lines, Reader, Start};

use super::error::CliError;
use super::render;
use super::ui::Ui;

#[derive(clap::Args)]
pub struct Args {
    /// Keep printing what happens
    #[arg(short, long)]
    follow: bool,
}

/// How often is looked for more.
const POLL: Duration = Duration::from_millis(100);

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let path = events::log(&ui.workspace())?;
    let open = || Reader::open(&path, Start::This).map_err(FileError::when("read", &path));
    let mut lines = Lines::default();
    let mut reader = open()?;
    loop {
        if reader.is_none() {
            reader = open()?;
        }
        while let Some(reader) = &mut reader
            && let Some((time, bytes)) = reader.read().map_err(FileError::when("read", &path))?
        {
            lines.feed(time, &bytes, |_, line| render::bytes_as_they_are(&shown(line, ui.settings.json)));
        }
        if !args.follow {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(POLL);
    }
}

/// A line as it is printed. What is no event, such as a note that something was lost, is no line of JSON.
fn shown(line: &[u8], json: bool) -> Vec<u8> {
    let text = String::from_utf8_lossy(line);
    let shown = match serde_json::from_str::<HostEvent>(&text) {
        Ok(_) if json => text.into_owned(),
        Ok(HostEvent { time, what, .. }) => format!("{time} {}", printable(&what.sentence())),
        Err(_) if json || text.is_empty() => return Vec::new(),
        Err(_) => printable(&text),
    };
    (shown + "\n").into_bytes()
}
