//! What is still wanted of a build, where whoever asked for it may learn better while it runs.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::sys::report::{Report, Severity, Silent, Task, Unit};

use super::{Inputs, LockedProject, RunError, Workspace};

/// The report of a build that tells it what is still wanted.
pub struct Demand<'a> {
    report: &'a dyn Report,
    /// Keys of artifacts; all are wanted where there are none.
    keys: Mutex<Option<BTreeSet<String>>>,
}

impl<'a> Demand<'a> {
    /// Everything is wanted.
    pub fn of_all(report: &'a dyn Report) -> Self {
        Self { report, keys: Mutex::default() }
    }

    /// From now on these artifacts alone are wanted, or all again.
    pub fn change(&self, keys: Option<BTreeSet<String>>) {
        *self.keys() = keys;
    }

    fn keys(&self) -> MutexGuard<'_, Option<BTreeSet<String>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Report for Demand<'_> {
    fn begin(&self, name: &str, total: Option<u64>, unit: Unit) -> Box<dyn Task> {
        self.report.begin(name, total, unit)
    }

    fn say(&self, severity: Severity, text: &str) {
        self.report.say(severity, text);
    }

    fn is_wanted(&self, key: &str) -> bool {
        self.keys().as_ref().is_none_or(|keys| keys.contains(key))
    }
}

/// Keys of all that a fleet is built of, which are known before it is.
pub fn keys_of(workspace: &Workspace<'_>) -> Result<BTreeSet<String>, RunError> {
    let workspace = Workspace { report: &Silent, settings: workspace.settings.clone() };
    let locked = LockedProject::open(&workspace, Inputs::Foreseen { must_fit: true })?;
    let artifacts = locked.builder().artifacts()?;
    Ok(artifacts.all().map(|artifact| artifact.key.to_string()).collect())
}
