//! A host that is only a value: each operation does to it what the real one does, and fails on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard};

use sisforge::apply::{ApplyError, Host};
use sisforge::base::FileDigest;
use sisforge::base::{GuestName, Sha256, SnapshotName};
use sisforge::fleet::ContainerSpec;
use sisforge::host::firewall::Ruleset;
use sisforge::host::state::{
    CgroupLimits, DiskState, GuestState, HostState, Machine, MachineDisk, StoredKind, TapSpec,
};
use sisforge::sys::cgroup::IoLimits;

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
    pub state: HostState,
    /// Guests whose directory of logs is there; it outlives them.
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

/// A cgroup whose limits are not all set, or whose directories are not all there.
pub const HALF_A_CGROUP: CgroupLimits =
    CgroupLimits { memory: u64::MAX, pids: u64::MAX, cpu_quota: u64::MAX, cpu_weight: 0, io: IoLimits::NONE };

impl ModelHost {
    /// A host in this state that is to become as `desired`.
    pub fn new(before: &Inner, desired: &HostState, fault: Fault) -> Self {
        let inner = Inner { asked: Vec::new(), ..before.clone() };
        let wanted_rules = desired.ruleset.as_ref().map(|rules| rules.digest);
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
        let failed = Err(ApplyError::NoTun);
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
        let exposed = |guest: &GuestState| guest.occupied && guest.tap.is_some();
        assert!(
            inner.state.ruleset.is_some() || !inner.state.guests.values().any(exposed),
            "a guest runs without rules after {:?}",
            inner.asked
        );
        inner.state.guests.retain(|_, guest| *guest != GuestState::default());
        if is_torn.is_some() { failed } else { Ok(()) }
    }

