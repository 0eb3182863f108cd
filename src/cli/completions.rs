//! `completions`: a script for a shell that asks this program what may stand next, names of guests among it.

use std::process::ExitCode;

use clap::Command;
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::Shells;

use super::error::CliError;
use super::render;
use super::settings;

#[derive(clap::Args)]
pub struct Args {
    /// The shell that is to complete
    shell: clap_complete::Shell,
}

/// The variable by which the script asks.
const VARIABLE: &str = "SISFORGE_COMPLETE";

pub fn print(args: &Args) -> Result<ExitCode, CliError> {
    let mut script = Vec::new();
    let shell = args.shell.to_string();
    Shells::builtins()
        .completer(&shell)
        .ok_or_else(|| CliError::invalid(format!("there are no completions for {shell}")))?
        .write_registration(VARIABLE, "sisforge", "sisforge", "sisforge", &mut script)
        .map_err(|error| CliError::failed(format!("no completions for {shell}: {error}")))?;
    render::text(&String::from_utf8_lossy(&script));
    Ok(ExitCode::SUCCESS)
}

/// Answers the script of a shell where it asks, and ends the program then.
pub fn answer(command: fn() -> Command) {
    CompleteEnv::with_factory(command).var(VARIABLE).complete();
}

/// Has each argument that is a guest complete the names of guests.
pub fn of_guests(command: Command) -> Command {
    let knows = |arg: clap::Arg| match arg.get_id().as_str() {
        "guest" | "guests" => arg.add(ArgValueCandidates::new(guests)),
        _ => arg,
    };
    command.mut_args(knows).mut_subcommands(of_guests)
}

/// The guests of the fleet at hand; none where it cannot be read: who is typing is told nothing.
fn guests() -> Vec<CompletionCandidate> {
    let fleet = crate::fleet::load(&settings::fleet_file());
    let names = fleet.into_iter().flat_map(|fleet| fleet.guests.into_keys());
    names.map(|name| CompletionCandidate::new(name.to_string())).collect()
}
