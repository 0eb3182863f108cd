//! `kernel why`: who asked for an option and for what reason, what it needs, and what turns it on.

use std::process::ExitCode;

use crate::base::KernelOption;
use crate::build::Configuration;
use crate::build::kconfig::{OptionValues, Symbol};
use crate::build::unmet::shown;
use crate::lock::kernel::DotConfig;

use super::super::error::CliError;
use super::super::output::{KernelSettingJson, KernelWhyJson};
use super::super::render;
use super::super::ui::Ui;

#[derive(clap::Args)]
pub struct Args {
    /// An option, with or without CONFIG_
    #[arg(value_parser = KernelOption::parse)]
    option: KernelOption,
}

/// Names that are listed at most where many options select another one.
const LISTED: usize = 12;

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let configuration = super::configuration(ui)?;
    let name = args.option.as_str();
    let Some(symbol) = configuration.symbols().get(name) else {
        let near: Vec<_> = configuration.symbols().near(name).into_iter().take(3).collect();
        let error = CliError::invalid(format!("this kernel has no option {name}"));
        return Err(match near.as_slice() {
            [] => error,
            near => error.hint(format!("did you mean {}?", near.join(" or "))),
        });
    };
    let needed_by = needed_by(&args.option, ui)?;
    let answer = answer(&args.option, symbol, &configuration, &configuration.config()?, needed_by);
    if ui.settings.json {
        render::json(&answer);
    } else {
        render::text(&text(&answer, &configuration.config()?));
    }
    Ok(ExitCode::SUCCESS)
}

fn needed_by(option: &KernelOption, ui: &Ui) -> Result<Vec<String>, CliError> {
    let needs = ui.workspace().kernel_needs()?;
    Ok(needs.iter().filter(|need| need.option == *option).map(|need| need.whose.to_string()).collect())
}

fn answer(
    option: &KernelOption,
    symbol: &Symbol,
    configuration: &Configuration,
    config: &DotConfig,
    needed_by: Vec<String>,
) -> KernelWhyJson {
    let (name, symbols) = (option.as_str(), configuration.symbols());
    let definitions = &symbol.definitions;
    let asked = configuration.requested.all(option).iter().map(|request| KernelSettingJson {
        by: request.origin.to_string(),
        value: shown(&request.value),
        reason: request.reason.clone().unwrap_or_default(),
    });
    let mut selectors: Vec<_> = symbols.selectors(name).map(|(name, _)| name.to_owned()).collect();
    selectors.dedup();
    let needs = definitions.iter().map(|one| one.needs().to_string()).filter(|needs| !needs.is_empty());
    let selects =
        definitions.iter().flat_map(|one| &one.selects).map(|selection| match &selection.condition {
            Some(condition) => format!("{} if {condition}", selection.option),
            None => selection.option.clone(),
        });
    KernelWhyJson {
        option: name.to_owned(),
        value: config.get(option).map_or_else(|| "n".to_owned(), shown),
        prompt: definitions.iter().find_map(|one| one.prompt.clone()),
        declared: definitions.iter().map(|one| one.place.clone()).collect(),
        asked: asked.collect(),
        needs: needs.collect(),
        missing: symbol.unmet(config),
        selects: selects.collect(),
        selected_by: symbols.selected_by(name, config).into_iter().map(str::to_owned).collect(),
        selectors,
        defaults: definitions.iter().flat_map(|one| one.defaults.clone()).collect(),
        needed_by,
    }
}

fn text(answer: &KernelWhyJson, config: &DotConfig) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |head: &str, text: String| rows.push(vec![format!("  {head}"), text]);
    for KernelSettingJson { by, value, reason } in &answer.asked {
        let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        row("asked for", format!("{value} by {by}{reason}"));
    }
    if answer.asked.is_empty() {
        row("asked for", "by nobody".into());
    }
    answer.needed_by.iter().for_each(|needy| row("needed by", needy.clone()));
    answer.needs.iter().for_each(|needs| row("needs", needs.clone()));
    answer.missing.iter().for_each(|missing| row("misses", missing.clone()));
    if !answer.selected_by.is_empty() {
        row("turned on by", answer.selected_by.join(", "));
    }
    let others = answer.selectors.iter().filter(|name| config.value(name).as_deref() != Some("y"));
    let others: Vec<_> = others.map(String::as_str).collect();
    if !others.is_empty() {
        let more = others.len().saturating_sub(LISTED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        row("others that would", format!("{}{more}", others[..others.len().min(LISTED)].join(", ")));
    }
    if answer.prompt.is_none() {
        row("by itself", "it cannot be set: it has no prompt".into());
    }
    answer.defaults.iter().for_each(|default| row("default", default.clone()));
    answer.selects.iter().for_each(|selection| row("turns on", selection.clone()));
    answer.declared.iter().for_each(|place| row("declared", place.clone()));
    let prompt = answer.prompt.as_deref().map(|prompt| format!("  {prompt}")).unwrap_or_default();
    render::plain(&format!("{}={}{prompt}", answer.option, answer.value)) + "\n" + &render::table(&rows)
}
