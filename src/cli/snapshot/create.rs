//! `snapshot create`.

use std::process::ExitCode;

use crate::apply::linux::LinuxHost;
use crate::apply::snapshot::{self, Request};
use crate::base::GuestName;
use crate::cli::context::{Context, declared_or_there, observed};
use crate::cli::error::CliError;
use crate::cli::{render, up};
use crate::host::wanted::WantedHost;
use crate::plan::{GuestScope, diff};

#[derive(clap::Args)]
pub struct Args {
    /// The guest to freeze
    guest: String,
    /// What to call the snapshot; the guest and the time if not given
    #[arg(long)]
    name: Option<String>,
    /// Stop the guest: it does not go on beside its snapshot
    #[arg(long, conflicts_with = "resume")]
    stop: bool,
    /// Let the guest go on, which is the default: the snapshot can be restored once the guest is down
    #[arg(long)]
    resume: bool,
}

pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let fleet = context.fleet()?;
    let host = context.host(&fleet)?;
    let guest = declared_or_there(&args.guest, &fleet, &host)?;
    let name = match &args.name {
        Some(name) => super::parsed(name)?,
        None => super::parsed(&default_name(&guest, &crate::base::time::now()))?,
    };
    let _held = context.hold(&host.layout)?;
    let request = Request { guest: &guest, name: &name, stop: args.stop };
    let (manifest, still) = snapshot::create(&host, &request, &*context.report)?;
    let shelved = snapshot::find(&host.layout, &name)?;
    if context.settings.json {
        render::json(&serde_json::json!({
            "snapshot": name, "guest": guest, "created": manifest.created, "size": shelved.size,
            "stood_still_ms": still.as_millis() as u64, "stopped": args.stop,
        }));
    }
    let still = if args.stop { String::new() } else { format!(", stood still for {} ms", still.as_millis()) };
    context.say(&format!("{guest} is frozen as {name}, {}{still}", render::bytes(shelved.size)));
    if args.stop { stop(&guest, &host, context) } else { Ok(ExitCode::SUCCESS) }
}

/// Ends a guest that is frozen for good.
fn stop(guest: &GuestName, host: &LinuxHost, context: &Context) -> Result<ExitCode, CliError> {
    let observed = observed(host)?;
    let plan = diff(&observed, &WantedHost::default(), GuestScope::Only(std::slice::from_ref(guest)));
    up::carry_out(&plan, host, context)
}

/// Such as `alice-20261125-175316`.
fn default_name(guest: &GuestName, now: &str) -> String {
    let digits: String = now.chars().filter(char::is_ascii_digit).collect();
    let (day, time) = digits.split_at(digits.len().min(8));
    format!("{guest}-{day}-{time}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::SnapshotName;

    #[test]
    fn a_snapshot_without_a_name_is_called_after_its_guest_and_the_time() {
        let name = default_name(&"alice".parse().unwrap(), "2026-11-25T17:53:16Z");
        assert_eq!(name, "alice-20261125-175316");
        name.parse::<SnapshotName>().unwrap();
    }
}
