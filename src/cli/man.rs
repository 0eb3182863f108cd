//! `completions` and `man`: generated from the same definitions as the command line.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::sys::fs::{self, FileError};

use super::error::CliError;
use super::render;

#[derive(clap::Args)]
pub struct CompletionsArgs {
    /// The shell that is to complete
    shell: clap_complete::Shell,
}

#[derive(clap::Args)]
pub struct ManArgs {
    /// Write the pages of all commands into this directory, instead of the main page to stdout
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub fn completions(args: &CompletionsArgs, mut command: clap::Command) -> Result<ExitCode, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "sisforge", &mut script);
    render::text(&String::from_utf8_lossy(&script));
    Ok(ExitCode::SUCCESS)
}

pub fn pages(args: &ManArgs, command: clap::Command) -> Result<ExitCode, CliError> {
    match &args.dir {
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page).map_err(FileError::when("write", "man page"))?;
            render::text(&String::from_utf8_lossy(&page));
        }
        Some(dir) => {
            fs::create_dir_all(dir)?;
            clap_mangen::generate_to(command, dir).map_err(FileError::when("write man pages into", dir))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
