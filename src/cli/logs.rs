//! `logs`: what a guest's serial port and its VMM said.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::sys::fs::{self, FileError};

use super::context::{Context, declared_or_there};
use super::error::CliError;
use super::render;

#[derive(clap::Args)]
pub struct Args {
    guest: String,
    /// Go on printing what comes
    #[arg(short, long)]
    follow: bool,
    /// The VMM's own log instead of the guest's serial port
    #[arg(long)]
    vmm: bool,
    /// The log of the start before this one
    #[arg(long, conflicts_with = "follow")]
    previous: bool,
    /// Only the last N lines
    #[arg(short = 'n', long, value_name = "N")]
    tail: Option<usize>,
}

pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let fleet = context.fleet()?;
    let host = context.host(&fleet)?;
    let guest = declared_or_there(&args.guest, &fleet, &host)?;
    let log = if args.vmm { host.layout.vmm_log(&guest) } else { host.layout.serial_log(&guest) };
    let log = if args.previous { log.with_extension("log.1") } else { log };
    if !log.exists() {
        return Err(CliError::failed(format!("{guest} has no such log: it was not started on this host")));
    }
    if args.vmm {
        render::text(&fs::read_text_if_present(&host.layout.launch_log(&guest))?.unwrap_or_default());
    }
    let bytes = fs::read(&log)?;
    let text = String::from_utf8_lossy(&bytes);
    render::text(last(&text, args.tail));
    if args.follow { follow(&log, bytes.len() as u64) } else { Ok(ExitCode::SUCCESS) }
}

/// The last `count` lines of a text.
fn last(text: &str, count: Option<usize>) -> &str {
    let Some(count) = count else { return text };
    let mut ends = text.trim_end_matches('\n').rmatch_indices('\n');
    match count.checked_sub(1).map(|skip| ends.nth(skip)) {
        None => "",
        Some(None) => text,
        Some(Some((index, _))) => &text[index + 1..],
    }
}

/// Prints what is added to a log, for ever. A log that becomes another file, because its guest was started anew, is
/// read from its beginning.
pub fn follow(log: &Path, mut seen: u64) -> Result<ExitCode, CliError> {
    const POLL: Duration = Duration::from_millis(100);
    loop {
        seen = print_from(log, seen)?;
        std::thread::sleep(POLL);
    }
}

/// Prints a log from an offset on; gives the new offset.
pub fn print_from(log: &Path, seen: u64) -> Result<u64, CliError> {
    let Ok(mut file) = File::open(log) else { return Ok(0) };
    let named = || FileError::when("read", log);
    let length = file.metadata().map_err(named())?.len();
    let from = if length < seen { 0 } else { seen };
    file.seek(SeekFrom::Start(from)).map_err(named())?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(named())?;
    render::text(&String::from_utf8_lossy(&bytes));
    Ok(from + bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        let text = "one\ntwo\nthree\n";
        assert_eq!(last(text, None), text);
        assert_eq!(last(text, Some(0)), "");
        assert_eq!(last(text, Some(2)), "two\nthree\n");
        assert_eq!(last(text, Some(9)), text);
    }
}
