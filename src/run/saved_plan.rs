//! A plan that was looked at and kept in a file: `up` carries out just that, or nothing.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::{Class, Diagnosis, Diagnostic, FleetName, GuestName, Sha256};
use crate::plan::Plan;
use crate::sys::fs::{self, FileError};

/// The form of the file; another one is refused.
const FORMAT: u32 = 1;

/// Most lines that are told of how a plan differs by now.
const TOLD_MAX: usize = 12;

/// What the file says: no secrets, and nothing that is trusted. `up` finds out again what it would do, and compares.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SavedPlan {
    /// [`FORMAT`].
    sisforge_plan: u32,
    /// The sisforge that wrote it: another may take other steps.
    version: String,
    fleet: FleetName,
    /// The guests that it is for; all where none is named.
    pub guests: Vec<GuestName>,
    /// Of every step with all that it says.
    digest: Sha256,
    /// For people.
    steps: Vec<String>,
}

/// Why a plan was not kept, or is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum SavedPlanError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} is no plan that `sisforge plan --out` wrote", .0.display())]
    NoPlan(PathBuf),
    #[error("{} was written by sisforge {version}", path.display())]
    Version { path: PathBuf, version: String },
    #[error("{} is for the fleet {fleet}", path.display())]
    Fleet { path: PathBuf, fleet: FleetName },
    #[error("a plan cannot be kept before everything is built; not built yet: {}", .0.join(", "))]
    Unbuilt(Vec<String>),
    #[error("the plan in {} is out of date: the host, or what it should be, changed since{}", path.display(), lines(.now))]
    OutOfDate { path: PathBuf, now: Vec<String> },
    #[error("{} is there already, and is not a saved plan", .0.display())]
    Exists(PathBuf),
    #[error("cannot write the plan as JSON")]
    Text(#[source] serde_json::Error),
}

fn lines(now: &[String]) -> String {
    now.iter().map(|line| format!("\n  {line}")).collect()
}

impl Diagnostic for SavedPlanError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::File(error) => error.diagnosis(),
            Self::NoPlan(_) => {
                Class::Invalid.hint("name a file that `sisforge plan --out FILE` wrote, or guests")
            }
            Self::Version { .. } | Self::OutOfDate { .. } => {
                Class::Failed.hint("look at it again, and keep that: `sisforge plan --out FILE`")
            }
            Self::Fleet { .. } => Class::Invalid.hint("name the fleet's own file with --file"),
            Self::Unbuilt(_) => Class::Failed.hint("run `sisforge build` first"),
            Self::Text(_) => Class::Failed.no_hint(),
            Self::Exists(_) => Class::Invalid.hint("choose another file"),
        }
    }
}

impl SavedPlan {
    /// The plan of a fleet for these guests, or for all where none is named.
    pub fn new(plan: &Plan, fleet: &FleetName, guests: &[GuestName]) -> Self {
        Self {
            sisforge_plan: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            fleet: fleet.clone(),
            guests: guests.to_vec(),
            digest: digest(plan),
            steps: plan.detailed().lines().map(str::to_owned).collect(),
        }
    }

    /// Writes it, in the place of an older one.
    pub fn write(&self, path: &Path) -> Result<(), SavedPlanError> {
        if path.exists() && Self::parse(&fs::read_text(path)?).is_none() {
            return Err(SavedPlanError::Exists(path.to_owned()));
        }
        fs::require_dir_of(path)?;
        let text = serde_json::to_string_pretty(self).map_err(SavedPlanError::Text)? + "\n";
        Ok(fs::write(path, text.as_bytes(), 0o644)?)
    }

    /// Reads one that this sisforge wrote for this fleet.
    pub fn read(path: &Path, fleet: &FleetName) -> Result<Self, SavedPlanError> {
        let no_plan = || SavedPlanError::NoPlan(path.to_owned());
        let saved = Self::parse(&fs::read_text(path)?).ok_or_else(no_plan)?;
        let path = path.to_owned();
        if saved.sisforge_plan != FORMAT || saved.version != env!("CARGO_PKG_VERSION") {
            return Err(SavedPlanError::Version { path, version: saved.version });
        }
        if saved.fleet != *fleet {
            return Err(SavedPlanError::Fleet { path, fleet: saved.fleet });
        }
        Ok(saved)
    }

    fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Looks whether a plan that was found out now is the same.
    pub fn check(&self, plan: &Plan, path: &Path) -> Result<(), SavedPlanError> {
        if digest(plan) == self.digest {
            return Ok(());
        }
        let text = plan.detailed();
        let now: Vec<&str> = text.lines().collect();
        let gone =
            self.steps.iter().filter(|line| !now.contains(&line.as_str())).map(|line| format!("- {line}"));
        let new = now
            .iter()
            .filter(|line| !self.steps.iter().any(|old| old == *line))
            .map(|line| format!("+ {line}"));
        let mut told: Vec<_> = gone.chain(new).collect();
        if told.len() > TOLD_MAX {
            let more = told.split_off(TOLD_MAX).len();
            told.push(format!("and {more} lines more"));
        }
        Err(SavedPlanError::OutOfDate { path: path.to_owned(), now: told })
    }
}

/// Of all that a plan does. Notes are no part of it: memory that is free changes by the second.
fn digest(Plan { prepare, stop, rules, start, .. }: &Plan) -> Sha256 {
    Sha256::of(format!("{prepare:?} {stop:?} {rules:?} {start:?}"))
}
