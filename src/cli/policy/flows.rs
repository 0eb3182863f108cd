//! `policy flows`.

use std::process::ExitCode;

use crate::base::time::rfc3339_millis;
use crate::cli::error::CliError;
use crate::cli::ui::Ui;
use crate::cli::{output, render};
use crate::run::flows::{self, Flow, Flows, Received};

#[derive(clap::Args)]
pub struct Args {
    /// The guest, which must run
    guest: String,
    /// Print those that begin and end from now on, until interrupted
    #[arg(short, long)]
    follow: bool,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let print = |flow: &Flow| {
        if ui.settings.json {
            render::json(&output::FlowJson::new(&args.guest, flow));
        } else {
            render::text(&text(flow));
        }
    };
    if !args.follow {
        flows::open(&ui.workspace(), &args.guest)?.iter().for_each(print);
        return Ok(ExitCode::SUCCESS);
    }
    let flows = Flows::of(&ui.workspace(), &args.guest)?;
    loop {
        for told in flows.next()? {
            match told {
                Received::Lost => ui.say("note: some connections came faster than they were read"),
                Received::Of(flow) => print(&flow),
            }
        }
    }
}

fn text(flow: &Flow) -> String {
    let Flow { time, connection, .. } = flow;
    let bytes = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), render::bytes);
    format!(
        "{}  {:5} {:5} {} -> {}  sent {}, answered {}\n",
        rfc3339_millis(*time),
        output::flow_word(flow),
        output::protocol(connection.protocol),
        super::endpoint(connection.from, connection.from_port),
        super::endpoint(connection.to, connection.port),
        bytes(connection.sent),
        bytes(connection.answered)
    )
}
