//! `policy`: what guests may reach, in words, and why.

use std::net::Ipv4Addr;
use std::process::ExitCode;

use super::error::CliError;
use super::ui::Ui;
use crate::run::place::FilePlace;

mod explain;
mod flows;
mod log;
mod reload;
mod show;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Show policies in words, in the order in which their lines win
    Show(show::Args),
    /// Say what becomes of what a guest sends somewhere, and which line of fleet.toml decides
    ///
    /// The exit status is 0 where it passes, 3 where it does not; of an address without a port, 0 where anything passes.
    Explain(explain::Args),
    /// Print packets of a guest that were dropped, and why; 10 a second at most
    ///
    /// `watch` keeps them, up to 4 MiB of each guest with its connections. With -f, those that are dropped from now on follow,
    /// whether anybody keeps them or not.
    Log(log::Args),
    /// Print the connections that a guest has open, or those that began and ended
    ///
    /// `watch` keeps the latter, and by which name the guest had asked for an address.
    Flows(flows::Args),
    /// Load the rules that fleet.toml says, and do nothing else: no guest starts, stops or is changed
    ///
    /// Connections that the new rules allow go on, others are reset. Rates of guests are set by `up`, which does all of this too.
    Reload,
}

pub fn run(command: &Command, ui: &Ui) -> Result<ExitCode, CliError> {
    match command {
        Command::Show(args) => show::run(args, ui),
        Command::Explain(args) => explain::run(args, ui),
        Command::Log(args) => log::run(args, ui),
        Command::Flows(args) => flows::run(args, ui),
        Command::Reload => reload::run(ui),
    }
}

/// An address, with its port if it has one.
fn endpoint(address: Ipv4Addr, port: Option<u16>) -> String {
    port.map_or_else(|| address.to_string(), |port| format!("{address}:{port}"))
}

/// The same of a destination, with the name by which it was asked for.
fn destination(address: Ipv4Addr, port: Option<u16>, name: Option<&String>) -> String {
    let name = name.map(|name| format!(" ({name})")).unwrap_or_default();
    endpoint(address, port) + &name
}

/// As compilers write it.
fn place(place: &FilePlace) -> String {
    format!("{}:{}:{}", place.file.display(), place.line, place.column)
}
