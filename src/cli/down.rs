//! `down`: guests go, and everything of them but their data disks.

use std::process::ExitCode;
use std::time::Duration;

use crate::apply::linux::LinuxHost;
use crate::apply::{Applied, observe};
use crate::base::GuestName;
use crate::host::observed::ObservedHost;
use crate::host::wanted::WantedHost;
use crate::plan::{Plan, diff};

use super::ask::confirm;
use super::context::{Context, forget, named, observed};
use super::error::CliError;
use super::up::{carry_out, finish, of};

#[derive(clap::Args)]
pub struct Args {
    /// Only these guests
    guests: Vec<String>,
    /// Remove their data disks and logs too, after asking
    #[arg(long)]
    purge: bool,
    /// Do not ask
    #[arg(long, requires = "purge")]
    yes: bool,
    /// Seconds that a guest may take to shut down before it is killed
    #[arg(long, value_name = "SECONDS", default_value_t = crate::apply::linux::STOP_TIMEOUT.as_secs())]
    timeout: u64,
}

pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let fleet = context.fleet()?;
    let mut host = context.host(&fleet)?;
    host.stop_timeout = Duration::from_secs(args.timeout);
    if !host.layout.dir().exists() {
        return finish(&Applied::default(), &Plan::default(), context);
    }
    let _held = context.hold(&host.layout)?;
    let observed = observed(&host)?;
    let known: Vec<&GuestName> = observed.guests.keys().chain(fleet.guests.keys()).collect();
    let names = named(&args.guests, &known)?;
    let gone: Vec<GuestName> = if names.is_empty() { kept(&host, &observed)? } else { names.clone() };
    if args.purge && !args.yes && !gone.is_empty() {
        confirm(&format!("remove the data disks and logs of {} for good", listed(&gone)))?;
    }
    let plan = diff(&observed, &WantedHost::default(), of(&names));
    let code = carry_out(&plan, &host, context)?;
    if args.purge && !gone.is_empty() {
        gone.iter().try_for_each(|guest| forget(&host, guest))?;
        context.say(&format!("data disks and logs removed: {}", listed(&gone)));
    }
    Ok(code)
}

/// Every guest that the host has something of, be it its logs alone.
fn kept(host: &LinuxHost, observed: &ObservedHost) -> Result<Vec<GuestName>, CliError> {
    let mut guests = observe::recorded(&host.layout)?;
    guests.extend(observed.guests.keys().cloned());
    Ok(guests.into_iter().collect())
}

fn listed(guests: &[GuestName]) -> String {
    guests.iter().map(GuestName::as_str).collect::<Vec<_>>().join(", ")
}
