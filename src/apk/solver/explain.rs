//! Why a world has no answer, in words that a person can act on.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;

use crate::base::{Class, Diagnosis, Diagnostic};

use super::propagate::Solver;
use super::reason::{DEPTH, listed};
use super::universe::{NameId, PackageId, Requirement};

/// A world that cannot be met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SolveError {
    pub problems: Vec<SolverProblem>,
}

/// One reason why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SolverProblem {
    /// What cannot be met, and why: `podman~9: the repositories have podman 4.3.1-r0`.
    pub what: String,
    /// The packages by way of which it is needed, from the world on; empty where the world itself names it.
    pub by_way_of: Vec<String>,
    /// What would do.
    pub hint: Option<String>,
}

impl std::error::Error for SolveError {}

impl Diagnostic for SolveError {
    /// Each problem tells itself what would do.
    fn diagnosis(&self) -> Diagnosis {
        Class::Invalid.no_hint()
    }
}

impl fmt::Display for SolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.problems.iter().map(SolverProblem::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl fmt::Display for SolverProblem {
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
    pub(super) fn new(problems: Vec<SolverProblem>) -> Self {
        Self { problems }
    }

    pub(super) fn too_many(repositories: usize) -> Self {
        Self::plain(format!("there are {repositories} repositories; at most 64 can be used together"))
    }

    pub(super) fn no_thread(error: &std::io::Error) -> Self {
        Self::plain(format!("cannot start a thread to solve in: {error}"))
    }

    fn plain(what: String) -> Self {
        Self { problems: vec![SolverProblem { what, by_way_of: Vec::new(), hint: None }] }
    }
}

impl Solver<'_, '_, '_> {
    /// Every requirement of the chosen packages and of the world that is not met. Empty where the solution holds.
    pub fn problems(&self) -> Vec<SolverProblem> {
        let ways = DependencyPaths::of(self);
        let (mut problems, mut broken) = (self.unknown_tags(), Vec::new());
        for package in std::iter::once(None).chain(ways.reached.iter().copied().map(Some)) {
            for need in self.needs_of(package) {
                if !need.is_met_by(package, self.names[need.name].chosen, &self.universe.packages) {
                    problems.push(self.unmet(*need, package, &ways));
                }
            }
            broken.extend(package.and_then(|package| self.broken(package, &ways)));
        }
        let clashes: BTreeSet<_> = self.clashes.iter().copied().collect();
        problems.extend(clashes.into_iter().map(|(name, a, b)| self.clash(name, a, b, &ways)));
        // A package that is broken because of a requirement is explained by that requirement.
        if problems.is_empty() {
            problems = broken;
        }
        let mut told = BTreeSet::new();
        problems.retain(|problem| told.insert(problem.what.clone()));
        problems
    }

    /// The requirements of a package, or of the world.
    pub(super) fn needs_of(&self, package: Option<PackageId>) -> &[Requirement<'_>] {
        package.map_or(&self.universe.world, |package| &self.universe.packages[package].depends)
    }

    pub(super) fn id(&self, package: PackageId) -> String {
        self.universe.packages[package].info.id()
    }

    fn unknown_tags(&self) -> Vec<SolverProblem> {
        let tags: Vec<String> = self.universe.tags.iter().map(|(tag, _)| (*tag).to_owned()).collect();
        let mut problems = Vec::new();
        for Requirement { text, .. } in &self.universe.world {
            let Some(tag) = text.tag.as_deref().filter(|tag| !tags.iter().any(|known| known == tag)) else {
                continue;
            };
            let hint = match tags.as_slice() {
                [] => format!("give the repository that it should come from the tag {tag}"),
                tags => format!("there are {}", listed(tags)),
            };
            let what = format!("{text}: no repository has the tag {tag}");
            problems.push(SolverProblem { what, by_way_of: Vec::new(), hint: Some(hint) });
        }
        problems
    }

    fn unmet(&self, need: Requirement<'_>, of: Option<PackageId>, ways: &DependencyPaths) -> SolverProblem {
        let text = need.text;
        let chosen = self.names[need.name].chosen.filter(|_| text.conflict);
        let Some(chosen) = chosen else {
            let (why, hint) = self.why_unmet(need, of);
            return SolverProblem { what: format!("{text}: {why}"), by_way_of: ways.to(of, self), hint };
        };
        let why = self.needed_anyway(chosen.package, ways);
        let Some(of) = of else {
            return SolverProblem { what: format!("{text}: {why}"), by_way_of: Vec::new(), hint: None };
        };
        let excluded = text.to_string();
        let what = format!("{} conflicts with {}, {why}", self.id(of), excluded.trim_start_matches('!'));
        SolverProblem { what, by_way_of: ways.to(ways.parents[of].flatten(), self), hint: None }
    }

    /// Why a package is there that somebody excludes.
    fn needed_anyway(&self, package: PackageId, ways: &DependencyPaths) -> String {
        match ways.to(ways.parents[package].flatten(), self).as_slice() {
            [] => format!("but {} is asked for", self.id(package)),
            way => format!("but {} is needed by {}", self.id(package), way.join(" -> ")),
        }
    }

    /// A package that was chosen though it cannot be installed.
    fn broken(&self, package: PackageId, ways: &DependencyPaths) -> Option<SolverProblem> {
        let (why, hint) = self.why_not(package, DEPTH)?;
        let by_way_of = ways.to(ways.parents[package].flatten(), self);
        Some(SolverProblem { what: format!("{} {why}", self.id(package)), by_way_of, hint })
    }

    fn clash(&self, name: NameId, a: PackageId, b: PackageId, ways: &DependencyPaths) -> SolverProblem {
        let text = self.universe.names[name].text;
        let with_way = |package: PackageId| match ways.to(ways.parents[package].flatten(), self).as_slice() {
            [] => self.id(package),
            way => format!("{} (needed by {})", self.id(package), way.join(" -> ")),
        };
        let what = if a == b {
            format!("{} cannot be installed: it is {text} twice", with_way(a))
        } else {
            format!("{} and {} cannot be installed together: both are {text}", with_way(a), with_way(b))
        };
        SolverProblem { what, by_way_of: Vec::new(), hint: None }
    }
}

