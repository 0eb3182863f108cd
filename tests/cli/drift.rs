//! What changed behind the program's back is seen and put right.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sisforge::base::Sha256;
use sisforge::sys::process::{inspect, stop};

use crate::common::sandbox::{Run, Sandbox, until};
use crate::needs_firecracker;

fn shell(program: &str, args: &[&str]) {
    let run = Run::of(Command::new(program).args(args));
    assert_eq!(run.code, 0, "{program} {args:?}\n{run}");
}

/// Runs a program in the fleet's network namespace.
fn inside(sandbox: &Sandbox, command: &[&str]) {
    shell("ip", &[&["netns", "exec", &sandbox.netns()], command].concat());
}

/// Asserts that the program sees that something is amiss, and repairs it.
#[track_caller]
fn is_seen_and_repaired(sandbox: &Sandbox, words: &str) {
    let plan = sandbox.run("plan --detailed-exitcode");
    assert_eq!(plan.code, 2, "{plan}");
    assert!(plan.out.contains(words), "{plan}");
    let status = sandbox.done("status --json");
    assert!(status.contains(r#""in_step":false"#), "{status}");
    sandbox.run("up").fails(0, &[]);
    sandbox.run("plan --detailed-exitcode").fails(0, &[]);
    assert!(sandbox.done("status --json").contains(r#""in_step":true"#));
}

#[test]
fn a_killed_vmm_is_seen_and_started_again() {
    needs_firecracker!();
    let sandbox = Sandbox::running("ab");
    let (a, b) = (&sandbox.guest('a'), &sandbox.guest('b'));
    let (killed, kept) = (sandbox.pid(a), sandbox.pid(b));
    shell("kill", &["-9", &killed.to_string()]);
    until("the VMM is gone", || sandbox.ps(a)["pid"].is_null());
    assert_eq!(sandbox.ps(a)["state"], "broken");
    is_seen_and_repaired(&sandbox, &format!("start {a}: no longer running"));
    assert_ne!(sandbox.pid(a), killed);
    assert_eq!(sandbox.pid(b), kept, "the other guest is not touched");
}

#[test]
fn a_deleted_tap_is_seen_and_made_anew() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let a = &sandbox.guest('a');
    inside(&sandbox, &["ip", "link", "delete", &format!("sis-{a}")]);
    is_seen_and_repaired(&sandbox, "its tap");
}

#[test]
fn changed_rules_are_seen_and_loaded_again_without_a_restart() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let pid = sandbox.pid(&sandbox.guest('a'));
    let table = format!("sisforge-{}", sandbox.name);
    for action in ["flush", "delete"] {
        for table in [table.clone(), format!("{table}.quarantine")] {
            inside(&sandbox, &["nft", action, "table", "inet", &table]);
            is_seen_and_repaired(&sandbox, "load nft ruleset");
        }
        shell("nft", &[action, "table", "ip", &table]);
        is_seen_and_repaired(&sandbox, "load nft ruleset of the host");
    }
    assert_eq!(sandbox.pid(&sandbox.guest('a')), pid);
}

#[test]
fn what_a_tap_lets_through_by_another_hand_is_seen_and_closed_without_a_restart() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let (a, pid) = (sandbox.guest('a'), sandbox.pid(&sandbox.guest('a')));
    for (setting, other) in [
        ("ipv4.conf.TAP.rp_filter", "0"),
        ("ipv4.conf.TAP.accept_source_route", "1"),
        ("ipv4.conf.TAP.accept_redirects", "1"),
        ("ipv4.conf.TAP.send_redirects", "1"),
        ("ipv4.conf.TAP.arp_ignore", "0"),
        ("ipv4.conf.TAP.proxy_arp", "1"),
        ("ipv4.conf.TAP.route_localnet", "1"),
        ("ipv6.conf.TAP.disable_ipv6", "0"),
    ] {
        let path = format!("/proc/sys/net/{}", setting.replace('.', "/").replace("TAP", &format!("sis-{a}")));
        if !setting.starts_with("ipv4") && !Path::new("/proc/sys/net/ipv6").exists() {
            continue;
        }
        let read = || Run::of(Command::new("ip").args(["netns", "exec", &sandbox.netns(), "cat", &path])).out;
        let own = read();
        inside(&sandbox, &["sh", "-c", &format!("echo {other} > {path}")]);
        assert_ne!(read(), own, "{setting}");
        is_seen_and_repaired(&sandbox, "its tap has other settings");
        assert_eq!(read(), own, "{setting}");
    }
    assert_eq!(sandbox.pid(&a), pid);
}

#[test]
fn a_tap_that_is_down_is_seen_and_a_leftover_one_goes_with_its_guest() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let tap = format!("sis-{}", sandbox.guest('a'));
    inside(&sandbox, &["ip", "link", "set", &tap, "down"]);
    is_seen_and_repaired(&sandbox, "its tap");
    inside(&sandbox, &["ip", "link", "set", &tap, "down"]);
    sandbox.done("down");
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn guests_whose_store_was_removed_are_seen_and_taken_down() {
    needs_firecracker!();
    let sandbox = Sandbox::running("ab");
    let pid = sandbox.pid(&sandbox.guest('a'));
    std::fs::remove_dir_all(sandbox.path("store")).unwrap();
    assert_eq!(sandbox.pid(&sandbox.guest('a')), pid);
    sandbox.run("plan --detailed-exitcode").fails(2, &[]);
    let down = sandbox.run("down --timeout 0");
    down.fails(0, &["2 stopped"]);
    assert_eq!(sandbox.traces(), [""; 0], "{down}");
    sandbox.run("down").fails(0, &["nothing to do"]);
}

/// Asserts that `plan` says why nothing can be done, that `up` says the same, and that neither touched the
/// guest.
#[track_caller]
fn is_refused_with_nobody_stopped(sandbox: &Sandbox, guest: &str, pid: u32, words: &str) {
    let plan = sandbox.run("plan");
    assert!(format!("{plan}").contains(words), "{plan}");
    sandbox.run("up").fails(1, &[words]);
    assert_eq!(sandbox.pid(guest), pid);
}

#[test]
fn what_the_host_cannot_give_is_known_before_a_guest_is_stopped() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let a = &sandbox.guest('a');
    let (pid, good) = (sandbox.pid(a), sandbox.read("fleet.toml"));
    sandbox.write("fleet.toml", good.replace("memory = \"64MiB\"", "memory = \"8TiB\""));
    is_refused_with_nobody_stopped(&sandbox, a, pid, "needs 8TiB of memory");
    // Its kernel does not take the rules as a whole.
    let budget = "default = \"deny\"\nbudget = { new-connections = \"77/s\" }";
    sandbox.write("fleet.toml", good.replace("default = \"deny\"", budget).replace("64MiB", "65MiB"));
    sandbox.write(
        "tools/nft",
        "#!/bin/sh\n[ \"$1\" != -c ] || { echo no such flag >&2; exit 1; }\nexec /usr/sbin/nft \"$@\"\n",
    );
    std::fs::set_permissions(sandbox.path("tools/nft"), std::fs::Permissions::from_mode(0o755)).unwrap();
    for command in ["plan", "up"] {
        let path = format!("{}:{}", sandbox.path("tools").display(), std::env::var("PATH").unwrap());
        let run = Run::of(sandbox.command().arg(command).env("PATH", path));
        assert!(format!("{run}").contains("check the nft ruleset"), "{run}");
        assert_eq!(sandbox.pid(a), pid);
    }
    // Its TAP went, and something else has the name.
    sandbox.write("fleet.toml", &good);
    let tap = &format!("sis-{a}");
    inside(&sandbox, &["ip", "link", "delete", tap]);
    inside(&sandbox, &["ip", "link", "add", tap, "type", "bridge"]);
    is_refused_with_nobody_stopped(&sandbox, a, pid, "another interface has the name of its TAP");
    inside(&sandbox, &["ip", "link", "delete", tap]);
    sandbox.done("up");
}

