//! `events`: what happened to the fleet on this host.

use std::process::ExitCode;
use std::time::Duration;

use crate::base::text::printable;
use crate::run::events::{self, HostEvent};
use crate::run::log_lines::LogLine;

use super::error::CliError;
use super::output::HostEventJson;
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
    let mut log = events::log(&ui.workspace())?;
    loop {
        for line in log.unread()? {
            match line {
                LogLine::Known(event) => print(event, ui),
                LogLine::Gap(words) => ui.report.note(&printable(&words)),
                LogLine::Unread(why) => ui.report.note(&why),
            }
        }
        if !args.follow {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(POLL);
    }
}

fn print(event: HostEvent, ui: &Ui) {
    if ui.settings.json {
        render::json(&HostEventJson::from(event));
    } else {
        render::text(&format!("{} {}\n", event.time, printable(&event.what.sentence())));
    }
}
