//! How a command talks: what it was told to print, and how long work reports.

use std::path::Path;
use std::sync::Mutex;

use crate::run::{ArtifactSettings, Workspace, WorkspaceSettings};
use crate::sys::report::{Report, Severity, Silent, Task, Unit};

use super::output::WrittenJson;
use super::settings::Settings;
use super::{progress, render};

/// The settings of this run, and how it reports.
pub struct Ui {
    pub settings: Settings,
    pub report: Box<dyn Report>,
}

impl Ui {
    /// For these settings; `prints_events` says what the command prints with `--json`.
    pub fn new(settings: Settings, prints_events: bool) -> Self {
        let report = progress::reporter(&settings, prints_events);
        Self { settings, report }
    }

    /// What the library works on, which reports of long work as it goes.
    pub fn workspace(&self) -> Workspace<'_> {
        self.workspace_with(&*self.report)
    }

    /// What the library works on, where its artifacts come from elsewhere; by the signers that the host demands where no others are
    /// named.
    pub fn workspace_for(&self, artifacts: ArtifactSettings) -> Workspace<'_> {
        let workspace = self.workspace();
        let signers = artifacts.signers.or_else(|| workspace.settings.artifacts.signers.clone());
        let artifacts = ArtifactSettings { signers, ..artifacts };
        Workspace {
            settings: WorkspaceSettings { artifacts, ..workspace.settings },
            report: workspace.report,
        }
    }

    /// What the library works on, with another report: that of a command that prints one document.
    pub fn workspace_with<'a>(&self, report: &'a dyn Report) -> Workspace<'a> {
        let settings: WorkspaceSettings = self.settings.run.clone();
        Workspace { settings, report }
    }

    /// The report of a command that prints one document with `--json`: notes are kept for it.
    pub fn notes(&self) -> Notes<'_> {
        if self.settings.json {
            Notes { report: &Silent, kept: Some(Mutex::default()) }
        } else {
            Notes { report: &*self.report, kept: None }
        }
    }

    /// Says what a command did, unless it is to be quiet.
    pub fn say(&self, text: &str) {
        if !self.settings.quiet && !self.settings.json {
            render::tell(text);
        }
    }

    /// Says what to bear in mind, unless it is to be quiet.
    pub fn note(&self, text: &str) {
        self.say(&Severity::Note.labelled(text));
    }

    /// Says that a file was written, and more about it.
    pub fn wrote(&self, path: &Path, more: &str) {
        if self.settings.json {
            render::json(&WrittenJson { wrote: path.to_owned() });
        }
        self.say(&format!("wrote {}{more}", path.display()));
    }
}

/// Notes of long work: said as they come, or kept for the one document.
pub struct Notes<'a> {
    report: &'a dyn Report,
    kept: Option<Mutex<Vec<String>>>,
}

impl Notes<'_> {
    /// Those that were kept, one sentence each.
    pub fn into_list(self) -> Vec<String> {
        self.kept.and_then(|kept| kept.into_inner().ok()).unwrap_or_default()
    }
}

impl Report for Notes<'_> {
    fn begin(&self, name: &str, total: Option<u64>, unit: Unit) -> Box<dyn Task> {
        self.report.begin(name, total, unit)
    }

    fn say(&self, severity: Severity, text: &str) {
        match &self.kept {
            None => self.report.say(severity, text),
            Some(kept) => kept.lock().into_iter().for_each(|mut kept| kept.push(text.to_owned())),
        }
    }
}
