//! `tree`: jails as files, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sisforge::base::FileDigest;

use crate::common::namespaces::skip;
use crate::common::sandbox::{Run, SISFORGE, Sandbox, open_to_all};
use crate::needs_firecracker;

/// A user that is not root; needs root to become it.
pub const NOBODY: [&str; 4] = ["--reuid=65534", "--regid=65534", "--clear-groups", "--"];

/// The program as nobody, in a directory that is nobody's.
pub fn as_nobody(sandbox: &Sandbox) -> Option<Command> {
    if !rustix::process::geteuid().is_root() || sisforge::sys::tool::find("setpriv").is_none() {
        skip("as_nobody", "to become nobody needs root and setpriv");
        return None;
    }
    let mut command = Command::new("setpriv");
    command.args(NOBODY).arg(SISFORGE);
    sandbox.surround(&mut command);
    Run::of(Command::new("chown").args(["-R", "65534:65534"]).arg(sandbox.path(""))).fails(0, &[]);
    open_to_all(&sandbox.path(""));
    Some(command)
}

fn is_whole(sandbox: &Sandbox, jail: &Path) {
    let root = jail.join("root");
    for file in ["config.json", "data/disk.ext4", "rootfs.ext4", "vmlinux"] {
        assert!(root.join(file).is_file(), "{file} is not in {}", root.display());
    }
    let log = fs::symlink_metadata(root.join("vmm.log")).unwrap().file_type();
    assert!(log.is_fifo(), "vmm.log is no pipe in {}", root.display());
    let config: Value = serde_json::from_slice(&fs::read(root.join("config.json")).unwrap()).unwrap();
    let drives = config["drives"].as_array().unwrap();
    let kernel = [&config["boot-source"]["kernel_image_path"]];
    for path in drives.iter().map(|drive| &drive["path_on_host"]).chain(kernel) {
        let inside = path.as_str().unwrap().trim_start_matches('/');
        assert!(root.join(inside).is_file(), "{inside}, which the configuration names, is in the jail");
    }
    assert_eq!(sandbox.traces(), [""; 0], "nothing was started");
}

#[test]
fn a_tree_is_complete_owned_by_its_guests_and_starts_nothing() {
    let sandbox = Sandbox::new();
    sandbox.fleet("ab");
    sandbox.done("tree --out t");
    let jails = sandbox.path(&format!("t/{}/jails/firecracker", sandbox.name));
    let owners = ['a', 'b'].map(|letter| {
        let jail = jails.join(format!("{}--1", sandbox.guest(letter)));
        is_whole(&sandbox, &jail);
        let disk = fs::metadata(jail.join("root/data/disk.ext4")).unwrap();
        assert_eq!(disk.mode() & 0o7777, 0o600);
        disk.uid()
    });
    if rustix::process::geteuid().is_root() {
        assert_ne!(owners[0], owners[1]);
    }
    let record = sandbox.path(&format!("t/{}/guests/{}/command", sandbox.name, sandbox.guest('a')));
    assert!(fs::read_to_string(record).unwrap().starts_with("jailer --id "));
    let ruleset = sandbox.path(&format!("t/{}/ruleset.nft", sandbox.name));
    assert!(fs::read_to_string(ruleset).unwrap().contains(&sandbox.guest('b')));
    assert!(!sandbox.path("store").exists(), "the host's own store is not touched");
}

#[test]
fn a_tree_of_one_guest_holds_that_one_and_replaces_nothing() {
    let sandbox = Sandbox::new();
    sandbox.fleet("ab");
    let b = sandbox.guest('b');
    sandbox.done(&format!("tree {b} --out t"));
    let jails: Vec<_> =
        fs::read_dir(sandbox.path(&format!("t/{}/jails/firecracker", sandbox.name))).unwrap().collect();
    assert_eq!(jails.len(), 1);
    sandbox.run("tree --out t").fails(2, &["t already exists", "help: remove it"]);
    sandbox.run("tree nobody --out u").fails(2, &["there is no guest \"nobody\""]);
    assert!(!sandbox.path("u").exists());
}

