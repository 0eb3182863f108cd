//! `fleet.lock`: what changes in it, and what `--locked` says of each thing that does not fit.

use std::collections::BTreeSet;
use std::fs;

use crate::common::sandbox::Sandbox;

/// A fleet with a recipe, a container image, a kernel that is built from source and two packages, locked.
fn locked() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.pack("more", "2.0-r0");
    sandbox.index();
    sandbox.write("recipes/mine/recipe.toml", "description = \"mine\"\npackages = [\"more\"]\n");
    sandbox.write("browser.tar", "an image");
    sandbox.write("linux.tar", "a kernel");
    sandbox.write("one.patch", "one");
    sandbox.write("kernel-configs/fragments/mine.config", "# why\nCONFIG_FUSE_FS=y\n");
    let kernel = "source = \"linux.tar\"\nbase = \"microvm-6.1-x86_64\"\nfragments = [\"mine\", \"entropy\"]\n\
                  options = { NR_CPUS = 8, KALLSYMS = false }\npatches = [\"one.patch\"]";
    let text = sandbox.fleet_text("ab", "");
    let text = text.replace("image = \"tiny.elf\"", kernel);
    let text = text.replace("packages = [\"tiny\"]", "packages = [\"tiny\"]\nrecipes = [\"mine\"]");
    let text = text.replace("size = \"16MiB\"", "size = \"16MiB\"\nimages = [\"oci-archive:browser.tar\"]");
    sandbox.write("fleet.toml", text);
    sandbox.done("lock");
    sandbox
}

/// Replaces a part of a file, which must be there.
fn edit(sandbox: &Sandbox, path: &str, from: &str, to: &str) {
    let text = sandbox.read(path);
    assert!(text.contains(from), "{path} has no {from:?}\n{text}");
    sandbox.write(path, text.replacen(from, to, 1));
}

/// Lines that one text has and the other has not.
fn lines_beyond(text: &str, other: &str) -> Vec<String> {
    let other: BTreeSet<&str> = other.lines().collect();
    text.lines().filter(|line| !other.contains(line)).map(|line| line.trim().to_owned()).collect()
}

fn short(bytes: &str) -> String {
    sisforge::base::Sha256::of(bytes).short()
}

#[test]
fn one_package_that_is_updated_changes_its_own_lines_alone() {
    let sandbox = locked();
    let old = sandbox.read("fleet.lock");
    sandbox.run("lock").fails(0, &["fleet.lock fits already"]);
    sandbox.write("files/etc/tiny", "newer");
    sandbox.pack("tiny", "1.1-r0");
    sandbox.write("files/etc/tiny", "other");
    sandbox.pack("more", "2.1-r0");
    sandbox.index();
    sandbox.run("lock").fails(0, &["fleet.lock fits already"]);
    sandbox.done("fetch");
    assert_eq!(sandbox.read("fleet.lock"), old, "nothing changes that was not asked for");
    sandbox.run("lock --update tinyy").fails(2, &["no image has the package tinyy; did you mean tiny?"]);

    assert_eq!(sandbox.done("lock --update tiny"), "update tiny 1.0-r0 -> 1.1-r0\n");
    let new = sandbox.read("fleet.lock");
    let (gone, come) = (lines_beyond(&old, &new), lines_beyond(&new, &old));
    let keys = |lines: &[String]| -> Vec<String> {
        lines.iter().map(|line| line.split(" = ").next().unwrap().to_owned()).collect()
    };
    assert!(gone.contains(&"\"tiny-1.0-r0\",".to_owned()) && come.contains(&"\"tiny-1.1-r0\",".to_owned()));
    for lines in [&gone, &come] {
        assert!(lines.len() <= 5, "{lines:#?}");
        let known = ["\"tiny-1.0-r0\",", "\"tiny-1.1-r0\",", "version", "checksum", "size", "sha256"];
        assert!(keys(lines).iter().all(|key| known.contains(&key.as_str())), "{lines:#?}");
    }
    // It is stable: made anew from nothing, with the same versions, it is the same text.
    sandbox.done("lock --update");
    let updated = sandbox.read("fleet.lock");
    fs::remove_file(sandbox.path("fleet.lock")).unwrap();
    sandbox.done("lock");
    assert_eq!(sandbox.read("fleet.lock"), updated);
}

#[test]
fn a_new_guest_changes_its_own_lines_alone() {
    let sandbox = locked();
    let old = sandbox.read("fleet.lock");
    sandbox.write("fleet.toml", sandbox.read("fleet.toml") + &format!("[user.{}]\n", sandbox.guest('c')));
    sandbox.done("lock");
    let new = sandbox.read("fleet.lock");
    assert_eq!(lines_beyond(&old, &new), [""; 0]);
    let come = lines_beyond(&new, &old);
    assert_eq!(come.len(), 5, "its table and four numbers: {come:#?}");
}

