//! `snapshot inspect`.

use std::process::ExitCode;
use std::time::Duration;

use crate::cli::error::CliError;
use crate::cli::output::SnapshotViewJson;
use crate::cli::render;
use crate::cli::ui::Ui;
use crate::host::layout::vmm_folder;
use crate::host::snapshot::SnapshotManifest;
use crate::run::snapshot_view::{self, SnapshotView};

#[derive(clap::Args)]
pub struct Args {
    /// The snapshot to look at
    name: String,
    /// Read every file of it, to see whether it is damaged
    #[arg(long)]
    verify: bool,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let name = super::parsed(&args.name)?;
    let view = snapshot_view::view(&ui.workspace(), &name, args.verify)?;
    if ui.settings.json {
        render::json(&SnapshotViewJson::from(&view));
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = vec![("snapshot", name.to_string()), ("size", render::bytes(view.stored.size))];
    if let Some(manifest) = &view.stored.manifest {
        rows.extend(of_manifest(manifest, &view));
    }
    let rows: Vec<_> =
        rows.into_iter().map(|(key, value)| vec![key.to_owned(), render::plain(&value)]).collect();
    render::text(&render::table(&rows));
    if view.refusals.is_empty() {
        render::text("\na restore would bring it back\n");
    } else {
        render::text("\na restore would be refused:\n");
        view.refusals.iter().for_each(|why| render::text(&format!("  {}\n", render::plain(why))));
    }
    Ok(ExitCode::SUCCESS)
}

fn of_manifest(manifest: &SnapshotManifest, view: &SnapshotView) -> Vec<(&'static str, String)> {
    let (machine, origin) = (&manifest.machine, &manifest.origin);
    let age = view
        .age
        .map(|age| format!(", {} ago", humantime::format_duration(Duration::from_secs(age.as_secs()))));
    let vmm =
        format!("{} {}, build {}", vmm_folder(machine.vmm), origin.vmm_version, origin.vmm_sha256.short());
    let counted = view.counted.as_ref().map(|line| format!("{}, {}", line.event.words(), line.at));
    let mut rows = vec![
        ("guest", format!("{}, {} MiB, {}", manifest.guest, machine.memory_mib, machine.ip)),
        ("created", format!("{}{}", manifest.created, age.unwrap_or_default())),
        ("vmm", vmm),
        ("host", format!("Linux {}, {}", origin.kernel, origin.cpu.model)),
        ("kernel", machine.kernel.to_string()),
        ("image", machine.image.to_string()),
    ];
    rows.extend(machine.images.map(|images| ("container images", images.to_string())));
    for (name, file) in &manifest.files {
        let what = match name.as_str() {
            "memory" => "memory",
            "state" => "state",
            _ => "data disk",
        };
        rows.push((what, format!("{}, {}", render::bytes(file.size), file.digest)));
    }
    let running: Vec<_> = manifest.containers.iter().map(|one| one.container.name.to_string()).collect();
    if !running.is_empty() {
        rows.push(("containers", running.join(", ")));
    }
    rows.push(("id", manifest.id().to_string()));
    rows.push(("ledger", counted.unwrap_or_else(|| "does not know it".to_owned())));
    rows
}
