//! `plan`: what `up` would do.

use std::process::ExitCode;

use crate::apply::preflight;
use crate::plan::{GuestScope, GuestSteps, Plan, Step};

use super::build::Inputs;
use super::context::{Context, observed, planned};
use super::error::CliError;
use super::render;

#[derive(clap::Args)]
pub struct Args {
    /// Exit with 2 where there is something to be done, 0 where there is not
    #[arg(long)]
    detailed_exitcode: bool,
    /// Fail where fleet.lock does not fit fleet.toml, instead of updating it
    #[arg(long)]
    locked: bool,
}

pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let fleet = context.fleet()?;
    let mut host = context.host(&fleet)?;
    let observed = observed(&host)?;
    let desired = context.desired(&fleet, Inputs::of(args.locked), &mut host, &observed)?;
    let plan = planned(&host, &observed, &desired, GuestScope::All)?;
    show(&plan, context);
    if let Some(cost) = preflight::cost(&plan, &host) {
        context.say(&format!("note: {cost}"));
    }
    // Here rather than when half of it is done.
    preflight::look(&plan, &host)?;
    let changes = args.detailed_exitcode && !plan.is_empty();
    Ok(if changes { ExitCode::from(2) } else { ExitCode::SUCCESS })
}

/// Prints a plan, as text or as JSON.
pub fn show(plan: &Plan, context: &Context) {
    if context.settings.json {
        render::json(&as_json(plan));
    } else if plan.is_empty() {
        render::text("nothing to do: the host is as fleet.toml wants it\n");
    } else {
        render::text(&plan.detailed());
    }
    for note in &plan.notes {
        context.say(&format!("note: {note}"));
    }
}

fn as_json(plan: &Plan) -> serde_json::Value {
    let words = |steps: &[Step]| steps.iter().map(ToString::to_string).collect::<Vec<_>>();
    let guests = |all: &[GuestSteps]| {
        let one = |guest: &GuestSteps| {
            let steps: Vec<_> = guest.all().map(ToString::to_string).collect();
            serde_json::json!({ "guest": guest.guest, "why": guest.why, "steps": steps })
        };
        all.iter().map(one).collect::<Vec<_>>()
    };
    serde_json::json!({
        "empty": plan.is_empty(),
        "prepare": words(&plan.prepare),
        "stop": guests(&plan.stop),
        "rules": words(&plan.rules),
        "start": guests(&plan.start),
        "notes": plan.notes,
    })
}
