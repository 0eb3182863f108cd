//! Where everything of a fleet stands in the store.
//!
//! `<jails>` is the store as well, unless `[host] jails` names another place: what stands there is linked into jails, and must
//! be on their file system.
//!
//! ```text
//! <jails>/files/<digest>                 kernels, root images, disks to copy, container images; root's, 0444
//! <store>/<fleet>/lock                   held while the host is changed
//! <store>/<fleet>/events.log             what happened, a line of JSON each; older ones and an index beside it (`sys/log`)
//! <store>/<fleet>/key, key.pub           the host's ssh key, whose public half every guest is told at boot
//! <store>/<fleet>/place.json             which place `<jails>` is, where it is not the store
//! <store>/<fleet>/ruleset.json           digest of the rules that were loaded, and of what the kernel held then
//! <store>/<fleet>/ruleset-held.json      what was read of them then, which holds until somebody changes a table
//! <store>/<fleet>/ruleset.nft            those rules without their lists, by which the next ones are compared
//! <store>/<fleet>/quarantine/<guest>.json   guests that are cut off, until they are released
//! <store>/<fleet>/quarantine.json        how nft lists the rules that cut them off
//! <store>/<fleet>/host-rules.json        the same of those on the host's side of the network
//! <store>/<fleet>/resolvers/<seat>/      resolver.json, dnsmasq.conf, haproxy.cfg
//! <jails>/<fleet>/disks/<guest>.ext4     data disks
//! <jails>/<fleet>/disks/<guest>.before-<snapshot>.ext4   the data disk that a restore put another in the place of
//! <jails>/<fleet>/disks/<guest>.before-replaced.ext4     one that had the name of a disk in use, or lost its own to it
//! <jails>/<fleet>/disks/sessions/<name>/disk.ext4        a disk that sessions bring; its directory is locked by whoever gives it away
//! <store>/<fleet>/guests/<guest>/        machine.json, vmm.json, ready.json, freezing.json, disk.json
//!                                        of a pool's: raised.json, spare.json or session.json
//!     serial.log, vmm.log, metrics.log   each with older parts and indexes beside it (`sys/log`)
//!     serial.pipe, vmm.pipe, console.in  what the VMM writes to and reads from
//!     keeper.lock                        held by the process that keeps the logs
//! <jails>/<fleet>/jails/<vmm>/<guest>--<attempt>/root/   a jail, as Firecracker's jailer lays it out
//! <jails>/<fleet>/snapshots/ready/<name>/     a snapshot: manifest.json, memory, state, disk.ext4; root's, never changed
//! <jails>/<fleet>/snapshots/consumed/<name>/  one that was restored: what is left of it is its manifest, and a disk that no
//!                                        guest took
//! <store>/<fleet>/snapshots.ledger       what became of each snapshot (`host/ledger.rs`)
//! <jails>/<fleet>/snapshots/.new-<name>/ one that is being made, or that was when its maker was killed
//! ```
//!
//! Every start has a jail of its own, whose attempt is one more than the highest that is there: what could not be removed
//! of an earlier one is then in nobody's way.
//!
//! What must not outlive the host's boot stands in `/run`: the network namespace `/run/netns/sisforge-<fleet>`, and
//! `/run/sisforge/forwarding.json`, which all fleets share.
//!
//! What must not be in a backup of the store, nor in a copy, stands in `/var/lib/sisforge-host`, for all fleets: `key`, for whose
//! public half other hosts encrypt snapshots, and `<fleet>.ledger`, the witness of a fleet's ledger.
//!
//! A snapshot moves from `ready` to `consumed` by one rename, before a VMM is asked to load it.

mod guest;
mod jail_id;

use std::path::{Path, PathBuf};

use crate::base::network::pair_name;
use crate::base::{FileDigest, FleetName, GuestName, InterfaceName, InvalidValue, Label, SnapshotName};
use crate::fleet::{FleetHead, HostSpec, VmmKind};
use crate::sys::netns::Netns;

use super::resolver::ResolverProgram;

pub use guest::GuestDir;
pub use jail_id::{jail_id, parse_jail_id, vmm_folder};

