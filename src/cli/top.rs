//! `top`: what guests use of their host, live.

use std::cmp::Ordering;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use crate::base::time::parse_duration;
use crate::run::usage::{GuestLoad, Meter, Throughput};

use super::error::CliError;
use super::output::GuestLoadJson;
use super::ui::Ui;
use super::{ps, render};

mod screen;

#[derive(clap::Args)]
pub struct Args {
    /// Time between two looks
    #[arg(long, default_value = "2s", value_parser = interval)]
    interval: Duration,
    /// What the guests are sorted by, the largest first
    #[arg(long, default_value = "cpu", value_name = "COLUMN")]
    sort: SortedBy,
    /// Print one table and end, as where the output is no terminal
    #[arg(long)]
    once: bool,
}

/// A column by which guests are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SortedBy {
    Cpu,
    Memory,
    Network,
    Disk,
    Name,
}

/// Between looks there must be something to compare.
fn interval(text: &str) -> Result<Duration, String> {
    const LEAST: Duration = Duration::from_millis(200);
    let interval = parse_duration(text).map_err(|error| error.to_string())?;
    if interval < LEAST { Err("it must be 200ms or more".to_owned()) } else { Ok(interval) }
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let mut meter = Meter::default();
    let workspace = ui.workspace();
    let is_live = std::io::stdout().is_terminal() && std::io::stdin().is_terminal() && ui.settings.draws;
    if is_live && !args.once && !ui.settings.json {
        let color = ui.settings.colors(&std::io::stdout());
        screen::show(&mut meter, &workspace, args.interval, args.sort, color)?;
        return Ok(ExitCode::SUCCESS);
    }
    meter.look(&workspace)?;
    thread::sleep(args.interval);
    let mut loads = meter.look(&workspace)?;
    sort(&mut loads, args.sort);
    if ui.settings.json {
        render::json(&loads.iter().map(GuestLoadJson::from).collect::<Vec<_>>());
    } else {
        let head = HEAD.map(str::to_owned).to_vec();
        let rows: Vec<_> = std::iter::once(head).chain(loads.iter().map(row)).collect();
        render::text(&render::table(&rows));
    }
    Ok(ExitCode::SUCCESS)
}

/// Over the cells of [`row`].
const HEAD: [&str; 10] =
    ["NAME", "STATE", "CPU", "MEMORY", "LIMIT", "RECEIVED/s", "SENT/s", "READ/s", "WRITTEN/s", "UPTIME"];

/// The cells of one guest.
fn row(load: &GuestLoad) -> Vec<String> {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    let rate =
        |rate: Option<Throughput>, way: fn(Throughput) -> f64| or_dash(rate.map(|rate| bytes(way(rate))));
    let GuestLoad { sample, cpu, network, disk, .. } = load;
    vec![
        sample.status.name.to_string(),
        ps::state(&sample.status),
        or_dash(cpu.map(percent)),
        or_dash(sample.usage.cgroup.memory.map(render::bytes)),
        or_dash(sample.memory_limit.map(render::bytes)),
        rate(*network, |rate| rate.into),
        rate(*network, |rate| rate.out),
        rate(*disk, |rate| rate.into),
        rate(*disk, |rate| rate.out),
        or_dash(sample.status.uptime.map(render::duration)),
    ]
}

/// Of one processor, as top(1) has it.
fn percent(processors: f64) -> String {
    format!("{:.1}%", processors * 100.0)
}

fn bytes(rate: f64) -> String {
    render::bytes(rate as u64)
}

/// The largest first; among equals, and by name, in the order of names.
fn sort(loads: &mut [GuestLoad], by: SortedBy) {
    let both = |rate: Option<Throughput>| rate.map_or(-1.0, |rate| rate.into + rate.out);
    let value = |load: &GuestLoad| match by {
        SortedBy::Cpu => load.cpu.unwrap_or(-1.0),
        SortedBy::Memory => load.sample.usage.cgroup.memory.map_or(-1.0, |bytes| bytes as f64),
        SortedBy::Network => both(load.network),
        SortedBy::Disk => both(load.disk),
        SortedBy::Name => 0.0,
    };
    loads.sort_by(|a, b| {
        let by_value = value(b).partial_cmp(&value(a)).unwrap_or(Ordering::Equal);
        by_value.then_with(|| a.sample.status.name.cmp(&b.sample.status.name))
    });
}
