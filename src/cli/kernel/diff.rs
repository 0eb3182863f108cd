//! `kernel diff`: the options in which two kernels differ.

use std::collections::BTreeSet;
use std::process::ExitCode;

use crate::build::configured::read_any;

use super::super::error::CliError;
use super::super::output::KernelChangeJson;
use super::super::render;
use super::super::ui::Ui;

#[derive(clap::Args)]
pub struct Args {
    /// A config file, or the name of a kernel in out/, or its build key
    one: String,
    /// The kernel that it is compared with
    two: String,
    /// Exit with status 1 if they differ
    #[arg(long)]
    exit_code: bool,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let read = |named: &str| {
        let path = ui.workspace().kernel_config_file(named)?;
        let options = read_any(&path)?;
        if options.is_empty() {
            return Err(CliError::invalid(format!(
                "{} contains no line such as CONFIG_NET=y",
                path.display()
            ))
            .hint("a kernel's configuration is its .config, or the file config next to a vmlinux in out/"));
        }
        Ok(options)
    };
    let (one, two) = (read(&args.one)?, read(&args.two)?);
    let names: BTreeSet<_> = one.keys().chain(two.keys()).collect();
    let off = "n".to_owned();
    let changes: Vec<_> = names
        .into_iter()
        .map(|name| (name, one.get(name).unwrap_or(&off), two.get(name).unwrap_or(&off)))
        .filter(|(_, from, to)| from != to)
        .map(|(name, from, to)| KernelChangeJson { option: name.clone(), from: from.clone(), to: to.clone() })
        .collect();
    if ui.settings.json {
        render::json(&changes);
    } else if changes.is_empty() {
        ui.say("they have the same configuration");
    } else {
        render::text(&changes.iter().map(line).collect::<String>());
    }
    Ok(if args.exit_code && !changes.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// `+` what is on in the second alone, `-` in the first alone, `~` what has another value.
fn line(KernelChangeJson { option, from, to }: &KernelChangeJson) -> String {
    let (from, to) = (render::plain(from), render::plain(to));
    match (from.as_str(), to.as_str()) {
        ("n", to) => format!("+ {option}={to}\n"),
        (from, "n") => format!("- {option}={from}\n"),
        (from, to) => format!("~ {option} {from} -> {to}\n"),
    }
}
