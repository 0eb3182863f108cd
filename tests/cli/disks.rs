//! Data disks, and the container images that guests share.

use std::fs;
use std::os::unix::fs::MetadataExt;

use tar::EntryType;

use crate::common::sandbox::Sandbox;
use crate::image::oci::{self, Item, file};
use crate::needs_firecracker;

/// A user whose home is the data disk.
pub const HOME: &str = r#"description = "a user"
[[group]]
name = "user"
gid = 1000
[[user]]
name = "user"
uid = 1000
group = "user"
home = "/home/user"
shell = "/bin/sh"
subids = { start = 100000, count = 65536 }
"#;

/// Writes an image that holds one file of these bytes.
fn write_image(sandbox: &Sandbox, path: &str, text: &[u8]) {
    let layer = oci::layer(&[Item { kind: EntryType::Regular, ..file("f", text) }]);
    oci::write_archive(&sandbox.path(path), "localhost/a:1", &[layer], |_, _| {});
}

/// A fleet of these users whose disks are declared by this text.
fn fleet(sandbox: &Sandbox, letters: &str, disk: &str) {
    sandbox.write("recipes/home/recipe.toml", HOME);
    let text = sandbox.fleet_text(letters, "");
    let text = text.replace("packages = [\"tiny\"]", "packages = [\"tiny\"]\nrecipes = [\"home\"]");
    sandbox.write("fleet.toml", text.replace("size = \"16MiB\"", disk));
}

#[test]
fn container_images_stand_once_for_all_guests_and_a_change_reaches_disks_that_are_there() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    write_image(&sandbox, "a.tar", b"one");
    fleet(&sandbox, "ab", "size = \"16MiB\"\nimages = [\"oci-archive:a.tar\"]");
    let (a, b) = (&sandbox.guest('a'), &sandbox.guest('b'));
    sandbox.done("up");
    let meta = |guest: &str| fs::metadata(sandbox.jail(guest).join("images.ext4")).unwrap();
    let (of_a, of_b) = (meta(a), meta(b));
    assert_eq!((of_a.ino(), of_a.dev()), (of_b.ino(), of_b.dev()), "one file for all");
    assert_eq!((of_a.uid(), of_a.mode() & 0o7777, of_a.nlink()), (0, 0o444, 3));
    let config = fs::read_to_string(sandbox.jail(a).join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["drives"][2]["path_on_host"], "/images.ext4");
    assert_eq!(config["drives"][2]["is_read_only"], true);
    let disk = fs::metadata(sandbox.disk(a)).unwrap();

    write_image(&sandbox, "a.tar", b"two");
    let plan = sandbox.done("plan");
    assert!(plan.contains(&format!("stop {a}: container images ")), "{plan}");
    sandbox.done("up");
    assert_ne!(meta(a).ino(), of_a.ino());
    assert_eq!(meta(a).ino(), meta(b).ino());
    let now = fs::metadata(sandbox.disk(a)).unwrap();
    assert_eq!((now.ino(), now.mtime()), (disk.ino(), disk.mtime()), "the disk is not touched");
    // Without images there is no drive.
    fleet(&sandbox, "a", "size = \"16MiB\"");
    sandbox.done("up");
    assert!(!sandbox.jail(a).join("images.ext4").exists());
    let config = fs::read_to_string(sandbox.jail(a).join("config.json")).unwrap();
    assert!(!config.contains("images.ext4"), "{config}");
}

#[test]
fn container_images_need_a_user_whose_they_are() {
    let sandbox = Sandbox::new();
    write_image(&sandbox, "a.tar", b"one");
    fleet(&sandbox, "a", "size = \"16MiB\"\nimages = [\"oci-archive:a.tar\"]");
    let without = sandbox.read("fleet.toml").replace("recipes = [\"home\"]", "");
    sandbox.write("fleet.toml", without);
    let words = ["the container images of the disk home cannot be used", "container images need a user"];
    sandbox.run("build disk home").fails(2, &words);
}

#[test]
fn a_disk_and_its_images_are_built_by_one_name_and_check_out() {
    let sandbox = Sandbox::new();
    write_image(&sandbox, "a.tar", &[7; 100_000]);
    fleet(&sandbox, "a", "size = \"16MiB\"\nimages = [\"oci-archive:a.tar\"]");
    let built = sandbox.done("build disk home");
    assert!(built.contains("disk ") && built.contains("containers "), "{built}");
    sandbox.done("build disk home --check");
    let listed = sandbox.done("inspect out/containers/home/images.ext4");
    assert!(listed.contains("/overlay-images"), "{listed}");
}

/// A disk's length in MiB.
fn mebibytes(sandbox: &Sandbox, guest: &str) -> u64 {
    fs::metadata(sandbox.disk(guest)).unwrap().len() >> 20
}

/// One disk as `disk ls --json` shows it.
fn listed(sandbox: &Sandbox, guest: &str) -> serde_json::Value {
    let all: serde_json::Value = serde_json::from_str(&sandbox.done("disk ls --json")).unwrap();
    let found = all.as_array().unwrap().iter().find(|one| one["guest"] == guest);
    found.unwrap_or_else(|| panic!("no {guest} in {all}")).clone()
}

