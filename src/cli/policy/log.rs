//! `policy log`.

use std::process::ExitCode;

use crate::base::time::rfc3339_millis;
use crate::cli::error::CliError;
use crate::cli::ui::Ui;
use crate::cli::{output, render};
use crate::run::flows::{Dropped, Drops, Received};

#[derive(clap::Args)]
pub struct Args {
    /// The guest, which must run
    guest: String,
    /// End after N packets
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let drops = Drops::of(&ui.workspace(), &args.guest)?;
    ui.say(&format!("packets of {} that are dropped from now on", drops.guest()));
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        for told in drops.next()? {
            match told {
                Received::Lost => ui.say("note: some packets came faster than they were read"),
                Received::Of(_) if left == 0 => {}
                Received::Of(dropped) => {
                    left -= 1;
                    if ui.settings.json {
                        render::json(&output::DroppedJson::new(drops.guest(), &dropped));
                    } else {
                        render::text(&text(&dropped));
                    }
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn text(dropped: &Dropped) -> String {
    let Dropped { time, verdict, why, place, packet } = dropped;
    let (from_port, to_port) = packet.ports.unzip();
    let end = super::endpoint;
    let place = place.as_ref().map(|place| format!(" ({})", super::place(place))).unwrap_or_default();
    format!(
        "{}  {:8} {:5} {} -> {}  {} bytes  {why}{place}\n",
        rfc3339_millis(*time),
        verdict.word(),
        output::protocol(packet.protocol),
        end(packet.from, from_port),
        end(packet.to, to_port),
        packet.bytes
    )
}
