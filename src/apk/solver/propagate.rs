//! Constraints spread from the world: packages that can no longer be chosen are told apart from those that can.

use std::collections::{BTreeSet, VecDeque};

use super::state::{NameState, PackageState, Queue};
use super::universe::{NameId, PackageId, Requirement, Universe};

/// The state of a solution in the making.
pub(super) struct Solver<'s, 'u, 'a> {
    pub universe: &'s Universe<'u, 'a>,
    pub names: Vec<NameState<'u>>,
    pub packages: Vec<PackageState>,
    dirty: VecDeque<NameId>,
    now: VecDeque<NameId>,
    selectable: BTreeSet<(i32, NameId)>,
    unresolved: BTreeSet<(i32, NameId)>,
    last_order: i32,
    /// Pairs of packages that own the same name.
    pub clashes: Vec<(NameId, PackageId, PackageId)>,
}

impl<'s, 'u, 'a: 'u> Solver<'s, 'u, 'a> {
    pub fn new(universe: &'s Universe<'u, 'a>) -> Self {
        Self {
            universe,
            names: vec![NameState::default(); universe.names.len()],
            packages: vec![PackageState::default(); universe.packages.len()],
            dirty: VecDeque::new(),
            now: VecDeque::new(),
            selectable: BTreeSet::new(),
            unresolved: BTreeSet::new(),
            last_order: 0,
            clashes: Vec::new(),
        }
    }

    /// Decides every name.
    pub fn run(&mut self) {
        for need in &self.universe.world {
            self.names[need.name].in_world = true;
        }
        for need in &self.universe.world {
            self.discover(need.name);
        }
        for need in &self.universe.world {
            self.apply(None, *need);
        }
        loop {
            while let Some(name) = self.dirty.pop_front() {
                self.names[name].in_dirty = false;
                if !self.names[name].locked {
                    self.reconsider(name);
                }
            }
            match self.next_name() {
                Some(name) => self.select(name),
                None => return,
            }
        }
    }

    fn next_name(&mut self) -> Option<NameId> {
        let name = self.now.pop_front().or_else(|| {
            let highest = self.selectable.pop_last().or_else(|| self.unresolved.pop_last());
            highest.map(|(_, name)| name)
        })?;
        self.names[name].queue = None;
        Some(name)
    }

    /// Looks at a name and all that it can lead to, once; gives each its order.
    fn discover(&mut self, name: NameId) {
        if std::mem::replace(&mut self.names[name].seen, true) {
            return;
        }
        let universe = self.universe;
        let providers = universe.providers(name);
        let mut no_install_if = true;
        for provider in providers {
            if !std::mem::replace(&mut self.packages[provider.package].seen, true) {
                self.prepare(provider.package);
                for need in &universe.packages[provider.package].depends {
                    self.discover(need.name);
                }
            }
            no_install_if &= self.packages[provider.package].install_if_failed;
        }
        self.names[name].no_install_if = no_install_if;
        universe.install_if_of(name).iter().for_each(|other| self.discover(*other));
        for provider in providers {
            let package = &universe.packages[provider.package];
            universe.install_if_of(package.name).iter().for_each(|other| self.discover(*other));
            package.provides.iter().for_each(|(other, _)| self.discover(*other));
        }
        self.last_order += 1;
        self.names[name].order = self.order_of(name);
        for provider in providers {
            universe.packages[provider.package].install_if.iter().for_each(|need| self.discover(need.name));
        }
    }

    fn order_of(&self, name: NameId) -> i32 {
        const NOT_IN_WORLD: i32 = i32::MIN;
        const HAS_REAL_PACKAGE: i32 = 1 << 30;
        let universe = self.universe;
        let providers = universe.providers(name);
        let is_real = providers.iter().any(|provider| universe.packages[provider.package].name == name);
        let flags = if self.names[name].in_world { 0 } else { NOT_IN_WORLD }
            | if is_real { HAS_REAL_PACKAGE } else { 0 };
        flags | self.last_order
    }

    fn prepare(&mut self, id: PackageId) {
        let package = &self.universe.packages[id];
        let nothing_to_fetch = package.info.installed_size == 0;
        let preferred = nothing_to_fetch || package.repositories & self.universe.untagged != 0;
        let state = &mut self.packages[id];
        state.selectable = package.fits_arch;
        state.install_if_failed = package.install_if.is_empty();
        state.allowed = self.universe.untagged;
        state.tag_preferred = preferred;
        state.tag_ok = preferred;
    }

    /// Spreads one requirement, of a package or (`None`) of the world.
    pub fn apply(&mut self, parent: Option<PackageId>, need: Requirement<'u>) {
        let universe = self.universe;
        if !need.text.conflict {
            self.names[need.name].requirers += 1;
            if self.names[need.name].requirers == 1 {
                self.first_required(need.name);
            }
        }
        for provider in universe.providers(need.name) {
            let met = need.is_met_by(parent, Some(*provider), &universe.packages);
            let state = &mut self.packages[provider.package];
            state.conflicts += u32::from(!met);
            if state.selectable && state.conflicts > 0 {
                self.disqualify(provider.package);
            }
            if met {
                self.inherit(provider.package, parent, need.text.tag.as_deref());
            }
        }
    }

    pub fn first_required(&mut self, name: NameId) {
        self.queue(name, false);
        self.recheck_install_if(name);
        self.mark_dirty(name);
    }

    /// What a package may be taken from grows by what those that need it are taken from.
    pub fn inherit(&mut self, id: PackageId, parent: Option<PackageId>, tag: Option<&str>) {
        let repositories = self.universe.packages[id].repositories;
        match parent {
            Some(parent) => self.packages[id].allowed |= self.packages[parent].allowed,
            None => {
                let preferred = self.universe.repositories_of(tag);
                self.packages[id].allowed |= preferred;
                self.packages[id].tag_preferred = repositories & preferred != 0;
            }
        }
        self.packages[id].tag_ok |= repositories & self.packages[id].allowed != 0;
    }

    pub fn disqualify(&mut self, id: PackageId) {
        let universe = self.universe;
        let package = &universe.packages[id];
        self.packages[id].selectable = false;
        self.recheck_depends_on(package.name);
        package.provides.iter().for_each(|(name, _)| self.recheck_depends_on(*name));
        self.recheck_install_if_of(id);
    }

    pub fn recheck_depends_on(&mut self, name: NameId) {
        let universe = self.universe;
        for other in universe.needed_by(name) {
            if self.names[*other].seen {
                self.names[*other].recheck_depends = true;
                self.mark_dirty(*other);
            }
        }
    }

    pub fn recheck_install_if_of(&mut self, id: PackageId) {
        let universe = self.universe;
        let package = &universe.packages[id];
        self.recheck_install_if(package.name);
        package.provides.iter().for_each(|(name, _)| self.recheck_install_if(*name));
    }

    pub fn recheck_install_if(&mut self, name: NameId) {
        let universe = self.universe;
        for other in universe.install_if_of(name) {
            let state = &mut self.names[*other];
            if state.seen && !state.no_install_if {
                state.recheck_install_if = true;
                self.mark_dirty(*other);
            }
        }
    }

    fn mark_dirty(&mut self, name: NameId) {
        let state = &mut self.names[name];
        if state.in_dirty || state.locked || (state.requirers == 0 && !state.recheck_install_if) {
            return;
        }
        state.in_dirty = true;
        self.dirty.push_back(name);
    }

    /// Puts a name among those that wait for a decision; with `again`, also where its urgency has changed.
    pub fn queue(&mut self, name: NameId, again: bool) {
        let state = &self.names[name];
        let is_now =
            state.reverse_done && state.requirers > 0 && state.has_auto_selectable && !state.has_options;
        match state.queue {
            _ if state.locked => return,
            Some(Queue::Now) => return,
            Some(_) if !is_now && !again => return,
            Some(_) => self.unqueue(name),
            None if state.requirers == 0 && !state.has_install_if && !state.install_if_waits => return,
            None => {}
        }
        let order = self.names[name].order;
        let queue = match (is_now, self.names[name].has_auto_selectable) {
            (true, _) => Queue::Now,
            (false, true) => Queue::Selectable,
            (false, false) => Queue::Unresolved,
        };
        match queue {
            Queue::Now => self.now.push_back(name),
            Queue::Selectable => drop(self.selectable.insert((order, name))),
            Queue::Unresolved => drop(self.unresolved.insert((order, name))),
        }
        self.names[name].queue = Some(queue);
    }

    pub fn unqueue(&mut self, name: NameId) {
        let order = self.names[name].order;
        match self.names[name].queue.take() {
            Some(Queue::Now) => self.now.retain(|other| *other != name),
            Some(Queue::Selectable) => drop(self.selectable.remove(&(order, name))),
            Some(Queue::Unresolved) => drop(self.unresolved.remove(&(order, name))),
            None => {}
        }
    }
}