#[test]
fn a_disk_grows_before_its_guest_next_starts_and_is_never_made_smaller() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    fleet(&sandbox, "ab", "size = \"16MiB\"");
    let a = &sandbox.guest('a');
    sandbox.done("up");
    fleet(&sandbox, "ab", "size = \"10GiB\"");
    let note = format!("the data disk of {a} grows from 16MiB to 10GiB when {a} next starts");
    sandbox.run("plan --detailed-exitcode").fails(0, &[&note]);
    sandbox.done("up");
    assert_eq!(mebibytes(&sandbox, a), 16, "not while the guest runs");
    sandbox.done("down");
    let plan = sandbox.done("plan");
    assert!(plan.contains("  grow data disk from 16MiB to 10GiB\n"), "{plan}");
    sandbox.done("up");
    assert_eq!(mebibytes(&sandbox, a), 10 << 10);
    let used = listed(&sandbox, a)["used"].as_u64().unwrap();
    assert!(used < 2 << 20, "{used} bytes on disk");

    fleet(&sandbox, "ab", "size = \"16MiB\"");
    let words = [&format!(
        "the data disk of {a} has 10GiB, but fleet.toml says 16MiB: a disk cannot be made smaller"
    )];
    let words: Vec<_> = words.iter().map(|word| word.as_str()).collect();
    let pid = sandbox.pid(a);
    for command in ["plan", "up"] {
        sandbox.run(command).fails(2, &words);
    }
    assert_eq!((mebibytes(&sandbox, a), sandbox.pid(a)), (10 << 10, pid), "nothing was changed");
    // What does not ask for the disk is not refused.
    sandbox.done("down");
}

#[test]
fn disks_are_listed_saved_replaced_and_removed() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    fleet(&sandbox, "ab", "size = \"16MiB\"");
    let (a, b) = (&sandbox.guest('a'), &sandbox.guest('b'));
    sandbox.done("up");
    for command in [
        format!("disk export {a} a.ext4"),
        format!("disk import {a} tiny.elf --replace --yes"),
        format!("disk rm {a} --yes"),
    ] {
        sandbox.run(&command).fails(1, &[&format!("{a} is running"), &format!("sisforge down {a}")]);
    }
    let one = listed(&sandbox, a);
    assert_eq!(
        (&one["attached"], &one["orphan"], &one["backing"]),
        (&true.into(), &false.into(), &"file".into())
    );
    sandbox.done("down");
    assert_eq!(listed(&sandbox, a)["attached"], false);

    sandbox.done(&format!("disk export {a} a.ext4"));
    assert_eq!(fs::read(sandbox.path("a.ext4")).unwrap(), fs::read(sandbox.disk(a)).unwrap());
    assert_eq!(fs::metadata(sandbox.path("a.ext4")).unwrap().mode() & 0o777, 0o600);
    sandbox.run(&format!("disk export {a} a.ext4")).fails(2, &["a.ext4 already exists"]);

    let before = fs::metadata(sandbox.disk(b)).unwrap().ino();
    sandbox.run(&format!("disk import {b} a.ext4")).fails(1, &[&format!("{b} has a data disk already")]);
    sandbox.run(&format!("disk import {b} a.ext4 --replace")).fails(2, &["replace", "--yes"]);
    sandbox
        .run(&format!("disk import {b} tiny.elf --replace --yes"))
        .fails(2, &["does not contain an ext4 file system"]);
    sandbox.run(&format!("disk import {b} none --replace --yes")).fails(2, &["none"]);
    // Its superblock is right, and what stands behind that is not: the descriptor of its first block group.
    let mut torn = fs::read(sandbox.path("a.ext4")).unwrap();
    torn[4096..4096 + 32].fill(0xff);
    sandbox.write("torn.ext4", &torn);
    sandbox
        .run(&format!("disk import {b} torn.ext4 --replace --yes"))
        .fails(2, &["does not contain an ext4 file system"]);
    assert_eq!(fs::metadata(sandbox.disk(b)).unwrap().ino(), before, "still the old one");
    sandbox.done(&format!("disk import {b} a.ext4 --replace --yes"));
    assert_ne!(fs::metadata(sandbox.disk(b)).unwrap().ino(), before);
    sandbox.done("up");

    // A disk of nobody, and one that is too large.
    fleet(&sandbox, "a", "size = \"16MiB\"");
    sandbox.done("up");
    assert_eq!(listed(&sandbox, b)["orphan"], true);
    sandbox.run(&format!("disk import {b} a.ext4")).fails(2, &["there is no guest"]);
    sandbox.done("down");
    fs::File::options().write(true).open(sandbox.path("a.ext4")).unwrap().set_len(17 << 20).unwrap();
    let words = ["a.ext4 has 17MiB", "should have 16MiB"];
    sandbox.run(&format!("disk import {a} a.ext4 --replace --yes")).fails(2, &words);
    sandbox.run(&format!("disk rm {b}")).fails(2, &["remove the data disk of", "--yes"]);
    sandbox.done(&format!("disk rm {b} --yes"));
    assert!(!sandbox.disk(b).exists() && sandbox.disk(a).exists());
    sandbox.run(&format!("disk rm {b} --yes")).fails(2, &["there is no data disk", a]);
}