impl FleetHead {
    /// Where everything of it is.
    pub fn layout(&self) -> Layout {
        Layout::new(&self.host, &self.name)
    }
}

/// Paths of one fleet in one store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    store: PathBuf,
    /// Of the jails, and of what they link.
    jails_root: PathBuf,
    fleet: FleetName,
}

impl Layout {
    /// Of a fleet on its host.
    pub fn new(host: &HostSpec, fleet: &FleetName) -> Self {
        let jails_root = host.jails.as_ref().unwrap_or(&host.store).clone();
        Self { store: host.store.clone(), jails_root, fleet: fleet.clone() }
    }

    /// The fleet's name.
    pub fn fleet(&self) -> &FleetName {
        &self.fleet
    }

    /// The store itself.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// Where jails stand, and what is linked into them; the store itself unless `[host] jails` names another.
    pub fn jails_root(&self) -> &Path {
        &self.jails_root
    }

    /// The fleet's own directory there.
    pub fn jails_root_of_fleet(&self) -> PathBuf {
        self.jails_root.join(self.fleet.as_str())
    }

    /// Which place was used last, where it is not the store.
    pub fn jails_root_record(&self) -> PathBuf {
        self.dir().join("place.json")
    }

    /// Directories of the fleet that are there in whichever place is used.
    pub fn dirs_below(&self, jails_root: &Path) -> [PathBuf; 3] {
        ["jails", "disks", "snapshots"].map(|name| jails_root.join(self.fleet.as_str()).join(name))
    }

    /// The fleet's own directory.
    pub fn dir(&self) -> PathBuf {
        self.store.join(self.fleet.as_str())
    }

    /// Immutable files by digest, shared between fleets.
    pub fn files(&self) -> PathBuf {
        self.jails_root.join("files")
    }

    /// One of them.
    pub fn file(&self, digest: &FileDigest) -> PathBuf {
        self.files().join(digest.to_string())
    }

    /// Held while the host is changed.
    pub fn lock(&self) -> PathBuf {
        self.dir().join("lock")
    }

    /// What happened.
    pub fn events(&self) -> PathBuf {
        self.dir().join("events.log")
    }

    /// Held by whoever brings a guest back or makes the kernel's set of those who are cut off anew.
    pub fn quarantine_lock(&self) -> PathBuf {
        self.dir().join("quarantine.lock")
    }

    /// Held while that is written.
    pub fn events_lock(&self) -> PathBuf {
        self.dir().join("events.lock")
    }

    /// Addresses of guests that went, whose connections have not ended yet.
    pub fn ending(&self) -> PathBuf {
        Self::forwarding().with_file_name(format!("{}.ending", self.fleet))
    }

    /// Held by whoever keeps what comes of guests' packets.
    pub fn flows_lock(&self) -> PathBuf {
        self.dir().join("flows.lock")
    }

    /// The host's private ssh key.
    pub fn key(&self) -> PathBuf {
        self.dir().join("key")
    }

    /// Where that key is made; nothing is there unless whoever made it was killed.
    pub fn new_key(&self) -> PathBuf {
        self.dir().join(format!("{NOT_WHOLE}key"))
    }

    /// Records of guests that are cut off. They are kept apart from the guests' own, since they outlive those.
    pub fn quarantine(&self) -> PathBuf {
        self.dir().join("quarantine")
    }

    /// How nft lists what cuts them off.
    pub fn quarantine_rules(&self) -> PathBuf {
        self.dir().join("quarantine.json")
    }

    /// That a guest is cut off.
    pub fn quarantined(&self, guest: &GuestName) -> PathBuf {
        self.quarantine().join(format!("{guest}.json"))
    }

    /// What was loaded into nft in the network namespace.
    pub fn ruleset(&self) -> PathBuf {
        self.dir().join("ruleset.json")
    }

    /// What the kernel held of that then.
    pub fn ruleset_held(&self) -> PathBuf {
        self.dir().join("ruleset-held.json")
    }

