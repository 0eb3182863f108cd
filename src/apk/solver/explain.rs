//! Why a world has no answer, in words that a person can act on.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;

use super::propagate::Solver;
use super::universe::{NameId, PackageId, Wish};
use crate::apk::dependency::Constraint;

/// A world that cannot be met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SolveError {
    pub problems: Vec<Problem>,
}

/// One reason why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What cannot be met, and why: `podman~9: the repositories have podman 4.3.1-r0`.
    pub what: String,
    /// The packages by way of which it is needed, from the world on; empty where the world itself names it.
    pub by_way_of: Vec<String>,
    /// What would do.
    pub hint: Option<String>,
}

impl std::error::Error for SolveError {}

impl fmt::Display for SolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.problems.iter().map(Problem::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        if !self.by_way_of.is_empty() {
            write!(f, " (needed by {})", self.by_way_of.join(" -> "))?;
        }
        Ok(())
    }
}

impl SolveError {
    pub(super) fn new(problems: Vec<Problem>) -> Self {
        Self { problems }
    }

    pub(super) fn too_many(repositories: usize) -> Self {
        Self::plain(format!("there are {repositories} repositories; at most 64 can be used together"))
    }

    pub(super) fn no_thread(error: &std::io::Error) -> Self {
        Self::plain(format!("cannot start a thread to solve in: {error}"))
    }

    fn plain(what: String) -> Self {
        Self { problems: vec![Problem { what, by_way_of: Vec::new(), hint: None }] }
    }
}

/// How alike a name must be to be offered instead (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.87;
/// Longest list of names in a message.
const MAX_NAMES: usize = 5;

impl Solver<'_, '_, '_> {
    /// Every wish of the chosen packages and of the world that is not met. Empty where the solution holds.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut reached = vec![false; self.universe.packages.len()];
        let mut open: VecDeque<(Option<PackageId>, Vec<String>)> = VecDeque::from([(None, Vec::new())]);
        while let Some((package, path)) = open.pop_front() {
            let wishes =
                package.map_or(&self.universe.world, |package| &self.universe.packages[package].depends);
            for wish in wishes {
                let chosen = self.names[wish.name].chosen;
                if !wish.is_met_by(chosen, &self.universe.packages) {
                    problems.push(self.unmet(*wish, &path));
                }
                let Some(chosen) = chosen.filter(|_| !wish.text.conflict) else { continue };
                if !std::mem::replace(&mut reached[chosen.package], true) {
                    problems.extend(self.broken(chosen.package, &path));
                    let id = self.universe.packages[chosen.package].info.id();
                    open.push_back((Some(chosen.package), [&path[..], &[id]].concat()));
                }
            }
        }
        let clashes: BTreeSet<_> = self.clashes.iter().copied().collect();
        problems.extend(clashes.into_iter().map(|(name, a, b)| self.clash(name, a, b)));
        let mut told = BTreeSet::new();
        problems.retain(|problem| told.insert(problem.what.clone()));
        problems
    }

    fn unmet(&self, wish: Wish<'_>, path: &[String]) -> Problem {
        let universe = self.universe;
        let name = &universe.names[wish.name];
        let text = wish.text;
        let chosen = self.names[wish.name].chosen.map(|chosen| universe.packages[chosen.package].info.id());
        let real: Vec<String> = name
            .providers
            .iter()
            .filter(|provider| universe.packages[provider.package].name == wish.name)
            .map(|provider| universe.packages[provider.package].info.version.to_string())
            .collect();
        let providers: BTreeSet<String> = name
            .providers
            .iter()
            .map(|provider| universe.packages[provider.package].info.name.clone())
            .collect();
        let (what, hint) = match chosen {
            Some(chosen) if text.conflict => (format!("{text}: but {chosen} is needed"), None),
            _ if name.providers.is_empty() => (format!("{text}: no such package"), self.alike(name.text)),
            Some(chosen) => (format!("{text}: it would be {chosen}, which does not fit"), None),
            None if !real.is_empty() && text.constraint != Constraint::Any => {
                (format!("{text}: the repositories have {} {}", name.text, listed(&real)), None)
            }
            None if real.is_empty() && text.constraint != Constraint::Any => {
                (format!("{text}: no package provides it in this version"), Some(provided_by(&providers)))
            }
            None if real.is_empty() => (
                format!("{text}: no package of this name"),
                Some(format!("{}; name one of them", provided_by(&providers))),
            ),
            None => (format!("{text}: no version of it can be installed with the rest"), None),
        };
        Problem { what, by_way_of: path.to_vec(), hint }
    }

    fn alike(&self, name: &str) -> Option<String> {
        let packages = self.universe.packages.iter().map(|package| package.info.name.as_str());
        let scored = packages.map(|other| (strsim::jaro_winkler(name, other), other));
        let best = scored.max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1)))?;
        (best.0 >= ALIKE).then(|| format!("did you mean {}?", best.1))
    }

    /// A package that was chosen though it cannot be installed.
    fn broken(&self, id: PackageId, path: &[String]) -> Option<Problem> {
        let (package, state) = (&self.universe.packages[id], &self.packages[id]);
        let label = package.info.id();
        let (what, hint) = if !package.fits_arch {
            (format!("{label} is for {}", package.info.arch), None)
        } else if !state.tag_ok {
            let hint = format!("write {}@TAG with the tag of that repository", package.info.name);
            (format!("{label} is only in a tagged repository"), Some(hint))
        } else if !state.selectable {
            (format!("{label} cannot be installed with the rest"), None)
        } else {
            return None;
        };
        Some(Problem { what, by_way_of: path.to_vec(), hint })
    }

    fn clash(&self, name: NameId, a: PackageId, b: PackageId) -> Problem {
        let id = |package: PackageId| self.universe.packages[package].info.id();
        let what = format!(
            "{} and {} cannot stand together: both are {}",
            id(a),
            id(b),
            self.universe.names[name].text
        );
        Problem { what, by_way_of: Vec::new(), hint: None }
    }
}

fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(MAX_NAMES);
    let shown = names.iter().take(MAX_NAMES).cloned().collect::<Vec<_>>().join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

fn provided_by(names: &BTreeSet<String>) -> String {
    format!("it is provided by {}", listed(&names.iter().cloned().collect::<Vec<_>>()))
}
