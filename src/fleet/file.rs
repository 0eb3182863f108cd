//! `fleet.toml` as it is written: each value well-formed, none compared with another yet.

mod container;
mod machine;

use schemars::{Schema, SchemaGenerator, json_schema};
use toml::Spanned;
use toml::de::DeValue;

use super::model::{Backing, OnExit, OptionValue, ParameterValue, Preset, Protocol, ScriptName, VmmKind};
use super::reader::{
    FieldSchema, FromToml, List, Named, Section, Value, key, section, section_schema, unexpected,
};
use super::registry::ArtifactPlace;
use super::scalar::{
    AbsolutePath, Account, Auto, Bandwidth, Count, DefaultAction, Destination, FsLabel, GuestNet,
    ImageLocation, Lifetime, LocalPath, Location, Mode, NameServer, OneOrMore, ParameterName, Ports,
    RuleList, ScriptDigest, Tag, UidRange, WebUrl, WorldEntry,
};
use crate::base::problem::{Problems, Read};
use crate::base::{
    ByteSize, FleetName, GuestName, GuestPath, InterfaceName, KernelOption, Label, PerSecond, Rate, Sha256,
};

pub use container::*;
pub use machine::*;

section! {
    /// A fleet of microVMs: what sisforge builds and runs.
    pub struct FleetFile {
        /// The fleet itself.
        fleet: FleetSection,
        /// The kernel that every guest boots.
        kernel: KernelSection,
        /// Repositories of apk packages, the preferred ones first.
        repository: Vec<Read<RepositorySection>>,
        /// Root images, by name.
        image: Named<Label, ImageSection>,
        /// Kinds of data disks, by name.
        disk: Named<Label, DiskSection>,
        /// Kinds of machines, by name.
        machine: Named<Label, MachineSection>,
        /// Network policies, by name.
        network: Named<Label, NetworkSection>,
        /// What guests have that do not say otherwise.
        defaults: Option<GuestSection>,
        /// Users, by name; each has a guest of that name.
        user: Named<GuestName, GuestSection>,
        /// Pools of guests that are alike and ephemeral: NAME-0, NAME-1 and so on.
        pool: Named<Label, PoolSection>,
        /// What is done with snapshots.
        snapshots: Option<SnapshotsSection>,
        /// What the fleet uses of its host.
        host: Option<HostSection>,
    }

    /// The fleet itself.
    pub struct FleetSection {
        /// Names the nft table, the cgroup and the state directory.
        name: Spanned<FleetName>,
        /// The program that runs guests; "firecracker" unless given. "qemu" also works without KVM.
        vmm: Option<VmmKind>,
        /// Registry that has what others built, such as "oci://registry.example.org/team/fleet:main". `build`, `up` and `watch` take
        /// from there what fleet.lock pins, by its digest, and build the rest; `push` and `pull` use it unless told another.
        artifacts: Option<ArtifactPlace>,
    }

    /// The kernel of the guests: either `source`, `base` and so on to build one, or `image`.
    pub struct KernelSection {
        /// URL of a tarball, or a local tarball or directory.
        source: Option<Spanned<Location>>,
        /// Other URLs of the same tarball, tried in this order if the source cannot be downloaded.
        mirrors: Option<Spanned<List<WebUrl>>>,
        /// SHA-256 of the tarball, or of `image`; always pinned in fleet.lock.
        sha256: Option<Spanned<Sha256>>,
        /// File of OpenPGP public keys, in place of `sha256`: one of them must have signed sha256sums.asc beside the source, as on
        /// kernel.org.
        keyring: Option<Spanned<LocalPath>>,
        /// Base configuration: kernel-configs/BASE.config.
        base: Option<Spanned<Label>>,
        /// Laid over the base in this order: kernel-configs/fragments/NAME.config.
        fragments: Option<Spanned<List<Label>>>,
        /// Options laid over base and fragments, with or without CONFIG_: true, false, a number or a string.
        options: Option<Spanned<Named<KernelOption, OptionValue>>>,
        /// Patches, applied in this order.
        patches: Option<Spanned<List<LocalPath>>>,
        /// A prebuilt vmlinux, instead of building one.
        image: Option<Spanned<LocalPath>>,
    }

    /// A repository of apk packages.
    pub struct RepositorySection {
        /// URL or path of the directory that holds x86_64/APKINDEX.tar.gz.
        url: Spanned<Location>,
        /// Other URLs of the same repository, tried in this order if the first one fails or serves files that cannot
        /// be trusted.
        mirrors: Option<Spanned<List<WebUrl>>>,
        /// Directory of the *.rsa.pub keys that may sign its index; "keys" unless given.
        keys: Option<Spanned<LocalPath>>,
        /// Packages come from here only if they are written NAME@TAG.
        tag: Option<Spanned<Tag>>,
    }

    /// A root image, shared read-only by the guests that name it.
    pub struct ImageSection {
        /// What the image can do: recipes/NAME/recipe.toml.
        recipes: List<Label>,
        /// Packages beyond those of the recipes, as in apk's world.
        packages: List<WorldEntry>,
        /// Size of the file system; "auto" unless given.
        size: Option<Spanned<Auto<ByteSize>>>,
        /// Files by their path in the guest.
        files: Named<GuestPath, FileSection>,
        /// Values of the recipes' parameters, by name.
        parameters: Named<ParameterName, Spanned<ParameterValue>>,
        /// Package scripts that no recipe covers and that the image does not need: their SHA-256 by PACKAGE.KIND, such as
        /// "busybox.post-install". No script ever runs.
        accept_scripts as "accept-scripts": Named<ScriptName, OneOrMore<ScriptDigest>>,
    }

    /// A file in an image: `content` or `file`.
    pub struct FileSection {
        /// The text of the file.
        content: Option<Spanned<String>>,
        /// A file to copy.
        file: Option<Spanned<LocalPath>>,
        /// Permissions in octal; 0o644 unless given.
        mode: Option<Mode>,
        /// Owner; root unless given.
        owner: Option<Account>,
        /// Group; root unless given.
        group: Option<Account>,
    }

    /// A kind of data disk: it holds the user's home and with it all container storage.
    pub struct DiskSection {
        /// Size of the disk.
        size: Spanned<ByteSize>,
        /// "file" (the default): kept across down and up. "tmpfs": in RAM, lost after down.
        backing: Option<Backing>,
        /// Container images already present when the guest boots, stored once for all guests: oci-archive:PATH, oci:PATH,
        /// docker-archive:PATH or docker://HOST/NAME:TAG.
        images: List<ImageLocation>,
        /// Label of the file system, up to 16 bytes; derived from the disk's inputs unless given.
        label: Option<FsLabel>,
        /// User of the image who owns the disk's top directory; the recipes' user with subordinate ids unless given.
        owner: Option<Account>,
    }

    /// What guests may reach. Deny wins over allow.
    pub struct NetworkSection {
        /// A starting point: "closed" (nothing), "browse" (the web at public addresses; no mail servers, no encrypted
        /// DNS other than `dns`) or "open" (all public addresses). The other keys add to it.
        preset: Option<Spanned<Preset>>,
        /// What happens to packets that match no rule; "deny" unless given.
        default: Option<Spanned<DefaultAction>>,
        /// Name servers: whatever guests send to port 53 goes there, whoever is asked.
        dns: List<NameServer>,
        /// Destinations that guests may reach. Private ranges (builtin:private) are not included, unless an entry lies
        /// within one.
        allow: Vec<Read<RuleSection>>,
        /// Destinations that guests may not reach, whatever `allow` and `dns` say.
        deny: Vec<Read<RuleSection>>,
        /// Limits on the traffic of each guest.
        rate: Option<RateSection>,
        /// How much one guest may use of what all share.
        budget: Option<BudgetSection>,
        /// Domain names that may not be asked for, or the only ones that may.
        names: Option<Spanned<NamesSection>>,
        /// Ways in to each guest, by ports of the host.
        publish: Vec<Read<PublishSection>>,
    }

    /// A way in to each guest. Nothing else comes in.
    pub struct PublishSection {
        /// What it is called in `ps`, in fleet.lock, and in the configuration of a proxy.
        name: Spanned<Label>,
        /// The guest's port.
        guest: Count<1, 65535>,
        /// A port of the host, or a range of them, of which each guest has one.
        host: Spanned<Ports>,
        /// Who may come in: addresses or prefixes. Everybody is ["0.0.0.0/0"].
        from: Spanned<List<Destination>>,
        /// "tcp" unless given.
        proto: Option<Protocol>,
    }

    /// Domain names, in files with one a line; each stands for all names below it as well. Port 53 then leads to a resolver of
    /// the host's, which asks `dns`; DNS over TLS and HTTPS is refused.
    pub struct NamesSection {
        /// Files of names that do not exist for the guest.
        deny: Option<Spanned<List<LocalPath>>>,
        /// Files of the only names that do. The web (TCP 80 and 443) is reached by these names alone, through a proxy that reads
        /// the name (SNI, Host) and resolves it itself; QUIC is refused.
        allow: Option<Spanned<List<LocalPath>>>,
    }

    /// How much one guest may use of what all share.
    pub struct BudgetSection {
        /// Concurrent connections; 1024 unless given.
        connections: Option<Count<1, 65535>>,
        /// New connections per second; "100/s" unless given.
        new_connections as "new-connections": Option<PerSecond>,
        /// Queries to port 53 per second; "50/s" unless given.
        dns_queries as "dns-queries": Option<PerSecond>,
    }

    /// Destinations and ports. Without ports, every protocol and port is meant.
    pub struct RuleSection {
        /// Addresses or prefixes.
        to: Option<Spanned<List<Destination>>>,
        /// A file of addresses or prefixes, one a line; or builtin:metadata, builtin:private, builtin:smtp, builtin:dot,
        /// builtin:doh, builtin:quic.
        list: Option<Spanned<RuleList>>,
        /// TCP ports, or ranges of them.
        tcp: Option<Spanned<Vec<Read<Ports>>>>,
        /// UDP ports, or ranges of them.
        udp: Option<Spanned<Vec<Read<Ports>>>>,
        /// Whether ICMP is meant too.
        icmp: Option<Spanned<bool>>,
    }

    /// Limits of traffic.
    pub struct RateSection {
        /// Towards the guest.
        down: Option<Rate>,
        /// From the guest.
        up: Option<Rate>,
    }

    /// What the uplink carries.
    pub struct UplinkRateSection {
        /// From the network.
        down: Option<Rate>,
        /// Into the network.
        up: Option<Rate>,
    }

    /// A guest; keys that are not given come from `[defaults]`.
    pub struct GuestSection {
        /// Name of its root image.
        image: Option<Spanned<Label>>,
        /// Name of its network policy.
        network: Option<Spanned<Label>>,
        /// Name of its kind of data disk, or the disk itself.
        disk: Option<Spanned<DiskChoice>>,
        /// Name of its kind of machine, or the machine itself.
        machine: Option<Spanned<MachineChoice>>,
        /// Virtual processors; 1 unless given.
        vcpus: Option<Spanned<Count<1, 32>>>,
        /// Memory; "512MiB" unless given.
        memory: Option<Spanned<ByteSize>>,
        /// Share of the processors relative to other guests, if there are not enough for all; 100 unless given.
        cpu_weight as "cpu-weight": Option<Count<1, 10000>>,
        /// Limits on the host's disk I/O; no limit unless given.
        io: Option<IoSection>,
        /// Containers that start with the guest.
        containers: Option<Vec<Read<ContainerSection>>>,
        /// What `watch` does when the guest's VMM ended by itself: "restart" (the default), later each time, or "leave".
        on_exit as "on-exit": Option<OnExit>,
    }

    /// Identical, ephemeral guests; keys that are not given come from `[defaults]`. Either `replicas` of them run, or, with `spare`
    /// and `max`, as many as there are sessions, and some more that wait for one.
    pub struct PoolSection with member: GuestSection {
        /// Number of guests, of a pool of fixed size.
        replicas: Option<Spanned<Count<0, 65536>>>,
        /// Guests that stand ready for `session start` beyond those in use.
        spare: Option<Spanned<Count<0, 65536>>>,
        /// Guests at the most, in use and spare.
        max: Option<Spanned<Count<1, 65536>>>,
        /// Whether spares are paused by their VMM, so that they take no CPU; true unless given. Those of QEMU run in any case: its
        /// guests would lose the time.
        paused: Option<Spanned<bool>>,
        /// The sessions that its guests are handed out for.
        session: Option<SessionSection>,
    }

    /// The sessions of a pool.
    pub struct SessionSection {
        /// When a session ends by itself, such as "8h"; never unless given.
        ttl: Option<Lifetime>,
        /// A session may bring a kept disk of its user's own (`session start --disk NAME`), which is made with this size; guests have
        /// no place for one unless given.
        disk: Option<Spanned<ByteSize>>,
        /// A container of the pool with which a session ends: once it has exited, or was removed.
        ends_with as "ends-with": Option<Spanned<Label>>,
    }

    /// Limits on the host's disk I/O of a guest per second, by its cgroup. They apply to all that its VMM does;
    /// on cgroup version 1, writes through the page cache are not held back.
    pub struct IoSection {
        /// Bytes read, such as "50MiB/s".
        read: Option<Bandwidth>,
        /// Bytes written.
        write: Option<Bandwidth>,
        /// Requests that read.
        read_operations as "read-operations": Option<Count<1, { u32::MAX }>>,
        /// Requests that write.
        write_operations as "write-operations": Option<Count<1, { u32::MAX }>>,
    }

    /// What the fleet uses of its host.
    pub struct HostSection {
        /// Interface that faces the network; "auto", that of the default route, unless given.
        uplink: Option<Auto<InterfaceName>>,
        /// What the uplink carries at the most: where it is full, each guest of the fleet has its share of that, however many
        /// connections it has. A little less than the line carries, so that packets wait here; without it, they wait where nobody
        /// tells guests apart.
        uplink_rate as "uplink-rate": Option<UplinkRateSection>,
        /// Addresses of the guests, a /30 for each; "10.107.0.0/16" unless given.
        subnet: Option<Spanned<GuestNet>>,
        /// User ids, one for each guest; "200000-265535" unless given.
        uids: Option<Spanned<UidRange>>,
        /// Directory of images, disks, snapshots, state and jails, all on one file system; "/var/lib/sisforge" unless given.
        store: Option<AbsolutePath>,
        /// Directory of the jails and of the files that they hard-link: images, disks and snapshots. Its file system
        /// must not be mounted nodev or noexec; the store unless given.
        jails: Option<AbsolutePath>,
        /// How much is kept of each log of each guest: serial port, VMM, metrics.
        logs: Option<LogsSection>,
    }

    /// What is done with snapshots.
    pub struct SnapshotsSection {
        /// Which are kept; all unless given. `snapshot create`, `gc` and `watch` remove the others, with the data disks in them.
        keep: Option<KeepSection>,
    }

    /// Which snapshots are kept: those that each of the given keys keeps.
    pub struct KeepSection {
        /// So many of each guest, the newest.
        count: Option<Count<1, 10_000>>,
        /// Those that are younger, such as "30days"; at least "1m".
        age: Option<Spanned<Lifetime>>,
        /// The newest that take no more of the disk together, such as "50GiB"; the newest of each guest is kept in any case.
        size: Option<ByteSize>,
    }

    /// How much is kept of a log.
    pub struct LogsSection {
        /// Size at which another file is begun, at least "4KiB"; "4MiB" unless given.
        size: Option<Spanned<ByteSize>>,
        /// Files that are kept beside the one that is written; 3 unless given.
        keep: Option<Count<0, 99>>,
    }
}

/// The data disk of a guest.
#[derive(Clone, Debug)]
pub enum DiskChoice {
    /// One of `[disk.NAME]`.
    Named(Label),
    /// Written out in the guest.
    Inline(DiskSection),
}

impl FromToml for DiskChoice {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Read<Self> {
        match value.get_ref() {
            DeValue::String(_) => Label::from_toml(value, problems).map(Self::Named),
            DeValue::Table(_) => DiskSection::from_toml(value, problems).map(Self::Inline),
            _ => Err(unexpected(value, "the name of a disk, or { size, backing }", problems)),
        }
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [Label::schema(generator), DiskSection::schema(generator)] })
    }
}