#[test]
fn a_removed_jail_and_cgroup_are_seen() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let a = &sandbox.guest('a');
    std::fs::remove_dir_all(sandbox.jail(a).parent().unwrap()).unwrap();
    is_seen_and_repaired(&sandbox, "its vmm is in no jail");
    let record = sandbox.record(a, "machine.json");
    std::fs::remove_file(&record).unwrap();
    is_seen_and_repaired(&sandbox, "what is running is not known");
    std::fs::write(&record, "{").unwrap();
    is_seen_and_repaired(&sandbox, "what is running is not known");
}

#[test]
fn a_vmm_outside_of_its_cgroup_is_taken_back() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let a = &sandbox.guest('a');
    let pid = sandbox.pid(a);
    let cgroups = sandbox.cgroups(a);
    let has = |dir: &Path| fs::read_to_string(dir.join("cgroup.procs")).unwrap().contains(&pid.to_string());
    // Out of one controller's, and then out of all.
    for few in [1, cgroups.len()] {
        for dir in &cgroups[..few] {
            let hierarchy = dir.ancestors().nth(3).unwrap();
            fs::write(hierarchy.join("cgroup.procs"), pid.to_string()).unwrap();
            assert!(!has(dir));
        }
        is_seen_and_repaired(&sandbox, &format!("change {a}: its vmm is not in its cgroup"));
        assert!(cgroups.iter().all(|dir| has(dir)));
        assert_eq!(sandbox.pid(a), pid, "it was not restarted");
    }
}

