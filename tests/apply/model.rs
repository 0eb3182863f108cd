//! A host that is only a value: each operation does to it what the real one does, and fails on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use sisforge::apply::{ApplyError, Host, VmmError};
use sisforge::base::{Found, GuestName, Rates, Sha256, SnapshotName};
use sisforge::host::container::StartedContainer;
use sisforge::host::observed::{
    ObservedCgroup, ObservedDisk, ObservedGuest, ObservedHost, ObservedNetwork, ObservedResolver,
    ObservedRuleset, ObservedTap, ObservedVmm, PoolRole,
};
use sisforge::host::resolver::Resolver;
use sisforge::host::state::{Machine, MachineDisk};
use sisforge::host::wanted::{HostRules, WantedHost};
use sisforge::plan::{ContainerStep, DiskStep, NetworkStep, PoolStep, SnapshotStep, Step};
use sisforge::sys::interrupt::Interrupted;

/// Which operations do not come through. Operations are counted from 0.
#[derive(Clone, Debug)]
pub enum Fault {
    None,
    /// The machine stops in the middle of this operation, or just before it: nothing after it happens.
    Crash {
        at: usize,
        torn: bool,
    },
    /// This one operation fails halfway.
    Once {
        at: usize,
    },
    /// From this operation on, whoever works is asked to end.
    Asked {
        at: usize,
    },
    /// Whatever begins like one of these fails and changes nothing.
    Named(&'static [&'static str]),
}

/// The host: everything on it, and what of it can be observed.
pub struct ModelHost {
    inner: Mutex<Inner>,
    fault: Fault,
    /// The rules that a plan is to have loaded before it makes a TAP.
    wanted_rules: Option<Sha256>,
}

#[derive(Clone, Debug, Default)]
pub struct Inner {
    pub state: ObservedHost,
    /// GuestScope whose directory of logs is there; it outlives them.
    logs: BTreeSet<GuestName>,
    /// VMMs that wait for a snapshot: no guest runs in them.
    waiting: BTreeMap<GuestName, Machine>,
    /// Snapshots that can be restored, those that were taken for a restore, and how often each was loaded.
    pub ready: BTreeSet<SnapshotName>,
    pub consumed: BTreeSet<SnapshotName>,
    pub loads: BTreeMap<SnapshotName, usize>,
    /// Operations that were asked for, as words.
    pub asked: Vec<String>,
}

type Done = Result<(), ApplyError>;

impl ModelHost {
    /// A host in this state that is to become as `wanted`.
    pub fn new(before: &Inner, wanted: &WantedHost, fault: Fault) -> Self {
        let inner = Inner { asked: Vec::new(), ..before.clone() };
        let wanted_rules = wanted.ruleset.as_ref().map(|rules| rules.digest);
        Self { inner: Mutex::new(inner), fault, wanted_rules }
    }

    /// All that is on the host.
    pub fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    fn act(&self, what: String, whole: impl FnOnce(&mut Inner), torn: impl FnOnce(&mut Inner)) -> Done {
        let mut inner = self.inner();
        let number = inner.asked.len();
        let named = |names: &[&str]| names.iter().any(|name| what.starts_with(name));
        let failed =
            Err(ApplyError::NoNode { path: "/dev/net/tun", why: "a guest needs it", remedy: "modprobe tun" });
        let is_torn = match &self.fault {
            Fault::Crash { at, .. } if number > *at => return failed,
            Fault::Named(names) if named(names) => {
                inner.asked.push(what);
                return failed;
            }
            Fault::Crash { at, torn } if number == *at => Some(*torn),
            Fault::Once { at } if number == *at => Some(true),
            _ => None,
        };
        inner.asked.push(what);
        match is_torn {
            None => whole(&mut inner),
            Some(true) => torn(&mut inner),
            Some(false) => {}
        }
        let exposed = |guest: &ObservedGuest| guest.vmm.is_some() && guest.tap.is_some();
        assert!(
            inner.state.ruleset.is_some() || !inner.state.guests.values().any(exposed),
            "a guest runs without rules after {:?}",
            inner.asked
        );
        inner.state.guests.retain(|_, guest| *guest != ObservedGuest::default());
        if is_torn.is_some() { failed } else { Ok(()) }
    }

