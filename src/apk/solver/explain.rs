//! Why a world has no answer, in words that a person can act on.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;

use super::propagate::Solver;
use super::universe::{Name, NameId, PackageId, Provider, Wish};

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
        let (mut problems, mut broken) = (Vec::new(), Vec::new());
        let mut ways = Ways { parents: vec![None; self.universe.packages.len()] };
        let mut open: VecDeque<Option<PackageId>> = VecDeque::from([None]);
        while let Some(package) = open.pop_front() {
            let wishes =
                package.map_or(&self.universe.world, |package| &self.universe.packages[package].depends);
            for wish in wishes {
                let chosen = self.names[wish.name].chosen;
                if !wish.is_met_by(package, chosen, &self.universe.packages) {
                    problems.push(self.unmet(*wish, ways.to(package, self)));
                }
                let Some(chosen) = chosen.filter(|_| !wish.text.conflict) else { continue };
                if ways.parents[chosen.package].is_none() {
                    ways.parents[chosen.package] = Some(package);
                    broken.extend(self.broken(chosen.package, || ways.to(package, self)));
                    open.push_back(Some(chosen.package));
                }
            }
        }
        let clashes: BTreeSet<_> = self.clashes.iter().copied().collect();
        problems.extend(clashes.into_iter().map(|(name, a, b)| self.clash(name, a, b)));
        // A package that is broken because of a wish is explained by that wish.
        if problems.is_empty() {
            problems = broken;
        }
        let mut told = BTreeSet::new();
        problems.retain(|problem| told.insert(problem.what.clone()));
        problems
    }

    fn unmet(&self, wish: Wish<'_>, by_way_of: Vec<String>) -> Problem {
        let text = wish.text;
        let (why, hint) = self.reason(wish);
        Problem { what: format!("{text}: {why}"), by_way_of, hint }
    }

    /// Why a wish is not met, and what would do.
    fn reason(&self, wish: Wish<'_>) -> (String, Option<String>) {
        let packages = &self.universe.packages;
        let name = &self.universe.names[wish.name];
        let chosen = self.names[wish.name].chosen.map(|chosen| packages[chosen.package].info.id());
        let fits_some = name.providers.iter().any(|provider| wish.is_met_by(None, Some(*provider), packages));
        let real: Vec<String> = name
            .providers
            .iter()
            .filter(|provider| packages[provider.package].name == wish.name)
            .map(|provider| packages[provider.package].info.version.to_string())
            .collect();
        match chosen {
            Some(chosen) if wish.text.conflict => (format!("but {chosen} is needed"), None),
            _ if name.providers.is_empty() => ("no such package".into(), self.alike(name.text)),
            _ if !fits_some && !real.is_empty() => {
                (format!("the repositories have {} {}", name.text, listed(&real)), None)
            }
            _ if !fits_some => {
                ("no package provides it in this version".into(), Some(self.provided_by(name)))
            }
            Some(chosen) => (format!("it would be {chosen}, which does not fit"), None),
            None if real.is_empty() => {
                let hint = format!("{}; name one of them", self.provided_by(name));
                ("no package is called so".into(), Some(hint))
            }
            None => ("it cannot be installed with the rest".into(), None),
        }
    }

    fn alike(&self, name: &str) -> Option<String> {
        let packages = self.universe.packages.iter().map(|package| package.info.name.as_str());
        let scored = packages.map(|other| (strsim::jaro_winkler(name, other), other));
        let best = scored.max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1)))?;
        (best.0 >= ALIKE).then(|| format!("did you mean {}?", best.1))
    }

    fn provided_by(&self, name: &Name<'_>) -> String {
        let package = |provider: &Provider<'_>| self.universe.packages[provider.package].info.name.clone();
        let names: BTreeSet<String> = name.providers.iter().map(package).collect();
        format!("it is provided by {}", listed(&names.into_iter().collect::<Vec<_>>()))
    }

    /// A package that was chosen though it cannot be installed.
    fn broken(&self, id: PackageId, by_way_of: impl FnOnce() -> Vec<String>) -> Option<Problem> {
        let (package, state) = (&self.universe.packages[id], &self.packages[id]);
        let label = package.info.id();
        let (what, hint) = if !package.fits_arch {
            (format!("{label} is for {}", package.info.arch), None)
        } else if !state.tag_ok {
            let hint = format!("write {}@TAG with the tag of that repository", package.info.name);
            (format!("{label} is only in a tagged repository"), Some(hint))
        } else if !state.selectable {
            match self.opponent(id) {
                Some(opponent) => (format!("{label} cannot be installed: {opponent}"), None),
                None => (format!("{label} cannot be installed with the rest"), None),
            }
        } else {
            return None;
        };
        Some(Problem { what, by_way_of: by_way_of(), hint })
    }

    /// Who wishes for what this package does not meet though it has the name.
    fn opponent(&self, id: PackageId) -> Option<String> {
        let packages = &self.universe.packages;
        let own = (packages[id].name, Some(&packages[id].info.version));
        let names: Vec<_> = std::iter::once(own).chain(packages[id].provides.iter().copied()).collect();
        let in_the_way = |of: Option<PackageId>, wish: &Wish<'_>| {
            names.iter().any(|(name, version)| {
                let provider = Provider { package: id, version: *version };
                *name == wish.name && !wish.is_met_by(of, Some(provider), packages)
            })
        };
        if let Some(wish) = self.universe.world.iter().find(|wish| in_the_way(None, wish)) {
            return Some(format!("the world wants {}", wish.text));
        }
        let chosen = (0..packages.len()).filter(|package| self.packages[*package].in_order);
        let mut wishes = chosen.flat_map(|of| packages[of].depends.iter().map(move |wish| (of, wish)));
        let (of, wish) = wishes.find(|(of, wish)| in_the_way(Some(*of), wish))?;
        Some(format!("{} wants {}", packages[of].info.id(), wish.text))
    }

    fn clash(&self, name: NameId, a: PackageId, b: PackageId) -> Problem {
        let id = |package: PackageId| self.universe.packages[package].info.id();
        let text = self.universe.names[name].text;
        let what = if a == b {
            format!("{} cannot be installed: it is {text} twice", id(a))
        } else {
            format!("{} and {} cannot stand together: both are {text}", id(a), id(b))
        };
        Problem { what, by_way_of: Vec::new(), hint: None }
    }
}

/// From which package each was first reached: `Some(None)` from the world.
struct Ways {
    parents: Vec<Option<Option<PackageId>>>,
}

impl Ways {
    /// The packages from the world to this one.
    fn to(&self, package: Option<PackageId>, solver: &Solver<'_, '_, '_>) -> Vec<String> {
        let parent = |package: &PackageId| self.parents[*package].flatten();
        let back = std::iter::successors(package, parent);
        let mut way: Vec<String> = back.map(|id| solver.universe.packages[id].info.id()).collect();
        way.reverse();
        way
    }
}

fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(MAX_NAMES);
    let shown = names.iter().take(MAX_NAMES).cloned().collect::<Vec<_>>().join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}
