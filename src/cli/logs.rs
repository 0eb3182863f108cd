//! `logs`: what a guest's serial port and its VMM said.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use crate::base::GuestName;
use crate::base::text::json;
use crate::base::time::{parse_duration, parse_rfc3339, rfc3339_millis};
use crate::host::logs::LogKind;
use crate::run::logs;
use crate::sys::log::{Lines, Start};

use super::error::CliError;
use super::output::LogLineJson;
use super::render;
use super::ui::Ui;

mod container;

#[derive(clap::Args)]
pub struct Args {
    /// The guests; all that have logs unless given
    #[arg(value_name = "GUEST")]
    guests: Vec<String>,
    /// Keep printing new lines, also after restarts of the guest
    #[arg(short, long)]
    follow: bool,
    /// The guest's serial port (the default)
    #[arg(long, group = "log")]
    serial: bool,
    /// The VMM's own log instead
    #[arg(long, group = "log")]
    vmm: bool,
    /// The VMM's metrics instead, one JSON object a line: at its start and each minute (Firecracker)
    #[arg(long, group = "log")]
    metrics: bool,
    /// What a container of the one guest says instead: one that sisforge started
    #[arg(long, group = "log", value_name = "NAME", conflicts_with = "previous", requires = "guests")]
    container: Option<String>,
    /// The log of the start before this one
    #[arg(long, conflicts_with = "follow")]
    previous: bool,
    /// Only the last N lines
    #[arg(short = 'n', long, value_name = "N", value_parser = amount::<usize>)]
    tail: Option<usize>,
    /// Only lines since a time such as 2026-01-31T12:00:00Z, or a duration before now such as 10m
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<SystemTime>,
    /// Show the time of each line
    #[arg(short, long)]
    timestamps: bool,
}

/// How many of something.
pub(super) fn amount<N: FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| "it must be a whole number, such as 100".to_owned())
}

pub(super) fn since(text: &str) -> Result<SystemTime, String> {
    if let Ok(duration) = parse_duration(text) {
        return Ok(SystemTime::now().checked_sub(duration).unwrap_or(SystemTime::UNIX_EPOCH));
    }
    parse_rfc3339(text).map_err(|_| "it must be like 10m, 2h30m or 2026-01-31T12:00:00Z (in UTC)".to_owned())
}

/// How often is looked for more.
const POLL: Duration = Duration::from_millis(50);

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    if let Some(container) = &args.container {
        return container::run(args, container, ui);
    }
    let kind = match (args.vmm, args.metrics) {
        (true, _) => LogKind::Vmm,
        (_, true) => LogKind::Metrics,
        _ => LogKind::Serial,
    };
    let start = if args.previous { Start::Previous } else { Start::This };
    let mut logs = logs::open(&ui.workspace(), &args.guests, kind, start)?;
    let guests: Vec<_> = logs.iter().map(|log| log.guest.clone()).collect();
    let width = guests.iter().map(|guest| guest.as_str().len()).max().unwrap_or(0);
    let printer = |guest| {
        let label = (guests.len() > 1).then(|| format!("{guest:width$} | "));
        let format = LineFormat { stamped: args.timestamps, json: ui.settings.json, kind, guest, label };
        Printer::new(args, format)
    };
    let mut printers: Vec<_> = guests.iter().map(printer).collect();
    loop {
        for (log, printer) in logs.iter_mut().zip(&mut printers) {
            log.read(|time, bytes| printer.take(time, bytes))?;
            printer.caught_up(!args.follow);
        }
        if !args.follow {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(POLL);
    }
}

/// How a line looks.
struct LineFormat<'a> {
    stamped: bool,
    json: bool,
    kind: LogKind,
    guest: &'a GuestName,
    /// Stands before each line where several guests are shown.
    label: Option<String>,
}

/// Prints the lines that were asked for.
struct Printer<'a> {
    args: &'a Args,
    format: LineFormat<'a>,
    lines: Lines,
    /// The last ones, until all that was there is read.
    held: Option<VecDeque<Vec<u8>>>,
}

impl<'a> Printer<'a> {
    fn new(args: &'a Args, format: LineFormat<'a>) -> Self {
        Self { args, format, lines: Lines::default(), held: args.tail.map(|_| VecDeque::new()) }
    }

    fn take(&mut self, time: Option<SystemTime>, bytes: &[u8]) {
        let Self { args, format, lines, held } = self;
        let mut ready = Vec::new();
        lines.feed(time, bytes, |time, line| accept(args, format, held, time, line, &mut ready));
        render::bytes_as_they_are(&ready);
    }

    /// All that was there has been read; nothing more comes where it is the `last`.
    fn caught_up(&mut self, last: bool) {
        let Self { args, format, lines, held } = self;
        let mut ready = Vec::new();
        if last {
            lines.finish(|time, line| accept(args, format, held, time, line, &mut ready));
        }
        let held: Vec<_> = self.held.take().into_iter().flatten().collect();
        render::bytes_as_they_are(&[held.concat(), ready].concat());
    }
}

/// Renders a line that was asked for, and adds it to those that are held back or to those to print.
fn accept(
    args: &Args,
    format: &LineFormat<'_>,
    held: &mut Option<VecDeque<Vec<u8>>>,
    time: Option<SystemTime>,
    line: &[u8],
    ready: &mut Vec<u8>,
) {
    if args.since.is_some_and(|since| time.is_none_or(|time| time < since)) {
        return;
    }
    let line = format.line(time, line);
    match held {
        None => ready.extend(line),
        Some(held) => {
            held.push_back(line);
            if held.len() > args.tail.unwrap_or(0) {
                held.pop_front();
            }
        }
    }
}

impl LineFormat<'_> {
    fn line(&self, time: Option<SystemTime>, line: &[u8]) -> Vec<u8> {
        let time = time.map(rfc3339_millis);
        let mut text = if self.json {
            let (guest, line) = (self.guest.to_string(), String::from_utf8_lossy(line).into_owned());
            let line = LogLineJson { guest, time, log: self.kind.word(), line };
            json(&line).into_bytes()
        } else {
            let label = self.label.as_deref().unwrap_or_default();
            let stamp =
                if self.stamped { format!("{} ", time.as_deref().unwrap_or("-")) } else { String::new() };
            // The guest writes what it likes, and a terminal obeys it.
            let line = if std::io::stdout().is_terminal() {
                render::plain(&String::from_utf8_lossy(line)).into_bytes()
            } else {
                line.to_vec()
            };
            [label.as_bytes(), stamp.as_bytes(), &line].concat()
        };
        text.push(b'\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_duration_before_now_or_a_moment() {
        let ago = since("10m").unwrap().elapsed().unwrap().as_secs();
        assert!((600..610).contains(&ago), "{ago}");
        for moment in ["2026-01-31T12:00:00Z", "2026-01-31 12:00:00"] {
            let found = humantime::format_rfc3339_seconds(since(moment).unwrap()).to_string();
            assert_eq!(found, "2026-01-31T12:00:00Z");
        }
        assert!(since("yesterday").is_err());
    }
}
