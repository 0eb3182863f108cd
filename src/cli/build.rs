//! `build`: kernel, images and data disks into `out/`.

use std::process::ExitCode;

use crate::build::artifacts::{Artifacts, OutDir};
use crate::build::{Builder, Built, Comparison, Missing, Selection};
use crate::fleet::{Fleet, Label};
use crate::lock::model::Lock;

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
    /// Build everything a second time from nothing, in another directory, and compare bytes
    #[arg(long, global = true)]
    check: bool,
}

#[derive(clap::Subcommand)]
enum What {
    /// The guest kernel alone
    Kernel,
    /// One root image
    Image { name: Label },
    /// One data disk
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
    let mut same = true;
    for Comparison { built, first_difference } in &compared {
        let name = format!("{} {}", built.artifact.kind.folder(), built.name);
        match first_difference {
            None => context.say(&format!("{name}: {} both times", built.artifact.sha256.short())),
            Some(offset) => {
                context.report.note(&format!("error: {name}: a second build differs from byte {offset} on"))
            }
        }
        same &= first_difference.is_none();
    }
    if same { Ok(ExitCode::SUCCESS) } else { Err(CliError::said(1)) }
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
        render::text(&format!("{kind:6} {name:16} {} {size:>12}  {how}\n", artifact.sha256.short()));
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