    fn guest(
        &self,
        what: &str,
        guest: &GuestName,
        whole: impl FnOnce(&mut GuestState),
        torn: impl FnOnce(&mut GuestState),
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

fn end_vmm(guest: &mut GuestState) {
    (guest.occupied, guest.logged, guest.machine, guest.ready) = (false, false, None, false);
    guest.paused = None;
    guest.containers.clear();
}

fn guest_of(tap: &TapSpec) -> GuestName {
    tap.name.as_str().strip_prefix("sis-").unwrap().parse().unwrap()
}

fn nothing<T>(_: &mut T) {}

impl Host for ModelHost {
    fn observe(&self) -> Result<HostState, ApplyError> {
        let inner = self.inner();
        let mut state = inner.state.clone();
        // Names of guests are those of directories. A TAP alone may be another fleet's.
        state.guests.retain(|name, guest| {
            inner.logs.contains(name)
                || guest.disk.is_some()
                || guest.cgroup.is_some()
                || guest.jail
                || guest.old_jails
        });
        Ok(state)
    }

    fn enable_forwarding(&self) -> Done {
        self.act("forward".into(), |inner| inner.state.forwarding = true, nothing)
    }

    fn store_file(&self, digest: &FileDigest) -> Done {
        let insert = |inner: &mut Inner| inner.state.stored.extend([(*digest, StoredKind::Image)]);
        self.act(format!("store {}", digest.short()), insert, nothing)
    }

    fn load_ruleset(&self, ruleset: &Ruleset) -> Done {
        let digest = ruleset.digest;
        let loaded = |inner: &mut Inner| inner.state.ruleset = Some(Ruleset { digest, text: String::new() });
        // Loaded, but what nft lists was not noted: rules that nobody knows.
        let unknown = |inner: &mut Inner| inner.state.ruleset = Some(Ruleset::new("unknown".into()));
        self.act("load rules".into(), loaded, unknown)
    }

    fn remove_ruleset(&self) -> Done {
        let remove = |inner: &mut Inner| inner.state.ruleset = None;
        self.act("remove rules".into(), remove, remove)
    }

    fn create_disk(&self, guest: &GuestName, base: &FileDigest, uid: u32) -> Done {
        self.holds("a disk is copied from what is stored", |inner| inner.state.stored.contains_key(base));
        let create = |guest: &mut GuestState| {
            assert_eq!(guest.disk, None, "a data disk would be overwritten");
            guest.disk = Some(DiskState { uid, size: 1 << 30, base: None });
        };
        self.guest("create disk", guest, create, nothing)
    }

    fn chown_disk(&self, guest: &GuestName, uid: u32) -> Done {
        let chown = |guest: &mut GuestState| guest.disk.as_mut().unwrap().uid = uid;
        self.guest("chown disk", guest, chown, nothing)
    }

    fn grow_disk(&self, guest: &GuestName, size: u64) -> Done {
        self.holds("a disk grows while nobody has it, and is never made smaller", |inner| {
            let state = inner.state.guests.get(guest).cloned().unwrap_or_default();
            !state.occupied && state.disk.is_some_and(|disk| disk.size <= size)
        });
        self.guest("grow disk", guest, |guest| guest.disk.as_mut().unwrap().size = size, nothing)
    }

    fn create_tap(&self, tap: &TapSpec) -> Done {
        let wanted = self.wanted_rules;
        self.holds("rules are there before a TAP", |inner| {
            inner.state.ruleset.as_ref().map(|rules| rules.digest) == wanted
        });
        let half = TapSpec { address: Ipv4Addr::UNSPECIFIED, ..tap.clone() };
        let whole = |guest: &mut GuestState| guest.tap = Some(tap.clone());
        self.guest("create tap", &guest_of(tap), whole, |guest| guest.tap = Some(half))
    }

    fn remove_tap(&self, tap: &TapSpec) -> Done {
        self.guest("remove tap", &guest_of(tap), |guest| guest.tap = None, nothing)
    }

    fn create_cgroup(&self, guest: &GuestName, limits: &CgroupLimits) -> Done {
        let whole = |guest: &mut GuestState| guest.cgroup = Some(*limits);
        self.guest("create cgroup", guest, whole, |guest| guest.cgroup = Some(HALF_A_CGROUP))
    }

    fn remove_cgroup(&self, guest: &GuestName) -> Done {
        if self.inner().state.guests.get(guest).is_some_and(|guest| guest.occupied) {
            return Err(ApplyError::DoesNotEnd(guest.clone()));
        }
        self.guest(
            "remove cgroup",
            guest,
            |guest| guest.cgroup = None,
            |guest| guest.cgroup = Some(HALF_A_CGROUP),
        )
    }

    fn create_jail(&self, guest: &GuestName, machine: &Machine) -> Done {
        self.holds("a jail links what is there and nobody lives in it", |inner| {
            let stored = |sha256| inner.state.stored.contains_key(sha256);
            let state = inner.state.guests.get(guest).cloned().unwrap_or_default();
            let disk = match &machine.disk {
                MachineDisk::Kept => state.disk.is_some_and(|disk| disk.uid == machine.uid),
                MachineDisk::Ephemeral { base, .. } => stored(base),
            };
            stored(&machine.kernel) && stored(&machine.image) && disk && !state.occupied
        });
        self.inner().logs.insert(guest.clone());
        self.guest("create jail", guest, |guest| guest.jail = true, |guest| guest.jail = true)
    }

    fn remove_jail(&self, guest: &GuestName) -> Done {
        let remove = |guest: &mut GuestState| {
            (guest.jail, guest.old_jails, guest.machine, guest.ready) = (false, false, None, false);
            guest.containers.clear();
        };
        self.guest("remove jail", guest, remove, nothing)
    }

    fn remove_old_jails(&self, guest: &GuestName) -> Done {
        self.guest("remove old jails", guest, |guest| guest.old_jails = false, nothing)
    }

    fn start_vmm(&self, guest: &GuestName, machine: &Machine) -> Done {
        self.holds("a VMM finds all that it needs, and no other of its guest", |inner| {
            let state = &inner.state.guests[guest];
            state.jail && state.cgroup.is_some() && state.tap.is_some() && !state.occupied
        });
        let start = |inner: &mut Inner| {
            let state = inner.state.guests.get_mut(guest).unwrap();
            (state.occupied, state.logged) = (true, true);
            if machine.restored_from.is_some() {
                inner.waiting.insert(guest.clone(), machine.clone());
            } else {
                state.machine = Some(machine.clone());
            }
        };
        self.act(format!("start {guest}"), start, start)
    }

    fn adjust_vmm(&self, guest: &GuestName, machine: &Machine) -> Done {
        let adjust = |guest: &mut GuestState| guest.machine = Some(machine.clone());
        self.guest("adjust", guest, adjust, nothing)
    }

    fn keep_logs(&self, guest: &GuestName) -> Done {
        self.guest("keep logs", guest, |guest| guest.logged = guest.occupied, nothing)
    }

    fn await_ready(&self, guest: &GuestName) -> Done {
        if self.inner().waiting.contains_key(guest) {
            return Err(ApplyError::DoesNotEnd(guest.clone()));
        }
        self.guest("await", guest, |guest| guest.ready = guest.occupied, nothing)
    }

    fn resume_vmm(&self, guest: &GuestName) -> Done {
        self.guest("resume", guest, |guest| guest.paused = None, nothing)
    }

    fn consume_snapshot(&self, guest: &GuestName, snapshot: &SnapshotName, keeps_disk: bool) -> Done {
        self.holds("a snapshot is consumed once", |inner| inner.ready.contains(snapshot));
        let taken = |inner: &mut Inner| {
            inner.ready.remove(snapshot);
            inner.consumed.insert(snapshot.clone());
            inner.state.snapshot_leftovers = true;
        };
        let with_disk = |inner: &mut Inner| {
            taken(inner);
            let guest = inner.state.guests.get_mut(guest).unwrap();
            assert_eq!(guest.disk.is_some(), keeps_disk, "a disk is put in the place of the guest's own");
        };
        self.act(format!("consume {snapshot}"), with_disk, taken)
    }

    fn load_snapshot(&self, guest: &GuestName, machine: &Machine) -> Done {
        let snapshot = machine.restored_from.clone().unwrap();
        self.holds("a snapshot is consumed before it is loaded, into a VMM that waits", |inner| {
            inner.consumed.contains(&snapshot) && inner.waiting.get(guest) == Some(machine)
        });
        let load = |inner: &mut Inner| {
            inner.waiting.remove(guest);
            *inner.loads.entry(snapshot.clone()).or_default() += 1;
            inner.state.guests.get_mut(guest).unwrap().machine = Some(machine.clone());
        };
        self.act(format!("load {guest}"), load, |inner| {
            *inner.loads.entry(snapshot.clone()).or_default() += 1;
        })
    }

    fn forget_snapshot(&self, snapshot: &SnapshotName) -> Done {
        let forget = |inner: &mut Inner| inner.state.snapshot_leftovers = false;
        self.act(format!("forget {snapshot}"), forget, nothing)
    }

    fn clear_snapshots(&self) -> Done {
        self.act("clear snapshots".into(), |inner| inner.state.snapshot_leftovers = false, nothing)
    }

    fn start_containers(&self, guest: &GuestName, containers: &[ContainerSpec]) -> Done {
        let whole = |guest: &mut GuestState| guest.containers.extend_from_slice(containers);
        self.guest("containers", guest, whole, |guest| guest.containers.extend_from_slice(&containers[..1]))
    }

    fn stop_vmm(&self, guest: &GuestName) -> Done {
        let stop = |inner: &mut Inner| {
            inner.waiting.remove(guest);
            end_vmm(inner.state.guests.entry(guest.clone()).or_default());
        };
        self.act(format!("stop {guest}"), stop, nothing)
    }
}
