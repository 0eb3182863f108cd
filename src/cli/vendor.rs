//! `vendor`: everything that a build takes from the network, into a directory.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::base::text::counted;
use crate::run::LockedProject;

use super::error::CliError;
use super::output::EventJson;
use super::render;
use super::settings::inputs;
use super::ui::Ui;

const HELP: &str = "\
Files lie under the addresses that they have in the network, DIR/HOST/PATH: each package, each repository's \
signed index, the kernel source; a repository in DIR is one that apk can read. Every command looks there \
before it asks the network, in `vendor` beside fleet.toml or where --vendor-dir says, so that the fleet \
builds with --offline and an empty cache. Nothing in fleet.toml changes, and nothing in DIR is trusted: \
fleet.lock pins digests, and indexes are verified by the keys that fleet.toml names.

SHA256SUMS lists what is there. Of an earlier run, what is no longer needed is removed; what stands in no \
SHA256SUMS is left alone. What fleet.toml names by a path is on this machine already and is not copied.";

#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The directory [default: that of --vendor-dir]
    dir: Option<PathBuf>,
    /// Fail if fleet.lock does not fit fleet.toml, instead of updating it
    #[arg(long)]
    locked: bool,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let found = &ui.settings.run.vendor;
    let dir = args.dir.as_ref().unwrap_or(found);
    let vendored = LockedProject::open(&ui.workspace(), inputs(args.locked))?.builder().vendor(dir)?;
    let (files, size, removed) = (vendored.files, render::bytes(vendored.bytes), vendored.removed);
    if ui.settings.json {
        render::json(&EventJson::Vendored { dir: dir.clone(), vendored: vendored.into() });
    }
    ui.say(&format!("{}, {size}, in {}; {removed} removed", counted(files, "file"), dir.display()));
    if dir != found {
        ui.say(&format!(
            "builds find them with --vendor-dir {dir} or SISFORGE_VENDOR_DIR={dir}",
            dir = dir.display()
        ));
    }
    Ok(ExitCode::SUCCESS)
}
