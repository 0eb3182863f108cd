//! What stands in a guest's jail, whose it is, and what its VMM may do.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use sisforge::sys::process;

use crate::common::sandbox::{Run, Sandbox, until};
use crate::needs_firecracker;

/// Every file below a directory by its path there.
fn files(root: &Path) -> BTreeMap<String, Metadata> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let meta = entry.metadata().unwrap();
            if meta.is_dir() {
                dirs.push(entry.path());
            }
            found.insert(entry.path().strip_prefix(root).unwrap().display().to_string(), meta);
        }
    }
    found
}

fn mode(meta: &Metadata) -> u32 {
    meta.mode() & 0o7777
}

#[test]
fn a_jail_holds_its_guests_files_alone() {
    needs_firecracker!();
    let sandbox = Sandbox::running("ab");
    let (a, b) = (&sandbox.guest('a'), &sandbox.guest('b'));
    let (jail_a, jail_b) = (files(&sandbox.jail(a)), files(&sandbox.jail(b)));
    let names: Vec<_> = jail_a.keys().map(String::as_str).filter(|name| !name.starts_with("dev/")).collect();
    let expected = [
        "config.json",
        "data",
        "data/disk.ext4",
        "dev",
        "firecracker",
        "firecracker.pid",
        "rootfs.ext4",
        "run",
        "run/api.sock",
        "vmlinux",
        "vmm.log",
    ];
    assert_eq!(names, expected);
    let devices: Vec<_> = jail_a.keys().filter(|name| name.starts_with("dev/")).collect();
    assert!(
        devices.iter().all(|name| ["dev/kvm", "dev/net", "dev/net/tun", "dev/urandom", "dev/userfaultfd"]
            .contains(&name.as_str())),
        "{devices:?}"
    );

    let store = files(&sandbox.path("store/files"));
    for shared in ["rootfs.ext4", "vmlinux"] {
        let meta = &jail_a[shared];
        assert_eq!((meta.uid(), meta.gid(), mode(meta)), (0, 0, 0o444), "{shared}");
        assert_eq!(meta.ino(), jail_b[shared].ino(), "{shared} is one file for all");
        assert!(store.values().any(|file| file.ino() == meta.ino()), "{shared} is the store's");
    }
    for roots in [".", "data", "dev", "dev/net", "run"] {
        let meta = if roots == "." { &fs::metadata(sandbox.jail(a)).unwrap() } else { &jail_a[roots] };
        assert_eq!(
            (meta.uid(), meta.gid(), mode(meta)),
            (0, 0, 0o755),
            "nothing is made or replaced in {roots}"
        );
    }
    for own in ["data/disk.ext4", "vmm.log", "run/api.sock"] {
        let (of_a, of_b) = (&jail_a[own], &jail_b[own]);
        assert_ne!(of_a.uid(), of_b.uid(), "{own}");
        assert_eq!(u64::from(of_a.uid()), sandbox.ps(a)["uid"].as_u64().unwrap(), "{own}");
        assert_eq!(mode(of_a) & 0o022, 0, "{own} is for its user alone: {:o}", mode(of_a));
        assert_ne!(of_a.ino(), of_b.ino(), "{own}");
    }
    let disk = fs::metadata(sandbox.disk(a)).unwrap();
    assert_eq!((disk.ino(), mode(&disk)), (jail_a["data/disk.ext4"].ino(), 0o600));
    assert_eq!(mode(&jail_a["config.json"]), 0o444);
    for above in [sandbox.path("store").join(&sandbox.name), sandbox.path("store/files")] {
        assert_eq!(mode(&fs::metadata(&above).unwrap()), 0o700, "{}", above.display());
    }
}

#[test]
fn a_jail_that_cannot_be_removed_is_named_and_in_nobodys_way() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let a = &sandbox.guest('a');
    let first = sandbox.jail(a);
    let held = first.join("config.json");
    let chattr = |flag: &str| Run::of(Command::new("chattr").arg(flag).arg(&held)).code == 0;
    if !chattr("+i") {
        return eprintln!("SKIPPED: no file can be made immutable here");
    }
    let pid = sandbox.pid(a);
    Run::of(Command::new("kill").args(["-9", &pid.to_string()])).fails(0, &[]);
    // A busy machine takes its time to end one.
    until("it is dead", || process::inspect(pid).is_none());
    let run = sandbox.run("up");
    let named = [held.to_str().unwrap(), "Operation not permitted", &format!("failed: {a}")];
    let in_the_way = sandbox.run("plan");
    let down = sandbox.run("down");
    chattr("-i");
    run.fails(1, &named);
    assert!(in_the_way.out.contains("remove jails of earlier attempts"), "{in_the_way}");
    down.fails(1, &named);
    sandbox.run("up").fails(0, &[]);
    assert_ne!(sandbox.jail(a), first);
    assert!(!first.parent().unwrap().exists());
    sandbox.run("plan --detailed-exitcode").fails(0, &[]);
    sandbox.done("down");
    assert_eq!(sandbox.traces(), [""; 0]);
}

