//! Evidence of a guest: complete, signed, and read without trust in whoever wrote it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;
use sisforge::base::Sha256;
use sisforge::sys::tiny_guest::AfterText;

use crate::common::archive::{Member, packed};
use crate::common::sandbox::{READY, Run, SISFORGE, Sandbox, until};
use crate::needs_firecracker;

/// Runs a program of the distribution, which must succeed.
fn tool(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Changes the file system in a file, as a guest would that has it mounted.
fn debugfs(disk: &Path, commands: &[String]) {
    for command in commands {
        tool("debugfs", &["-w", "-R", command, disk.to_str().unwrap()]);
    }
}

/// The fleet's public key as a file of allowed signers.
fn signers(sandbox: &Sandbox) -> PathBuf {
    let key = sandbox.read(&format!("store/{}/key.pub", sandbox.name));
    sandbox.write("signers", format!("host@example.org {key}"));
    sandbox.path("signers")
}

/// What `forensics files` lists.
fn listed(sandbox: &Sandbox, archive: &str, lines: &[&str]) {
    let told = sandbox.done(&format!("forensics files {archive}"));
    for line in lines {
        assert!(told.contains(line), "{line}: {told}");
    }
}

/// A guest with evidence of what was done to its disk while it ran.
fn taken(sandbox: &Sandbox) -> (String, Value) {
    let a = sandbox.guest('a');
    sandbox.write("loot", "taken\n");
    let loot = sandbox.path("loot").display().to_string();
    debugfs(&sandbox.disk(&a), &["mkdir /user".into(), format!("write {loot} /user/loot")]);
    let document = sandbox.document(&format!("--json forensics {a} --out a.tar.zst"), "forensics");
    (a, document)
}

#[test]
fn evidence_is_whole_signed_and_taken_from_a_guest_that_goes_on_cut_off() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.kernel(READY, AfterText::Tick);
    sandbox.fleet("ab");
    sandbox.done("up");
    let (pid, neighbour) = (sandbox.pid(&sandbox.guest('a')), sandbox.pid(&sandbox.guest('b')));
    let (a, document) = taken(&sandbox);
    assert_eq!(document["missing"], serde_json::json!([]), "{document:#}");
    let ps = sandbox.ps(&a);
    assert_eq!((&ps["state"], sandbox.pid(&a)), (&"ready".into(), pid));
    assert!(ps["quarantined"].is_string(), "{ps:#}");
    assert_eq!(sandbox.pid(&sandbox.guest('b')), neighbour);
    let logged = || fs::read_to_string(sandbox.record(&a, "serial.log")).unwrap().len();
    let before = logged();
    until("it counts on", || logged() > before + 20);
    assert!(!sandbox.path(&format!("store/{}/snapshots", sandbox.name)).join("ready").exists());

    // By what every Debian has: tar, zstd, sha256sum.
    let archive = sandbox.path("a.tar.zst");
    fs::create_dir(sandbox.path("x")).unwrap();
    let out = sandbox.path("x").display().to_string();
    tool("tar", &["--zstd", "-xf", archive.to_str().unwrap(), "-C", &out]);
    let members = document["members"].as_array().unwrap();
    for member in members {
        let bytes = fs::read(sandbox.path("x").join(member["name"].as_str().unwrap())).unwrap();
        assert_eq!(member["sha256"], Sha256::of(&bytes).to_string(), "{member}");
        assert_eq!(member["size"], bytes.len());
    }
    let names: Vec<_> = members.iter().map(|member| member["name"].as_str().unwrap()).collect();
    for name in [
        "memory",
        "state",
        "disk.ext4",
        "pristine.ext4",
        "fleet.toml",
        "fleet.lock",
        "sbom.spdx.json",
        "timeline.json",
        "timeline.html",
        "connections.json",
        "cgroup.json",
        "nft.json",
        "interfaces.json",
        "process/status",
        "origin.json",
        "guest/machine.json",
        "guest/serial.log",
        "guest/vmm.log",
    ] {
        assert!(names.contains(&name), "{name} is missing: {names:?}");
    }
    assert_eq!(sandbox.read("x/fleet.toml"), sandbox.read("fleet.toml"));
    let manifest: Value = serde_json::from_str(&sandbox.read("x/manifest.json")).unwrap();
    let memory = fs::metadata(sandbox.path("x/memory")).unwrap().len();
    assert_eq!(manifest["memory-map"], serde_json::json!([{ "address": 0, "offset": 0, "size": memory }]));
    let line = sandbox.read("x/timeline.json");
    for said in ["ready", "cut off from every network", "stood still", "started"] {
        assert!(line.contains(said), "{said}: {line}");
    }
    let (signature, text) =
        (format!("{out}/manifest.json.sig"), fs::File::open(format!("{out}/manifest.json")).unwrap());
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-Y", "check-novalidate", "-n", "sisforge", "-s", &signature]).stdin(text);
    assert!(keygen.status().unwrap().success());
    let events = sandbox.done("events");
    assert!(events.contains(document["manifest_sha256"].as_str().unwrap()), "{events}");
    // A second one does not replace it.
    sandbox.run(&format!("forensics {a} --out a.tar.zst")).fails(2, &["a.tar.zst already", "--out"]);
}

