//! `watch`: follow a Git branch or a file, apply each change, repair drift.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::base::diagnostic::one_line;
use crate::base::time::parse_duration;
use crate::base::{Class, Diagnostic};
use crate::run::ArtifactSettings;
use crate::run::events::FleetEvent;
use crate::run::flow_log;
use crate::run::metrics;
use crate::run::watch::{Event, Followed, Following, LookOutcome, Watch};
use crate::sys::http::serve::serve;
use crate::sys::report::Silent;

use super::error::CliError;
use super::outcome;
use super::ui::Ui;

/// What is followed, and how often it is looked at.
#[derive(clap::Args)]
pub struct FollowArgs {
    /// A Git repository to follow; --file is then a path in it. Without it, the file itself is followed
    #[arg(long, value_name = "URL", value_parser = repository)]
    pub repo: Option<String>,
    /// The branch to follow
    #[arg(long, default_value = "main", requires = "repo")]
    branch: String,
    /// A directory of this host that commits may name files of by absolute paths, such as that of a kernel's source
    #[arg(long, value_name = "DIR", requires = "repo")]
    allow: Vec<PathBuf>,
    /// A file of SSH keys (ssh-keygen(1), ALLOWED SIGNERS): a commit that none of them signed is not applied
    #[arg(long, value_name = "ALLOWED_SIGNERS", requires = "repo")]
    verify: Option<PathBuf>,
    /// Build nothing: take what is missing from the registry of [fleet] artifacts, or fail
    #[arg(long)]
    no_build: bool,
    /// A file of SSH keys, as for --verify: start nothing whose digests none of them signed (`sisforge sign`)
    /// [default: /etc/sisforge/signers, where it is there]
    #[arg(long, value_name = "ALLOWED_SIGNERS")]
    verify_artifacts: Option<PathBuf>,
    /// Time between two looks
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    interval: Duration,
}

impl FollowArgs {
    fn followed(&self) -> Followed {
        match &self.repo {
            Some(url) => {
                let (url, branch, allowed) = (url.clone(), self.branch.clone(), self.allowed());
                Followed::Branch { url, branch, allowed, signers: self.verify.as_ref().map(absolute) }
            }
            None => Followed::File,
        }
    }

    fn artifacts(&self) -> ArtifactSettings {
        let signers = self.verify_artifacts.as_ref().map(absolute);
        ArtifactSettings { place: None, no_build: self.no_build, signers }
    }

    fn allowed(&self) -> Vec<PathBuf> {
        self.allow.iter().map(absolute).collect()
    }

    /// Whether hosts could find what is followed: a relative path that is not there means nothing on another machine.
    pub fn names_repository(&self) -> bool {
        let is_remote = |url: &str| {
            url.contains("://") || url.find(':').is_some_and(|colon| colon > 0 && !url[..colon].contains('/'))
        };
        self.repo
            .as_ref()
            .is_none_or(|url| is_remote(url) || Path::new(url).is_absolute() || Path::new(url).exists())
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
        words.extend(self.verify.iter().map(|file| format!("--verify={}", absolute(file).display())));
        words.extend(self.no_build.then(|| "--no-build".to_owned()));
        let signers = self.verify_artifacts.iter();
        words.extend(signers.map(|file| format!("--verify-artifacts={}", absolute(file).display())));
        words.push(format!("--interval={}ms", self.interval.as_millis()));
        words
    }
}

/// What git could mean by an address; whether anything answers there is seen when it is followed.
fn repository(text: &str) -> Result<String, String> {
    let wrong = if text.trim().is_empty() {
        "it is empty"
    } else if text.trim() != text || text.chars().any(char::is_control) {
        "it has white space at an end, or control characters"
    } else if text.starts_with('-') {
        "it begins with `-`, and would be an option of git"
    } else if text.contains("::") && !text.contains("://") {
        "remote helpers of git, such as ext::, are not used"
    } else if let Some((_, rest)) = text.split_once("://")
        && (rest.trim_start_matches('/').is_empty() || rest.contains(char::is_whitespace))
    {
        "the URL names no repository, or has white space in it"
    } else {
        return Ok(text.to_owned());
    };
    Err(format!("{wrong}; a repository is a URL, HOST:PATH or a path"))
}

