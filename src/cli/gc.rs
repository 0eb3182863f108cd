//! `gc`: what nothing names any more goes.

use std::process::ExitCode;
use std::time::Duration;

use crate::base::time::parse_duration;
use crate::run::gc;

use super::ask::confirm;
use super::error::CliError;
use super::output::GarbageJson;
use super::render;
use super::ui::Ui;

const HELP: &str = "\
Kept are: in out/, what a name leads to and what fleet.lock builds; in the store, what guests run on, what snapshots need, and what this \
fleet starts from; in the cache, what fleet.lock pins and what was read lately; of snapshots, what [snapshots] keep says, and all where \
it says nothing. Data disks and logs are never touched. What goes is built, copied or downloaded again where it is needed again, but for \
snapshots.";

#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// Only say what would go
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    /// Downloads that were read within this time are kept
    #[arg(long, value_name = "DURATION", default_value = "30days", value_parser = parse_duration)]
    keep_read_within: Duration,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let garbage = gc::find(&ui.workspace(), args.keep_read_within)?;
    let goes = !args.dry_run && !garbage.is_empty();
    let places = garbage.leftovers.len() + garbage.outdated.len();
    let what = format!("{} in {places} places", render::bytes(garbage.size()));
    if !garbage.looked_at_store {
        ui.report.note("the store was not looked at: that needs root");
    }
    if ui.settings.json {
        render::json(&GarbageJson::new(&garbage, goes));
    } else {
        for leftover in &garbage.leftovers {
            render::text(&format!("{:>9}  {}\n", render::bytes(leftover.size), leftover.path.display()));
        }
        for outdated in &garbage.outdated {
            let (size, name, why) = (render::bytes(outdated.size), &outdated.name, &outdated.why);
            render::text(&format!("{size:>9}  snapshot {name}, for good: {why}\n"));
        }
    }
    if !goes {
        ui.say(&if garbage.is_empty() { "nothing to remove".to_owned() } else { what });
        return Ok(ExitCode::SUCCESS);
    }
    if !args.yes {
        confirm(&format!("remove {what}"))?;
    }
    garbage.remove()?;
    ui.say(&format!("removed: {what}"));
    Ok(ExitCode::SUCCESS)
}
