//! The lists and numbers that the rules hold the code to. An entry that is no longer needed fails, and so does a number that
//! could be smaller: both only ever shrink.

use super::rules::Allowed;

/// Stages in the order in which data flows: each uses only those before it. One that `src/lib.rs` does not declare is no error.
pub const ORDER: [&str; 12] =
    ["base", "sys", "fleet", "apk", "lock", "image", "build", "host", "plan", "apply", "run", "cli"];

/// Lines of code in one file, without its tests.
pub const LONGEST_FILE: usize = 500;

/// Lines of one function, without blank ones and comments. To become the goal.
pub const LONGEST_FUNCTION: usize = 50;
pub const FUNCTION_GOAL: usize = 40;
/// How many functions are longer than the goal.
pub const LONG_FUNCTIONS: usize = 18;

/// How many names are borne by several types.
pub const DOUBLED_NAMES: usize = 2;

/// What starts a process, or becomes another program.
pub const PROCESSES: [&str; 4] =
    ["std::process::Command", "std::os::unix::process::CommandExt", "duct", "rustix::runtime"];

pub const MAY_START_PROCESSES: &[Allowed] = &[
    Allowed { file: "src/sys/tool.rs", functions: &["*"], why: "the one wrapper of tools" },
    Allowed {
        file: "src/sys/launch.rs",
        functions: &["*"],
        why: "what outlives its starter, or becomes another program",
    },
];

pub const ENVIRONMENT: [&str; 2] = ["std::env", "#[arg(env)]"];

pub const MAY_READ_ENVIRONMENT: &[Allowed] = &[
    Allowed { file: "src/cli/settings.rs", functions: &["*"], why: "settings are resolved here, once" },
    Allowed {
        file: "src/run/host.rs",
        functions: &["program"],
        why: "finds its own program, to start it again",
    },
    Allowed { file: "src/sys/tool.rs", functions: &["*"], why: "PATH, by which tools are found" },
    Allowed {
        file: "src/sys/sandbox.rs",
        functions: &["search_path", "view"],
        why: "the same PATH, as far as a sandbox shows it",
    },
    Allowed { file: "src/cli/build.rs", functions: &["check"], why: "a folder for the second build" },
    Allowed { file: "src/sys/kvm.rs", functions: &["probe"], why: "a folder for the proof's guest" },
    Allowed {
        file: "src/sys/log/keep.rs",
        functions: &["confine"],
        why: "leaves the folder outside its root",
    },
];

/// What changes a host: files, interfaces, rules, mounts, cgroups, processes, VMMs.
pub const CHANGES: &[&str] = &[
    "std::fs::write",
    "std::fs::rename",
    "std::fs::copy",
    "std::fs::hard_link",
    "std::fs::remove_file",
    "std::fs::remove_dir",
    "std::fs::remove_dir_all",
    "std::fs::create_dir",
    "std::fs::create_dir_all",
    "std::fs::set_permissions",
    "std::fs::DirBuilder",
    "std::fs::OpenOptions",
    "std::fs::File::create",
    "std::fs::File::create_new",
    "std::fs::File::options",
    "std::os::unix::fs::chown",
    "std::os::unix::fs::fchown",
    "std::os::unix::fs::lchown",
    "std::os::unix::fs::symlink",
    "rustix::fs::chown",
    "rustix::fs::chownat",
    "rustix::fs::mknodat",
    "rustix::fs::linkat",
    "rustix::fs::renameat",
    "rustix::fs::renameat_with",
    "rustix::fs::unlinkat",
    "rustix::mount",
    "rustix::process::kill_process",
    "crate::sys::fs::write",
    "crate::sys::fs::write_unsynced",
    "crate::sys::fs::remove",
    "crate::sys::fs::create_dir_all",
    "crate::sys::fs::create_private_dir",
    "crate::sys::fs::create_dirs",
    "crate::sys::fs::make_pipe",
    "crate::sys::fs::NewFile::create",
    "crate::sys::remove",
    "crate::sys::sparse::dig_holes",
    "crate::sys::sparse::copy",
    "crate::sys::sparse::copy_to_the_end",
    "crate::sys::verity::enable",
    "crate::sys::netns::create",
    "crate::sys::netns::remove",
    "crate::sys::netns::enter",
    "crate::sys::nft::load",
    "crate::sys::nft::delete_table",
    "crate::sys::pair::connect",
    "crate::sys::ip::create_tap",
    "crate::sys::ip::link::delete_index",
    "crate::sys::ip::link::delete_together",
    "crate::sys::ip::delete_link",
    "crate::sys::ip::set_sysctl",
    "crate::sys::conntrack::end",
    "crate::sys::tap::harden",
    "crate::sys::tap::shape",
    "crate::sys::tap::unshape",
    "crate::sys::ip::delete_together",
    "crate::sys::mount::tmpfs",
    "crate::sys::mount::unmount",
    "crate::sys::process::send_signal",
    "crate::sys::launch::spawn",
    "crate::sys::launch::exec_in_cgroup",
    "crate::sys::launch::join_cgroups",
    "hierarchy.create",
    "hierarchy.remove",
    "hierarchy.take_in",
    "hierarchy.thaw",
    ".kill",
    ".kill_alone",
    ".set_len",
    ".set_permissions",
    ".set_times",
    ".patch",
    ".put",
    ".commit",
    ".pause",
    ".resume",
    ".create_snapshot",
    ".load_snapshot",
    ".send_ctrl_alt_del",
    ".system_powerdown",
    ".balloon",
    ".quit",
    ".migrate",
];