/// A path that holds from any directory.
fn absolute(path: &PathBuf) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.clone())
}

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: FollowArgs,
    /// Look once, apply, and exit
    #[arg(long)]
    once: bool,
    /// Serve metrics for Prometheus at http://ADDRESS/metrics, such as 127.0.0.1:9105
    #[arg(long, value_name = "ADDRESS", conflicts_with = "once")]
    listen: Option<SocketAddr>,
    /// Write metrics to a file after each look, such as one of the node exporter's --collector.textfile.directory
    #[arg(long, value_name = "FILE", conflicts_with = "once")]
    textfile: Option<PathBuf>,
    /// Follow nothing: where this host is going down, take down what was applied last (for the unit of `sisforge systemd`)
    #[arg(long, conflicts_with = "once")]
    down_at_shutdown: bool,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let workspace = ui.workspace_for(args.source.artifacts());
    let mut watch = Watch::new(&workspace, args.source.followed())?;
    if args.down_at_shutdown {
        return match watch.down_at_shutdown()? {
            Some(outcome) => outcome::show(&outcome, ui),
            None => Ok(ExitCode::SUCCESS),
        };
    }
    if !args.once {
        return follow(args, watch, ui);
    }
    let look = watch.look(&mut |event| print_event(event, ui))?;
    if look == LookOutcome::Complete { Ok(ExitCode::SUCCESS) } else { Err(CliError::said(1)) }
}

/// Follows, and answers who asks meanwhile.
fn follow(args: &Args, mut watch: Watch<'_>, ui: &Ui) -> Result<ExitCode, CliError> {
    let (workspace, seen) = (ui.workspace_with(&Silent), watch.seen());
    let page = || Following::metrics(&seen, &workspace);
    let listener = args.listen.map(|address| {
        TcpListener::bind(address)
            .map_err(|error| CliError::failed(format!("cannot listen at {address}: {error}")))
    });
    let listener = listener.transpose()?;
    std::thread::scope(|scope| {
        if let Some(listener) = &listener {
            let page = || page().map_err(|error| one_line(&error));
            scope.spawn(move || serve(listener, "/metrics", metrics::KIND, page));
        }
        scope.spawn(|| flow_log::keep(|| Following::file(&seen, &workspace)));
        let interrupted = watch.follow(args.source.interval, &mut |event| match (&event, &args.textfile) {
            (Event::Looked, Some(path)) => {
                if let Err(error) = page().and_then(|page| metrics::write(path, &page)) {
                    ui.report.warn(&format!("no metrics were written: {}", one_line(&error)));
                }
            }
            _ => print_event(event, ui),
        });
        // Who answers would go on for ever.
        std::process::exit(interrupted.status().into())
    })
}

fn print_event(event: Event<'_>, ui: &Ui) {
    let note = |text: String| ui.report.info(&text);
    match event {
        Event::Applying(revision) => note(format!("{}: applying", short(revision))),
        Event::Superseded { revision, by } => {
            note(format!("{}: superseded by {}, which is applied in its place", short(revision), short(by)));
        }
        Event::Applied(revision) => note(format!("{}: applied", short(revision))),
        Event::Planned { plan, is_repair } => {
            if is_repair {
                note(format!("repairing drift:\n{plan}"));
            }
            outcome::announce(plan, ui);
        }
        // Told again when the look comes to its end.
        Event::CarriedOut(outcome) => drop(outcome::show(outcome, ui)),
        Event::Postponed(postponed) => note(FleetEvent::from(postponed).sentence()),
        Event::Looked => {}
        Event::Incomplete => note("this will be tried again; still watching".to_owned()),
        Event::Failed(error) => {
            let is_mistake = error.class() == Class::Invalid;
            CliError::from(error).print(&ui.settings);
            let then = if is_mistake { "nothing was changed" } else { "this will be tried again" };
            note(format!("{then}; still watching"));
        }
    }
}

fn short(revision: &str) -> &str {
    revision.get(..12).unwrap_or(revision)
}
