//! `watch`: follow a Git branch or a file, apply each change, repair drift.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::base::time::parse_duration;
use crate::base::{Class, Diagnostic};
use crate::run::restarts::HeldBack;
use crate::run::watch::{Event, Followed, Looked, Watch};

use super::error::CliError;
use super::outcome;
use super::ui::Ui;

/// What is followed, and how often it is looked at.
#[derive(clap::Args)]
pub struct FollowArgs {
    /// A Git repository to follow; --file is then a path in it. Without it, the file itself is followed
    #[arg(long, value_name = "URL")]
    pub repo: Option<String>,
    /// The branch to follow
    #[arg(long, default_value = "main", requires = "repo")]
    branch: String,
    /// A directory of this host that commits may name files of by absolute paths, such as that of a kernel's source
    #[arg(long, value_name = "DIR", requires = "repo")]
    allow: Vec<PathBuf>,
    /// Time between two looks
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    interval: Duration,
}

impl FollowArgs {
    fn followed(&self) -> Followed {
        match &self.repo {
            Some(url) => {
                Followed::Branch { url: url.clone(), branch: self.branch.clone(), allowed: self.allowed() }
            }
            None => Followed::File,
        }
    }

    fn allowed(&self) -> Vec<PathBuf> {
        let absolute = |dir: &PathBuf| std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
        self.allow.iter().map(absolute).collect()
    }

    /// The arguments that say the same from any directory.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(url) = &self.repo {
            // One that is a path here.
            let path = std::path::absolute(url).ok().filter(|path| path.exists());
            let url = path.map_or_else(|| url.clone(), |path| path.display().to_string());
            words.extend([format!("--repo={url}"), format!("--branch={}", self.branch)]);
        }
        words.extend(self.allowed().iter().map(|dir| format!("--allow={}", dir.display())));
        words.push(format!("--interval={}ms", self.interval.as_millis()));
        words
    }
}

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: FollowArgs,
    /// Looked once, apply, and exit
    #[arg(long)]
    once: bool,
    /// Follow nothing: where this host is going down, take down what was applied last (for the unit of `sisforge systemd`)
    #[arg(long, conflicts_with = "once")]
    down_at_shutdown: bool,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let workspace = ui.workspace();
    let mut watch = Watch::new(&workspace, args.source.followed())?;
    if args.down_at_shutdown {
        return match watch.down_at_shutdown()? {
            Some(outcome) => outcome::show(&outcome, ui),
            None => Ok(ExitCode::SUCCESS),
        };
    }
    if !args.once {
        watch.follow(args.source.interval, &mut |event| tell(event, ui));
    }
    let look = watch.look(&mut |event| tell(event, ui))?;
    if look == Looked::Complete { Ok(ExitCode::SUCCESS) } else { Err(CliError::said(1)) }
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
        Event::HeldBack(held_back) => note(waiting(held_back)),
        Event::Incomplete => note("this will be tried again; still watching".to_owned()),
        Event::Failed(error) => {
            let is_mistake = error.class() == Class::Invalid;
            CliError::from(error).print(&ui.settings);
            let then = if is_mistake { "nothing was changed" } else { "this will be tried again" };
            note(format!("{then}; watching on"));
        }
    }
}

fn waiting(held_back: &HeldBack) -> String {
    match held_back {
        HeldBack::Later { guest, starts, wait } => {
            let times = if *starts == 1 { "once".to_owned() } else { format!("{starts} times in a row") };
            let wait = wait.as_secs().max(1);
            format!("{guest} was started {times} and does not stay up: next start in {wait} s")
        }
        HeldBack::Left { guest } => {
            format!("{guest} ended and is left so (on-exit = \"leave\"): `sisforge up {guest}` starts it")
        }
    }
}

fn short(revision: &str) -> &str {
    revision.get(..12).unwrap_or(revision)
}