    /// The rules that were loaded, without their lists, by which the next ones are compared.
    pub fn ruleset_body(&self) -> PathBuf {
        self.dir().join("ruleset.nft")
    }

    /// What was loaded into nft on the host's side.
    pub fn host_rules(&self) -> PathBuf {
        self.dir().join("host-rules.json")
    }

    /// The network namespace of the fleet's guests.
    pub fn netns(&self) -> Netns {
        Self::netns_of(&self.fleet)
    }

    /// The same of any fleet.
    pub fn netns_of(fleet: &FleetName) -> Netns {
        Netns::named(&format!("sisforge-{fleet}"))
    }

    /// The end on the host of the pair that leads out of it.
    ///
    /// # Errors
    /// Never: every fleet's name makes one.
    pub fn pair(&self) -> Result<InterfaceName, InvalidValue> {
        pair_name(&self.fleet)
    }

    /// Which interfaces of the host fleets had switched on for forwarding.
    pub fn forwarding() -> PathBuf {
        PathBuf::from("/run/sisforge/forwarding.json")
    }

    /// What was started for policies that name names.
    pub fn resolvers(&self) -> PathBuf {
        self.dir().join("resolvers")
    }

    /// The same of one seat.
    pub fn resolver(&self, seat: u16) -> PathBuf {
        self.resolvers().join(seat.to_string())
    }

    /// What was started in a seat.
    pub fn resolver_record(&self, seat: u16) -> PathBuf {
        self.resolver(seat).join("resolver.json")
    }

    /// Data disks that are kept.
    pub fn disks(&self) -> PathBuf {
        self.jails_root_of_fleet().join("disks")
    }

    /// A guest's kept data disk.
    pub fn disk(&self, guest: &GuestName) -> PathBuf {
        self.disks().join(format!("{guest}.ext4"))
    }

    /// Disks that sessions bring, each in a directory of its own. No guest's disk is called so: those are files.
    pub fn session_disks(&self) -> PathBuf {
        self.disks().join("sessions")
    }

    /// The directory of one of them.
    pub fn session_disk_dir(&self, name: &Label) -> PathBuf {
        self.session_disks().join(name.as_str())
    }

    /// The disk itself.
    pub fn session_disk(&self, name: &Label) -> PathBuf {
        self.session_disk_numbered(name, 0)
    }

    /// Where it goes if another has its name by then; from 1 on, `number` tells several from each other.
    pub fn session_disk_numbered(&self, name: &Label, number: u32) -> PathBuf {
        let file = match number {
            0 => "disk.ext4".to_owned(),
            1 => format!("disk{BEFORE}replaced.ext4"),
            _ => format!("disk{BEFORE}replaced-{number}.ext4"),
        };
        self.session_disk_dir(name).join(file)
    }

    /// Where a data disk goes that a restore puts another in the place of; `number` tells several from each other.
    pub fn disk_before(&self, guest: &GuestName, snapshot: &SnapshotName, number: u32) -> PathBuf {
        let number = if number < 2 { String::new() } else { format!("-{number}") };
        self.disks().join(format!("{guest}{BEFORE}{snapshot}{number}.ext4"))
    }

    /// Where a data disk goes that had the name of another which was in use; `number` as before.
    pub fn replaced_disk(&self, guest: &GuestName, number: u32) -> PathBuf {
        let number = if number < 2 { String::new() } else { format!("-{number}") };
        self.disks().join(format!("{guest}{BEFORE}replaced{number}.ext4"))
    }

    /// All snapshots.
    pub fn snapshots(&self) -> PathBuf {
        self.jails_root_of_fleet().join("snapshots")
    }

    /// Those that can be restored.
    pub fn ready_snapshots(&self) -> PathBuf {
        self.snapshots().join("ready")
    }

    /// Those that were restored.
    pub fn consumed_snapshots(&self) -> PathBuf {
        self.snapshots().join("consumed")
    }

    /// A snapshot that can be restored.
    pub fn ready_snapshot(&self, name: &SnapshotName) -> PathBuf {
        self.ready_snapshots().join(name.as_str())
    }

