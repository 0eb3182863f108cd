//! Package scripts that nothing covers: shown, and accepted in `fleet.toml` where somebody says so.

mod accept;

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use crate::base::Sha256;
use crate::base::text::printable;
use crate::build::{Project, ProjectError};
use crate::fleet::{ScriptMoment, ScriptName};
use crate::image::scripts::{acceptances, uncovered};
use crate::lock::model::{Lock, LockedPackage};
use crate::lock::repository::{Repositories, RepositoryError};
use crate::lock::request::Update;
use crate::sys::fetch::Cache;
use crate::sys::fs::{self, FileError};
use crate::sys::report::Silent;

use super::{RunError, Workspace};

/// Most lines of one script that are shown.
const MOST_LINES: usize = 200;

/// Scripts that nothing covers, and the `fleet.toml` that accepts them.
#[derive(Clone, Debug)]
pub struct Acceptance {
    /// What each does, as text for a terminal.
    pub scripts: Vec<String>,
    path: PathBuf,
    text: String,
}

/// What a lock that is brought up to date would need to accept; `None` where everything is covered. Nothing is written.
pub fn prepare(workspace: &Workspace<'_>, update: &Update) -> Result<Option<Acceptance>, RunError> {
    let project = workspace.project(workspace.fleet()?)?;
    let old = Lock::read(&workspace.lock_path())?;
    let cache = workspace.cache()?;
    let (offline, report) = (workspace.settings.offline, workspace.report);
    let lock = project.choose(old.as_ref(), update, &cache, offline, report)?;
    let scripts = shown(workspace, &project, old.as_ref(), &lock, &cache);
    let scripts = scripts.map_err(|error| ProjectError::Resolve(error.into()))?;
    if scripts.is_empty() {
        return Ok(None);
    }
    let (path, mut text) = (project.fleet.source.path.clone(), project.fleet.source.text.clone());
    for (image, spec, recipes, packages) in project.scripts(&lock) {
        if !uncovered(spec, recipes, &packages).is_empty() {
            let changed = accept::with_acceptances(&text, image, &acceptances(spec, recipes, &packages));
            text = changed.map_err(|why| FileError::when("change", &path)(io::Error::other(why)))?;
        }
    }
    Ok(Some(Acceptance { scripts, path, text }))
}

impl Acceptance {
    /// The file that is written.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Writes `fleet.toml`.
    pub fn carry_out(&self) -> Result<(), FileError> {
        let failed = FileError::when("look at", &self.path);
        let mode = std::fs::metadata(&self.path).map(|meta| Permissions::mode(&meta.permissions()));
        let mode = mode.map_err(failed)? & 0o7777;
        fs::write(&self.path, self.text.as_bytes(), mode)
    }
}

/// Every script of a lock that nothing covers: where it comes from, its text, and what changed since an accepted one.
pub(super) fn shown(
    workspace: &Workspace<'_>,
    project: &Project,
    old: Option<&Lock>,
    lock: &Lock,
    cache: &Cache,
) -> Result<Vec<String>, RepositoryError> {
    let offline = workspace.settings.offline;
    let from = |offline| Repositories { fleet: &project.fleet, cache, offline, report: &Silent };
    let mut told = BTreeSet::new();
    let mut shown = Vec::new();
    for (_, image, recipes, packages) in project.scripts(lock) {
        for (name, script) in uncovered(image, recipes, &packages) {
            let locked = lock.package.iter().find(|package| package.id() == script.package);
            let Some(locked) = locked.filter(|_| told.insert((name.clone(), script.sha256))) else {
                continue;
            };
            let body = body(&from(offline), locked, name.moment)?;
            let is_accepted = |package: &&LockedPackage| {
                let digest = package.scripts.get(&name.moment);
                package.name == name.package && digest.is_some_and(|digest| image.accepts(&name, digest))
            };
            let before = old.iter().flat_map(|lock| &lock.package).find(is_accepted);
            // Only where it is still in the cache: it is no reason to go to the network.
            let before =
                before.and_then(|package| Some((package, body_of_old(&from(true), package, &name)?)));
            shown.push(describe(&name, locked, &script.sha256, &body, before));
        }
    }
    Ok(shown)
}

fn body(
    repositories: &Repositories<'_>,
    package: &LockedPackage,
    moment: ScriptMoment,
) -> Result<String, RepositoryError> {
    let contents = repositories.package(package)?;
    Ok(String::from_utf8_lossy(contents.script_at(moment).unwrap_or_default()).into_owned())
}

fn body_of_old(
    repositories: &Repositories<'_>,
    package: &LockedPackage,
    name: &ScriptName,
) -> Option<String> {
    body(repositories, package, name.moment).ok()
}

fn describe(
    name: &ScriptName,
    package: &LockedPackage,
    sha256: &Sha256,
    body: &str,
    before: Option<(&LockedPackage, String)>,
) -> String {
    let head = format!(
        "{} of {} from {} (index signed by {}), sha256:{sha256}",
        name.moment,
        package.id(),
        package.repository,
        package.key
    );
    match before {
        None => format!("{head}:{}", indented(body.lines())),
        Some((old, before)) => {
            let difference = similar::TextDiff::from_lines(before.as_str(), body);
            let changes = difference.unified_diff().context_radius(2).to_string();
            format!(
                "{head}; what changed since {}, which is accepted:{}",
                old.id(),
                indented(changes.lines())
            )
        }
    }
}

/// Lines of somebody else, each as the terminal may have it.
fn indented<'a>(lines: impl Iterator<Item = &'a str> + Clone) -> String {
    let line =
        |line: &str| format!("\n  | {}", line.split('\t').map(printable).collect::<Vec<_>>().join("    "));
    let count = lines.clone().count();
    let more = (count > MOST_LINES).then(|| format!("\n  | ... and {} lines more", count - MOST_LINES));
    lines.take(MOST_LINES).map(line).chain(more).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_shown_without_what_a_terminal_would_obey() {
        assert_eq!(indented("a\tb\n\u{1b}[2Jc".lines()), "\n  | a    b\n  | \\u{1b}[2Jc");
        let long = "x\n".repeat(MOST_LINES + 3);
        assert!(indented(long.lines()).ends_with("... and 3 lines more"));
    }
}
