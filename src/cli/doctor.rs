//! `doctor`: is this host ready for the fleet, and hardened.

use std::process::ExitCode;

use crate::host::doctor::{Check, CheckGroup, Fix, Level, Verdict, is_ready};
use crate::run::doctor::{self, Doctor};

use super::ask::confirm;
use super::error::CliError;
use super::output::DoctorJson;
use super::render;
use super::ui::Ui;

#[derive(clap::Args)]
pub struct Args {
    /// Set what is safe to set until the next boot, after asking
    #[arg(long)]
    fix: bool,
    /// Do not ask for confirmation
    #[arg(long, requires = "fix")]
    yes: bool,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let doctor = Doctor::new(&ui.workspace())?;
    if !doctor.has_fleet {
        let file = ui.settings.run.file.display();
        ui.say(&format!("there is no {file}: the host is checked without a fleet"));
    }
    let mut found = doctor.checks();
    let fixes = doctor::fixes(&found);
    if args.fix && !fixes.is_empty() {
        set(&fixes, args.yes, ui)?;
        found = doctor.checks();
    }
    if ui.settings.json {
        render::json(&DoctorJson::from(found.clone()));
    } else {
        render::text(&report(&found, ui));
    }
    Ok(if is_ready(&found) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Sets all that can be set.
fn set(fixes: &[Fix], yes: bool, ui: &Ui) -> Result<(), CliError> {
    for fix in fixes {
        ui.say(&format!("would set {fix}"));
    }
    if !yes {
        confirm("set that until the next boot")?;
    }
    doctor::set(fixes)?;
    ui.say("set until the next boot; to make it permanent, write");
    for file in fixes.iter().map(|fix| fix.permanent().0).collect::<std::collections::BTreeSet<_>>() {
        ui.say(&format!("  into {file}:"));
        for (_, line) in fixes.iter().map(Fix::permanent).filter(|(of, _)| *of == file) {
            ui.say(&format!("    {line}"));
        }
    }
    Ok(())
}

/// The checks in words: one line each, and more about those that did not pass, or about all of them.
fn report(checks: &[Check], ui: &Ui) -> String {
    let color = ui.settings.colors(&std::io::stdout());
    let mut text = String::new();
    let mut group: Option<CheckGroup> = None;
    for check in checks {
        let is_good = matches!(check.verdict, Verdict::Pass | Verdict::Unneeded);
        if is_good && ui.settings.quiet {
            continue;
        }
        if group.replace(check.group) != Some(check.group) && !ui.settings.quiet {
            text.push_str(&format!("{}\n", check.group.title()));
        }
        text.push_str(&format!("  {}  {:16} {}\n", word(check.verdict, color), check.id, check.found));
        if !is_good || ui.settings.verbose {
            text.push_str(&format!("            why: {}\n", check.why));
        }
        if !check.remedy.is_empty() {
            text.push_str(&format!("            do:  {}\n", check.remedy));
        }
    }
    let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    let fatal =
        checks.iter().filter(|check| check.verdict == Verdict::Fail && check.level == Level::Fatal).count();
    let fixable = checks.iter().filter(|check| !check.fixes.is_empty()).count();
    text.push_str(&format!(
        "{} passed, {} warnings, {} failed",
        count(Verdict::Pass),
        count(Verdict::Warn),
        count(Verdict::Fail)
    ));
    text.push_str(&if fatal > 0 {
        format!(", {fatal} of which must be mended before guests run safely\n")
    } else {
        "\n".into()
    });
    if fixable > 0 {
        text.push_str(&format!("`sisforge doctor --fix` can set {fixable} of them right\n"));
    }
    text
}

fn word(verdict: Verdict, color: bool) -> String {
    let (word, code) = match verdict {
        Verdict::Pass => ("pass", "32"),
        Verdict::Warn => ("warn", "33"),
        Verdict::Fail => ("FAIL", "1;31"),
        Verdict::Unneeded => ("-   ", "2"),
    };
    if color { format!("\x1b[{code}m{word}\x1b[0m") } else { word.to_owned() }
}
