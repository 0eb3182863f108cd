//! `build`: kernel, images and data disks into `out/`.

use std::process::ExitCode;

use crate::base::Label;
use crate::build::artifacts::{Artifacts, OutDir};
use crate::build::{Builder, Built, Comparison, FileSystemCheck, Missing, Selection};
use crate::fleet::Fleet;
use crate::image::read_back::ReadBack;
use crate::lock::model::Lock;
use crate::sys::e2fsck::Verdict;

use super::context::Context;
use super::error::CliError;
use super::{lock, render};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Fail where fleet.lock does not fit fleet.toml, instead of updating it
    #[arg(long, global = true)]
    locked: bool,
    /// Build everything a second time from nothing, in another directory, compare bytes, and read file systems back
    #[arg(long, global = true)]
    check: bool,
}

#[derive(clap::Subcommand)]
enum What {
    /// The guest kernel alone
    Kernel,
    /// One root image
    Image { name: Label },
    /// One data disk, and the container images that go with it
    Disk { name: Label },
}

pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let selection = match &args.what {
        None => Selection::All,
        Some(What::Kernel) => Selection::Kernel,
        Some(What::Image { name }) => Selection::Image(name.clone()),
        Some(What::Disk { name }) => Selection::Disk(name.clone()),
    };
    with_builder(context, context.fleet()?, Inputs::of(args.locked), |builder| {
        if args.check {
            return check(builder, &selection, context);
        }
        show(&builder.build(&selection)?, context);
        Ok(ExitCode::SUCCESS)
    })
}

fn check(builder: &Builder<'_>, selection: &Selection, context: &Context) -> Result<ExitCode, CliError> {
    let compared = builder.check_reproducible(selection, &std::env::temp_dir())?;
    if context.settings.json {
        render::json(&serde_json::json!({ "event": "compared", "artifacts": compared }));
    }
    for comparison in &compared {
        let Comparison { built, first_difference, file_system } = comparison;
        let name = format!("{} {}", built.artifact.kind.folder(), built.name);
        let error = |text: &str| context.report.note(&format!("error: {name}: {text}"));
        match first_difference {
            None => context.say(&format!("{name}: {} both times", built.artifact.digest.short())),
            Some(offset) => error(&format!("a second build differs from byte {offset} on")),
        }
        file_system.iter().for_each(|check| tell(&name, check, &error, context));
    }
    if compared.iter().all(Comparison::is_good) { Ok(ExitCode::SUCCESS) } else { Err(CliError::said(1)) }
}

/// Says what reading a file system back has shown.
fn tell(name: &str, check: &FileSystemCheck, error: &dyn Fn(&str), context: &Context) {
    /// Paths that are told; the rest would be more of the same.
    const TOLD: usize = 20;
    let ReadBack { paths, bytes, mismatches } = &check.read_back;
    for mismatch in mismatches.iter().take(TOLD) {
        error(&format!("{}: {}", render::plain(&mismatch.path), render::plain(&mismatch.what)));
    }
    match mismatches.len() {
        0 => {
            let size = render::bytes(*bytes);
            context.say(&format!("{name}: {paths} paths and {size} of files read back as they were to be"));
        }
        count if count > TOLD => error(&format!("{} more paths are not as they were to be", count - TOLD)),
        _ => {}
    }
    match &check.e2fsck {
        Verdict::Clean => context.say(&format!("{name}: e2fsck finds no fault")),
        Verdict::NotInstalled => {
            context.say(&format!("{name}: not checked by e2fsck, which is not installed"))
        }
        Verdict::Faulty(text) => error(&format!("e2fsck finds fault:\n{text}")),
    }
}

fn show(built: &[Built], context: &Context) {
    if context.settings.json {
        render::json(&serde_json::json!({ "event": "built", "artifacts": built }));
        return;
    }
    for Built { name, artifact } in built {
        let kind = artifact.kind.folder();
        let size = format!("{:.1} MiB", artifact.size as f64 / f64::from(1 << 20));
        let how = if artifact.cached { "up to date" } else { "built" };
        render::text(&format!("{kind:10} {name:16} {} {size:>12}  {how}\n", artifact.digest.short()));
    }
}

/// A lock that fits and everything that is built from it, for whoever runs the fleet.
/// How much of what a command works from may change on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inputs {
    /// fleet.lock is brought up to date, what is missing is built.
    Refresh,
    /// fleet.lock must fit; what is missing is built.
    Locked,
    /// fleet.lock must fit, and everything must be built.
    AsTheyAre,
}

impl Inputs {
    /// What `--locked` asks for.
    pub fn of(locked: bool) -> Self {
        if locked { Self::Locked } else { Self::Refresh }
    }
}

/// A lock that fits and everything that is built from it, for whoever runs the fleet.
pub fn locked_artifacts(
    context: &Context,
    fleet: &Fleet,
    inputs: Inputs,
) -> Result<(Lock, Artifacts), CliError> {
    with_builder(context, fleet.clone(), inputs, |builder| Ok((builder.lock.clone(), builder.artifacts()?)))
}

pub fn with_builder<T>(
    context: &Context,
    fleet: Fleet,
    inputs: Inputs,
    work: impl FnOnce(&Builder<'_>) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let project = context.project(fleet)?;
    let lock = lock::fitting(context, &project, inputs != Inputs::Refresh)?;
    if let Some(note) = project.toolchain_note(&lock) {
        context.report.note(&format!("note: {note}"));
    }
    let settings = &context.settings;
    let builder = Builder {
        project: &project,
        lock: &lock,
        out: &OutDir::open(&settings.out)?,
        cache: &context.cache()?,
        jobs: settings.jobs,
        offline: settings.offline,
        missing: if inputs == Inputs::AsTheyAre { Missing::Refuse } else { Missing::Build },
        report: &*context.report,
    };
    work(&builder)
}