pub const MAY_CHANGE: &[Allowed] = &[
    Allowed {
        file: "src/apply/control/firecracker.rs",
        functions: &["Api::save", "Api::load", "Api::shut_down", "Api::adjust", "Api::change_session_disk"],
        why: "what a running Firecracker is told, for the steps on VMMs, snapshots and sessions",
    },
    Allowed {
        file: "src/apply/control/qemu.rs",
        functions: &["Connection::shut_down", "Connection::adjust"],
        why: "what a running QEMU is told, for the steps on VMMs and snapshots",
    },
    Allowed {
        file: "src/apply/disk.rs",
        functions: &[
            "remove",
            "GuestHandle::purge",
            "GuestHandle::create_disk",
            "GuestHandle::give_disk",
            "GuestHandle::grow_disk",
            "export",
            "checked_copy",
            "GuestHandle::import_disk",
            "GuestHandle::remember_size",
        ],
        why: "steps on data disks; `export` writes the file that the user names; `import` copies to a new file and renames it over the disk of a stopped guest: one change, whole or not at all, which a plan would neither order nor repair",
    },
    Allowed {
        file: "src/apply/session_disk.rs",
        functions: &[
            "hold",
            "HeldSessionDisk::prepare",
            "HeldSessionDisk::create",
            "HeldSessionDisk::remove",
            "HeldSessionDisk::drop",
            "GuestHandle::attach_session_disk",
            "GuestHandle::announce_session_disk",
        ],
        why: "`session start` holds no host and follows no plan: it takes one guest by a rename and gives it one disk by a link, under that disk's own lock; what is half done is a guest in no session, which the next plan removes",
    },
    Allowed {
        file: "src/apply/session_disk.rs",
        functions: &["GuestHandle::relink_session_disks"],
        why: "a step on disks that only a jail has, as in lost_disk.rs",
    },
    Allowed {
        file: "src/apply/facts.rs",
        functions: &["prove_kvm", "fix"],
        why: "doctor: `prove_kvm` opens /dev/kvm, `fix` sets what the user agreed to",
    },
    Allowed {
        file: "src/apply/jail.rs",
        functions: &[
            "GuestHandle::create_jail",
            "lay_out",
            "write_new",
            "write_blank",
            "directory",
            "take_back",
            "GuestHandle::clear",
            "GuestHandle::remove_jails",
            "remove_parents",
        ],
        why: "steps on jails",
    },
    Allowed {
        file: "src/apply/jail/lost_disk.rs",
        functions: &[
            "GuestHandle::relink_disk",
            "GuestHandle::set_aside",
            "GuestHandle::rescue_disk",
            "GuestHandle::copy_back",
        ],
        why: "steps on disks that only a jail or a VMM has",
    },
    Allowed {
        file: "src/apply/keeper.rs",
        functions: &[
            "GuestHandle::start_keeper",
            "GuestHandle::spawn_keeper",
            "GuestHandle::wake_keeper",
            "GuestHandle::end_keeper",
        ],
        why: "steps on keepers of logs",
    },
    Allowed {
        file: "src/apply/linux.rs",
        functions: &["copy", "Scope::chown"],
        why: "copies and owners, for the steps",
    },
    Allowed {
        file: "src/apply/resolver.rs",
        functions: &["ResolverHost::start", "ResolverHost::stop", "ResolverHost::run", "forget"],
        why: "steps on resolvers of names",
    },
    Allowed {
        file: "src/apply/network.rs",
        functions: &[
            "create_namespace",
            "connect",
            "load_host_rules",
            "load_ruleset",
            "remove",
            "remove_earlier",
        ],
        why: "steps on the network of a fleet",
    },
    Allowed {
        file: "src/apply/network/forwarding.rs",
        functions: &["forward_by", "put_back"],
        why: "parts of the steps that connect a network and remove it",
    },
    Allowed {
        file: "src/apply/connections.rs",
        functions: &["note", "end_noted"],
        why: "what guests leave in the kernel's tables",
    },
    Allowed {
        file: "src/apply/preflight.rs",
        functions: &["record_jails_root", "check_writable"],
        why: "tries whether the store can be written to, before anything is stopped",
    },
    Allowed {
        file: "src/apply/prove.rs",
        functions: &["Scratch::build", "Scratch::load", "Scratch::load_beside"],
        why: "rules in a network that is nobody's, and ends with its process",
    },
    Allowed {
        file: "src/apply/pool.rs",
        functions: &["GuestHandle::make_spare", "GuestHandle::begin_session"],
        why: "a step, and its counterpart in `session start`, to which a rename gave the guest alone",
    },
    Allowed {
        file: "src/apply/pool.rs",
        functions: &["GuestHandle::take", "GuestHandle::withdraw"],
        why: "`session` holds no host and makes no plan: the rename in `take` decides between two; `withdraw` is a step",
    },
    Allowed {
        file: "src/apply/record/quarantine.rs",
        functions: &["note", "release", "load", "change"],
        why: "`quarantine` and `release` hold no host and make no plan; `load` is part of the step on rules",
    },
    Allowed {
        file: "src/apply/record.rs",
        functions: &["write", "write_synced"],
        why: "records of what cannot be observed",
    },
    Allowed {
        file: "src/apply/rules.rs",
        functions: &["load", "change"],
        why: "the step that loads the rules of guests",
    },
    Allowed {
        file: "src/apply/snapshot/create.rs",
        functions: &[
            "write_all",
            "copy_disk",
            "GuestHandle::copy_session_disk",
            "new_file",
            "open_for_vmm",
            "GuestHandle::loosen",
            "GuestHandle::limit_again",
            "clear_name",
            "put_away",
            "take_back",
            "GuestHandle::unpause",
        ],
        why: "a snapshot is no difference between what a host has and should have, so no plan contains it: one guest is paused, copied and resumed within PAUSE_LIMIT; `take_back` undoes it, and after a kill the next plan sees the paused guest by its marker",
    },
    Allowed {
        file: "src/apply/snapshot/seal.rs",
        functions: &["seal_file"],
        why: "what a snapshot holds becomes final, as the last part of its making",
    },
    Allowed {
        file: "src/apply/snapshot/evidence.rs",
        functions: &["take_out"],
        why: "evidence is a snapshot whose files lose their names",
    },
    Allowed {
        file: "src/apply/snapshot/ledger.rs",
        functions: &["hold", "bring_up", "append", "cut", "begin_anew", "set_aside"],
        why: "the ledger of snapshots, which is no part of what a host should have: it is added to before what its lines tell of is done",
    },
    Allowed {
        file: "src/apply/snapshot/restore.rs",
        functions: &["GuestHandle::consume_snapshot", "GuestHandle::take_over_disk", "remove_restored"],
        why: "steps on snapshots",
    },
    Allowed {
        file: "src/apply/snapshot/shelf.rs",
        functions: &["remove", "clear"],
        why: "`snapshot rm`, and the step that clears what was left half done",
    },
    Allowed {
        file: "src/apply/snapshot/transfer.rs",
        functions: &["write_file", "hand_over", "import", "extract"],
        why: "`snapshot export` and `import`, whose files come under a name that does not count until they are whole",
    },
    Allowed {
        file: "src/apply/steps.rs",
        functions: &[
            "store_file",
            "remove_network",
            "create_tap",
            "remove_tap",
            "remove_taps",
            "delete_tap",
            "GuestHandle::create_cgroup",
            "GuestHandle::remove_cgroup",
            "remove_cgroup_parents",
        ],
        why: "the one match over Step, and the steps of a Linux host",
    },
    Allowed {
        file: "src/apply/store.rs",
        functions: &["seal", "close", "seal_by_kernel", "seal_all"],
        why: "marks a file of the store, for the step that stores it and for stores of earlier versions",
    },
    Allowed {
        file: "src/run/forensics/archive.rs",
        functions: &["ArchiveWriter::create"],
        why: "writes the archive of evidence that the user names",
    },
    Allowed {
        file: "src/run/forensics/examine.rs",
        functions: &["extract"],
        why: "members of an archive, in a temporary directory of this process",
    },
    Allowed {
        file: "src/run/events.rs",
        functions: &["append"],
        why: "what was done, which changes nothing of it",
    },
    Allowed {
        file: "src/run/metrics.rs",
        functions: &["write"],
        why: "the file that a user names for the node exporter",
    },
    Allowed {
        file: "src/run/systemd.rs",
        functions: &["FleetUnit::install", "SessionUnits::install"],
        why: "`systemd --install`: the units, which are this host's and no guest's",
    },
    Allowed {
        file: "src/apply/vmm.rs",
        functions: &[
            "GuestHandle::start_vmm",
            "console",
            "GuestHandle::continue_vmm",
            "GuestHandle::take_into_cgroup",
            "GuestHandle::kill_vmm",
            "end",
        ],
        why: "steps on VMMs; `console` opens the guest's input",
    },
    Allowed {
        file: "src/run/packing.rs",
        functions: &["write", "index"],
        why: "writes the package or index that the user names",
    },
    Allowed { file: "src/cli/console.rs", functions: &["run"], why: "writes what the user types" },
    Allowed { file: "src/cli/init.rs", functions: &["run"], why: "writes the first fleet.toml" },
    Allowed {
        file: "src/run/keys.rs",
        functions: &["write_alpine"],
        why: "writes the keys that the user asks for",
    },
    Allowed { file: "src/cli/keep_logs.rs", functions: &["run"], why: "joins its cgroup" },
    Allowed {
        file: "src/cli/kernel/compact.rs",
        functions: &["run"],
        why: "writes the file that the user names",
    },
    Allowed { file: "src/cli/launch.rs", functions: &["run"], why: "becomes the VMM, in its cgroup" },
    Allowed {
        file: "src/cli/man.rs",
        functions: &["pages"],
        why: "writes into the folder that the user names",
    },
    Allowed {
        file: "src/run/exchange.rs",
        functions: &["sign"],
        why: "writes the manifest of digests and its signatures, beside fleet.lock",
    },
    Allowed {
        file: "src/run/signatures.rs",
        functions: &["check"],
        why: "keeps signatures that were good, for when the registry is away",
    },
    Allowed { file: "src/run/gc.rs", functions: &["Garbage::remove"], why: "removes what nothing names" },
    Allowed {
        file: "src/run/host.rs",
        functions: &["hold", "hold_to_remove", "settle"],
        why: "makes the store for its lock, and clears what a key was to become",
    },
    Allowed {
        file: "src/run/lock.rs",
        functions: &["update_of", "LockedProject::pin"],
        why: "writes fleet.lock",
    },
    Allowed {
        file: "src/run/saved_plan.rs",
        functions: &["SavedPlan::write"],
        why: "the file that the user names",
    },
    Allowed {
        file: "src/run/scripts.rs",
        functions: &["Acceptance::carry_out"],
        why: "`lock --accept-scripts`: writes fleet.toml, once it was asked for",
    },
    Allowed {
        file: "src/run/tree.rs",
        functions: &["write", "write_all", "describe"],
        why: "writes into the folder that the user names",
    },
    Allowed {
        file: "src/run/watch/source.rs",
        functions: &[
            "RevisionSource::checked_out",
            "RevisionSource::remember",
            "RevisionSource::checked_out",
            "RevisionSource::clear_for",
            "RevisionSource::discard",
        ],
        why: "keeps the revisions of its repository",
    },
];