    fn guest(
        &self,
        what: &str,
        guest: &GuestName,
        whole: impl FnOnce(&mut ObservedGuest),
        torn: impl FnOnce(&mut ObservedGuest),
    ) -> Done {
        self.act(
            format!("{what} {guest}"),
            |inner| whole(inner.state.guests.entry(guest.clone()).or_default()),
            |inner| torn(inner.state.guests.entry(guest.clone()).or_default()),
        )
    }

    fn holds(&self, what: &str, holds: impl FnOnce(&Inner) -> bool) {
        let inner = self.inner();
        // A host that has stopped is asked in vain.
        if !matches!(self.fault, Fault::Crash { at, .. } if inner.asked.len() > at) {
            assert!(holds(&inner), "{what}, after {:?}", inner.asked);
        }
    }
}

/// Its jail is still there.
fn end_vmm(guest: &mut ObservedGuest) {
    guest.strays = false;
    guest.idle_records |= guest.vmm.is_some();
    guest.idle_jails |= guest.vmm.take().is_some_and(|vmm| vmm.jailed);
}

fn nothing<T>(_: &mut T) {}

/// What a Ctrl-C is.
fn interrupted() -> Interrupted {
    Interrupted::of(2)
}

impl Host for ModelHost {
    fn observe(&self) -> Result<ObservedHost, ApplyError> {
        let inner = self.inner();
        let mut state = inner.state.clone();
        // Names of guests are those of directories. A TAP alone may be another fleet's.
        state.guests.retain(|name, guest| {
            inner.logs.contains(name) || guest.disk.is_some() || guest.cgroup.is_some() || guest.has_jail()
        });
        Ok(state)
    }

    fn check_interrupt(&self) -> Result<(), ApplyError> {
        match self.fault {
            Fault::Asked { at } if self.inner().asked.len() >= at => Err(interrupted().into()),
            _ => Ok(()),
        }
    }

    fn take(&self, step: &Step) -> Done {
        match step {
            Step::Network(step) => self.network(step),
            Step::StoreFile { digest, .. } => {
                let insert = |inner: &mut Inner| inner.state.stored.extend([*digest]);
                self.act(format!("store {}", digest.short()), insert, nothing)
            }
            Step::Disk(step) => self.disk(step),
            Step::CreateTap { guest, tap } => {
                let wanted = self.wanted_rules.map(ObservedRuleset::Loaded);
                self.holds("rules are there before a TAP", |inner| inner.state.ruleset == wanted);
                let (name, owner) = (tap.name.clone(), Some(tap.owner));
                let half = ObservedTap {
                    name,
                    owner,
                    address: None,
                    up: false,
                    is_in_host: false,
                    hardened: false,
                    rates: Rates::default(),
                };
                let whole = ObservedTap {
                    address: Some(tap.address),
                    up: true,
                    hardened: true,
                    rates: tap.rates.bytes_per_second().whole(),
                    ..half.clone()
                };
                self.guest(
                    "create tap",
                    guest,
                    |guest| guest.tap = Some(whole),
                    |guest| {
                        guest.tap = Some(half);
                    },
                )
            }
            Step::RemoveTap { guest, .. } => {
                self.guest("remove tap", guest, |guest| guest.tap = None, nothing)
            }
            Step::CreateCgroup { guest, limits } => {
                let limited = |limits| {
                    move |guest: &mut ObservedGuest| {
                        let oom_kills = guest.oom_kills();
                        guest.cgroup = Some(ObservedCgroup { limits, oom_kills });
                    }
                };
                self.guest(
                    "create cgroup",
                    guest,
                    limited(Found::Whole((*limits).into())),
                    limited(Found::Half),
                )
            }
            Step::RemoveCgroup { guest } => self.remove_cgroup(guest),
            Step::CreateJail { guest, machine } => self.create_jail(guest, machine),
            Step::RemoveJail { guest } => {
                let remove = |guest: &mut ObservedGuest| {
                    (guest.idle_jails, guest.idle_records, guest.lost_disk) = (false, false, false);
                    if let Some(vmm) = &mut guest.vmm {
                        *vmm =
                            ObservedVmm { logged: vmm.logged, paused: vmm.paused, ..ObservedVmm::default() };
                    }
                };
                self.guest("remove jail", guest, remove, |guest| guest.idle_records = false)
            }
            Step::RemoveOldJails { guest } => {
                self.guest("remove old jails", guest, |guest| guest.idle_jails = false, nothing)
            }
            Step::Snapshot(step) => self.snapshot(step),
            Step::Containers(step) => self.containers(step),
            Step::Pool(step) => self.pool(step),
            Step::StartVmm { guest, machine } => self.start(guest, machine),
            Step::AdjustVmm { guest, machine } => {
                self.running("adjust", guest, &|vmm| vmm.machine = Some(machine.clone()))
            }
            Step::KeepLogs { guest } => self.running("keep logs", guest, &|vmm| vmm.logged = true),
            Step::AwaitReady { guest } => {
                if self.inner().waiting.contains_key(guest) {
                    return Err(VmmError::DoesNotEnd(guest.clone()).into());
                }
                self.running("await", guest, &|vmm| vmm.ready = true)
            }
            Step::ResumeVmm { guest } => self.running("resume", guest, &|vmm| vmm.paused = None),
            Step::JoinCgroup { guest } => {
                self.running("join cgroup", guest, &|vmm| vmm.outside_cgroup = false)
            }
            Step::ContinueVmm { guest } => self.running("continue", guest, &|vmm| vmm.halted = false),
            Step::StopVmm { guest } => {
                let stop = |inner: &mut Inner| {
                    inner.waiting.remove(guest);
                    end_vmm(inner.state.guests.entry(guest.clone()).or_default());
                };
                self.act(format!("stop {guest}"), stop, nothing)
            }
        }
    }
}