#[test]
fn what_a_guest_changed_is_listed_and_read_without_a_mount() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let (a, _) = taken(&sandbox);
    sandbox.done("down --timeout 0");
    listed(&sandbox, "a.tar.zst", &["+ /user  directory", "+ /user/loot  file of 6 B"]);
    assert_eq!(sandbox.done("forensics cat a.tar.zst /user/loot"), "taken\n");
    assert!(sandbox.done("forensics cat a.tar.zst timeline.html").starts_with("<!doctype html>"));
    assert!(sandbox.done("forensics cat a.tar.zst manifest.json").contains("\"members\""));
    assert!(
        sandbox.done("forensics cat a.tar.zst manifest.json.sig").starts_with("-----BEGIN SSH SIGNATURE")
    );
    let files = sandbox.document("--json forensics files a.tar.zst", "forensics-files");
    assert_eq!(files["files"].as_array().unwrap().len(), 2, "{files:#}");
    for (path, word) in [("/user/none", "no file /user/none"), ("/user", "a directory"), ("none", "no none")]
    {
        sandbox.run(&format!("forensics cat a.tar.zst {path}")).fails(2, &[word, "help: "]);
    }
    // Nobody needs root for it.
    let archive = sandbox.path("a.tar.zst");
    fs::set_permissions(&archive, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let mut command = sandbox.command();
    std::os::unix::process::CommandExt::uid(&mut command, 65534);
    let output =
        command.env("TMPDIR", "/tmp").args(["forensics", "cat", "a.tar.zst", "/user/loot"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "taken\n", "{output:?}");
    let _ = a;
}

#[test]
fn a_journal_that_was_not_replayed_is_and_a_damaged_directory_costs_no_other() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let disk = sandbox.disk(&sandbox.guest('a'));
    // As a guest leaves it that is captured while it writes: mounted, and with its last words in the journal.
    let mount = sandbox.path("mount");
    fs::create_dir(&mount).unwrap();
    let (at, mounted) = (disk.to_str().unwrap(), mount.to_str().unwrap());
    tool("mount", &["-o", "loop", at, mounted]);
    for name in ["whole/one", "broken/two"] {
        sandbox.write(&format!("mount/{name}"), name);
    }
    tool("sync", &["-f", mounted]);
    fs::copy(&disk, sandbox.path("captured")).unwrap();
    tool("umount", &[mounted]);
    let features = tool("dumpe2fs", &["-h", sandbox.path("captured").to_str().unwrap()]);
    assert!(features.contains("needs_recovery"), "{features}");
    fs::copy(sandbox.path("captured"), &disk).unwrap();
    let a = sandbox.guest('a');
    sandbox.done(&format!("forensics {a} --out a.tar.zst"));
    listed(&sandbox, "a.tar.zst", &["+ /broken/two", "+ /whole/one"]);
    assert_eq!(sandbox.done("forensics cat a.tar.zst /broken/two"), "broken/two");

    // Another guest's disk, whose VMM damaged it.
    tool("e2fsck", &["-E", "journal_only", "-y", at]);
    debugfs(
        &disk,
        &["set_inode_field /broken block[0] 99".into(), "set_inode_field /broken generation 7".into()],
    );
    sandbox.done(&format!("forensics {a} --out b.tar.zst"));
    let run = sandbox.run("forensics files b.tar.zst");
    run.fails(1, &["cannot be read: /broken"]);
    assert!(run.out.contains("+ /whole/one"), "{run}");
    assert_eq!(sandbox.done("forensics cat b.tar.zst /whole/one"), "whole/one");
}

