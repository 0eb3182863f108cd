//! `snapshot ls`.

use std::process::ExitCode;

use crate::apply::snapshot::{SnapshotState, StoredSnapshot};
use crate::cli::error::CliError;
use crate::cli::ui::Ui;
use crate::cli::{output, render};
use crate::host::layout::vmm_folder;
use crate::run::snapshots;

#[derive(clap::Args)]
pub struct Args {
    /// Those that were restored already as well
    #[arg(short, long)]
    all: bool,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let found = snapshots::list(&ui.workspace(), args.all)?;
    if ui.settings.json {
        render::json(&found.iter().map(output::Snapshot::from).collect::<Vec<_>>());
    } else if ui.settings.quiet {
        found.iter().for_each(|one| render::text(&format!("{}\n", one.name)));
    } else {
        let head = ["NAME", "GUEST", "CREATED", "VMM", "SIZE", "STATE"].map(str::to_owned).to_vec();
        let rows: Vec<_> = std::iter::once(head).chain(found.iter().map(row)).collect();
        render::text(&render::table(&rows));
    }
    Ok(ExitCode::SUCCESS)
}

fn row(one: &StoredSnapshot) -> Vec<String> {
    let of = |value: fn(&crate::host::snapshot::SnapshotManifest) -> String| {
        one.manifest.as_ref().map_or_else(|| "?".to_owned(), value)
    };
    vec![
        one.name.to_string(),
        of(|manifest| manifest.guest.to_string()),
        of(|manifest| manifest.created.clone()),
        of(|manifest| vmm_folder(manifest.machine.vmm).to_owned()),
        render::bytes(one.size),
        state(one),
    ]
}

fn state(one: &StoredSnapshot) -> String {
    match (one.place, &one.manifest, &one.restored) {
        (SnapshotState::Ready, Some(_), _) => {
            one.spent.as_ref().map_or_else(|| "ready".to_owned(), |spent| render::plain(spent))
        }
        (SnapshotState::Ready, None, _) => "its manifest cannot be read".to_owned(),
        (SnapshotState::Consumed, _, None) if one.exported.is_some() => {
            let recipient = one.exported.as_ref().map(|exported| render::plain(&exported.recipient));
            let disk = if one.has_disk { ", its disk is still here" } else { "" };
            format!("exported to {}{disk}", recipient.unwrap_or_default())
        }
        (SnapshotState::Consumed, _, restored) => {
            let guest =
                restored.as_ref().map_or_else(|| "?".to_owned(), |restored| restored.guest.to_string());
            let disk = if one.has_disk { ", its disk is still here" } else { "" };
            format!("restored as {guest}{disk}")
        }
    }
}
