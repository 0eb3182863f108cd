//! `policy log`.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use crate::base::network::protocol_word;
use crate::base::time::rfc3339_millis;
use crate::cli::error::CliError;
use crate::cli::logs::{amount, since};
use crate::cli::ui::Ui;
use crate::cli::{output, render};
use crate::run::flow_log::{self, Kept, Noted};
use crate::run::flows::{Dropped, Drops, Received};

#[derive(clap::Args)]
pub struct Args {
    /// The guest, which must run for --follow
    guest: String,
    /// Keep printing what is dropped
    #[arg(short, long)]
    follow: bool,
    /// Only what was dropped since a time such as 2026-01-31T12:00:00Z, or a duration before now such as 10m
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<SystemTime>,
    /// End after N packets
    #[arg(short = 'n', long, value_name = "N", value_parser = amount::<u64>)]
    count: Option<u64>,
}

/// How often is looked for more of what is kept.
const POLL: Duration = Duration::from_millis(100);

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let mut kept = Kept::of(&ui.workspace(), &args.guest)?;
    let mut printer = DropPrinter { args, ui, told: 0 };
    printer.kept(&mut kept)?;
    if !args.follow && printer.told == 0 {
        ui.note(nothing_told(kept.is_empty() && !kept.is_growing()));
    }
    if !args.follow || printer.is_done() {
        return Ok(ExitCode::SUCCESS);
    }
    // The kernel tells one alone; where that is `watch`, all is in what it keeps.
    if kept.is_growing() {
        while !printer.is_done() {
            std::thread::sleep(POLL);
            printer.kept(&mut kept)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let names = flow_log::names(&ui.workspace(), &args.guest)?;
    let drops = Drops::of(&ui.workspace(), &args.guest, names)?;
    ui.say(&format!("packets of {} that are dropped from now on", drops.guest()));
    while !printer.is_done() {
        for told in drops.next()? {
            match told {
                Received::Lost => printer.lost(),
                Received::Of(dropped) => printer.print(&dropped),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Why nothing was told of a guest, and what to do.
fn nothing_told(never_watched: bool) -> &'static str {
    if never_watched {
        "nothing is kept of it, since no `sisforge watch` has run beside it: that keeps what is dropped from then on, and \
         --follow shows what is dropped now"
    } else {
        "nothing of it was dropped then while `sisforge watch` ran, which keeps this"
    }
}

struct DropPrinter<'a> {
    args: &'a Args,
    ui: &'a Ui,
    /// How many packets were printed.
    told: u64,
}

impl DropPrinter<'_> {
    /// Prints what was kept since it was last asked.
    fn kept(&mut self, kept: &mut Kept) -> Result<(), CliError> {
        for noted in kept.unread()? {
            match noted {
                Noted::Dropped(dropped) if self.args.since.is_none_or(|since| dropped.time >= since) => {
                    self.print(&dropped);
                }
                Noted::Lost => self.lost(),
                Noted::Unread(why) => self.ui.report.note(&why),
                Noted::Dropped(_) | Noted::Flow(_) => {}
            }
        }
        Ok(())
    }

    /// Whether as many were printed as were asked for.
    fn is_done(&self) -> bool {
        self.args.count.is_some_and(|count| self.told >= count)
    }

    fn lost(&self) {
        self.ui.note("some packets came faster than they were read");
    }

    fn print(&mut self, dropped: &Dropped) {
        if self.is_done() {
            return;
        }
        self.told += 1;
        if self.ui.settings.json {
            render::json(&output::DroppedJson::new(&self.args.guest, dropped));
        } else {
            render::text(&text(dropped));
        }
    }
}

fn text(dropped: &Dropped) -> String {
    let Dropped { time, verdict, why, place, packet, name } = dropped;
    let (from_port, to_port) = packet.ports.unzip();
    let place = place.as_ref().map(|place| format!(" ({})", super::place(place))).unwrap_or_default();
    format!(
        "{}  {:8} {:5} {} -> {}  {} bytes  {why}{place}\n",
        rfc3339_millis(*time),
        verdict.word(),
        protocol_word(packet.protocol),
        super::endpoint(packet.from, from_port),
        super::destination(packet.to, to_port, name.as_ref()),
        packet.bytes
    )
}
