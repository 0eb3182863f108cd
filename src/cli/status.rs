//! `status`: every guest, and what has drifted from fleet.toml.

use std::process::ExitCode;

use crate::apply::status;
use crate::fleet::GuestName;
use crate::plan::{Plan, diff};

use super::context::{Context, observed};
use super::error::CliError;
use super::{ps, render};

pub fn run(context: &Context) -> Result<ExitCode, CliError> {
    let fleet = context.fleet()?;
    let mut host = context.host(&fleet)?;
    let desired = context.desired(&fleet, false, &mut host)?;
    let observed = observed(&host)?;
    let plan = diff(&observed, &desired);
    let names: std::collections::BTreeSet<_> = observed.guests.keys().chain(desired.guests.keys()).collect();
    let guests: Vec<_> = names.into_iter().map(|name| status::guest(&host, &observed, name)).collect();
    if context.settings.json {
        let all: Vec<_> = guests
            .iter()
            .map(|guest| serde_json::json!({ "guest": guest, "drift": drift(&plan, &guest.name) }))
            .collect();
        render::json(&serde_json::json!({ "guests": all, "in_step": plan.is_empty() }));
        return Ok(ExitCode::SUCCESS);
    }
    let head = ["NAME", "STATE", "PID", "UID", "IP", "UPTIME", "MEMORY", "IMAGE", "DRIFT"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for guest in &guests {
        let mut row = ps::row(guest);
        row.push(drift(&plan, &guest.name).unwrap_or_else(|| "-".into()));
        rows.push(row);
    }
    render::text(&render::table(&rows));
    for step in plan.prepare.iter().chain(&plan.rules) {
        render::text(&format!("host: would {step}\n"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Why `up` would touch a guest.
fn drift(plan: &Plan, guest: &GuestName) -> Option<String> {
    plan.stop.iter().chain(&plan.start).find(|steps| steps.guest == *guest).map(|steps| steps.why.clone())
}
