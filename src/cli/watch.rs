//! `watch`: follow a Git branch or a file, apply each change, repair drift.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::base::time::parse_duration;
use crate::base::{Class, Diagnostic};
use crate::run::watch::{Event, Followed, Watch};

use super::error::CliError;
use super::outcome;
use super::ui::Ui;

#[derive(clap::Args)]
pub struct Args {
    /// A Git repository to follow; --file is then a path in it. Without it, the file itself is followed
    #[arg(long, value_name = "URL")]
    repo: Option<String>,
    /// The branch to follow
    #[arg(long, default_value = "main", requires = "repo")]
    branch: String,
    /// A directory of this host that commits may name files of by absolute paths, such as that of a kernel's source
    #[arg(long, value_name = "DIR", requires = "repo")]
    allow: Vec<PathBuf>,
    /// Time between two looks
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    interval: Duration,
    /// Look once, apply, and exit
    #[arg(long)]
    once: bool,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let source = match &args.repo {
        Some(url) => Followed::Branch {
            url: url.clone(),
            branch: args.branch.clone(),
            allowed: args
                .allow
                .iter()
                .map(|dir| std::path::absolute(dir).unwrap_or_else(|_| dir.clone()))
                .collect(),
        },
        None => Followed::File,
    };
    let workspace = ui.workspace();
    let mut watch = Watch::new(&workspace, source)?;
    if !args.once {
        watch.follow(args.interval, &mut |event| tell(event, ui));
    }
    let is_complete = watch.look(&mut |event| tell(event, ui))?;
    if is_complete { Ok(ExitCode::SUCCESS) } else { Err(CliError::said(1)) }
}

fn tell(event: Event<'_>, ui: &Ui) {
    let note = |text: String| ui.report.note(&text);
    match event {
        Event::Applying(revision) => note(format!("{}: applying", short(revision))),
        Event::Applied(revision) => note(format!("{}: applied", short(revision))),
        Event::Planned { plan, is_repair } => {
            if is_repair {
                note(format!("repairing drift:\n{plan}"));
            }
            outcome::announce(plan, ui);
        }
        // Told again when the look comes to its end.
        Event::CarriedOut(outcome) => drop(outcome::show(outcome, ui)),
        Event::Incomplete => note("this will be tried again; still watching".to_owned()),
        Event::Failed(error) => {
            let is_mistake = error.class() == Class::Invalid;
            CliError::from(error).print(&ui.settings);
            let then = if is_mistake { "nothing was changed" } else { "this will be tried again" };
            note(format!("{then}; watching on"));
        }
    }
}

fn short(revision: &str) -> &str {
    revision.get(..12).unwrap_or(revision)
}