/// The letter of proc(5).
fn process_state(pid: u32) -> char {
    inspect(pid).expect("it runs").state
}

#[test]
fn a_vmm_that_stands_still_is_let_go_on() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let a = &sandbox.guest('a');
    let pid = sandbox.pid(a);
    let why = format!("change {a}: its vmm is stopped");
    let halt = || assert!(stop(inspect(pid).unwrap().id, Duration::from_secs(5)).unwrap());
    halt();
    is_seen_and_repaired(&sandbox, &why);
    // What a `down` leaves that was killed while it held the processes of the cgroup still.
    let switches = [("freezer.state", "FROZEN"), ("cgroup.freeze", "1")];
    let dirs = sandbox.cgroups(a);
    let files = dirs.iter().flat_map(|dir| switches.map(|(file, on)| (dir.join(file), on)));
    let (freezer, on) = files.clone().find(|(file, _)| file.exists()).unwrap();
    fs::write(&freezer, on).unwrap();
    is_seen_and_repaired(&sandbox, &why);
    assert_eq!(sandbox.pid(a), pid);
    assert_ne!(process_state(pid), 'T');
    // A guest that was stopped hears that it is to shut down.
    halt();
    let begun = Instant::now();
    sandbox.done("down --timeout 20");
    assert!(begun.elapsed() < Duration::from_secs(10), "it was waited for in vain");
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn a_disk_that_others_may_open_is_closed_again() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let a = &sandbox.guest('a');
    let (pid, disk) = (sandbox.pid(a), sandbox.disk(a));
    let before = fs::metadata(&disk).unwrap();
    let open: [fn(&Path); 3] = [
        |disk| fs::set_permissions(disk, fs::Permissions::from_mode(0o666)).unwrap(),
        |disk| chown(disk, Some(0), None).unwrap(),
        |disk| chown(disk, None, Some(0)).unwrap(),
    ];
    for open in open {
        open(&disk);
        is_seen_and_repaired(&sandbox, &format!("change {a}: its data disk is open to others"));
        let after = fs::metadata(&disk).unwrap();
        let who = |disk: &fs::Metadata| (disk.uid(), disk.gid(), disk.mode());
        assert_eq!(who(&after), who(&before));
        assert_eq!(sandbox.pid(a), pid);
    }
    // Of a guest that does not run, too.
    sandbox.done("down --timeout 0");
    open[0](&disk);
    sandbox.done("up");
    assert_eq!(fs::metadata(&disk).unwrap().mode(), before.mode());
}