#[test]
fn what_cannot_be_read_of_a_disk_is_told_and_is_not_nothing() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let (a, _) = taken(&sandbox);
    let field = |path: &str| format!("set_inode_field {path} block[0] 99");
    debugfs(&sandbox.disk(&a), &[field("/user/loot")]);
    sandbox.done(&format!("forensics {a} --out b.tar.zst"));
    let run = sandbox.run("forensics cat b.tar.zst /user/loot");
    let words = ["the data disk in b.tar.zst cannot be read", "/user/loot", "cat b.tar.zst disk.ext4"];
    assert!(!run.fails(2, &words).err.contains("out/"), "{run}");
    assert!(!run.err.contains("/tmp"), "{run}");
    debugfs(&sandbox.disk(&a), &[field("/")]);
    sandbox.done(&format!("forensics {a} --out c.tar.zst"));
    let run = sandbox.run("forensics files c.tar.zst");
    run.fails(1, &["cannot be read: /: ", "nothing differs of what can be read"]);
    let (code, documents) = sandbox.documents("forensics files c.tar.zst", "forensics-files");
    assert_eq!((code, documents[0]["files"].as_array().unwrap().len()), (1, 0), "{documents:?}");
    assert!(documents[0]["unreadable"][0].as_str().unwrap().starts_with("/: "), "{documents:?}");
}

#[test]
fn nothing_is_appended_to_an_archive() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    taken(&sandbox);
    let whole = fs::read(sandbox.path("a.tar.zst")).unwrap();
    let frame = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let tar = zstd::decode_all(whole.as_slice()).unwrap();
    let more = packed(&[(tar::EntryType::Regular, "more", b"x")]);
    let skipped = b"\x50\x2a\x4d\x18\x04\0\0\0more";
    let appended = [
        [&whole[..], &frame(b"more")].concat(),
        [&whole[..], &whole].concat(),
        [&whole[..], &frame(b"")].concat(),
        [&whole[..], skipped].concat(),
        [&whole[..], b"x"].concat(),
        frame(&[&tar[..], &zstd::decode_all(more.as_slice()).unwrap()].concat()),
        frame(&[&tar[..], b"more"].concat()),
    ];
    for (number, bytes) in appended.into_iter().enumerate() {
        sandbox.write("b.tar.zst", bytes);
        let run = sandbox.run("forensics verify b.tar.zst");
        assert!(run.code == 2 && run.err.contains("something was appended to it"), "{number}: {run}");
        assert_eq!(sandbox.run("forensics cat b.tar.zst fleet.toml").code, 2);
    }
    // tar(1) fills up its blocks.
    sandbox.write("b.tar.zst", frame(&[&tar[..], &[0; 10_240]].concat()));
    sandbox.done("forensics verify b.tar.zst");
}

#[test]
fn whose_evidence_cannot_be_written_is_cut_off_and_that_is_said() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let (a, small) = (sandbox.guest('a'), sandbox.path("small").display().to_string());
    fs::create_dir(&small).unwrap();
    tool("mount", &["-t", "tmpfs", "-o", "size=8k", "none", &small]);
    let run = sandbox.run(&format!("forensics {a} --out small/a.tar.zst"));
    tool("umount", &[&small]);
    run.fails(
        1,
        &["it is cut off from every network since", "No space left", &format!("sisforge release {a}")],
    );
    assert!(sandbox.ps(&a)["quarantined"].is_string());
}