/// A line of `/proc/PID/status`.
fn status(pid: u32, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_start_matches(':').split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_vmm_runs_as_its_guests_uid_confined_and_limited() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let a = &sandbox.guest('a');
    let (pid, ps) = (sandbox.pid(a), sandbox.ps(a));
    let uid = ps["uid"].to_string();
    assert_eq!(status(pid, "Uid"), format!("{uid} {uid} {uid} {uid}"));
    assert_eq!(status(pid, "Gid"), format!("{uid} {uid} {uid} {uid}"));
    assert_eq!(status(pid, "Groups"), "");
    assert_eq!(status(pid, "NoNewPrivs"), "1");
    assert_eq!(status(pid, "Seccomp"), "2", "filtered");
    assert_eq!(status(pid, "CapEff"), "0000000000000000");
    let root = fs::metadata(format!("/proc/{pid}/root/")).unwrap();
    assert_eq!(root.ino(), fs::metadata(sandbox.jail(a)).unwrap().ino(), "the jail is all that it sees");
    let mounts = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
    assert_ne!(mounts(&pid.to_string()), mounts("self"), "a mount namespace of its own");

    let read = |file: &str| {
        let values = sandbox.cgroups(a).into_iter().filter_map(|dir| fs::read_to_string(dir.join(file)).ok());
        values.map(|value| value.trim().to_owned()).collect::<Vec<_>>()
    };
    assert!(!read("cgroup.procs").is_empty());
    assert!(read("cgroup.procs").iter().all(|procs| *procs == pid.to_string()), "{:?}", read("cgroup.procs"));
    let memory = [read("memory.max"), read("memory.limit_in_bytes")].concat();
    assert_eq!(memory, [((64 + 64) << 20).to_string()], "the guest's memory and the VMM's own");
    assert_eq!(read("pids.max"), ["33"]);
    let cpu = [read("cpu.max"), read("cpu.cfs_quota_us")].concat();
    assert!(cpu == ["100000 100000"] || cpu == ["100000"], "{cpu:?}");
}

/// A directory on another file system than the project's; removed when it is dropped.
fn elsewhere(sandbox: &Sandbox) -> Option<tempfile::TempDir> {
    let dir = tempfile::tempdir_in("/dev/shm").ok()?;
    let flags = rustix::fs::statvfs(dir.path()).unwrap().f_flag;
    let forbidden = rustix::fs::StatVfsMountFlags::NODEV | rustix::fs::StatVfsMountFlags::NOEXEC;
    let device = |path: &Path| fs::metadata(path).unwrap().dev();
    let fits = !flags.intersects(forbidden) && device(dir.path()) != device(&sandbox.path(""));
    fits.then_some(dir)
}

#[test]
fn jails_on_another_file_system_have_their_disks_beside_them_and_lose_none() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    let Some(other) = elsewhere(&sandbox) else {
        return eprintln!("SKIPPED: /dev/shm is no other file system that holds programs and devices");
    };
    let (a, jails) = (&sandbox.guest('a'), other.path());
    let text = sandbox.fleet_text("a", "");
    let moved = text.replace("[host]\n", &format!("[host]\njails = \"{}\"\n", jails.display()));
    sandbox.write("fleet.toml", &moved);
    sandbox.done("build");
    let plan = sandbox.run("plan");
    let words = format!("are copied to {}: out/ is on another file system", jails.display());
    plan.fails(0, &[&words]);
    sandbox.done("up");
    let root = jails.join(&sandbox.name).join(format!("jails/firecracker/{a}--1/root"));
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    let disk = jails.join(&sandbox.name).join(format!("disks/{a}.ext4"));
    assert_eq!(inode(&root.join("data/disk.ext4")), inode(&disk));
    assert!(fs::metadata(root.join("rootfs.ext4")).unwrap().nlink() > 1, "one file for all guests");
    sandbox.run("plan --detailed-exitcode").fails(0, &[]);
    for way in ["put in its first place", "while it is down"] {
        sandbox.write("fleet.toml", &text);
        let refused =
            [jails.to_str().unwrap(), "is not empty, and is now ", "help: take the old `jails` back"];
        for command in ["up", "down", "plan", "ps"] {
            sandbox.run(command).fails(1, &refused);
        }
        sandbox.write("fleet.toml", &moved);
        sandbox.run("down").fails(0, &[]);
        assert!(disk.exists(), "{way}");
    }
    let store = sandbox.path("store").join(&sandbox.name);
    Run::of(Command::new("mv").arg(jails.join(&sandbox.name).join("disks")).arg(&store)).fails(0, &[]);
    sandbox.write("fleet.toml", &text);
    sandbox.done("up");
    assert_eq!(inode(&sandbox.jail(a).join("data/disk.ext4")), inode(&sandbox.disk(a)));
    // And the other way round.
    sandbox.write("fleet.toml", &moved);
    sandbox.run("up").fails(1, &["store", "is not empty, and is now ", jails.to_str().unwrap()]);
    sandbox.write("fleet.toml", &text);
}
