//! Disks that sessions bring: on Firecracker with tiny guests, and on what stands in for QEMU.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::hostile_vmm::Site;
use crate::common::namespaces::{missing as missing_programs, skip};
use crate::common::sandbox::{Run, Sandbox, missing, until};

/// Sites of both VMMs, as far as there are such here.
fn sites() -> Vec<(&'static str, Site)> {
    let qemu = match missing_programs(&["perl"]) {
        None => Some(("qemu", Site::new())),
        Some(reason) => {
            skip("sites", &reason);
            None
        }
    };
    let firecracker = match missing() {
        None => Some(("firecracker", Site::real())),
        Some(reason) => {
            eprintln!("SKIPPED: {reason}");
            None
        }
    };
    qemu.into_iter().chain(firecracker).collect()
}

/// A pool of guests that are handed out.
struct Pool {
    site: Site,
    vmm: &'static str,
    name: String,
}

impl Pool {
    fn new(vmm: &'static str, site: Site, keys: &str) -> Self {
        let name = site.sandbox.guest('k');
        let pool = Self { site, vmm, name };
        pool.declare(keys);
        pool.done("build");
        pool.done("up");
        pool
    }

    fn declare(&self, keys: &str) {
        let more = format!("[pool.{}]\n{keys}\n", self.name);
        let vmm = format!("vmm = \"{}\"\n[kernel]", self.vmm);
        let text = self.sandbox().fleet_text("", &more).replace("[kernel]", &vmm);
        self.sandbox().write("fleet.toml", text);
    }

    fn sandbox(&self) -> &Sandbox {
        &self.site.sandbox
    }

    #[track_caller]
    fn done(&self, args: &str) -> String {
        let run = self.site.run(args);
        assert_eq!(run.code, 0, "{}: sisforge {args}\n{run}", self.vmm);
        run.out
    }

    fn start(&self, words: &str) -> Run {
        self.site.run(&format!("session start {} --quiet {words}", self.name))
    }

    /// The guest that a session with this disk got.
    #[track_caller]
    fn started(&self, disk: &str) -> String {
        let run = self.start(&format!("--disk {disk}"));
        assert_eq!(run.code, 0, "{}\n{run}", self.vmm);
        run.out.trim().to_owned()
    }

    fn store(&self, path: &str) -> PathBuf {
        self.sandbox().path(&format!("store/{}/{path}", self.sandbox().name))
    }

    fn disk(&self, name: &str) -> PathBuf {
        self.store(&format!("disks/sessions/{name}/disk.ext4"))
    }

    fn spares(&self) -> usize {
        let listed = self.site.document("session ls", "session-ls");
        listed.as_array().unwrap().iter().filter(|guest| guest["state"] == "spare").count()
    }

    /// A disk as `disk ls` lists it.
    fn listed(&self, name: &str) -> serde_json::Value {
        let all = self.site.document("disk ls", "disk-ls");
        let found = all.as_array().unwrap().iter().find(|disk| disk["name"] == format!("sessions/{name}"));
        found.unwrap_or_else(|| panic!("no {name} in {all}")).clone()
    }

    /// Kills a guest's VMM.
    fn kill(&self, guest: &str) {
        let all = self.site.document("ps", "ps");
        let pid = all.as_array().unwrap().iter().find(|one| one["name"] == guest).unwrap()["pid"].clone();
        assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
        until("its vmm is gone", || !PathBuf::from(format!("/proc/{pid}/exe")).exists());
    }

    /// The root of a guest's newest jail.
    fn jail(&self, guest: &str) -> PathBuf {
        let jails = self.store(&format!("jails/{}", self.vmm));
        let all = fs::read_dir(jails).unwrap().flatten().map(|entry| entry.path());
        let begins = format!("{guest}--");
        let mut own: Vec<_> =
            all.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&begins)).collect();
        own.sort();
        own.pop().unwrap().join("root")
    }

    /// What a VMM was told, as far as that can be seen.
    fn has_open(&self, guest: &str, disk: &str) -> bool {
        match self.vmm {
            "qemu" => {
                let serial = fs::read_to_string(self.sandbox().record(guest, "serial.log")).unwrap();
                ["blockdev-add", "blockdev-reopen", "block_resize"]
                    .iter()
                    .all(|word| serial.contains(&format!("qmp: {word}\n")))
            }
            _ => {
                let pid = self.site.document("ps", "ps");
                let pid =
                    pid.as_array().unwrap().iter().find(|one| one["name"] == guest).unwrap()["pid"].clone();
                let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
                let disk = fs::metadata(self.disk(disk)).unwrap().ino();
                open.filter_map(|fd| fs::metadata(fd.path()).ok()).any(|there| there.ino() == disk)
            }
        }
    }
}