#[test]
fn a_disk_that_was_removed_beneath_its_guest_is_not_lost() {
    needs_firecracker!();
    let sandbox = Sandbox::running("abc");
    let guests = ['a', 'b', 'c'].map(|letter| sandbox.guest(letter));
    let inode = |guest: &String| fs::metadata(sandbox.disk(guest)).unwrap().ino();
    let before = guests.each_ref().map(inode);
    let remove = |guest: &String| fs::remove_file(sandbox.disk(guest)).unwrap();
    let [a, b, c] = &guests;

    remove(a);
    is_seen_and_repaired(&sandbox, &format!("change {a}: its data disk was removed from the store"));
    assert_eq!(inode(a), before[0]);

    // Its guest is taken down, or is dead already.
    remove(b);
    sandbox.done(&format!("down {b} --timeout 0"));
    remove(c);
    shell("kill", &["-9", &sandbox.pid(c).to_string()]);
    until("the VMM is gone", || sandbox.ps(c)["pid"].is_null());
    sandbox.done("up");
    assert_eq!(guests.each_ref().map(inode), before);
    sandbox.run("plan --detailed-exitcode").fails(0, &[]);
}

#[test]
fn a_file_of_the_store_that_was_changed_is_neither_trusted_nor_run_from() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let a = &sandbox.guest('a');
    let jailed = sandbox.jail(a).join("rootfs.ext4");
    let image = same_file(&sandbox.path("store/files"), &jailed);
    let good = fs::read(&image).unwrap();
    let change = || {
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 1;
        fs::write(&image, bad).unwrap();
    };
    // While its guest runs: that has the same file.
    change();
    is_seen_and_repaired(&sandbox, &format!("stop {a}: its image was changed in the store"));
    assert_eq!(fs::read(&image).unwrap(), good);
    assert_eq!(fs::read(sandbox.jail(a).join("rootfs.ext4")).unwrap(), good);
    // And while it does not.
    sandbox.done("down --timeout 0");
    change();
    is_seen_and_repaired(&sandbox, "store image ");
    assert_eq!(fs::read(sandbox.jail(a).join("rootfs.ext4")).unwrap(), good);
    // One that others may write to is closed, and holds what it should.
    let pid = sandbox.pid(a);
    fs::set_permissions(&image, fs::Permissions::from_mode(0o666)).unwrap();
    is_seen_and_repaired(&sandbox, "store image ");
    assert_eq!((fs::metadata(&image).unwrap().mode() & 0o7777, sandbox.pid(a)), (0o444, pid));
    // A store of an earlier version, whose files have no seal.
    let now = fs::FileTimes::new().set_modified(std::time::SystemTime::now());
    for entry in fs::read_dir(sandbox.path("store/files")).unwrap() {
        fs::File::open(entry.unwrap().path()).unwrap().set_times(now).unwrap();
    }
    sandbox.run("plan --detailed-exitcode").fails(0, &[]);
    sandbox.run("up").fails(0, &["nothing to do"]);
    assert_eq!(sandbox.pid(a), pid);
    assert_eq!(fs::metadata(&image).unwrap().mtime(), 0, "it has one now");
}