impl ModelHost {
    fn network(&self, step: &NetworkStep) -> Done {
        match step {
            NetworkStep::CreateNamespace => {
                let is = |found| move |inner: &mut Inner| inner.state.network.namespace = Some(found);
                self.act("create namespace".into(), is(Found::Whole(())), is(Found::Half))
            }
            NetworkStep::LoadRuleset(ruleset) => {
                self.holds("a namespace is there before its rules", |inner| {
                    inner.state.network.namespace == Some(Found::Whole(()))
                });
                let is = |ruleset| move |inner: &mut Inner| inner.state.ruleset = Some(ruleset);
                // Loaded, but what nft lists was not noted: rules that nobody knows.
                let torn = is(ObservedRuleset::Unknown);
                self.act("load rules".into(), is(ObservedRuleset::Loaded(ruleset.digest)), torn)
            }
            NetworkStep::LoadHostRules(HostRules { ruleset, .. }) => {
                let is = |ruleset| move |inner: &mut Inner| inner.state.network.rules = Some(ruleset);
                let torn = is(ObservedRuleset::Unknown);
                self.act("load host rules".into(), is(ObservedRuleset::Loaded(ruleset.digest)), torn)
            }
            NetworkStep::ConnectNamespace { network, .. } => {
                self.holds("rules are there before a way out", |inner| {
                    inner.state.ruleset.is_some() && inner.state.network.rules.is_some()
                });
                let (pair, uplink) = (network.pair, network.uplink.clone());
                let whole = |inner: &mut Inner| {
                    inner.state.network.pair = Some(Found::Whole(pair.whole()));
                    inner.state.network.forwarding = [(uplink, true)].into();
                };
                let (uplink, half) = (network.uplink.clone(), Some(Found::Half));
                self.act("connect".into(), whole, |inner| {
                    inner.state.network.pair = half;
                    inner.state.network.forwarding.insert(uplink, false);
                })
            }
            NetworkStep::RemoveNetwork => self.act(
                "remove network".into(),
                |inner| (inner.state.network, inner.state.ruleset) = (ObservedNetwork::default(), None),
                |inner| (inner.state.network.pair, inner.state.network.rules) = (None, None),
            ),
            NetworkStep::RemoveEarlierNetwork => {
                self.act("remove earlier".into(), |inner| inner.state.network.is_in_host = false, nothing)
            }
            NetworkStep::StartResolver(wanted) => self.start_resolver(wanted),
            NetworkStep::StopResolver { seat } => self.stop_resolver(*seat),
        }
    }

