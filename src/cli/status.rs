//! `status`: every guest, and what has drifted from fleet.toml.

use std::process::ExitCode;

use crate::apply::status;
use crate::base::GuestName;
use crate::plan::{GuestScope, Plan, diff};

use super::build::Inputs;
use super::context::{Context, observed};
use super::error::CliError;
use super::{ps, render};

pub fn run(context: &Context) -> Result<ExitCode, CliError> {
    let fleet = context.fleet()?;
    let mut host = context.host(&fleet)?;
    let observed = observed(&host)?;
    // Looking builds nothing, and writes no lock: what is not there cannot be compared with.
    let plan = match context.desired(&fleet, Inputs::AsTheyAre, &mut host, &observed) {
        Ok(desired) => Some(diff(&observed, &desired, GuestScope::All)),
        Err(error) => {
            context.say(&format!("note: drift is not known: {}", error.message()));
            None
        }
    };
    let names: std::collections::BTreeSet<_> = observed.guests.keys().chain(fleet.guests.keys()).collect();
    let guests: Vec<_> = names.into_iter().map(|name| status::guest(&host, &observed, name)).collect();
    let drift = |guest: &GuestName| plan.as_ref().and_then(|plan| drift(plan, guest));
    if context.settings.json {
        let all =
            guests.iter().map(|guest| serde_json::json!({ "guest": guest, "drift": drift(&guest.name) }));
        let in_step = plan.as_ref().map(Plan::is_empty);
        render::json(&serde_json::json!({ "guests": all.collect::<Vec<_>>(), "in_step": in_step }));
        return Ok(ExitCode::SUCCESS);
    }
    let head = ["NAME", "STATE", "PID", "UID", "IP", "UPTIME", "MEMORY", "IMAGE", "DRIFT"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let unknown = if plan.is_some() { "-" } else { "?" };
    for guest in &guests {
        let mut row = ps::row(guest);
        let from = guest.machine.as_ref().and_then(|machine| machine.restored_from.as_ref());
        let still = || from.map_or_else(|| unknown.into(), |snapshot| format!("from snapshot {snapshot}"));
        row.push(drift(&guest.name).unwrap_or_else(still));
        rows.push(row);
    }
    render::text(&render::table(&rows));
    for step in plan.iter().flat_map(|plan| plan.prepare.iter().chain(&plan.rules)) {
        render::text(&format!("host: would {step}\n"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Why `up` would touch a guest.
fn drift(plan: &Plan, guest: &GuestName) -> Option<String> {
    plan.stop.iter().chain(&plan.start).find(|steps| steps.guest == *guest).map(|steps| steps.why.clone())
}
