//! Why one requirement is not met, or one package cannot be there, and what would do instead.

use crate::base::problem::shared;
use std::collections::BTreeSet;

use super::propagate::Solver;
use super::universe::{NameId, PackageId, Provider, Requirement};

/// A reason, and what would do.
type Reason = (String, Option<String>);

/// How alike a name must be to be offered instead (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.87;
/// Whether two names can be that alike, by the letters that they share: of many thousands, few need a closer look.
fn may_be_alike(one: &str, other: &str) -> bool {
    let (a, b) = (one.chars().count() as f64, other.chars().count() as f64);
    let shared = (shared(one, other) as f64).min(a).min(b);
    let jaro = (shared / a + shared / b + 1.0) / 3.0;
    // A beginning that both have adds at most 0.4 of what is left.
    0.6 * jaro + 0.4 >= ALIKE
}

/// Longest list of names in a message.
const MAX_NAMES: usize = 5;
/// How many packages deep a reason is looked for: `a needs b, which needs c, which no repository has`.
pub(super) const DEPTH: usize = 4;

impl Solver<'_, '_, '_> {
    /// Why nothing that is chosen meets a requirement that is no conflict.
    pub(super) fn why_unmet(&self, need: Requirement<'_>, of: Option<PackageId>) -> Reason {
        let packages = &self.universe.packages;
        let (name, providers) = (self.universe.names[need.name], self.universe.providers(need.name));
        let fits = |provider: &&Provider<'_>| need.is_met_by(of, Some(**provider), packages);
        let fitting: Vec<PackageId> = providers.iter().filter(fits).map(|p| p.package).collect();
        if providers.is_empty() {
            return self.nobody_has(name.text);
        }
        if fitting.is_empty() {
            return self.no_version_fits(need.name);
        }
        let reason = fitting.iter().rev().find_map(|package| Some((package, self.why_not(*package, DEPTH)?)));
        let chosen = self.names[need.name].chosen.map(|chosen| self.id(chosen.package));
        match (reason, chosen) {
            (Some((package, (why, hint))), _) => (format!("{} {why}", self.id(*package)), hint),
            (None, Some(chosen)) => (format!("{chosen} is installed instead"), None),
            (None, None) => {
                let packages = self.package_names(need.name);
                let what = if packages.len() == 1 { "add it" } else { "add one of them" };
                let hint = format!("it is provided by {}; {what} to the world", listed(&packages));
                ("no package has this name".into(), Some(hint))
            }
        }
    }

    /// No package has this name.
    fn nobody_has(&self, name: &str) -> Reason {
        let label = |(label, _): &&(&str, &str)| {
            let version = label.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
            version.is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
        };
        if let Some((label, reason)) = self.universe.rejected.iter().find(label) {
            return (format!("{label} cannot be installed: {reason}"), None);
        }
        let hint = self.alike(name);
        if name.contains([':', '/']) {
            return ("no package provides it".into(), hint);
        }
        let command = format!("cmd:{name}");
        let is_it = |id: &NameId| self.universe.names[*id].text == command && self.is_had(*id);
        match (0..self.universe.names.len()).find(is_it) {
            Some(command) => {
                let packages = listed(&self.package_names(command));
                ("no such package".into(), Some(format!("the command {name} is in {packages}")))
            }
            None => ("no such package".into(), hint),
        }
    }

    /// Packages have this name, but in none of the versions that are asked for.
    fn no_version_fits(&self, name: NameId) -> Reason {
        let (packages, providers) = (&self.universe.packages, self.universe.providers(name));
        let versions = |own: bool| {
            let of_kind = providers.iter().filter(|p| (packages[p.package].name == name) == own);
            of_kind.filter_map(|p| p.version).map(ToString::to_string).collect::<Vec<_>>()
        };
        let (own, provided) = (versions(true), versions(false));
        match (own.as_slice(), provided.as_slice()) {
            ([], []) => ("it is provided without a version".into(), Some(self.provided_by(name))),
            ([], provided) => {
                let what = format!("the repositories have it in {}", listed(provided));
                (what, Some(self.provided_by(name)))
            }
            (own, _) => {
                (format!("the repositories have {} {}", self.universe.names[name].text, listed(own)), None)
            }
        }
    }

    /// The name that was meant, among those of the same kind.
    fn alike(&self, name: &str) -> Option<String> {
        let kind = |text: &str| text.split_once(':').map(|(kind, _)| kind.to_owned());
        let (packages, own) = (&self.universe.packages, kind(name));
        let fits = |id: &NameId| {
            let mut providers = self.universe.providers(*id).iter();
            let is_real = providers.any(|provider| packages[provider.package].name == *id);
            if own.is_none() {
                is_real
            } else {
                self.is_had(*id) && kind(self.universe.names[*id].text) == own
            }
        };
        let names = (0..self.universe.names.len()).filter(fits).map(|id| self.universe.names[id].text);
        let scored = names
            .filter(|other| may_be_alike(name, other))
            .map(|other| (strsim::jaro_winkler(name, other), other));
        let best = scored.max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1)))?;
        (best.0 >= ALIKE).then(|| format!("did you mean {}?", best.1))
    }

    fn is_had(&self, name: NameId) -> bool {
        !self.universe.providers(name).is_empty()
    }

    fn package_names(&self, name: NameId) -> Vec<String> {
        let package = |provider: &Provider<'_>| self.universe.packages[provider.package].info.name.clone();
        self.universe.providers(name).iter().map(package).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn provided_by(&self, name: NameId) -> String {
        format!("it is provided by {}", listed(&self.package_names(name)))
    }

    /// Why a package cannot be there, to stand behind its name; `None` where nothing speaks against it.
    pub(super) fn why_not(&self, id: PackageId, depth: usize) -> Option<Reason> {
        let (package, state) = (&self.universe.packages[id], &self.packages[id]);
        if !package.fits_arch {
            return Some((format!("is for {}", package.info.arch), None));
        }
        if !state.tag_ok {
            let tags = self.universe.tags.iter().filter(|(_, set)| set & package.repositories != 0);
            let tag = tags.map(|(tag, _)| *tag).next()?;
            let hint = format!("write {}@{tag} to take it from there", package.info.name);
            return Some((format!("is only in the repository with the tag {tag}"), Some(hint)));
        }
        if state.selectable {
            return None;
        }
        let why = self.opponent(id).or_else(|| self.rival(id));
        if let Some(why) = why {
            return Some((format!("cannot be installed: {why}"), None));
        }
        let (why, hint) = self.lacking(id, depth)?;
        Some((format!("cannot be installed: it needs {why}"), hint))
    }

    /// Who requirements for what this package does not meet though it has the name.
    fn opponent(&self, id: PackageId) -> Option<String> {
        let packages = &self.universe.packages;
        let names = self.names_of(id);
        let in_the_way = |of: Option<PackageId>, need: &Requirement<'_>| {
            names
                .iter()
                .any(|provider| provider.0 == need.name && !need.is_met_by(of, Some(provider.1), packages))
        };
        if let Some(need) = self.universe.world.iter().find(|need| in_the_way(None, need)) {
            return Some(format!("the world needs {}", need.text));
        }
        let chosen = (0..packages.len()).filter(|package| self.packages[*package].in_order);
        let mut needs = chosen.flat_map(|of| packages[of].depends.iter().map(move |need| (of, need)));
        let (of, need) = needs.find(|(of, need)| in_the_way(Some(*of), need))?;
        Some(format!("{} wants {}", self.id(of), need.text))
    }

    /// Another package that is chosen and owns one of its names.
    fn rival(&self, id: PackageId) -> Option<String> {
        self.names_of(id).into_iter().find_map(|(name, own)| {
            let chosen = self.names[name].chosen.filter(|chosen| chosen.package != id)?;
            let both_virtual = chosen.version.is_none() && own.version.is_none();
            let text = self.universe.names[name].text;
            (!both_virtual).then(|| format!("{} is {text} already", self.id(chosen.package)))
        })
    }

    /// A requirement of this package itself that cannot be met.
    fn lacking(&self, id: PackageId, depth: usize) -> Option<Reason> {
        let depth = depth.checked_sub(1)?;
        let packages = &self.universe.packages;
        packages[id].depends.iter().filter(|need| !need.text.conflict).find_map(|need| {
            let fits = |provider: &&Provider<'_>| need.is_met_by(Some(id), Some(**provider), packages);
            let providers = self.universe.providers(need.name).iter();
            let mut fitting = providers.filter(fits).map(|provider| provider.package);
            let Some(best) = fitting.next_back() else {
                let (why, hint) = self.why_unmet(*need, Some(id));
                return Some((format!("{} ({why})", need.text), hint));
            };
            let (why, hint) = self.why_not(best, depth)?;
            Some((format!("{}, and {} {why}", need.text, self.id(best)), hint))
        })
    }

    /// Every name that a package has.
    fn names_of(&self, id: PackageId) -> Vec<(NameId, Provider<'_>)> {
        let package = &self.universe.packages[id];
        let own = (package.name, Some(&package.info.version));
        let names = std::iter::once(own).chain(package.provides.iter().copied());
        names.map(|(name, version)| (name, Provider { package: id, version })).collect()
    }
}

/// The first names of a list.
pub(super) fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(MAX_NAMES);
    let shown = names.iter().take(MAX_NAMES).cloned().collect::<Vec<_>>().join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}