/// What is changed, and all that is then said.
type Case = (&'static str, fn(&Sandbox), fn(&Sandbox) -> Vec<String>);

#[test]
fn a_locked_build_names_exactly_what_differs() {
    let cases: Vec<Case> = vec![
        ("nothing", |_| (), |_| vec![]),
        (
            "a package more",
            |s| edit(s, "fleet.toml", "[\"tiny\"]", "[\"tiny\", \"more>2\"]"),
            |_| vec!["the image i now needs the package more>2".into()],
        ),
        (
            "a package less",
            |s| edit(s, "fleet.toml", "[\"tiny\"]", "[]"),
            |_| vec!["the image i no longer needs the package tiny".into()],
        ),
        (
            "an image more",
            |s| edit(s, "fleet.toml", "[disk.home]", "[image.j]\n[disk.home]"),
            |_| vec!["the image j is not in fleet.lock".into()],
        ),
        (
            "another repository",
            |s| edit(s, "fleet.toml", "url = \"repository\"", "url = \"https://example.org/x\""),
            |_| {
                vec![
                    "the repository https://example.org/x is not in fleet.lock".into(),
                    "the repository repository is no longer in fleet.toml".into(),
                ]
            },
        ),
        (
            "a tag",
            |s| edit(s, "fleet.toml", "url = \"repository\"", "url = \"repository\"\ntag = \"edge\""),
            |_| {
                vec![
                    "the repository @edge repository is not in fleet.lock".into(),
                    "the repository repository is no longer in fleet.toml".into(),
                ]
            },
        ),
        (
            "a recipe",
            |s| edit(s, "recipes/mine/recipe.toml", "\"mine\"", "\"ours\""),
            |_| vec!["the recipe mine changed: it has the SHA-256 ".into()],
        ),
        (
            "a kernel source",
            |s| s.write("linux.tar", "another"),
            |_| {
                let (now, then) = (short("another"), short("a kernel"));
                vec![format!("the kernel linux.tar has the SHA-256 {now}..., {then}... in fleet.lock")]
            },
        ),
        (
            "another kernel source",
            |s| {
                s.write("linux-2.tar", "a kernel");
                edit(s, "fleet.toml", "\"linux.tar\"", "\"linux-2.tar\"");
            },
            |_| vec!["the kernel is linux-2.tar in fleet.toml, linux.tar in fleet.lock".into()],
        ),
        (
            "kernel options",
            |s| edit(s, "fleet.toml", "NR_CPUS = 8, KALLSYMS = false", "NR_CPUS = 4, SWAP = true"),
            |_| {
                vec![
                    "the kernel option KALLSYMS is not set in fleet.toml, n in fleet.lock".into(),
                    "the kernel option NR_CPUS is 4 in fleet.toml, 8 in fleet.lock".into(),
                    "the kernel option SWAP is y in fleet.toml, not set in fleet.lock".into(),
                ]
            },
        ),
        (
            "a fragment's wishes",
            |s| {
                edit(
                    s,
                    "kernel-configs/fragments/mine.config",
                    "CONFIG_FUSE_FS=y",
                    "CONFIG_FUSE_FS=y\nCONFIG_SWAP=y",
                )
            },
            |_| vec!["the kernel config fragments/mine.config changed: it has the SHA-256 ".into()],
        ),
        (
            "a fragment's reasons",
            |s| edit(s, "kernel-configs/fragments/mine.config", "# why", "# because"),
            |_| vec![],
        ),
        (
            "a fragment more",
            |s| edit(s, "fleet.toml", "\"entropy\"]", "\"entropy\", \"nftables\"]"),
            |_| vec!["the kernel config fragments/nftables.config is not in fleet.lock".into()],
        ),
        (
            "a patch",
            |s| s.write("one.patch", "two"),
            |_| {
                let (now, then) = (short("two"), short("one"));
                vec![format!(
                    "the kernel patch 1 is one.patch with the SHA-256 {now}..., {then}... in fleet.lock"
                )]
            },
        ),
        (
            "a patch more",
            |s| {
                s.write("two.patch", "two");
                edit(s, "fleet.toml", "[\"one.patch\"]", "[\"one.patch\", \"two.patch\"]");
            },
            |_| vec!["the kernel patch two.patch is not in fleet.lock".into()],
        ),
        (
            "no patch",
            |s| edit(s, "fleet.toml", "[\"one.patch\"]", "[]"),
            |_| {
                let then = short("one");
                vec![format!(
                    "the kernel patch 1 of fleet.lock, with the SHA-256 {then}..., is no longer in fleet.toml"
                )]
            },
        ),
        (
            "a ready kernel",
            |s| {
                let text = s.fleet_text("ab", "");
                let text =
                    text.replace("packages = [\"tiny\"]", "packages = [\"tiny\"]\nrecipes = [\"mine\"]");
                s.write(
                    "fleet.toml",
                    text.replace(
                        "size = \"16MiB\"",
                        "size = \"16MiB\"\nimages = [\"oci-archive:browser.tar\"]",
                    ),
                );
            },
            |_| {
                vec![
                    "the kernel is tiny.elf in fleet.toml, linux.tar in fleet.lock".into(),
                    "fleet.toml has a prebuilt kernel, but fleet.lock has a kernel `source`".into(),
                ]
            },
        ),
        (
            "a container image",
            |s| s.write("browser.tar", "another"),
            |_| {
                let (now, then) = (short("another"), short("an image"));
                vec![format!(
                    "the container image oci-archive:browser.tar changed: it has the SHA-256 {now}..., \
                     {then}... in fleet.lock"
                )]
            },
        ),
        (
            "a user more and one less",
            |s| {
                let (b, c) = (s.guest('b'), s.guest('c'));
                edit(s, "fleet.toml", &format!("[user.{b}]"), &format!("[user.{c}]"));
            },
            |s| {
                vec![
                    format!("the guest {} is not in fleet.lock", s.guest('c')),
                    format!("the guest {} is no longer in fleet.toml", s.guest('b')),
                ]
            },
        ),
        (
            "uids",
            |s| edit(s, "fleet.toml", &s.uids(), "400000-400010"),
            |s| {
                let first: u32 = s.uids().split('-').next().unwrap().parse().unwrap();
                let told = |letter, slot| {
                    let (name, then, now) = (s.guest(letter), first + slot, 400_000 + slot);
                    format!("the guest {name} has the uid {then}, but [host] gives {now}")
                };
                vec![told('a', 0), told('b', 1)]
            },
        ),
        (
            "the subnet",
            |s| edit(s, "fleet.toml", &s.subnet(), "10.99.0.0/24"),
            |s| ['a', 'b'].map(|l| format!("the guest {} has the address ", s.guest(l))).into(),
        ),
        (
            "the fleet's name",
            |s| edit(s, "fleet.toml", &format!("name = \"{}\"", s.name), "name = \"other\""),
            |s| vec![format!("fleet.lock is for the fleet {}, but fleet.toml is for other", s.name)],
        ),
    ];
    let sandbox = locked();
    // The base of a kernel takes its recipes' needs as they are; only what differs is of interest.
    let (fleet, lock) = (sandbox.read("fleet.toml"), sandbox.read("fleet.lock"));
    let files = [
        "recipes/mine/recipe.toml",
        "linux.tar",
        "one.patch",
        "browser.tar",
        "kernel-configs/fragments/mine.config",
    ];
    let before = files.map(|file| (file, sandbox.read(file)));
    for (what, change, reasons) in cases {
        change(&sandbox);
        let run = sandbox.run("fetch --locked");
        let said: Vec<&str> =
            run.err.lines().filter(|line| line.starts_with("  ") && !line.contains("help: ")).collect();
        let wanted = reasons(&sandbox);
        assert_eq!(run.code, if wanted.is_empty() { 0 } else { 2 }, "{what}\n{run}");
        assert_eq!(said.len(), wanted.len(), "{what}\n{run}");
        for (said, wanted) in said.iter().zip(&wanted) {
            let is_whole = !wanted.ends_with(' ');
            let fits = if is_whole { said.trim() == wanted } else { said.trim().starts_with(wanted) };
            assert!(fits, "{what}: not said: {wanted}\n{run}");
        }
        if !wanted.is_empty() {
            assert!(run.err.starts_with("error: fleet.lock does not fit fleet.toml:\n"), "{what}\n{run}");
        }
        assert_eq!(sandbox.read("fleet.lock"), lock, "{what}: a lock is not touched by --locked");
        sandbox.write("fleet.toml", &fleet);
        before.iter().for_each(|(file, text)| sandbox.write(file, text));
    }
}

#[test]
fn what_a_file_of_an_image_holds_is_pinned_and_a_lock_of_before_is_right_without() {
    let sandbox = Sandbox::new();
    let packages = "packages = [\"tiny\"]\n";
    let files = "files = { \"/etc/motd\" = { file = \"motd\" }, \"/etc/issue\" = { content = \"x\" } }\n";
    let text = sandbox.fleet_text("a", "").replace(packages, &format!("{packages}{files}"));
    sandbox.write("fleet.toml", text);
    sandbox.write("motd", "hello\n");
    sandbox.done("lock");
    let lock = sandbox.read("fleet.lock");
    let pin = format!("[file]\nmotd = \"{}\"\n", sisforge::base::Sha256::of("hello\n"));
    assert!(lock.contains(&pin), "{lock}");
    sandbox.done("build --locked image i");
    sandbox.write("motd", "other\n");
    let changed =
        format!("the file motd changed: it has the SHA-256 {}..., {}...", short("other\n"), short("hello\n"));
    sandbox.run("build --locked image i").fails(2, &[&changed]);
    assert!(sandbox.done("lock").contains("update file motd"));
    sandbox.done("build --locked image i");
    // A lock that names no files is one of an earlier version.
    let pin = format!("[file]\nmotd = \"{}\"\n", sisforge::base::Sha256::of("other\n"));
    edit(&sandbox, "fleet.lock", &pin, "");
    sandbox.done("build --locked image i");
    assert!(!sandbox.read("fleet.lock").contains("[file]"), "--locked changes nothing");
    assert!(sandbox.done("lock").contains("add file motd"));
    assert!(sandbox.read("fleet.lock").contains(&pin));
}

#[test]
fn a_lock_that_git_merged_half_or_a_newer_sisforge_wrote_is_named() {
    let sandbox = locked();
    let text = sandbox.read("fleet.lock");
    sandbox.write("fleet.lock", format!("<<<<<<< HEAD\n{text}=======\n{text}>>>>>>> two\n"));
    let words = [": there is a merge conflict", "git checkout --ours fleet.lock"];
    for command in ["lock", "build --locked"] {
        sandbox.run(command).fails(2, &words);
    }
    sandbox.write("fleet.lock", text.replace("version = 1\n", "version = 9\nunheard-of = true\n"));
    sandbox.run("lock").fails(2, &["was written by a newer sisforge: its version is 9"]);
    sandbox.write("fleet.lock", &text[..text.len() / 2]);
    sandbox.run("lock").fails(2, &["is not a valid lock file", "restore it from Git"]);
}

/// Adds a package that needs others to the repository.
fn pack_needing(sandbox: &Sandbox, name: &str, version: &str, needs: &str) {
    sandbox.write("map.toml", format!("[package.{name}]\ndepends = [{needs}]\n"));
    sandbox.write(&format!("bare/usr/share/{name}"), version);
    let to = "--to repository/x86_64 --arch x86_64 --key me.rsa --map map.toml";
    sandbox.done(&format!("apk pack bare --name {name} --pkgver {version} {to}"));
    fs::remove_dir_all(sandbox.path("bare")).unwrap();
}

#[test]
fn an_update_moves_what_must_and_says_why() {
    let sandbox = Sandbox::new();
    pack_needing(&sandbox, "lib", "1.0-r0", "");
    pack_needing(&sandbox, "app", "1.0-r0", "\"lib\"");
    pack_needing(&sandbox, "other", "1.0-r0", "");
    sandbox.index();
    let text = sandbox.fleet_text("a", "").replace("[\"tiny\"]", "[\"app\", \"other\"]");
    sandbox.write("fleet.toml", text);
    sandbox.done("lock");
    pack_needing(&sandbox, "lib", "2.0-r0", "");
    pack_needing(&sandbox, "app", "2.0-r0", "\"lib>1.5\"");
    pack_needing(&sandbox, "other", "2.0-r0", "");
    sandbox.index();
    let run = sandbox.run("lock --update app");
    assert_eq!(run.out, "update app 1.0-r0 -> 2.0-r0\nupdate lib 1.0-r0 -> 2.0-r0\n");
    assert!(run.err.contains("note: lib-1.0-r0 moves to 2.0-r0 besides: app-2.0-r0 needs lib>1.5"), "{run}");

    // A mirror that dropped what is locked.
    fs::remove_file(sandbox.path("repository/x86_64/lib-2.0-r0.apk")).unwrap();
    pack_needing(&sandbox, "lib", "2.1-r0", "");
    sandbox.index();
    edit(&sandbox, "fleet.toml", "\"other\"]", "\"other\", \"tiny\"]");
    let run = sandbox.run("lock");
    assert_eq!(run.out, "update lib 2.0-r0 -> 2.1-r0\nadd tiny 1.0-r0\n");
    assert!(
        run.err.contains("lib-2.0-r0 moves to 2.1-r0 besides: no repository has lib-2.0-r0 any more"),
        "{run}"
    );
}