const KEYS: &str = "spare = 2\nmax = 3\nsession = { disk = \"16MiB\" }";
/// Where a test writes into a disk, in bytes: a block that the empty file system does not use.
const PLACE: u64 = 15 << 20;

fn write(path: &PathBuf, text: &[u8]) {
    File::options().write(true).open(path).unwrap().write_all_at(text, PLACE).unwrap();
}

fn reads(path: &PathBuf, text: &[u8]) -> bool {
    let mut found = vec![0; text.len()];
    File::open(path).unwrap().read_exact_at(&mut found, PLACE).unwrap();
    found == text
}

#[test]
fn a_session_brings_its_disk_and_leaves_it_for_the_next() {
    for (vmm, site) in sites() {
        let pool = Pool::new(vmm, site, KEYS);
        let name = &pool.name;
        let taken = pool.site.document(&format!("session start {name} --disk jo"), "session");
        let guest = taken["guest"].as_str().unwrap();
        assert_eq!(taken["session"]["disk"], "jo");
        assert!(pool.has_open(guest, "jo"), "{vmm}");
        let (disk, in_jail) = (pool.disk("jo"), pool.jail(guest).join("session/jo.ext4"));
        let [there, linked] = [&disk, &in_jail].map(|path| fs::metadata(path).unwrap());
        assert_eq!((there.ino(), there.nlink(), there.size()), (linked.ino(), 2, 16 << 20));
        assert!(there.uid() != 0 && there.mode() & 0o777 == 0o600);
        if missing_programs(&["e2fsck"]).is_none() {
            Run::of(Command::new("e2fsck").args(["-f", "-n"]).arg(&disk)).fails(0, &[]);
        }
        let listed = pool.listed("jo");
        assert_eq!(
            (&listed["guest"], &listed["session"], &listed["attached"], &listed["orphan"]),
            (&guest.into(), &"jo".into(), &true.into(), &false.into())
        );
        assert!(pool.done("disk ls").contains(&format!("in {guest}")));
        assert!(pool.done("session ls").lines().any(|line| line.contains(guest) && line.ends_with("jo")));

        // It is in no other guest, and nothing takes it away.
        pool.start("--disk jo").fails(1, &[&format!("the disk jo is in {guest}"), "session end"]);
        assert_eq!(pool.spares(), 1, "nobody lost a spare by that");
        pool.site.run("disk rm sessions/jo --yes").fails(1, &[guest]);
        pool.site.run("disk export sessions/jo saved").fails(1, &[guest]);
        pool.site.run(&format!("snapshot create {guest}")).fails(2, &["is handed out", "forensics"]);
        write(&disk, b"hers");
        pool.done("gc --yes");
        pool.done("up");
        assert_eq!(pool.spares(), 2);
        assert!(pool.has_open(guest, "jo") && reads(&disk, b"hers"));

        pool.done(&format!("session end {guest}"));
        assert_eq!(fs::metadata(&disk).unwrap().nlink(), 1);
        assert_eq!(pool.listed("jo")["guest"], serde_json::Value::Null);
        let again = pool.started("jo");
        assert_ne!(again, guest);
        assert!(reads(&disk, b"hers") && reads(&pool.jail(&again).join("session/jo.ext4"), b"hers"));
        pool.done("down --timeout 0");
        assert!(reads(&disk, b"hers"));
        assert_eq!(pool.sandbox().traces(), [""; 0]);

        pool.done("disk export sessions/jo saved");
        assert!(reads(&pool.sandbox().path("saved"), b"hers"));
        pool.done("disk rm sessions/jo --yes");
        assert!(!disk.parent().unwrap().exists());
        pool.site.run("disk rm sessions/jo --yes").fails(2, &["sessions/jo"]);
    }
}

