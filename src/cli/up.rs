//! `up`: the host becomes what fleet.toml wants.

use std::process::ExitCode;

use crate::apply::{Applied, apply, preflight};
use crate::base::diagnostic::one_line;
use crate::base::{Diagnostic, GuestName};
use crate::plan::{GuestScope, Plan};
use crate::sys::ssh;

use super::build::Inputs;
use super::context::{Context, named, observed, planned};
use super::error::CliError;
use super::render;

#[derive(clap::Args)]
pub struct Args {
    /// Only these guests
    guests: Vec<String>,
    /// Fail where fleet.lock does not fit fleet.toml, instead of updating it
    #[arg(long)]
    locked: bool,
    /// Seconds that a guest may take to be ready
    #[arg(long, value_name = "SECONDS", default_value_t = crate::apply::linux::READY_TIMEOUT.as_secs())]
    timeout: u64,
}

pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let fleet = context.fleet()?;
    let names = named(&args.guests, &fleet.guests.keys().collect::<Vec<_>>())?;
    let mut host = context.host(&fleet)?;
    host.ready_timeout = std::time::Duration::from_secs(args.timeout);
    let _held = context.hold(&host.layout)?;
    // Before the fleet's wishes are known: the key is part of what each guest is told.
    ssh::keygen(&host.layout.key())?;
    let observed = observed(&host)?;
    let wanted = context.desired(&fleet, Inputs::of(args.locked), &mut host, &observed)?;
    let plan = planned(&host, &observed, &wanted, of(&names))?;
    carry_out(&plan, &host, context)
}

/// The guests that were named, or all where none was.
pub fn of(names: &[GuestName]) -> GuestScope<'_> {
    if names.is_empty() { GuestScope::All } else { GuestScope::Only(names) }
}

/// Applies a plan and says what became of it.
pub fn carry_out(
    plan: &Plan,
    host: &crate::apply::linux::LinuxHost,
    context: &Context,
) -> Result<ExitCode, CliError> {
    if context.settings.verbose && !plan.is_empty() {
        context.say(plan.detailed().trim_end());
    }
    preflight::check(plan, host)?;
    plan.notes.iter().for_each(|note| context.report.note(&format!("note: {note}")));
    let applied = apply(plan, host, context.guests_at_once(), &*context.report);
    finish(&applied, plan, context)
}

/// Says what became of a plan.
pub fn finish(applied: &Applied, plan: &Plan, context: &Context) -> Result<ExitCode, CliError> {
    for failure in &applied.failures {
        let who = failure.guest.as_ref().map_or("host", GuestName::as_str);
        context.report.note(&format!("error: {who}: {}: {}", failure.step, one_line(&failure.error)));
        if let Some(help) = failure.error.hint() {
            context.report.note(&format!("  help: {help}"));
        }
    }
    if context.settings.json {
        render::json(&serde_json::json!({ "event": "summary", "summary": applied.summary() }));
    } else if plan.is_empty() {
        context.say("nothing to do: the host is as it should be");
    } else {
        let mut failed: Vec<_> =
            applied.failures.iter().map(|f| f.guest.as_ref().map_or("host", GuestName::as_str)).collect();
        failed.dedup();
        let failed =
            if failed.is_empty() { String::new() } else { format!(", failed: {}", failed.join(", ")) };
        context.say(&format!("{} started, {} stopped{failed}", applied.started.len(), applied.stopped.len()));
    }
    if applied.failures.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(CliError::said(1)) }
}