#[test]
fn an_archive_of_which_one_byte_is_another_proves_nothing() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let (_, document) = taken(&sandbox);
    let signers = signers(&sandbox).display().to_string();
    let told = sandbox.done(&format!("forensics verify a.tar.zst --signers {signers}"));
    for word in [
        "host@example.org",
        "ED25519 key SHA256:",
        document["manifest_sha256"].as_str().unwrap(),
        "disk.ext4",
    ] {
        assert!(told.contains(word), "{word}: {told}");
    }
    let alone = sandbox.done("forensics verify a.tar.zst");
    assert!(alone.contains("--signers tells"), "{alone}");
    let whole = fs::read(sandbox.path("a.tar.zst")).unwrap();
    for place in (0..24).map(|step| step * (whole.len() - 1) / 23) {
        let mut changed = whole.clone();
        changed[place] ^= 1;
        sandbox.write("b.tar.zst", changed);
        let run = sandbox.run("forensics verify b.tar.zst");
        assert_eq!(run.code, 2, "byte {place} of {}: {run}", whole.len());
        sandbox.write("b.tar.zst", &whole[..place]);
        assert_eq!(sandbox.run("forensics cat b.tar.zst fleet.toml").code, 2, "cut at {place}");
    }
    // Whoever packs it anew has no key; and a key of his own is none that is allowed.
    let out = sandbox.path("x");
    fs::create_dir(&out).unwrap();
    tool("tar", &["--zstd", "-xf", sandbox.path("a.tar.zst").to_str().unwrap(), "-C", out.to_str().unwrap()]);
    let order = tool("tar", &["--zstd", "-tf", sandbox.path("a.tar.zst").to_str().unwrap()]);
    let pack = || {
        let mut args = vec!["--zstd", "-cf", sandbox.path("c.tar.zst").to_str().unwrap().to_owned().leak()];
        args.extend(["-C", out.to_str().unwrap().to_owned().leak() as &str]);
        args.extend(order.lines());
        tool("tar", &args);
    };
    pack();
    sandbox.done("forensics verify c.tar.zst");
    sandbox.write("x/fleet.toml", "[fleet]\nname = \"other\"\n");
    pack();
    sandbox.run("forensics verify c.tar.zst").fails(2, &["fleet.toml is not what was captured"]);
    let manifest = sandbox.read("x/manifest.json");
    let digest = |text: &str| Sha256::of(text).to_string();
    let own = digest(&sandbox.read("fleet.toml"));
    let forged = manifest.replace(&own, &digest(&sandbox.read("x/fleet.toml")));
    let (before, after) = (sandbox.read("fleet.toml").len(), sandbox.read("x/fleet.toml").len());
    let forged = forged.replacen(&format!("\"size\": {before}"), &format!("\"size\": {after}"), 1);
    sandbox.write("x/manifest.json", &forged);
    pack();
    sandbox.run("forensics verify c.tar.zst").fails(2, &["signature", "wrong"]);
    tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", sandbox.path("own").to_str().unwrap()]);
    let manifest = out.join("manifest.json").display().to_string();
    fs::remove_file(out.join("manifest.json.sig")).unwrap();
    tool(
        "ssh-keygen",
        &["-Y", "sign", "-n", "sisforge", "-f", sandbox.path("own").to_str().unwrap(), &manifest],
    );
    pack();
    sandbox.done("forensics verify c.tar.zst");
    sandbox
        .run(&format!("forensics verify c.tar.zst --signers {signers}"))
        .fails(2, &["has signed", "help: without --signers, `sisforge forensics verify` tells the key"]);
    sandbox.run("forensics verify fleet.toml").fails(2, &["is no archive of evidence"]);
    sandbox.run("forensics verify none").fails(2, &["none"]);
}

#[test]
fn of_a_guest_whose_vmm_is_gone_there_is_what_is_left() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let a = sandbox.guest('a');
    sandbox.done("down --timeout 0");
    let (code, documents) = sandbox.documents(&format!("--json forensics {a} --out a.tar.zst"), "forensics");
    let document = &documents[0];
    assert_eq!(code, 1, "{document:#}");
    let missing = document["missing"].to_string();
    assert!(missing.contains("memory and state") && missing.contains("not running"), "{missing}");
    for name in ["connections.json", "cgroup.json", "origin.json", "sbom.spdx.json", "process"] {
        assert!(missing.contains(name), "{name}: {missing}");
    }
    let names = document["members"].to_string();
    assert!(names.contains("disk.ext4") && names.contains("guest/serial.log"), "{names}");
    sandbox.done("forensics verify a.tar.zst");
    sandbox.run("forensics files a.tar.zst").fails(0, &[]);

    // Wrong use changes nothing: the guest is not cut off.
    sandbox.done(&format!("release {a}"));
    sandbox.run("forensics nobody").fails(2, &["nobody"]);
    sandbox.run(&format!("forensics {a} --out none/a.tar.zst --key none")).fails(2, &["none"]);
    sandbox
        .run(&format!("forensics {a} --key fleet.toml"))
        .fails(2, &["cannot sign with fleet.toml", "help: "]);
    sandbox.run(&format!("forensics {a} --out fleet.toml/a.tar.zst")).fails(2, &["fleet.toml"]);
    sandbox.run("forensics").fails(2, &["GUEST"]);
    assert!(sandbox.ps(&a)["quarantined"].is_null());
    // What is wrong in the fleet's file keeps nobody from evidence.
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("packages", "pakages"));
    sandbox.run(&format!("forensics {a} --out c.tar.zst")).fails(1, &["wrote c.tar.zst"]);
}