    fn start_resolver(&self, wanted: &Resolver) -> Done {
        self.holds("a namespace is there before a resolver", |inner| {
            inner.state.network.namespace == Some(Found::Whole(()))
        });
        let seat = wanted.seat.number;
        let is = |what| {
            move |inner: &mut Inner| {
                inner.state.resolvers.insert(seat, what);
            }
        };
        let whole = is(ObservedResolver::Running(wanted.digest));
        self.act(format!("start resolver {seat}"), whole, is(ObservedResolver::Broken))
    }

    fn stop_resolver(&self, seat: u16) -> Done {
        let wanted = self.wanted_rules.map(ObservedRuleset::Loaded);
        self.holds("nobody is led to a resolver that goes", |inner| {
            wanted.is_none() || inner.state.ruleset == wanted
        });
        let gone = |inner: &mut Inner| {
            inner.state.resolvers.remove(&seat);
        };
        let torn = |inner: &mut Inner| {
            inner.state.resolvers.insert(seat, ObservedResolver::Broken);
        };
        self.act(format!("stop resolver {seat}"), gone, torn)
    }

    fn disk(&self, step: &DiskStep) -> Done {
        let there = |guest: &mut ObservedGuest| guest.disk.unwrap();
        match step {
            DiskStep::CreateDisk { guest, base, uid } => {
                self.holds("a disk is copied from what is stored", |inner| inner.state.stored.contains(base));
                let create = |guest: &mut ObservedGuest| {
                    assert_eq!(guest.disk, None, "a data disk would be overwritten");
                    guest.disk = Some(ObservedDisk { uid: *uid, private: true, size: 1 << 30 });
                };
                self.guest("create disk", guest, create, nothing)
            }
            DiskStep::RelinkDisk { guest } => {
                let relink = |guest: &mut ObservedGuest| {
                    if std::mem::take(&mut guest.lost_disk) {
                        guest.disk = Some(ObservedDisk { uid: 0, private: true, size: 1 << 30 });
                    }
                };
                self.guest("relink disk", guest, relink, nothing)
            }
            DiskStep::ChownDisk { guest, uid } => {
                let chown = |guest: &mut ObservedGuest| {
                    guest.disk = Some(ObservedDisk { uid: *uid, private: true, ..there(guest) });
                };
                self.guest("chown disk", guest, chown, nothing)
            }
            DiskStep::GrowDisk { guest, size, .. } => {
                self.holds("a disk grows while nobody has it, and is never made smaller", |inner| {
                    let state = inner.state.guests.get(guest).cloned().unwrap_or_default();
                    state.vmm.is_none() && state.disk.is_some_and(|disk| disk.size <= *size)
                });
                let grow = |guest: &mut ObservedGuest| {
                    guest.disk = Some(ObservedDisk { size: *size, ..there(guest) });
                };
                self.guest("grow disk", guest, grow, nothing)
            }
        }
    }

    fn remove_cgroup(&self, guest: &GuestName) -> Done {
        if self.inner().state.guests.get(guest).is_some_and(|guest| guest.vmm.is_some()) {
            return Err(VmmError::DoesNotEnd(guest.clone()).into());
        }
        let half = |guest: &mut ObservedGuest| {
            guest.cgroup = Some(ObservedCgroup { limits: Found::Half, oom_kills: guest.oom_kills() });
        };
        self.guest("remove cgroup", guest, |guest| guest.cgroup = None, half)
    }

    fn create_jail(&self, guest: &GuestName, machine: &Machine) -> Done {
        self.holds("a jail links what is there and nobody lives in it", |inner| {
            let stored = |digest| inner.state.stored.contains(digest);
            let state = inner.state.guests.get(guest).cloned().unwrap_or_default();
            let disk = match &machine.disk {
                MachineDisk::Kept => state.disk.is_some_and(|disk| disk.uid == machine.uid),
                MachineDisk::Ephemeral { base, .. } => stored(base),
            };
            stored(&machine.kernel) && stored(&machine.image) && disk && state.vmm.is_none()
        });
        self.inner().logs.insert(guest.clone());
        let create = |guest: &mut ObservedGuest| guest.idle_jails = true;
        self.guest("create jail", guest, create, create)
    }

