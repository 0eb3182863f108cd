//! Which packages can still have a name, and what all of them have in common.

use super::propagate::Solver;
use super::universe::{NameId, PackageId, Provider, Requirement};
use crate::apk::rules::Rules;

impl<'u, 'a: 'u> Solver<'_, 'u, 'a> {
    fn is_satisfiable(&self, package: PackageId, need: Requirement<'u>) -> bool {
        let state = &self.names[need.name];
        let packages = &self.universe.packages;
        if state.locked {
            return need.is_met_by(Some(package), state.chosen, packages);
        }
        (state.requirers == 0 && need.is_met_by(Some(package), None, packages))
            || self.universe.providers(need.name).iter().any(|provider| {
                self.packages[provider.package].selectable
                    && need.is_met_by(Some(package), Some(*provider), packages)
            })
    }

    /// A name without a version is chosen by itself only where it is ranked, or its package is wanted anyway.
    pub fn is_auto_selectable(&self, provider: Provider<'u>) -> bool {
        let package = &self.universe.packages[provider.package];
        provider.version.is_some()
            || package.info.provider_priority.unwrap_or(0) != 0
            || self.names[package.name].requirers > 0
    }

    /// Looks again at the candidates of a name, and spreads what all of them have in common.
    pub fn reconsider(&mut self, name: NameId) {
        let universe = self.universe;
        let recheck_depends = std::mem::take(&mut self.names[name].recheck_depends);
        let recheck_install_if = std::mem::take(&mut self.names[name].recheck_install_if);
        let (mut has_install_if, mut no_install_if, mut has_auto_selectable) = (false, true, false);
        let (mut options, mut tags_not_ok) = (0, 0);
        let mut first_candidate = None;
        for provider in universe.providers(name) {
            let id = provider.package;
            self.packages[id].merging = false;
            if recheck_depends && self.packages[id].selectable {
                let is_broken =
                    universe.packages[id].depends.iter().any(|need| !self.is_satisfiable(id, *need));
                if is_broken {
                    self.disqualify(id);
                }
            }
            if !self.packages[id].selectable {
                continue;
            }
            if recheck_install_if {
                self.check_install_if(id);
            }
            has_install_if |= self.packages[id].install_if_met;
            no_install_if &= self.packages[id].install_if_failed;
            has_auto_selectable |= self.packages[id].install_if_met;
            if self.names[name].requirers == 0 {
                continue;
            }
            first_candidate.get_or_insert(id);
            self.merge(*provider, options);
            options += 1;
            tags_not_ok += usize::from(!self.packages[id].tag_ok);
            has_auto_selectable |= self.is_auto_selectable(*provider);
        }
        let state = &mut self.names[name];
        state.has_options = options > 1 || tags_not_ok > 0;
        state.has_install_if = has_install_if;
        state.no_install_if = no_install_if;
        let changed =
            std::mem::replace(&mut state.has_auto_selectable, has_auto_selectable) != has_auto_selectable;
        if let Some(first) = first_candidate {
            self.spread_common(name, first, options);
        }
        let is_open = |other: &NameId| self.names[*other].seen && !self.names[*other].locked;
        self.names[name].reverse_done = !universe.needed_by(name).iter().any(is_open);
        self.queue(name, changed);
    }

    /// Is all of a package's install_if decided, and met?
    fn check_install_if(&mut self, id: PackageId) {
        let universe = self.universe;
        let package = &universe.packages[id];
        if !self.packages[id].install_if_met && !self.packages[id].install_if_failed {
            self.packages[id].install_if_met = true;
            for need in &package.install_if {
                let state = &mut self.names[need.name];
                if !state.locked {
                    if need.text.conflict && universe.rules == Rules::Apk3 {
                        state.install_if_waits = true;
                        self.queue(need.name, false);
                    }
                    self.packages[id].install_if_met = false;
                    break;
                }
                if !need.is_met_by(Some(id), state.chosen, &universe.packages) {
                    self.packages[id].install_if_met = false;
                    self.packages[id].install_if_failed = true;
                    break;
                }
            }
        }
        if self.packages[id].install_if_met {
            for need in &package.install_if {
                if let Some(chosen) = self.names[need.name].chosen {
                    self.inherit(id, Some(chosen.package), None);
                }
            }
        }
    }

    /// Counts what a candidate has in common with the `before` candidates before it.
    fn merge(&mut self, provider: Provider<'u>, before: usize) {
        let universe = self.universe;
        let package = &universe.packages[provider.package];
        self.packages[provider.package].merging = true;
        for need in package.depends.iter().filter(|need| !need.text.conflict) {
            let count = &mut self.names[need.name].merged_depends;
            if *count == before {
                *count = before + 1;
            }
        }
        let own = std::iter::once((package.name, provider.version));
        for (name, version) in own.chain(package.provides.iter().copied()) {
            let state = &mut self.names[name];
            if state.merged_provides == before {
                state.merged_provides = before + 1;
                state.merged_virtual |= version.is_none();
            }
        }
    }

    fn spread_common(&mut self, name: NameId, first: PackageId, options: usize) {
        let universe = self.universe;
        for provider in universe.providers(name) {
            let state = &mut self.packages[provider.package];
            state.merged = state.merging;
        }
        let package = &universe.packages[first];
        for need in &package.depends {
            let is_common = std::mem::take(&mut self.names[need.name].merged_depends) == options;
            if is_common && options == 1 {
                self.apply(Some(first), *need);
            } else if is_common && self.names[need.name].requirers == 0 {
                self.names[need.name].requirers += 1;
                self.first_required(need.name);
                for provider in universe.providers(need.name) {
                    self.inherit(provider.package, Some(first), None);
                }
            }
        }
        let provided = || std::iter::once(package.name).chain(package.provides.iter().map(|(name, _)| *name));
        for other in provided() {
            if std::mem::take(&mut self.names[other].merged_provides) == options {
                self.exclude_others(other, name);
            }
        }
        provided().for_each(|other| self.names[other].merged_virtual = false);
    }

    /// Every candidate of `must_provide` has `name` too: a package that has `name` alone would shut all of them out.
    fn exclude_others(&mut self, name: NameId, must_provide: NameId) {
        let universe = self.universe;
        let skip_virtual = self.names[name].merged_virtual;
        if name == must_provide {
            return;
        }
        for provider in universe.providers(name) {
            let package = &universe.packages[provider.package];
            let is_exempt = package.name == must_provide
                || !self.packages[provider.package].selectable
                || (skip_virtual && provider.version.is_none())
                || package
                    .provides
                    .iter()
                    .any(|(other, version)| *other == must_provide || (skip_virtual && version.is_none()));
            if !is_exempt {
                self.disqualify(provider.package);
            }
        }
    }
}
