//! `policy flows`.

use std::process::ExitCode;
use std::time::SystemTime;

use crate::base::network::protocol_word;
use crate::base::time::rfc3339_millis;
use crate::cli::error::CliError;
use crate::cli::logs::since;
use crate::cli::ui::Ui;
use crate::cli::{output, render};
use crate::run::flow_log::{self, Kept, Noted};
use crate::run::flows::{self, Flow, Flows, Received};

#[derive(clap::Args)]
pub struct Args {
    /// The guest, which must run unless --since is asked for alone
    guest: String,
    /// Print those that begin and end from now on, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Print those that began and ended since a time such as 2026-01-31T12:00:00Z, or a duration before now such as 10m
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<SystemTime>,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let print = |flow: &Flow| {
        if ui.settings.json {
            render::json(&output::FlowJson::new(&args.guest, flow));
        } else {
            render::text(&text(flow));
        }
    };
    if let Some(since) = args.since {
        let kept = Kept::of(&ui.workspace(), &args.guest)?.unread()?;
        for noted in &kept {
            match noted {
                Noted::Flow(flow) if flow.time >= since => print(flow),
                Noted::Lost => ui.note("some came faster than they were kept"),
                Noted::Unread(why) => ui.report.note(why),
                Noted::Flow(_) | Noted::Dropped(_) => {}
            }
        }
    }
    if !args.follow && args.since.is_some() {
        return Ok(ExitCode::SUCCESS);
    }
    let names = flow_log::names(&ui.workspace(), &args.guest)?;
    if !args.follow {
        flows::open(&ui.workspace(), &args.guest, names)?.iter().for_each(print);
        return Ok(ExitCode::SUCCESS);
    }
    let flows = Flows::of(&ui.workspace(), &args.guest, names)?;
    loop {
        for told in flows.next()? {
            match told {
                Received::Lost => ui.note("some connections came faster than they were read"),
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
        protocol_word(connection.protocol),
        super::endpoint(connection.from, connection.from_port),
        super::destination(connection.to, connection.port, flow.name.as_ref()),
        bytes(connection.sent),
        bytes(connection.answered)
    )
}