#[test]
fn a_guest_that_an_earlier_version_started_runs_on() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let a = &sandbox.guest('a');
    let pid = sandbox.pid(a);
    // As it named files of the store: by the SHA-256 of their bytes, or, disks, of what of them is not zero.
    let record = sandbox.record(a, "machine.json");
    let mut machine = fs::read_to_string(&record).unwrap();
    for entry in fs::read_dir(sandbox.path("store/files")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let earlier = Sha256::of(fs::read(&path).unwrap()).to_string();
        assert!(name.starts_with("verity-"), "{name}");
        machine = machine.replace(&name, &earlier);
        fs::rename(&path, path.with_file_name(earlier)).unwrap();
    }
    assert!(!machine.contains("verity-"), "{machine}");
    fs::write(&record, machine).unwrap();
    // Its record of what was built, as well.
    for file in ["out/kernel", "out/image", "out/disk"].map(|dir| sandbox.path(dir)) {
        for entry in fs::read_dir(file).unwrap().map(|entry| entry.unwrap().path()) {
            let record = entry.join("artifact.json");
            let mut artifact: serde_json::Value =
                serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
            let built = fs::read_dir(&entry).unwrap().map(|entry| entry.unwrap().path());
            let names = ["vmlinux", "rootfs.ext4", "disk.ext4"];
            let built = built.filter(|path| names.contains(&path.file_name().unwrap().to_str().unwrap()));
            let sha256 = Sha256::of(fs::read(built.last().unwrap()).unwrap());
            artifact["digest"] = sha256.to_string().into();
            fs::write(&record, artifact.to_string()).unwrap();
        }
    }
    sandbox.run("plan --detailed-exitcode").fails(0, &[]);
    sandbox.run("up").fails(0, &["nothing to do"]);
    assert_eq!((sandbox.pid(a), sandbox.ps(a)["state"].as_str()), (pid, Some("ready")));
    sandbox.run("gc --yes").fails(0, &[]);
    sandbox.run("up").fails(0, &["nothing to do"]);
    sandbox.done("down --timeout 0");
    sandbox.done("gc --yes");
    let names = fs::read_dir(sandbox.path("store/files")).unwrap();
    let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.all(|name| name.starts_with("verity-")), "what nobody is called after has gone");
    sandbox.done("up");
}

/// The file of a directory that has another name elsewhere.
fn same_file(dir: &Path, other: &Path) -> PathBuf {
    let inode = fs::metadata(other).unwrap().ino();
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut same = files.filter(|path| fs::metadata(path).unwrap().ino() == inode);
    same.next().expect("it stands there")
}

#[test]
fn records_go_with_the_jail_whoever_removed_it() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let a = &sandbox.guest('a');
    let kept = sandbox.record(a, "");
    shell("kill", &["-9", &sandbox.pid(a).to_string()]);
    until("the VMM is gone", || sandbox.ps(a)["pid"].is_null());
    fs::remove_dir_all(sandbox.path(&format!("store/{}/jails", sandbox.name))).unwrap();
    sandbox.done("down");
    let left = fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let others: Vec<_> = left
        .filter(|name| ![".log", ".index"].iter().any(|log| name.contains(log)) && name != "disk.json")
        .collect();
    assert_eq!(others, [""; 0]);
}

#[test]
fn changed_limits_are_seen_and_set_again_without_a_restart() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let a = &sandbox.guest('a');
    let pid = sandbox.pid(a);
    let limit = sandbox.cgroups(a).into_iter().map(|dir| dir.join("pids.max")).find(|file| file.exists());
    std::fs::write(limit.unwrap(), "99").unwrap();
    is_seen_and_repaired(&sandbox, "set cgroup limits: 128 MiB, 33 pids");
    assert_eq!(sandbox.pid(a), pid);
}

#[test]
fn a_period_that_makes_another_share_of_the_processors_is_seen() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let dirs = sandbox.cgroups(&sandbox.guest('a'));
    let there = |name: &str| dirs.iter().map(|dir| dir.join(name)).find(|file| file.exists());
    let read = |file: &Path| fs::read_to_string(file).unwrap();
    let twice = |number: &str| (2 * number.trim().parse::<u64>().unwrap()).to_string();
    match there("cpu.cfs_period_us") {
        Some(file) => fs::write(&file, twice(&read(&file))).unwrap(),
        None => {
            let file = there("cpu.max").unwrap();
            let text = read(&file);
            let (quota, period) = text.split_once(' ').unwrap();
            fs::write(&file, format!("{quota} {}", twice(period))).unwrap();
        }
    }
    is_seen_and_repaired(&sandbox, "set cgroup limits: 128 MiB, 33 pids");
}

#[test]
fn a_half_made_cgroup_goes_with_its_guest() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let a = &sandbox.guest('a');
    let dirs = sandbox.cgroups(a);
    sandbox.done("down");
    std::fs::create_dir_all(&dirs[0]).unwrap();
    sandbox.done("down");
    assert_eq!(sandbox.traces(), [""; 0]);
    std::fs::create_dir_all(&dirs[0]).unwrap();
    sandbox.done("up");
    assert_eq!(sandbox.ps(a)["state"], "ready");
}
