//! `policy explain`.

use std::process::ExitCode;

use crate::cli::error::CliError;
use crate::cli::ui::Ui;
use crate::cli::{output, render};
use crate::host::policy::{ClauseKind, Question, Transport};
use crate::run::names::{ExplainedName, NameVerdict};
use crate::run::policy::{self, Explained, ExplainedAnswer};
use crate::run::proof;

#[derive(clap::Args)]
pub struct Args {
    /// Who sends
    guest: String,
    /// Where to: 198.51.100.1, 198.51.100.1:443, 198.51.100.1:53/udp, 198.51.100.1/icmp, www.example.org
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
    let cut_off = format!("but {guest} is quarantined: nothing passes until `sisforge release {guest}`\n");
    if let Some(name) = &explained.name {
        let told = of_name(explained, name);
        return told + if explained.quarantined { &cut_off } else { "" };
    }
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

/// What becomes of a name, and what is left for addresses to decide.
fn of_name(explained: &Explained, name: &ExplainedName) -> String {
    let Explained { guest, network, question, .. } = explained;
    let (verdict, why) = match name.verdict {
        NameVerdict::NoServer => ("no answer", "no name server may be asked"),
        NameVerdict::Denied => ("no such name", "names.deny has it"),
        NameVerdict::NotAllowed => ("no such name", "names.allow does not have it"),
        NameVerdict::Unlisted => {
            ("answered", "dns is asked; the addresses that it leads to are judged by themselves")
        }
        NameVerdict::Allowed => match question.transport {
            None | Some(Transport::Tcp(80 | 443)) => (
                "allowed",
                "names.allow has it: TCP 80 and 443 lead there through the proxy, all else is judged by address",
            ),
            Some(Transport::Udp(443)) => ("refused", "QUIC is denied where names alone are allowed"),
            Some(_) => (
                "answered",
                "names.allow has it; at this port the addresses that it leads to are judged by themselves",
            ),
        },
    };
    let at = name.place.as_ref().map_or_else(|| "its preset".to_owned(), super::place);
    let entry = name.entry.as_ref();
    let entry = entry.map(|(entry, place)| format!("  by {entry} of {}\n", super::place(place)));
    format!(
        "{guest} -> {question}: {verdict}\n  by network {network}, {at}: {why}\n{}",
        entry.unwrap_or_default()
    )
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
