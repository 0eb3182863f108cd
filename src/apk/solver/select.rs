//! One name is given to one package; at the end, the chosen packages are put into the order of their installation.

use std::cmp::Ordering;

use super::Chosen;
use super::propagate::Solver;
use super::universe::{NameId, PackageId, Provider};
use crate::apk::rules::Rules;

impl<'u, 'a: 'u> Solver<'_, 'u, 'a> {
    /// Gives a name to its best provider, or to nobody.
    pub fn select(&mut self, name: NameId) {
        let universe = self.universe;
        let required = self.names[name].requirers > 0;
        let mut best: Option<Provider<'u>> = None;
        if required || self.names[name].has_install_if {
            for provider in universe.providers(name) {
                let state = &self.packages[provider.package];
                let is_candidate = required || (state.install_if_met && state.tag_ok && state.selectable);
                if !is_candidate || !self.is_auto_selectable(*provider) {
                    continue;
                }
                if best.is_none_or(|best| self.prefer(*provider, best).is_gt()) {
                    best = Some(*provider);
                }
            }
        }
        let Some(best) = best else { return self.assign(name, None) };
        let package = &universe.packages[best.package];
        let own = Provider { package: best.package, version: Some(&package.info.version) };
        self.assign(package.name, Some(own));
        for (provided, version) in &package.provides {
            self.assign(*provided, Some(Provider { package: best.package, version: *version }));
        }
        package.depends.iter().for_each(|need| self.apply(Some(best.package), *need));
    }

    /// The greater is the better.
    fn prefer(&self, a: Provider<'u>, b: Provider<'u>) -> Ordering {
        let (state_a, state_b) = (&self.packages[a.package], &self.packages[b.package]);
        let (package_a, package_b) = (&self.universe.packages[a.package], &self.universe.packages[b.package]);
        let by_version = match (a.version, b.version) {
            (Some(a), Some(b)) => a.compare(b),
            (a, b) if self.universe.rules == Rules::Apk3 => a.is_some().cmp(&b.is_some()),
            _ => Ordering::Equal,
        };
        let by_own_version = || {
            if package_a.name == package_b.name {
                package_a.info.version.compare(&package_b.info.version)
            } else {
                Ordering::Equal
            }
        };
        let priority =
            |package: &super::universe::Package<'_, '_>| package.info.provider_priority.unwrap_or(0);
        state_a
            .selectable
            .cmp(&state_b.selectable)
            .then(state_a.merged.cmp(&state_b.merged))
            .then(state_b.conflicts.cmp(&state_a.conflicts))
            .then(state_a.tag_ok.cmp(&state_b.tag_ok))
            .then(state_a.tag_preferred.cmp(&state_b.tag_preferred))
            .then(by_version)
            .then_with(by_own_version)
            .then_with(|| priority(package_a).cmp(&priority(package_b)))
            .then_with(|| {
                package_b.repositories.trailing_zeros().cmp(&package_a.repositories.trailing_zeros())
            })
    }

    fn assign(&mut self, name: NameId, chosen: Option<Provider<'u>>) {
        let universe = self.universe;
        if self.names[name].locked {
            if let (Some(new), Some(old)) = (chosen, self.names[name].chosen) {
                let both_virtual = new.version.is_none() && old.version.is_none();
                if !both_virtual {
                    self.clashes.push((name, old.package, new.package));
                }
            }
            return;
        }
        self.unqueue(name);
        self.names[name].locked = true;
        self.names[name].chosen = chosen;
        let Some(chosen) = chosen else {
            universe.providers(name).iter().for_each(|provider| self.disqualify_rest(*provider, None));
            self.recheck_depends_on(name);
            self.recheck_install_if(name);
            return;
        };
        if self.names[name].requirers == 0 && self.packages[chosen.package].install_if_met {
            for need in &universe.packages[chosen.package].install_if {
                if !self.names[need.name].locked {
                    self.apply(Some(chosen.package), *need);
                }
            }
        }
        universe.providers(name).iter().for_each(|provider| self.disqualify_rest(*provider, Some(chosen)));
        self.recheck_depends_on(name);
        self.recheck_install_if_of(chosen.package);
    }

    /// Others that have a decided name are out, but those that have it without a version beside one that does so too.
    fn disqualify_rest(&mut self, provider: Provider<'u>, chosen: Option<Provider<'u>>) {
        let is_chosen = chosen.is_some_and(|chosen| chosen.package == provider.package);
        let both_virtual = chosen.and_then(|chosen| chosen.version).is_none() && provider.version.is_none();
        if !is_chosen && !both_virtual {
            self.disqualify(provider.package);
        }
    }

    /// The chosen packages, each after what it depends on, in the order of the world.
    pub fn install_order(&mut self) -> Vec<Chosen<'a>> {
        let universe = self.universe;
        let mut order = Order { solver: self, done: vec![false; universe.names.len()], found: Vec::new() };
        universe.world.iter().for_each(|need| order.visit(need.name));
        let found = order.found;
        let chosen = |id: PackageId| {
            let (package, allowed) = (&universe.packages[id], self.packages[id].allowed);
            let is_tagged = package.repositories & universe.untagged == 0;
            let tag = universe.tags.iter().find(|(_, set)| set & allowed & package.repositories != 0);
            Chosen {
                info: package.info,
                repository: package.repositories.trailing_zeros() as usize,
                tag: tag.filter(|_| is_tagged).map(|(tag, _)| *tag),
            }
        };
        found.into_iter().map(chosen).collect()
    }
}

struct Order<'r, 's, 'u, 'a> {
    solver: &'r mut Solver<'s, 'u, 'a>,
    /// Names that are done or under way.
    done: Vec<bool>,
    found: Vec<PackageId>,
}

impl Order<'_, '_, '_, '_> {
    fn visit(&mut self, name: NameId) {
        if std::mem::replace(&mut self.done[name], true) {
            return;
        }
        let Some(chosen) = self.solver.names[name].chosen else { return };
        let universe = self.solver.universe;
        if std::mem::replace(&mut self.solver.packages[chosen.package].in_order, true) {
            return;
        }
        let package = &universe.packages[chosen.package];
        self.done[package.name] = true;
        package.provides.iter().for_each(|(name, _)| self.done[*name] = true);
        package.depends.iter().for_each(|need| self.visit(need.name));
        self.found.push(chosen.package);
        for name in std::iter::once(package.name).chain(package.provides.iter().map(|(name, _)| *name)) {
            universe.install_if_of(name).iter().for_each(|other| self.visit_by_install_if(*other));
        }
    }

    /// A package that is here by its install_if comes once all of that is done.
    fn visit_by_install_if(&mut self, name: NameId) {
        let universe = self.solver.universe;
        let Some(chosen) = self.solver.names[name].chosen else { return };
        let is_done = universe.packages[chosen.package].install_if.iter().all(|need| {
            let state = &self.solver.names[need.name];
            (need.text.conflict || self.done[need.name])
                && need.is_met_by(Some(chosen.package), state.chosen, &universe.packages)
        });
        if is_done && !self.done[name] {
            self.visit(name);
        }
    }
}