#[test]
fn what_was_exported_becomes_the_disk_of_sessions_again() {
    for (vmm, site) in sites() {
        let pool = Pool::new(vmm, site, KEYS);
        let guest = pool.started("jo");
        write(&pool.disk("jo"), b"hers");
        pool.done(&format!("session end {guest}"));
        pool.done("disk export sessions/jo saved");
        let import = |args: &str| pool.site.run(&format!("disk import {args}"));
        import("sessions/jo saved").fails(1, &["sessions/jo has a data disk already", "--replace"]);
        write(&pool.disk("jo"), b"lost");
        import("sessions/jo saved --replace").fails(2, &["replace the data disk of sessions/jo", "--yes"]);
        import("sessions/jo saved --replace --yes").fails(0, &["the disk of sessions/jo"]);
        assert!(reads(&pool.disk("jo"), b"hers"));
        import("sessions/mo saved").fails(0, &[]);
        let guest = pool.started("mo");
        assert!(reads(&pool.jail(&guest).join("session/mo.ext4"), b"hers"), "{vmm}");
        import("sessions/mo saved --replace --yes").fails(1, &[&format!("the disk mo is in {guest}")]);

        File::create(pool.sandbox().path("large")).unwrap().set_len(32 << 20).unwrap();
        import("sessions/no large").fails(2, &["large has 32MiB", "sessions/no should have 16MiB"]);
        fs::write(pool.sandbox().path("text"), "no disk").unwrap();
        import("sessions/no text").fails(2, &["text"]);
        import("sessions/../x saved").fails(2, &["the name of a session's disk"]);
        assert!(!pool.store("disks/sessions/no").exists());
        pool.declare("spare = 1\nmax = 2");
        import("sessions/no saved").fails(2, &["no pool has a place", "session = { disk ="]);

        // It is its users', whatever goes with the fleet's guests.
        let purged = pool.site.run("down --timeout 0 --purge --yes");
        purged.fails(0, &["disks that are kept: sessions/jo, sessions/mo", "sisforge disk rm NAME"]);
        assert!(reads(&pool.disk("jo"), b"hers") && reads(&pool.disk("mo"), b"hers"));
    }
}

#[test]
fn evidence_has_the_disk_that_a_session_brought() {
    // What stands in for QEMU has no memory to write.
    for (vmm, site) in sites().into_iter().filter(|(vmm, _)| *vmm == "firecracker") {
        let pool = Pool::new(vmm, site, KEYS);
        let guest = pool.started("jo");
        write(&pool.disk("jo"), b"hers");
        let found = pool.site.document(&format!("forensics {guest} --out e.tar.zst"), "forensics");
        let members = found["members"].as_array().unwrap();
        let member = members.iter().find(|member| member["name"] == "session-disk.ext4");
        let member = member.unwrap_or_else(|| panic!("{vmm}: {found:#}"));
        let disk = fs::read(pool.disk("jo")).unwrap();
        assert_eq!(member["sha256"], sisforge::base::Sha256::of(&disk).to_string());
        pool.done("forensics verify e.tar.zst");
        // The guest has it still, and it is nobody else's.
        assert!(pool.has_open(&guest, "jo"), "{vmm}");
        pool.start("--disk jo").fails(1, &[&format!("the disk jo is in {guest}")]);
        pool.done("down --timeout 0");
        assert_eq!(fs::metadata(pool.disk("jo")).unwrap().nlink(), 1);
    }
}