/// From which package each chosen one was first reached: `Some(None)` from the world.
struct DependencyPaths {
    parents: Vec<Option<Option<PackageId>>>,
    /// Nearest to the world first.
    reached: Vec<PackageId>,
}

impl DependencyPaths {
    fn of(solver: &Solver<'_, '_, '_>) -> Self {
        let packages = &solver.universe.packages;
        let mut ways = Self { parents: vec![None; packages.len()], reached: Vec::new() };
        ways.follow(None, solver);
        // What came by its install_if is needed by nobody, and has requirements of its own.
        for id in (0..packages.len()).filter(|id| solver.packages[*id].in_order) {
            if ways.parents[id].is_none() {
                let chosen = packages[id].install_if.iter().filter_map(|need| solver.names[need.name].chosen);
                let mut reached =
                    chosen.map(|chosen| chosen.package).filter(|by| ways.parents[*by].is_some());
                ways.parents[id] = Some(reached.next());
                ways.reached.push(id);
                ways.follow(Some(id), solver);
            }
        }
        ways
    }

    /// All that a package, or the world, needs directly or by others.
    fn follow(&mut self, from: Option<PackageId>, solver: &Solver<'_, '_, '_>) {
        let mut open = VecDeque::from([from]);
        while let Some(package) = open.pop_front() {
            for need in solver.needs_of(package).iter().filter(|need| !need.text.conflict) {
                let Some(chosen) = solver.names[need.name].chosen else { continue };
                if self.parents[chosen.package].is_none() {
                    self.parents[chosen.package] = Some(package);
                    self.reached.push(chosen.package);
                    open.push_back(Some(chosen.package));
                }
            }
        }
    }

    /// The packages from the world to this one.
    fn to(&self, package: Option<PackageId>, solver: &Solver<'_, '_, '_>) -> Vec<String> {
        let parent = |package: &PackageId| self.parents[*package].flatten();
        let mut way: Vec<String> = std::iter::successors(package, parent).map(|id| solver.id(id)).collect();
        way.reverse();
        way
    }
}
