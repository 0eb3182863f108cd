//! `snapshot ledger`.

use std::process::ExitCode;

use crate::apply::snapshot::Accepted;
use crate::cli::error::CliError;
use crate::cli::output::{AcceptedJson, LedgerLineJson};
use crate::cli::ui::Ui;
use crate::cli::{ask, render};
use crate::run::transfer;

const HELP: &str = "\
Each snapshot that is made, imported, exported or restored is a line, added and never changed, in the store and beside it in \
/var/lib/sisforge-host. A store that went back, as from a backup, or was copied from another host lacks lines, or has others: nothing is \
restored then, since nobody could tell what was restored already. --accept makes the ledger whole again. Where lines are only missing \
in the store, they are taken from beside it. Otherwise every snapshot that nobody knows about is void; disks in snapshots stay.";

#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Make a ledger whole that is not; nothing that was restored can be restored again
    #[arg(long)]
    accept: bool,
    /// Do not ask for confirmation
    #[arg(long, requires = "accept")]
    yes: bool,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    if args.accept {
        return accept(args, ui);
    }
    let ledger = transfer::ledger(&ui.workspace())?;
    if ui.settings.json {
        render::json(&ledger.lines.iter().map(LedgerLineJson::from).collect::<Vec<_>>());
        return Ok(ExitCode::SUCCESS);
    }
    let head = ["TIME", "SNAPSHOT", "WHAT", "ID"].map(str::to_owned).to_vec();
    let rows = ledger.lines.iter().map(|line| {
        let snapshot = line.event.snapshot().map_or_else(String::new, ToString::to_string);
        let id = line.event.id().map_or_else(String::new, |id| id.0.short());
        vec![render::plain(&line.at), snapshot, render::plain(&line.event.words()), id]
    });
    render::text(&render::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()));
    Ok(ExitCode::SUCCESS)
}

fn accept(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let workspace = ui.workspace();
    let mending = transfer::mending(&workspace)?;
    if let (Some(fault), false) = (&mending.fault, args.yes) {
        ui.say(&format!("{fault}"));
        ask::confirm(
            "make the ledger whole again, and void every snapshot of which it does not tell what became of it",
        )?;
    }
    let accepted = mending.carry_out()?;
    match &accepted {
        Accepted::Whole => ui.say("the ledger is whole"),
        Accepted::Completed(lines) => {
            ui.say(&format!("the ledger is whole again: its last {lines} lines were taken from its witness"));
        }
        Accepted::BegunAnew { voided, kept } => {
            let void = voided.iter().flatten().map(|name| format!("snapshot {name} is void"));
            void.for_each(|text| ui.say(&text));
            let kept = kept.iter().map(|path| format!("what was there is kept: {}", path.display()));
            kept.for_each(|text| ui.say(&text));
            ui.say("the ledger is whole again");
        }
    }
    if ui.settings.json {
        render::json(&AcceptedJson::from(&accepted));
    }
    Ok(ExitCode::SUCCESS)
}