#[test]
fn whoever_is_killed_over_evidence_leaves_a_guest_that_the_next_one_captures_whole() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.kernel(READY, AfterText::Tick);
    sandbox.fleet("a");
    sandbox.done("up");
    let a = sandbox.guest('a');
    let begun = Instant::now();
    sandbox.done(&format!("forensics {a} --out whole.tar.zst"));
    let whole = begun.elapsed();
    let (mut left_paused, mut round) = (0, 0);
    // Most of the time it does not stand still.
    while left_paused < 2 && round < 400 {
        round += 1;
        let mut command = sandbox.command();
        let out = format!("{round}.tar.zst");
        let taking =
            command.args(["forensics", &a, "--out", &out]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut taking = taking.spawn().unwrap();
        std::thread::sleep(whole.mul_f64(f64::from(round % 40) / 40.0));
        taking.kill().unwrap();
        taking.wait().unwrap();
        if sandbox.record(&a, "freezing.json").exists() {
            left_paused += 1;
            let plan = sandbox.run("plan --detailed-exitcode");
            plan.fails(2, &[]);
            assert!(plan.out.contains("paused by a snapshot that was not finished"), "{plan}");
            // Whoever takes evidence now has all of it, and the guest goes on.
            let document = sandbox.document(&format!("--json forensics {a} --out {out}"), "forensics");
            assert_eq!(document["missing"], serde_json::json!([]), "{document:#}");
            assert!(!sandbox.record(&a, "freezing.json").exists());
        }
    }
    assert!(left_paused > 0, "none of {round} was killed while the guest stood still");
    let logged = || fs::read_to_string(sandbox.record(&a, "serial.log")).unwrap().len();
    let before = logged();
    until("it counts on", || logged() > before + 20);
}

#[test]
fn whatever_an_archive_calls_its_members_nothing_is_written_anywhere_and_memory_is_bounded() {
    use tar::EntryType;
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    let huge = vec![b'x'; 200 << 20];
    let many: Vec<String> = (0..20_000).map(|number| number.to_string()).collect();
    let many: Vec<_> = many.iter().map(|name| (EntryType::Regular, name.as_str(), b"".as_slice())).collect();
    let hostile: [(&[Member<'_>], &str); 7] = [
        (&[(EntryType::GNULongName, "././@LongLink", &huge)], "is no file"),
        (&[(EntryType::XHeader, "x", &huge)], "is no file"),
        (&[(EntryType::Symlink, "disk.ext4", b"")], "is no file"),
        (&[(EntryType::Regular, "../../up", b"x")], "ends before its manifest"),
        (
            &[(EntryType::Regular, "/tmp/absolute", b"x"), (EntryType::Regular, "/tmp/absolute", b"y")],
            "should not be in it",
        ),
        (&[(EntryType::Symlink, "\u{1b}[2Jx", b"")], "is no file"),
        (&many, "more than 10000 members"),
    ];
    for (members, words) in hostile {
        sandbox.write("h.tar.zst", packed(members));
        for command in
            ["verify h.tar.zst", "files h.tar.zst", "cat h.tar.zst ../../up", "cat h.tar.zst /tmp/absolute"]
        {
            let mut limited = Command::new("sh");
            limited.args(["-c", &format!("ulimit -v 400000; exec {SISFORGE} forensics {command}")]);
            sandbox.surround(&mut limited);
            let run = Run::of(&mut limited);
            run.fails(2, &["h.tar.zst", words, "help: "]);
            assert!(!run.err.contains('\u{1b}'), "{run}");
        }
        assert!(!sandbox.path("../../up").exists());
    }
}