#[test]
fn a_disk_is_never_given_to_two_guests() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    fleet(&sandbox, "ab", "size = \"16MiB\"");
    let (a, b) = (&sandbox.guest('a'), &sandbox.guest('b'));
    sandbox.done(&format!("up {a}"));
    // Somebody gives bob alice's disk by hand.
    fs::hard_link(sandbox.disk(a), sandbox.disk(b)).unwrap();
    let words = ["is also that of another guest", a.as_str()];
    sandbox.run(&format!("up {b}")).fails(1, &words);
    assert_eq!(sandbox.ps(b)["state"], "down");
    assert!(sandbox.pid(a) > 0, "alice is not disturbed");
    // A second name that no jail has is no second guest.
    sandbox.done("down");
    fs::remove_file(sandbox.disk(b)).unwrap();
    fs::hard_link(sandbox.disk(a), sandbox.path("backup.ext4")).unwrap();
    sandbox.done(&format!("up {a}"));
}

#[test]
fn an_export_or_import_that_was_killed_leaves_the_old_disk_or_the_new_one() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    fleet(&sandbox, "a", "size = \"64MiB\"");
    let a = &sandbox.guest('a');
    sandbox.done("up");
    sandbox.done("down");
    sandbox.done(&format!("disk export {a} old.ext4"));
    // Data, so that a copy takes its time.
    let mut bytes = fs::read(sandbox.path("old.ext4")).unwrap();
    let end = bytes.len() - 1;
    bytes[32 << 20..end].iter_mut().enumerate().for_each(|(at, byte)| *byte = (at % 251) as u8 | 1);
    sandbox.write("new.ext4", &bytes);
    let old = fs::read(sandbox.path("old.ext4")).unwrap();
    // Killed at moments spread over the time that a whole one takes here and now, and a little beyond.
    let begun = std::time::Instant::now();
    sandbox.done(&format!("disk import {a} new.ext4 --replace --yes"));
    let whole = begun.elapsed();
    sandbox.done(&format!("disk import {a} old.ext4 --replace --yes"));
    let (mut new_ones, mut exported) = (0, 0);
    for round in 0..100_u32 {
        // Where others use the machine meanwhile, a whole one takes longer by now.
        if round >= 14 && new_ones > 0 && exported > 0 {
            break;
        }
        let delay = whole * (round + 1) / 8;
        let out = format!("out-{round}.ext4");
        for args in
            [vec!["disk", "import", a, "new.ext4", "--replace", "--yes"], vec!["disk", "export", a, &out]]
        {
            let mut run = sandbox.command();
            let run = run.args(args).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            let mut run = run.spawn().unwrap();
            std::thread::sleep(delay);
            run.kill().unwrap();
            run.wait().unwrap();
        }
        let now = fs::read(sandbox.disk(a)).unwrap();
        assert!(now == old || now == bytes, "a half disk after {delay:?}");
        new_ones += usize::from(now == bytes);
        if let Ok(saved) = fs::read(sandbox.path(&out)) {
            assert!(saved == old || saved == bytes, "a half file after {delay:?}");
            exported += 1;
        }
        let names = fs::read_dir(sandbox.disk(a).parent().unwrap()).unwrap();
        assert_eq!(names.count(), 1, "something is left over after {delay:?}");
    }
    assert!(new_ones > 0 && exported > 0, "no run came through: {new_ones} {exported}");
}

#[test]
fn a_disk_has_the_label_and_the_owner_that_it_is_given() {
    let sandbox = Sandbox::new();
    let built = |more: &str| {
        fleet(&sandbox, "a", &format!("size = \"16MiB\"\n{more}"));
        sandbox.done("build disk home");
        let disk = fs::File::open(sandbox.path("out/disk/home/disk.ext4")).unwrap();
        let disk = ext4_view::Ext4::load(Box::new(disk)).unwrap();
        (disk.label().display().to_string(), disk.metadata("/").unwrap().uid())
    };
    assert_eq!(built("label = \"surf-home\"\nowner = \"root\""), ("surf-home".into(), 0));
    assert_eq!(built("owner = \"user\"").1, 1000);
    assert!(built("").0.starts_with("sis-"));
    for (line, words) in [
        ("label = \"a-label-of-17-byt\"", "must be a label"),
        ("label = \"a b\"", "must be a label"),
        ("owner = \"nobody-here\"", "`owner` is \"nobody-here\", but none of the recipes has that user"),
    ] {
        fleet(&sandbox, "a", &format!("size = \"16MiB\"\n{line}"));
        sandbox.run("build disk home").fails(2, &[words]);
    }
}