#[test]
fn of_many_who_bring_one_disk_one_gets_it_and_nobody_else_loses_a_spare() {
    for (vmm, site) in sites() {
        let pool = Pool::new(vmm, site, "spare = 4\nmax = 4\nsession = { disk = \"16MiB\" }");
        for round in 0..3 {
            let runs: Vec<Run> = thread::scope(|scope| {
                let asking: Vec<_> = (0..8).map(|_| scope.spawn(|| pool.start("--disk jo"))).collect();
                asking.into_iter().map(|one| one.join().unwrap()).collect()
            });
            let won: Vec<_> = runs.iter().filter(|run| run.code == 0).collect();
            assert_eq!(won.len(), 1, "{vmm}, round {round}");
            let guest = won[0].out.trim();
            for run in runs.iter().filter(|run| run.code != 0) {
                run.fails(1, &[&format!("the disk jo is in {guest}")]);
            }
            assert_eq!((pool.spares(), fs::metadata(pool.disk("jo")).unwrap().nlink()), (3, 2));
            pool.done(&format!("session end {guest}"));
            pool.done("up");
        }
        // Disks of several users do not wait for each other.
        let runs: Vec<Run> = thread::scope(|scope| {
            let ask = |user: usize| pool.start(&format!("--disk user-{user}"));
            let asking: Vec<_> = (0..4).map(|user| scope.spawn(move || ask(user))).collect();
            asking.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(runs.iter().all(|run| run.code == 0), "{}", runs[0]);
        pool.done("down --timeout 0");
    }
}

#[test]
fn a_disk_has_a_place_of_its_size_or_larger() {
    for (vmm, site) in sites() {
        let pool = Pool::new(vmm, site, "spare = 1\nmax = 2");
        pool.site.run("session start nowhere --disk jo").fails(2, &["there is no pool `nowhere`"]);
        assert!(!pool.store("disks").exists(), "nothing was made");
        pool.start("--disk jo").fails(2, &["no place for a session's disk", "session = { disk ="]);
        assert_eq!(pool.spares(), 1);
        assert!(!pool.store("disks/sessions/jo").exists());
        for wrong in ["../x", "Jo", "a/b", ".", "-x"] {
            pool.start(&format!("--disk={wrong}")).fails(2, &["must be 1 to 64"]);
        }

        pool.declare("spare = 1\nmax = 2\nsession = { disk = \"16MiB\" }");
        let plan = pool.done("plan");
        assert!(plan.contains("largest session disk none -> 16MiB"), "{plan}");
        pool.done("up");
        let guest = pool.started("jo");
        write(&pool.disk("jo"), b"hers");
        pool.done(&format!("session end {guest}"));
        pool.declare("spare = 1\nmax = 2\nsession = { disk = \"32MiB\" }");
        pool.done("up");
        let guest = pool.started("jo");
        assert_eq!(fs::metadata(pool.disk("jo")).unwrap().len(), 32 << 20);
        assert!(reads(&pool.disk("jo"), b"hers"));
        pool.done(&format!("session end {guest}"));
        pool.declare("spare = 1\nmax = 2\nsession = { disk = \"16MiB\" }");
        pool.done("up");
        pool.start("--disk jo").fails(2, &["the disk jo has 32MiB", "at most 16MiB"]);
        assert_eq!(pool.spares(), 1);
        pool.done("down --timeout 0");
    }
}

#[test]
fn who_is_killed_while_giving_a_disk_away_leaves_it_whole_and_in_one_guest_at_most() {
    for (vmm, site) in sites() {
        let pool = Pool::new(vmm, site, "spare = 2\nmax = 2\nsession = { disk = \"16MiB\" }");
        for round in 0..8 {
            let mut command = pool.site.command();
            let mut taking = command
                .args(["session", "start", &pool.name, "--quiet", "--disk", "jo"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            thread::sleep(Duration::from_millis(6 * round));
            let _ = taking.kill();
            taking.wait().unwrap();
            let links = fs::metadata(pool.disk("jo")).map_or(1, |disk| disk.nlink());
            assert!(links <= 2, "{vmm}: {links} names");
            let listed = pool.site.document("session ls", "session-ls");
            for guest in listed.as_array().unwrap().iter().filter(|guest| guest["state"] == "in-use") {
                pool.done(&format!("session end {}", guest["guest"].as_str().unwrap()));
            }
            pool.done("up");
            pool.done("up");
        }
        let guest = pool.started("jo");
        if missing_programs(&["e2fsck"]).is_none() {
            Run::of(Command::new("e2fsck").args(["-f", "-n"]).arg(pool.disk("jo"))).fails(0, &[]);
        }
        pool.done(&format!("session end {guest}"));
        pool.done("down --timeout 0");
        let left: Vec<_> = fs::read_dir(pool.store("disks/sessions")).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}

#[test]
fn a_disk_whose_name_is_gone_gets_it_again_before_its_jail_goes() {
    for (vmm, site) in sites() {
        let pool = Pool::new(vmm, site, KEYS);
        let guest = pool.started("jo");
        write(&pool.disk("jo"), b"hers");
        fs::remove_file(pool.disk("jo")).unwrap();
        pool.start("--disk jo").fails(1, &[&format!("the disk jo is in {guest}")]);
        pool.done(&format!("session end {guest}"));
        assert!(reads(&pool.disk("jo"), b"hers"));

        // Another has its name by then: both stay.
        let guest = pool.started("jo");
        fs::remove_file(pool.disk("jo")).unwrap();
        fs::write(pool.disk("jo"), vec![0; 16 << 20]).unwrap();
        pool.done(&format!("session end {guest}"));
        let beside = pool.store("disks/sessions/jo/disk.before-replaced.ext4");
        assert!(reads(&beside, b"hers") && !reads(&pool.disk("jo"), b"hers"));
        assert!(pool.done("disk ls").contains("sessions/jo.before-replaced"));
        pool.done("disk rm sessions/jo.before-replaced --yes");
        assert!(pool.disk("jo").exists() && !beside.exists());
        pool.done("down --timeout 0");
    }
}

#[test]
fn a_guest_that_ended_by_itself_has_its_disk_until_it_is_cleared_away() {
    for (vmm, site) in sites() {
        let pool = Pool::new(vmm, site, KEYS);
        let guest = pool.started("jo");
        pool.kill(&guest);
        pool.start("--disk jo").fails(1, &[&format!("the disk jo is in {guest}"), "`sisforge up`"]);
        pool.done("up");
        pool.done("up");
        pool.started("jo");
        pool.done("down --timeout 0");
    }
}

#[test]
fn a_disk_that_a_process_of_its_last_guest_has_open_is_given_to_nobody() {
    if let Some(reason) = missing_programs(&["perl"]) {
        return skip("a_disk_that_a_process_of_its_last_guest_has_open_is_given_to_nobody", &reason);
    }
    let pool = Pool::new("qemu", Site::new(), KEYS);
    let guest = pool.started("jo");
    let uid = fs::metadata(pool.disk("jo")).unwrap().uid();
    pool.done(&format!("session end {guest}"));
    // As a VMM that hangs in the kernel would, whose jail is gone.
    let script = format!(
        "open my $f, '+<', $ARGV[0] or die; chroot '/proc' or die; $) = '{uid} {uid}'; $> = {uid}; print qq(x\n); \
         $| = 1; print qq(open\n); sleep 600"
    );
    let mut holds = Command::new("perl")
        .args(["-e", &script])
        .arg(pool.disk("jo"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 2];
    std::io::Read::read_exact(holds.stdout.as_mut().unwrap(), &mut said).unwrap();
    pool.start("--disk jo").fails(1, &[&format!("process {} of the guest", holds.id()), "has it open still"]);
    pool.site.run("disk rm sessions/jo --yes").fails(1, &["has it open still"]);
    assert_eq!(pool.spares(), 1);
    holds.kill().unwrap();
    holds.wait().unwrap();
    pool.started("jo");
    pool.done("down --timeout 0");
}

#[test]
fn a_session_begins_when_its_guest_has_mounted_the_disk_or_says_that_it_has_not() {
    if let Some(reason) = missing_programs(&["perl"]) {
        return skip("a_session_begins_when_its_guest_has_mounted_the_disk_or_says_that_it_has_not", &reason);
    }
    // The serial port's input is its stdin.
    let mounts = |words: &str| {
        format!(
            r#"print "sisforge: kept disk awaited\n"; unless (fork) {{ sysread STDIN, my $b, 1; select undef, undef, undef, 1; print "sisforge: {words}\n"; exit }}"#
        )
    };
    let cases = [
        (mounts("kept disk mounted"), serde_json::json!(true), "and has mounted it"),
        (mounts("the kept disk cannot be mounted"), serde_json::json!(false), "and cannot mount it"),
        (String::new(), serde_json::Value::Null, "does not tell when"),
    ];
    for (trick, mounted, words) in cases {
        let site = Site::new();
        for number in 0..2 {
            site.sandbox.write(&format!("bin/tricks/{}-{number}", site.sandbox.guest('k')), &trick);
        }
        let pool = Pool::new("qemu", site, "spare = 2\nmax = 2\nsession = { disk = \"16MiB\" }");
        let name = &pool.name;
        let taken = pool.site.document(&format!("session start {name} --disk jo"), "session");
        assert_eq!(taken["disk_mounted"], mounted, "{taken}");
        let serial = serial_of(&pool, taken["guest"].as_str().unwrap());
        assert!(trick.is_empty() || serial.contains("mounted\n"), "it was not waited for: {serial}");
        let told = pool.done(&format!("session start {name} --disk mo"));
        assert!(told.contains("it has the kept disk mo") && told.contains(words), "{told}");
        pool.done("down --timeout 0");
    }
}

fn serial_of(pool: &Pool, guest: &str) -> String {
    fs::read_to_string(pool.sandbox().record(guest, "serial.log")).unwrap()
}

#[test]
fn a_vmm_that_does_not_take_the_disk_is_ended_and_the_disk_is_free() {
    if let Some(reason) = missing_programs(&["perl"]) {
        return skip("a_vmm_that_does_not_take_the_disk_is_ended_and_the_disk_is_free", &reason);
    }
    let site = Site::new();
    let first = format!("{}-0", site.sandbox.guest('k'));
    let refuse =
        r#"$answer{'blockdev-reopen'} = qq({"error": {"class": "GenericError", "desc": "no"}, "id": 3}\r\n)"#;
    site.sandbox.write(&format!("bin/tricks/{first}"), refuse);
    let pool = Pool::new("qemu", site, "spare = 1\nmax = 2\nsession = { disk = \"16MiB\" }");
    pool.start("--disk jo").fails(1, &["refused blockdev-reopen: no"]);
    assert_eq!(fs::metadata(pool.disk("jo")).unwrap().nlink(), 1);
    pool.done("down --timeout 0");

    // Where others wait, one of them has it.
    pool.declare(KEYS);
    pool.done("up");
    assert_ne!(pool.started("jo"), first);
    assert_eq!(fs::metadata(pool.disk("jo")).unwrap().nlink(), 2);
    pool.done("down --timeout 0");
}

#[test]
fn who_brings_a_disk_is_given_a_spare_that_lives() {
    for (vmm, site) in sites() {
        let pool = Pool::new(vmm, site, "spare = 3\nmax = 3\nsession = { disk = \"16MiB\" }");
        let first = format!("{}-0", pool.name);
        pool.kill(&first);
        let guest = pool.started("jo");
        assert_ne!(guest, first);
        until("it has the disk", || pool.has_open(&guest, "jo"));
        assert_eq!((pool.spares(), fs::metadata(pool.disk("jo")).unwrap().nlink()), (1, 2));
        // Where it is about the disk, nobody loses a spare.
        pool.start("--disk jo").fails(1, &[&format!("the disk jo is in {guest}")]);
        fs::create_dir_all(pool.disk("mo")).unwrap();
        pool.start("--disk mo").fails(1, &["mo/disk.ext4"]);
        assert_eq!(pool.spares(), 1);
        fs::remove_dir_all(pool.disk("mo").parent().unwrap()).unwrap();
        pool.done("down --timeout 0");
    }
}

#[test]
fn evidence_of_a_guest_whose_vmm_has_ended_has_the_disks_that_are_left() {
    for (vmm, site) in sites() {
        let pool = Pool::new(vmm, site, &format!("disk = {{ size = \"16MiB\" }}\n{KEYS}"));
        let guest = pool.started("jo");
        write(&pool.disk("jo"), b"hers");
        let own = pool.jail(&guest).join("data/disk.ext4");
        write(&own, b"work");
        pool.kill(&guest);
        let taken = |out: &str| {
            pool.site.run(&format!("forensics {guest} --out {out}")).fails(1, &["memory and state"]);
            pool.done(&format!("forensics cat {out} manifest.json"))
        };
        let manifest: serde_json::Value = serde_json::from_str(&taken("e.tar.zst")).unwrap();
        for (name, path) in [("disk.ext4", &own), ("session-disk.ext4", &pool.disk("jo"))] {
            let digest = sisforge::base::Sha256::of(fs::read(path).unwrap()).to_string();
            assert_eq!(manifest["members"][name]["sha256"], digest, "{vmm}: {manifest:#}");
        }
        let missing = |manifest: &str, what: &str| {
            let manifest: serde_json::Value = serde_json::from_str(manifest).unwrap();
            let found = manifest["missing"].as_array().unwrap().iter().find(|one| one["what"] == what);
            found.map(|one| one["why"].as_str().unwrap().to_owned())
        };
        let text = manifest.to_string();
        assert_eq!([missing(&text, "data disk"), missing(&text, "session disk")], [None, None]);

        // Its uid may have put a link there, and what is in the store may be gone.
        fs::remove_file(&own).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &own).unwrap();
        fs::remove_file(pool.jail(&guest).join("session/jo.ext4")).unwrap();
        let manifest = taken("f.tar.zst");
        assert!(missing(&manifest, "data disk").unwrap().contains("symbolic link"), "{manifest}");
        assert!(missing(&manifest, "session disk").unwrap().contains("jo"), "{manifest}");
        assert!(!manifest.contains("\"disk.ext4\""), "{manifest}");
        pool.done("down --timeout 0");
    }
}
