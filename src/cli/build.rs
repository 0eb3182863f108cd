//! `build`: kernel, images and data disks into `out/`.

use std::process::ExitCode;

use crate::base::Label;
use crate::build::artifacts::Artifact;
use crate::build::{Builder, Built, Comparison, FileSystemCheck, Selection};
use crate::image::read_back::ReadBack;
use crate::run::LockedProject;
use crate::sys::e2fsck::FsckOutcome;
use crate::sys::report::Severity;

use super::error::CliError;
use super::output::{self, EventJson};
use super::render;
use super::settings::inputs;
use super::ui::Ui;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Fail if fleet.lock does not fit fleet.toml, instead of updating it
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

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let selection = match &args.what {
        None => Selection::All,
        Some(What::Kernel) => Selection::Kernel,
        Some(What::Image { name }) => Selection::Image(name.clone()),
        Some(What::Disk { name }) => Selection::Disk(name.clone()),
    };
    let workspace = ui.workspace();
    let mut locked = LockedProject::open(&workspace, inputs(args.locked))?;
    if args.check {
        return check(&locked.builder(), &selection, ui);
    }
    let built = locked.build(&selection)?;
    if ui.settings.json {
        render::json(&EventJson::Built { artifacts: built.iter().map(output::ArtifactJson::from).collect() });
    } else {
        show(&built);
    }
    Ok(ExitCode::SUCCESS)
}

fn check(builder: &Builder<'_>, selection: &Selection, ui: &Ui) -> Result<ExitCode, CliError> {
    let compared = builder.check_reproducible(selection, &std::env::temp_dir())?;
    if ui.settings.json {
        render::json(&EventJson::Compared {
            artifacts: compared.iter().map(output::ComparisonJson::from).collect(),
        });
    }
    for comparison in &compared {
        let Comparison { built, first_difference, file_system } = comparison;
        let name = format!("{} {}", built.artifact.kind.folder(), built.name);
        let error = |text: &str| ui.report.say(Severity::Error, &format!("{name}: {text}"));
        match first_difference {
            None => ui.say(&format!("{name}: {} both times", built.artifact.digest.short())),
            Some(offset) => error(&format!("a second build differs at byte {offset}")),
        }
        file_system.iter().for_each(|check| print_check(&name, check, &error, ui));
    }
    if compared.iter().all(Comparison::is_good) { Ok(ExitCode::SUCCESS) } else { Err(CliError::said(1)) }
}

/// Says what reading a file system back has shown.
fn print_check(name: &str, check: &FileSystemCheck, error: &dyn Fn(&str), ui: &Ui) {
    /// Paths that are told; the rest would be more of the same.
    const TOLD: usize = 20;
    let ReadBack { paths, bytes, mismatches } = &check.read_back;
    for mismatch in mismatches.iter().take(TOLD) {
        error(&format!("{}: {}", render::plain(&mismatch.path), render::plain(&mismatch.what)));
    }
    match mismatches.len() {
        0 => {
            let size = render::bytes(*bytes);
            ui.say(&format!("{name}: {paths} paths and {size} of files read back correctly"));
        }
        count if count > TOLD => error(&format!("{} more paths differ", count - TOLD)),
        _ => {}
    }
    match &check.e2fsck {
        FsckOutcome::Clean => ui.say(&format!("{name}: e2fsck found no errors")),
        FsckOutcome::NotInstalled => {
            ui.say(&format!("{name}: not checked by e2fsck, which is not installed"))
        }
        FsckOutcome::Faulty(text) => error(&format!("e2fsck finds fault:\n{text}")),
    }
}

/// Lists artifacts, and how each was had.
pub fn show(built: &[Built]) {
    for Built { name, artifact } in built {
        let kind = artifact.kind.folder();
        let size = render::bytes(artifact.size);
        let how = match artifact {
            Artifact { pulled: true, .. } => "pulled",
            Artifact { cached: true, .. } => "up to date",
            _ => "built",
        };
        render::text(&format!("{kind:10} {name:16} {} {size:>12}  {how}\n", artifact.digest.short()));
    }
}
