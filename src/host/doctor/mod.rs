//! Is a host ready for a fleet, and hardened: each check a pure function of what was read of the host.
//!
//! The list is that of the reference; Firecracker's `docs/prod-host-setup.md` gives most of the reasons.

mod facts;
mod hardening;
mod network;
mod resources;
mod sample;
mod vmm;

use schemars::JsonSchema;
use serde::Serialize;

pub use facts::{DirectoryFacts, Facts, FleetRequirements, HUGE_PAGE, Kvm, Program, Uplink};
pub use sample::ruleset as sample_ruleset;

/// How much hangs on a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Guests do not run, or the policy does not hold.
    Fatal,
    /// Guests run, and are less well kept apart than they should be.
    Error,
    /// It will matter sooner or later.
    Warning,
}

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Pass,
    Warn,
    Fail,
    /// This fleet has no use for it.
    Unneeded,
}

/// What checks are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CheckGroup {
    Vmm,
    Resources,
    Hardening,
    Network,
}

impl CheckGroup {
    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Vmm => "running guests",
            Self::Resources => "resources",
            Self::Hardening => "keeping guests apart",
            Self::Network => "network",
        }
    }
}

/// Something that can be set at once, and undone as easily.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fix {
    /// By its name, such as `net.ipv4.ip_forward`.
    Sysctl { key: String, value: String },
    /// A file below `/sys`.
    File { path: String, value: String },
}

impl Fix {
    fn sysctl(key: &str, value: impl ToString) -> Self {
        Self::Sysctl { key: key.to_owned(), value: value.to_string() }
    }

    /// The file and the line in it by which it is set at each boot (sysctl.d(5), tmpfiles.d(5)).
    pub fn permanent(&self) -> (&'static str, String) {
        match self {
            Self::Sysctl { key, value } => ("/etc/sysctl.d/60-sisforge.conf", format!("{key} = {value}")),
            Self::File { path, value } => {
                ("/etc/tmpfiles.d/60-sisforge.conf", format!("w {path} - - - - {value}"))
            }
        }
    }
}

impl std::fmt::Display for Fix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sysctl { key, value } => write!(f, "{key} = {value}"),
            Self::File { path, value } => write!(f, "{path}: {value}"),
        }
    }
}

/// One check and what it found.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Check {
    /// Such as `ip-forward`; it stays the same over releases.
    pub id: &'static str,
    pub group: CheckGroup,
    pub level: Level,
    pub verdict: Verdict,
    /// What was read.
    pub found: String,
    /// Why it matters.
    pub why: &'static str,
    /// What to do; empty where there is nothing to do.
    pub remedy: String,
    /// What `--fix` sets.
    pub fixes: Vec<Fix>,
}

/// A check before its facts are looked at.
#[derive(Clone, Copy)]
struct Rule {
    id: &'static str,
    group: CheckGroup,
    level: Level,
    why: &'static str,
}

impl Rule {
    fn check(self, verdict: Verdict, found: impl Into<String>, remedy: impl Into<String>) -> Check {
        let Self { id, group, level, why } = self;
        Check {
            id,
            group,
            level,
            verdict,
            found: found.into(),
            why,
            remedy: remedy.into(),
            fixes: Vec::new(),
        }
    }

    fn pass(self, found: impl Into<String>) -> Check {
        self.check(Verdict::Pass, found, "")
    }

    fn missed(self, found: impl Into<String>, remedy: impl Into<String>) -> Check {
        let verdict = if self.level == Level::Warning { Verdict::Warn } else { Verdict::Fail };
        self.check(verdict, found, remedy)
    }

    fn passes_if(self, passes: bool, found: impl Into<String>, remedy: impl Into<String>) -> Check {
        if passes { self.pass(found) } else { self.missed(found, remedy) }
    }

    /// What could not be read is neither right nor wrong.
    fn unknown(self, found: impl Into<String>, remedy: impl Into<String>) -> Check {
        self.check(Verdict::Warn, found, remedy)
    }

    fn unneeded(self, found: impl Into<String>) -> Check {
        self.check(Verdict::Unneeded, found, "")
    }
}

impl Check {
    fn fixed_by(self, fixes: Vec<Fix>) -> Self {
        // What passes needs no fix.
        if matches!(self.verdict, Verdict::Warn | Verdict::Fail) { Self { fixes, ..self } } else { self }
    }
}

/// Every check of the list, in order.
pub fn checks(facts: &Facts, wants: &FleetRequirements) -> Vec<Check> {
    let all: [fn(&Facts, &FleetRequirements) -> Vec<Check>; 4] =
        [vmm::checks, resources::checks, hardening::checks, network::checks];
    all.iter().flat_map(|group| group(facts, wants)).collect()
}

/// Whether a host is ready: whether no check failed.
pub fn is_ready(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.verdict != Verdict::Fail)
}

#[cfg(test)]
mod tests;