#[test]
fn whoever_is_not_root_builds_and_makes_trees_but_brings_nothing_up() {
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    let nobody = |args: &[&str]| as_nobody(&sandbox).map(|mut command| Run::of(command.args(args)));
    let Some(built) = nobody(&["build"]) else { return };
    built.fails(0, &[]);
    nobody(&["tree", "--out", "t"]).unwrap().fails(0, &[]);
    is_whole(
        &sandbox,
        &sandbox.path(&format!("t/{}/jails/firecracker/{}--1", sandbox.name, sandbox.guest('a'))),
    );
    for command in ["up", "down", "ps", "plan", "status"] {
        nobody(&[command]).unwrap().fails(1, &["error: this command needs root", "help: run it with sudo"]);
    }
}

/// A guest's manifest in the tree `t`.
fn manifest(sandbox: &Sandbox, guest: &str) -> Value {
    let path = sandbox.path(&format!("t/{}/guests/{guest}/manifest.json", sandbox.name));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Each entry of a manifest by its path.
fn entries(manifest: &Value) -> BTreeMap<String, Value> {
    let all = manifest["entries"].as_array().unwrap();
    all.iter().map(|entry| (entry["path"].as_str().unwrap().to_owned(), entry.clone())).collect()
}

/// A node of a jail as a manifest describes it.
fn described(path: &Path, entry: &Value, store: &Path) -> Value {
    let meta = fs::symlink_metadata(path).unwrap();
    let kind = meta.file_type();
    let mut found = json!({
        "path": entry["path"], "mode": format!("{:04o}", meta.mode() & 0o7777), "uid": meta.uid(), "gid": meta.gid(),
        "made_by": entry["made_by"],
    });
    let above =
        fs::metadata(path.join("..")).unwrap_or_else(|_| fs::metadata(path.parent().unwrap()).unwrap());
    found["type"] = match () {
        () if kind.is_dir() && meta.dev() != above.dev() => {
            let stat = rustix::fs::statvfs(path).unwrap();
            found["size"] = (stat.f_blocks * stat.f_frsize).into();
            "tmpfs"
        }
        () if kind.is_dir() => "directory",
        () if kind.is_fifo() => "pipe",
        () if kind.is_char_device() => {
            found["major"] = rustix::fs::major(meta.rdev()).into();
            found["minor"] = rustix::fs::minor(meta.rdev()).into();
            "character-device"
        }
        () => {
            let named: FileDigest = entry["digest"].as_str().unwrap().parse().unwrap();
            let (digest, size) = sisforge::sys::digest::digest_like(&named, path).unwrap();
            (found["size"], found["digest"]) = (size.into(), digest.to_string().into());
            found["writable"] = entry["writable"].clone();
            if let Some(link) = entry["link"].as_str() {
                let of = fs::metadata(store.join(link)).unwrap();
                assert_eq!((of.dev(), of.ino()), (meta.dev(), meta.ino()), "{} is {link}", path.display());
                found["link"] = link.into();
            }
            "file"
        }
    }
    .into();
    found
}

/// Every path below a directory, and the directory itself as `.`.
fn paths(root: &Path) -> BTreeSet<String> {
    let find = Run::of(Command::new("find").args([".", "-printf", "%P\n"]).current_dir(root));
    find.out.lines().map(|path| if path.is_empty() { ".".to_owned() } else { path.to_owned() }).collect()
}

#[test]
fn up_makes_the_tree_of_the_manifest_path_by_path() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    let [a, ram, file] = ['a', 'k', 'p'].map(|letter| sandbox.guest(letter));
    let pools = format!(
        "machine = {{ metrics = true, metadata = {{ file = \"metadata.json\" }} }}\ncpu-weight = 200\n\
         [pool.{ram}]\nreplicas = 1\ndisk = {{ size = \"16MiB\", backing = \"tmpfs\" \
         }}\n[pool.{file}]\nreplicas = 1\n"
    );
    sandbox.write("metadata.json", "{}");
    sandbox.fleet_with("a", &pools);
    // Whoever is careful with their own files gets the same jails.
    let mut up = Command::new("sh");
    sandbox.surround(up.args(["-c", &format!("umask 077; exec {SISFORGE} up")]));
    Run::of(&mut up).fails(0, &[]);
    sandbox.done("tree --out t");
    let store = sandbox.path("store");
    for guest in [a, format!("{ram}-0"), format!("{file}-0")] {
        let manifest = manifest(&sandbox, &guest);
        let entries = entries(&manifest);
        let root = store.join(manifest["root"].as_str().unwrap());
        assert_eq!(root, sandbox.jail(&guest));
        // What is in memory is there for its VMM alone.
        let root = if guest.starts_with(&ram) { sandbox.jail_within(&guest) } else { root };
        let run_time: Vec<_> =
            manifest["run_time"].as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
        let mut there = paths(&root);
        there.retain(|path| !run_time.contains(&path.as_str()));
        assert_eq!(there, entries.keys().cloned().collect(), "{guest}");
        for (path, entry) in &entries {
            let mut entry = entry.clone();
            if ["dev", "dev/net", "run"].contains(&path.as_str()) {
                // Taken back from the guest's uid once the guest is ready.
                (entry["mode"], entry["uid"], entry["gid"]) = ("0755".into(), 0.into(), 0.into());
            }
            assert_eq!(described(&root.join(path), &entry, &store), entry, "{guest}: {path}");
        }
        // The call is that of the process, which differs in where the store is.
        let pid = sandbox.pid(&guest);
        let environment = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        let running: Vec<_> = environment.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        let command: Vec<_> =
            manifest["command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
        assert_eq!(command[0], "jailer");
        let of_firecracker = command.iter().position(|word| *word == "--").unwrap() + 1;
        let inner = &command[of_firecracker..];
        assert!(inner.iter().all(|word| running.iter().any(|there| there == word)), "{inner:?} {running:?}");
        assert_eq!(limit(pid, "Max open files"), "2048");
        assert!(command.contains(&&*format!("fsize={}", limit(pid, "Max file size"))), "{command:?}");
        assert_eq!(manifest["cgroup"]["path"], format!("sisforge/{}/{guest}", sandbox.name));
    }
}

/// A hard limit of a process.
fn limit(pid: u32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().to_owned()
}

#[test]
fn a_tree_is_the_part_of_its_manifest_that_the_jailer_does_not_make() {
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    let a = sandbox.guest('a');
    let Some(mut tree) = as_nobody(&sandbox) else { return };
    Run::of(tree.args(["tree", "--out", "t"])).fails(0, &[]);
    let manifest = manifest(&sandbox, &a);
    let root = sandbox.path("t").join(manifest["root"].as_str().unwrap());
    let entries = entries(&manifest);
    let laid_out = entries.iter().filter(|(path, entry)| *path == "." || entry["made_by"] == "sisforge");
    assert_eq!(paths(&root), laid_out.clone().map(|(path, _)| path.clone()).collect());
    for (path, entry) in laid_out.filter(|(path, _)| *path != ".") {
        let mut found = described(&root.join(path), entry, &sandbox.path("t"));
        // Whoever is not root cannot give files away; the manifest tells whose they are to be.
        (found["uid"], found["gid"]) = (entry["uid"].clone(), entry["gid"].clone());
        assert_eq!(found, *entry, "{path}");
    }
    let uid = sandbox.uids().split_once('-').unwrap().0.parse::<u32>().unwrap();
    let kvm = json!({
        "path": "dev/kvm", "type": "character-device", "major": 10, "minor": 232, "mode": "0600", "uid": uid,
        "gid": uid, "made_by": "jailer",
    });
    assert_eq!(entries["dev/kvm"], kvm);
    assert_eq!(entries["data/disk.ext4"]["uid"], uid);
    let command = sandbox.read(&format!("t/{}/guests/{a}/command", sandbox.name));
    assert!(command.contains(&format!("--id {a}--1")), "{command}");
}
