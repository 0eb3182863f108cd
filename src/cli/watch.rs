//! `watch`: follow a Git branch or a file, apply each change, repair drift.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::base::Class;
use crate::base::time::parse_duration;
use crate::plan::GuestScope;
use crate::sys::fs::{self, FileError};
use crate::sys::{git, ssh};

use super::build::Inputs;
use super::context::{Context, observed, planned};
use super::error::CliError;
use super::up::carry_out;

#[derive(clap::Args)]
pub struct Args {
    /// A Git repository to follow; --file is then a path in it. Without it, the file itself is followed
    #[arg(long, value_name = "URL")]
    repo: Option<String>,
    /// The branch to follow
    #[arg(long, default_value = "main", requires = "repo")]
    branch: String,
    /// Time between two looks
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    interval: Duration,
    /// Look once, apply, and exit
    #[arg(long)]
    once: bool,
}

pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    if args.repo.is_some() && context.settings.file.is_absolute() {
        return Err(CliError::invalid(
            "with --repo, --file is a path in the repository, and this one is absolute",
        ));
    }
    let mut watch = Watch { args, base: context, good: None, looked_at: None };
    loop {
        let outcome = watch.look();
        if args.once {
            return outcome.map(|()| ExitCode::SUCCESS);
        }
        if let Err(error) = outcome {
            error.print(&context.settings);
            let then =
                if error.class() == Class::Invalid { "nothing was changed" } else { "this is tried again" };
            context.report.note(&format!("{then}; watching on"));
        }
        std::thread::sleep(args.interval);
    }
}

/// What is being followed, and how far.
struct Watch<'a> {
    args: &'a Args,
    base: &'a Context,
    /// The last fleet without a mistake: what the host is brought to, again and again.
    good: Option<Context>,
    /// The revision that was looked at last, good or bad, so that a bad one is reported once.
    looked_at: Option<String>,
}

impl Watch<'_> {
    /// One look: a new revision is applied, else drift is repaired.
    fn look(&mut self) -> Result<(), CliError> {
        let (revision, file) = self.revision()?;
        if self.looked_at.as_deref() == Some(&revision) {
            return self.good.as_ref().map_or(Ok(()), |good| apply_once(good, false));
        }
        let next = self.base.at(file);
        self.base.report.note(&format!("{}: applying", short(&revision)));
        let outcome = apply_once(&next, true);
        match &outcome {
            Ok(()) => {
                if self.args.repo.is_some() {
                    self.forget_all_but(&revision)?;
                }
                self.base.report.note(&format!("{}: applied", short(&revision)));
                (self.good, self.looked_at) = (Some(next), Some(revision));
            }
            Err(error) if error.class() == Class::Invalid => {
                self.looked_at = Some(revision);
                // What a file said before is gone; what a commit said is not.
                self.good = self.good.take().filter(|_| self.args.repo.is_some());
            }
            // What failed is tried again at the next look.
            Err(_) => {}
        }
        outcome
    }

    /// The newest revision, and where its fleet.toml is.
    fn revision(&self) -> Result<(String, PathBuf), CliError> {
        let Some(repo) = &self.args.repo else {
            let file = &self.base.settings.file;
            let lock = fs::read_text_if_present(&self.base.lock_path())?.unwrap_or_default();
            let text = fs::read_text(file)? + &lock;
            return Ok((crate::base::Sha256::of(text).to_string(), file.clone()));
        };
        let dir = self.dir();
        fs::create_dir_all(&dir)?;
        let commit = git::clone_or_fetch(repo, &self.args.branch, &dir.join("repository"))?;
        let tree = dir.join(&commit);
        if !tree.exists() {
            let scratch =
                tempfile::tempdir_in(&dir).map_err(FileError::when("create a directory in", &dir))?;
            git::checkout(&dir.join("repository"), &commit, scratch.path())?;
            std::fs::rename(scratch.path(), &tree).map_err(FileError::when("create", &tree))?;
        }
        Ok((commit, tree.join(&self.base.settings.file)))
    }

    /// The clone and the checkouts.
    fn dir(&self) -> PathBuf {
        self.base.settings.out.join(".watch")
    }

    /// Removes the checkouts of other commits.
    fn forget_all_but(&self, commit: &str) -> Result<(), CliError> {
        let dir = self.dir();
        let kept = ["repository", commit];
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            if !kept.iter().any(|name| entry.file_name() == *name) {
                fs::remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

fn short(revision: &str) -> &str {
    revision.get(..12).unwrap_or(revision)
}

/// Brings the host to what a fleet wants; says nothing where it already is there and `always` is not set.
fn apply_once(context: &Context, always: bool) -> Result<(), CliError> {
    let fleet = context.fleet()?;
    let mut host = context.host(&fleet)?;
    let _held = context.hold(&host.layout)?;
    ssh::keygen(&host.layout.key())?;
    // What was committed is what is applied: a lock that does not fit is a mistake in the commit.
    let observed = observed(&host)?;
    let desired = context.desired(&fleet, Inputs::Locked, &mut host, &observed)?;
    let plan = planned(&host, &observed, &desired, GuestScope::All)?;
    if !always && plan.is_empty() {
        return Ok(());
    }
    if !always {
        context.report.note(&format!("repairing drift:\n{plan}"));
    }
    carry_out(&plan, &host, context).map(drop)
}
