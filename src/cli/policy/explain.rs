//! `policy explain`.

use std::process::ExitCode;

use crate::cli::error::CliError;
use crate::cli::ui::Ui;
use crate::cli::{output, render};
use crate::host::policy::{ClauseKind, Question};
use crate::run::policy::{self, Explained, ExplainedAnswer};
use crate::run::proof;

#[derive(clap::Args)]
pub struct Args {
    /// Who sends
    guest: String,
    /// Where to: 198.51.100.1, 198.51.100.1:443, 198.51.100.1:53/udp, 198.51.100.1/icmp
    #[arg(value_name = "DEST[:PORT[/PROTO]]")]
    question: String,
    /// Ask the kernel as well: load the same rules into a network of their own, send the packet, and compare
    #[arg(long)]
    prove: bool,
}

/// Exit status of what does not pass.
const NO: u8 = 3;

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let question: Question =
        args.question.parse().map_err(|error| CliError::invalid(format!("DEST: {error}")))?;
    let explained = policy::explain(&ui.workspace(), &args.guest, question)?;
    let proof = args.prove.then(|| proof::prove(&ui.workspace(), &explained)).transpose()?;
    if ui.settings.json {
        render::json(&output::ExplainedJson::new(&explained, proof.as_ref()));
    } else if !ui.settings.quiet {
        render::text(&text(&explained));
        if let Some(proof) = &proof {
            render::text(&format!("proved by the kernel:{}\n", indented(&proof.path)));
        }
    }
    Ok(if explained.passes() { ExitCode::SUCCESS } else { ExitCode::from(NO) })
}

fn text(explained: &Explained) -> String {
    let Explained { guest, network, question, answers, .. } = explained;
    if answers.is_empty() {
        return format!("{guest} -> {question}: dropped\n  guests have no IPv6\n");
    }
    let of_many = answers.len() > 1;
    let told = answers.iter().map(|found| {
        let what = match question.transport {
            Some(_) => String::new(),
            // Its ports are all that no line names.
            None if of_many && found.answer.clause.kind == ClauseKind::Default => {
                ", everything else".to_owned()
            }
            None => format!(", {}", found.answer.traffic),
        };
        let verdict = found.answer.verdict.word();
        format!("{guest} -> {question}{what}: {verdict}\n{}", because(network.as_str(), found))
    });
    let cut_off = format!("but {guest} is quarantined: nothing passes until `sisforge release {guest}`\n");
    let ways_in = explained.ways_in.iter().map(|found| {
        let (way, at) = (&found.way, super::place(&found.place));
        let port = found.port.map_or_else(|| "a port".to_owned(), |port| format!("port {port}"));
        format!(
            "{} -> {guest}: comes in by {port} of the host, to {}/{}\n  by network {network}, {at}: publish {way}\n",
            question.to, way.guest, way.protocol
        )
    });
    told.chain(ways_in).chain(explained.quarantined.then_some(cut_off)).collect()
}

fn indented(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n  {line}")).collect()
}

/// The line that decides, and its entry where it has several.
fn because(network: &str, found: &ExplainedAnswer) -> String {
    let answer = &found.answer;
    let at = found.place.as_ref().map_or_else(|| "its preset".to_owned(), super::place);
    let entry = match &found.entry {
        Some(entry) => format!("  by {} of {}\n", answer.entry, super::place(entry)),
        None if answer.clause.to.len() > 1 => format!("  by its entry {}\n", answer.entry),
        None => String::new(),
    };
    format!("  by network {network}, {at}: {}\n{entry}", answer.clause)
}
