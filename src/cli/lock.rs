//! `lock`: choices become `fleet.lock`.

use std::process::ExitCode;

use crate::build::Project;
use crate::fleet::Fleet;
use crate::lock::changes;
use crate::lock::model::Lock;
use crate::lock::resolve::Update;
use crate::sys::fs;

use super::context::Context;
use super::error::CliError;
use super::render;

#[derive(clap::Args)]
pub struct Args {
    /// Choose anew: these packages and what they then need, or everything
    #[arg(long, value_name = "PACKAGE", num_args = 0..)]
    update: Option<Vec<String>>,
}

pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let update = match &args.update {
        None => Update::None,
        Some(names) if names.is_empty() => Update::All,
        Some(names) => Update::Packages(names.iter().cloned().collect()),
    };
    let project = context.project(context.fleet()?)?;
    let (lock, changed) = update_lock(context, &project, &update)?;
    if context.settings.json {
        render::json(&serde_json::json!({ "changes": changed, "packages": lock.package.len() }));
    } else if changed.is_empty() {
        context.say(&format!("{} fits already", context.lock_path().display()));
    } else if !context.settings.quiet {
        changed.iter().for_each(|line| render::text(&format!("{line}\n")));
        context.say(&format!("wrote {}", context.lock_path().display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Brings the lock file up to date; gives the lock and what changed in it.
fn update_lock(
    context: &Context,
    project: &Project,
    update: &Update,
) -> Result<(Lock, Vec<String>), CliError> {
    let path = context.lock_path();
    let old = Lock::read(&path)?;
    let cache = context.cache()?;
    let lock = project.lock(old.as_ref(), update, &cache, context.settings.offline, &*context.report)?;
    if old.as_ref() == Some(&lock) {
        return Ok((lock, Vec::new()));
    }
    let text = lock.to_text().map_err(|error| CliError::failed(format!("cannot write the lock: {error}")))?;
    fs::write(&path, text.as_bytes(), 0o644)?;
    let changed = changes(old.as_ref(), &lock);
    Ok((lock, changed))
}

/// A lock that fits: that of the file, which is brought up to date where it does not fit, or, with `locked`, refused.
pub fn fitting(context: &Context, project: &Project, locked: bool) -> Result<Lock, CliError> {
    if !locked {
        let (lock, changed) = update_lock(context, project, &Update::None)?;
        changed.iter().for_each(|line| context.report.note(&format!("fleet.lock: {line}")));
        return Ok(lock);
    }
    let path = context.lock_path();
    let hint = "run `sisforge lock` and commit the file, or leave --locked away";
    let Some(lock) = Lock::read(&path)? else {
        return Err(CliError::invalid(format!("there is no {}", path.display())).hint(hint));
    };
    let reasons = project.stale(&lock);
    if reasons.is_empty() {
        project.check_scripts(&lock)?;
        return Ok(lock);
    }
    let reasons: String = reasons.iter().map(|reason| format!("\n  {reason}")).collect();
    Err(CliError::invalid(format!(
        "{} does not fit {}:{reasons}",
        path.display(),
        context.settings.file.display()
    ))
    .hint(hint))
}

impl Context {
    /// A fleet with everything that it mentions.
    pub fn project(&self, fleet: Fleet) -> Result<Project, CliError> {
        Ok(Project::open(fleet, &self.settings.cache)?)
    }
}
