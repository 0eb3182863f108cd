//! `policy show`.

use std::fmt::Write as _;
use std::process::ExitCode;

use crate::base::text::counted;
use crate::cli::error::CliError;
use crate::cli::ui::Ui;
use crate::cli::{output, render};
use crate::run::policy::{self, NameListKind, ShownPolicy};
use crate::run::proof;

#[derive(clap::Args)]
pub struct Args {
    /// A network of fleet.toml, or a guest, whose network is meant; all networks unless given
    #[arg(value_name = "NETWORK|GUEST")]
    name: Option<String>,
    /// As nft's rules, which `nft -f` takes, for the guests in question; fleet.lock tells their numbers
    #[arg(long)]
    nft: bool,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    if args.nft {
        let rules = proof::rules(&ui.workspace(), args.name.as_deref())?;
        if ui.settings.json {
            render::json(&output::RulesJson { nft: rules });
        } else {
            render::text(&rules);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let shown = policy::show(&ui.workspace(), args.name.as_deref())?;
    if ui.settings.json {
        render::json(&shown.iter().map(output::PolicyJson::from).collect::<Vec<_>>());
    } else {
        render::text(&shown.iter().map(text).collect::<Vec<_>>().join("\n"));
    }
    Ok(ExitCode::SUCCESS)
}

fn meant(names: NameListKind) -> &'static str {
    match names {
        NameListKind::Deny => "names that are denied, each with all below it",
        NameListKind::Allow => "the only names that are allowed, each with all below it",
    }
}

fn text(policy: &ShownPolicy) -> String {
    let mut text = format!("network {}", policy.network);
    if let Some(preset) = policy.preset {
        let _ = write!(text, ", preset {}", preset.word());
    }
    let guests: Vec<_> = policy.guests.iter().map(ToString::to_string).collect();
    let whose = if guests.is_empty() { "no guest has it".to_owned() } else { guests.join(", ") };
    let _ = writeln!(text, ": {whose}");
    let rows: Vec<Vec<String>> = policy
        .clauses
        .iter()
        .map(|(clause, place)| {
            let at = place.as_ref().map_or_else(|| "preset".to_owned(), super::place);
            vec![format!("  {}", clause.verdict.word()), clause.to_string(), at]
        })
        .collect();
    text += &render::table(&rows);
    for (path, entries) in &policy.lists {
        let _ = writeln!(text, "  list {}: {}", path.display(), counted(*entries, "entry"));
    }
    for (path, (kind, count)) in &policy.names {
        let _ = writeln!(text, "  names {}: {count}, {}", path.display(), meant(*kind));
    }
    for (name, rate) in [("down", policy.rate_down), ("up", policy.rate_up)] {
        if let Some(rate) = rate {
            let _ = writeln!(text, "  rate {name}: {rate}");
        }
    }
    let budget = policy.budget;
    let _ = writeln!(
        text,
        "  budget: {} connections, {} new, {} DNS queries",
        budget.connections, budget.new_connections, budget.dns_queries
    );
    for (way, place) in &policy.publish {
        let _ = writeln!(text, "  publish {way}  {}", super::place(place));
    }
    text
}