    /// A snapshot that was restored.
    pub fn consumed_snapshot(&self, name: &SnapshotName) -> PathBuf {
        self.consumed_snapshots().join(name.as_str())
    }

    /// A snapshot that is being made.
    pub fn new_snapshot(&self, name: &SnapshotName) -> PathBuf {
        self.snapshots().join(format!("{NOT_WHOLE}{name}"))
    }

    /// What became of each snapshot.
    pub fn ledger(&self) -> PathBuf {
        self.dir().join("snapshots.ledger")
    }

    /// The same, outside of the store.
    pub fn witness(&self) -> PathBuf {
        Self::host_dir().join(format!("{}.ledger", self.fleet))
    }

    /// Held while either is read or written: stores that are copies of each other share the witness, and not their own lock.
    pub fn ledger_lock(&self) -> PathBuf {
        Self::host_dir().join(format!("{}.lock", self.fleet))
    }

    /// The key for whose public half snapshots are encrypted that are to be restored on this host.
    pub fn host_key() -> PathBuf {
        Self::host_dir().join("key")
    }

    /// Held while that is made.
    pub fn host_key_lock() -> PathBuf {
        Self::host_dir().join("key.lock")
    }

    /// What this host keeps outside of every store.
    fn host_dir() -> PathBuf {
        PathBuf::from("/var/lib/sisforge-host")
    }

    /// Records and logs of all guests.
    pub fn guests(&self) -> PathBuf {
        self.dir().join("guests")
    }

    /// Records and logs of one guest.
    pub fn guest(&self, guest: &GuestName) -> GuestDir {
        GuestDir(self.guests().join(guest.as_str()))
    }

    /// Chroots of every VMM; the jailer's `--chroot-base-dir`.
    pub fn jails(&self) -> PathBuf {
        self.jails_root_of_fleet().join("jails")
    }

    /// A guest's jail directory, `<jails>/<name of the executable>/<id>` as the jailer makes it.
    pub fn jail(&self, vmm: VmmKind, guest: &GuestName, attempt: u32) -> PathBuf {
        self.jails().join(vmm_folder(vmm)).join(jail_id(guest, attempt))
    }

    /// The chroot in it.
    pub fn jail_root(&self, vmm: VmmKind, guest: &GuestName, attempt: u32) -> PathBuf {
        self.jail(vmm, guest, attempt).join("root")
    }

    /// The guest's cgroup, below each controller's root.
    pub fn cgroup(&self, guest: &GuestName) -> String {
        format!("{}/{guest}", self.cgroups())
    }

    /// The cgroup of the processes that keep the guests' logs, so that they end with no other service. No guest is called so.
    pub fn keepers_cgroup(&self) -> String {
        format!("{}/{KEEPERS}", self.cgroups())
    }

    /// The cgroup of a program of a resolver.
    pub fn resolver_cgroup(&self, program: ResolverProgram, seat: u16) -> String {
        format!("{}/{}{seat}", self.cgroups(), program.cgroup_prefix())
    }

    /// What the TAPs of this fleet have as alias, since their names are those of guests alone.
    pub fn tap_alias(&self) -> String {
        format!("{ALIAS}{}", self.fleet)
    }

    /// Whether a TAP of that alias may be this fleet's; one that is half made has none yet.
    pub fn owns_tap(&self, alias: Option<&str>) -> bool {
        alias.is_none_or(|alias| alias == self.tap_alias())
    }

    /// The fleet's cgroup, of which those of the guests are children.
    pub fn cgroups(&self) -> String {
        format!("sisforge/{}", self.fleet)
    }
}

const ALIAS: &str = "sisforge fleet ";

/// Whether an interface of this alias is a fleet's.
pub fn is_alias(alias: &str) -> bool {
    alias.starts_with(ALIAS)
}

/// What the names of snapshots begin with that are not whole yet. No name of a snapshot begins so.
pub const NOT_WHOLE: &str = ".new-";

/// The cgroup of the processes that keep logs, among those of the guests.
pub const KEEPERS: &str = ".logs";

/// Between a guest and a snapshot in the name of a disk that a restore put another in the place of.
pub const BEFORE: &str = ".before-";
