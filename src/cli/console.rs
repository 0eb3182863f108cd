//! `console`: the guest's serial console on this terminal, until Ctrl-].

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::termios::{self, OptionalActions, Termios};

use crate::host::logs::LogKind;
use crate::run::reach;
use crate::sys::fs::FileError;
use crate::sys::log::{Reader, Start};

use super::error::CliError;
use super::render;
use super::ui::Ui;

#[derive(clap::Args)]
pub struct Args {
    guest: String,
}

/// Ctrl-], which detaches as in telnet and virsh.
const DETACH: u8 = 0x1d;
/// How long what was asked last may take to be answered where input is no terminal.
const LAST_WORDS: Duration = Duration::from_secs(1);

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let (host, guest) = reach::running(&ui.workspace(), &args.guest)?;
    let path = host.layout.guest(&guest).console_input();
    let mut input = File::options().write(true).open(&path).map_err(FileError::when("open", &path))?;
    let log = host.layout.guest(&guest).log(LogKind::Serial);
    let reader = Reader::open(&log, Start::This).map_err(FileError::when("read", &log))?;
    ui.say("attached; detach with Ctrl-]");
    let raw = Raw::enter();
    let detached = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let printer = scope.spawn(|| {
            let mut reader = reader;
            let mut print = || -> std::io::Result<()> {
                while let Some((_, bytes)) = reader.as_mut().map_or(Ok(None), Reader::read)? {
                    render::bytes_as_they_are(&bytes);
                }
                Ok(())
            };
            while !detached.load(Ordering::Relaxed) {
                print()?;
                std::thread::sleep(Duration::from_millis(30));
            }
            print()
        });
        let forwarded = forward(&mut input);
        if raw.is_none() {
            std::thread::sleep(LAST_WORDS);
        }
        detached.store(true, Ordering::Relaxed);
        // A thread that panicked has said so itself.
        let printed = printer.join().unwrap_or(Ok(()));
        forwarded.map_err(FileError::when("write to", &path))?;
        printed.map_err(FileError::when("read", &log))?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Hands keys on until Ctrl-] or the end of input.
fn forward(to: &mut File) -> std::io::Result<()> {
    let mut from = std::io::stdin().lock();
    let mut buffer = [0; 1024];
    loop {
        let count = from.read(&mut buffer)?;
        let detach = buffer[..count].iter().position(|key| *key == DETACH);
        to.write_all(&buffer[..detach.unwrap_or(count)])?;
        if count == 0 || detach.is_some() {
            return Ok(());
        }
    }
}

/// A terminal whose keys go through as they are; as it was when this is dropped.
struct Raw(Termios);

impl Raw {
    /// `None` where stdin is no terminal.
    fn enter() -> Option<Self> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return None;
        }
        let before = termios::tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(&stdin, OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // There is no better terminal to tell of a failure.
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