/// Stages and files that compute values from values.
pub const PURE: [&str; 11] = [
    "src/base/",
    "src/host/",
    "src/plan/",
    "src/image/tree.rs",
    "src/image/scripts.rs",
    "src/image/difference.rs",
    "src/image/space.rs",
    "src/image/sbom/",
    "src/image/layout/",
    "src/image/recipe/compose",
    "src/image/recipe/render.rs",
];

pub const PURE_BUT: &[Allowed] = &[
    Allowed {
        file: "src/base/time.rs",
        functions: &["now"],
        why: "the one place that asks for the time, for those who pass it on",
    },
    Allowed {
        file: "src/image/layout/finish.rs",
        functions: &["Finish::add_files"],
        why: "reads the files that fleet.toml adds to an image",
    },
];

/// What reads or writes. The time is a parameter too.
pub const INPUT_OUTPUT: &[&str] = &[
    "std::fs",
    "std::env",
    "std::process",
    "std::os::unix::fs",
    "std::os::unix::net",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    "std::time::SystemTime::now",
    "std::time::Instant",
    "rustix",
    "duct",
    "tempfile",
    ".exists",
    ".canonicalize",
    ".read_dir",
    ".symlink_metadata",
    "crate::sys::fs::read",
    "crate::sys::fs::read_text",
    "crate::sys::fs::read_text_if_present",
    "crate::sys::fs::names_in",
    "crate::sys::fs::allocated_within",
    "crate::sys::fs::free_space",
    "crate::sys::fs::existing_ancestor",
    "crate::sys::fs::write",
    "crate::sys::fs::remove",
    "crate::sys::fs::NewFile",
    "crate::sys::fs::FileLock",
    "crate::sys::fetch",
    "crate::sys::http",
    "crate::sys::ip",
    "crate::sys::launch",
    "crate::sys::netns::create",
    "crate::sys::netns::remove",
    "crate::sys::netns::enter",
    "crate::sys::netns::within",
    "crate::sys::netns::presence",
    "crate::sys::nft",
    "crate::sys::process",
    "crate::sys::remove",
    "crate::sys::ssh",
    "crate::sys::tool::find",
    "crate::sys::digest",
    "crate::sys::verity",
    "crate::sys::sparse",
    "crate::sys::kernel",
    "crate::sys::kvm",
    "crate::sys::ports",
    "crate::sys::conntrack",
    "crate::sys::mount",
    "crate::sys::cgroup::detect",
    "crate::sys::untrusted",
    "crate::sys::socket",
    "crate::sys::git",
];

/// A host is asked to take steps where plans are carried out.
pub const MAY_TAKE_STEPS: [&str; 1] = ["src/apply/mod.rs"];

/// Modules that use each other in a circle. To be cut, not to be added to.
pub const CIRCLES: &[&[&str]] = &[];

/// Files with `unwrap()` or `expect(` outside of tests: how many, and why they cannot fail.
pub const UNWRAPS: &[(&str, usize, &str)] = &[];