    fn start(&self, guest: &GuestName, machine: &Machine) -> Done {
        self.holds("a VMM finds all that it needs, and no other of its guest", |inner| {
            let state = &inner.state.guests[guest];
            state.idle_jails
                && state.cgroup.is_some()
                && state.tap.is_some()
                && state.vmm.is_none()
                && !state.strays
        });
        let start = |inner: &mut Inner| {
            let state = inner.state.guests.get_mut(guest).unwrap();
            let waits = machine.restored_from.is_some();
            if waits {
                inner.waiting.insert(guest.clone(), machine.clone());
            }
            let machine = (!waits).then(|| machine.clone());
            state.vmm = Some(ObservedVmm { machine, jailed: true, logged: true, ..ObservedVmm::default() });
            (state.idle_jails, state.idle_records) = (false, false);
        };
        self.act(format!("start {guest}"), start, start)
    }

    fn running(&self, what: &str, guest: &GuestName, change: &dyn Fn(&mut ObservedVmm)) -> Done {
        self.guest(what, guest, |guest| guest.vmm.iter_mut().for_each(change), nothing)
    }

    fn containers(&self, step: &ContainerStep) -> Done {
        match step {
            ContainerStep::RemoveContainers { guest, containers } => {
                self.running("remove containers", guest, &|vmm| {
                    vmm.containers.retain(|started| !containers.contains(&started.container.name));
                })
            }
            ContainerStep::StartContainers { guest, containers } => {
                let start = |count: usize| {
                    move |guest: &mut ObservedGuest| {
                        let vmm = guest.vmm.as_mut().unwrap();
                        vmm.containers.extend(containers[..count].iter().cloned().map(StartedContainer::new));
                    }
                };
                self.guest("containers", guest, start(containers.len()), start(1))
            }
            ContainerStep::AwaitHealthy { guest, .. } => self.running("await healthy", guest, &|vmm| {
                vmm.containers.iter_mut().for_each(|started| started.healthy = true);
            }),
        }
    }

    fn pool(&self, step: &PoolStep) -> Done {
        match step {
            PoolStep::RaiseSpare { guest, .. } => {
                self.running("raise", guest, &|vmm| vmm.role = Some(PoolRole::Raised))
            }
            PoolStep::MakeSpare { guest, spare } => {
                self.running("stand by", guest, &|vmm| vmm.role = Some(PoolRole::Spare(spare.clone())))
            }
            PoolStep::EndSpare { guest } => self.guest("end spare", guest, end_vmm, |_| ()),
        }
    }

    fn snapshot(&self, step: &SnapshotStep) -> Done {
        let cleared = |inner: &mut Inner| inner.state.snapshot_leftovers = false;
        match step {
            SnapshotStep::ConsumeSnapshot { guest, snapshot, keeps_disk } => {
                self.holds("a snapshot is consumed once", |inner| inner.ready.contains(snapshot));
                let taken = |inner: &mut Inner| {
                    inner.ready.remove(snapshot);
                    inner.consumed.insert(snapshot.clone());
                    inner.state.snapshot_leftovers = true;
                };
                let with_disk = |inner: &mut Inner| {
                    taken(inner);
                    let has_disk = inner.state.guests[guest].disk.is_some();
                    assert_eq!(has_disk, *keeps_disk, "a disk is put in the place of the guest's own");
                };
                self.act(format!("consume {snapshot}"), with_disk, taken)
            }
            SnapshotStep::LoadSnapshot { guest, machine } => self.load(guest, machine),
            SnapshotStep::ForgetSnapshot { snapshot } => {
                self.act(format!("forget {snapshot}"), cleared, nothing)
            }
            SnapshotStep::ClearSnapshots => self.act("clear snapshots".into(), cleared, nothing),
        }
    }

    fn load(&self, guest: &GuestName, machine: &Machine) -> Done {
        let snapshot = machine.restored_from.clone().unwrap();
        self.holds("a snapshot is consumed before it is loaded, into a VMM that waits", |inner| {
            inner.consumed.contains(&snapshot) && inner.waiting.get(guest) == Some(machine)
        });
        let load = |inner: &mut Inner| {
            inner.waiting.remove(guest);
            *inner.loads.entry(snapshot.clone()).or_default() += 1;
            let vmm = inner.state.guests.get_mut(guest).unwrap().vmm.as_mut().unwrap();
            vmm.machine = Some(machine.clone());
        };
        self.act(format!("load {guest}"), load, |inner| {
            *inner.loads.entry(snapshot.clone()).or_default() += 1;
        })
    }
}
