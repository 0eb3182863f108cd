//! What was built: pinned by digest, through a registry that is trusted with nothing, signed, and run on hosts that build nothing.

mod drill;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use sisforge::base::Sha256;
use sisforge::sys::tool::find;

use crate::common::docker_registry::{DockerRegistry, Options};
use crate::common::namespaces::skip;
use crate::common::random::Random;
use crate::common::sandbox::{Run, Sandbox};

use super::kernel::{SMALL, cannot_build, fleet as small_kernel, small_source};

/// The artifacts of a sandbox, by their names in fleet.lock.
const FILES: [(&str, &str); 3] =
    [("kernel/ready", "vmlinux"), ("image/i", "rootfs.ext4"), ("disk/home", "disk.ext4")];

/// SHA-256 of each artifact in a directory.
fn built(out: &Path) -> Vec<Sha256> {
    FILES.iter().map(|(name, file)| Sha256::of(fs::read(out.join(name).join(file)).unwrap())).collect()
}

/// A file whose bytes do not compress.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = Random(seed);
    (0..bytes).map(|_| u8::try_from(random.below(256)).unwrap()).collect()
}

/// Makes an SSH key and a file of signers that allows it.
fn signer(sandbox: &Sandbox, name: &str) -> String {
    let key = sandbox.path(name);
    let mut keygen = Command::new("ssh-keygen");
    Run::of(keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(&key)).fails(0, &[]);
    format!("{name}@example.org namespaces=\"sisforge\" {}", sandbox.read(&format!("{name}.pub")))
}

/// What is had of a file that was changed by one digit.
fn with_another_digit(text: &str, at: usize) -> String {
    let digit = if &text[at..=at] == "0" { "1" } else { "0" };
    format!("{}{digit}{}", &text[..at], &text[at + 1..])
}

#[test]
fn what_is_built_is_pinned_and_another_file_of_the_same_inputs_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    sandbox.done("lock");
    let unpinned = sandbox.read("fleet.lock");
    assert!(!unpinned.contains("[artifact"), "nothing is built yet");
    // A lock of before is right as it is, and --locked changes none.
    sandbox.done("build --locked");
    assert_eq!(sandbox.read("fleet.lock"), unpinned);
    sandbox.done("build image i");
    let partly = sandbox.read("fleet.lock");
    assert!(partly.contains("[artifact.\"image/i\"]") && !partly.contains("disk/home"), "{partly}");
    sandbox.done("build");
    let pinned = sandbox.read("fleet.lock");
    for (name, _) in FILES {
        assert!(pinned.contains(&format!("[artifact.\"{name}\"]")), "{pinned}");
    }
    sandbox.done("build --check");
    sandbox.done("lock");
    assert_eq!(sandbox.read("fleet.lock"), pinned, "what fits stays");

    // A pin of these inputs that is another.
    let at = pinned.find("digest = \"verity-").unwrap() + "digest = \"verity-".len();
    let other = with_another_digit(&pinned, at);
    sandbox.write("fleet.lock", &other);
    for args in ["build", "build --locked", "build --locked --out-dir new"] {
        sandbox.run(args).fails(1, &["disk/home has the digest", "fleet.lock pins", "build --check"]);
    }
    assert!(!sandbox.path("new/disk/home").exists(), "what is not as pinned is not kept");
    assert_eq!(sandbox.read("fleet.lock"), other);
    // The pin of other inputs says nothing, and is written anew.
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("16MiB", "17MiB"));
    sandbox.done("build --locked");
    sandbox.done("build");
    assert_ne!(sandbox.read("fleet.lock"), other);
    sandbox.write("fleet.lock", sandbox.read("fleet.lock").replace("size = 17825792", "size = \"x\""));
    sandbox.run("build").fails(2, &["fleet.lock is not a valid lock file"]);
}

/// A registry, and a project that pushes there, with its build pinned.
fn pushing(test: &str) -> Option<(DockerRegistry, Sandbox)> {
    let registry = DockerRegistry::start(test, "127.0.0.1", Options::default())?;
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    let text = sandbox.read("fleet.toml");
    let key = format!("[fleet]\nartifacts = \"{}\"\n", registry.place("team/fleet:main"));
    sandbox.write("fleet.toml", text.replacen("[fleet]\n", &key, 1));
    sandbox.done("build");
    Some((registry, sandbox))
}

fn pushed(sandbox: &Sandbox, args: &str) -> Value {
    let (code, documents) = sandbox.documents(args, "event");
    assert_eq!(code, 0, "{documents:?}");
    documents.last().unwrap().clone()
}

#[test]
fn skopeo_reads_and_copies_what_was_pushed_and_any_copy_is_pulled() {
    let test = "skopeo_reads_and_copies_what_was_pushed_and_any_copy_is_pulled";
    let Some((registry, sandbox)) = pushing(test) else { return };
    if find("skopeo").is_none() {
        return skip(test, "skopeo is not installed");
    }
    let first = pushed(&sandbox, "push");
    // Whoever pushes the same pushes nothing, and the same manifest.
    let again = pushed(&sandbox, "push");
    assert_eq!((&again["digest"], again["sent"].as_u64()), (&first["digest"], Some(0)));
    let skopeo = |args: &[&str]| {
        let run = Run::of(Command::new("skopeo").args(args));
        assert_eq!(run.code, 0, "{args:?}\n{run}");
        run.out
    };
    let reference = |name: &str| format!("docker://{}/team/{name}", registry.address);
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &reference("fleet:main")]);
    assert_eq!(format!("sha256:{}", Sha256::of(&raw)), first["digest"]);
    let manifest: Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(manifest["artifactType"], "application/vnd.sisforge.fleet.v1");
    let titles: Vec<&str> = manifest["layers"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|layer| layer["annotations"]["org.opencontainers.image.title"].as_str())
        .collect();
    assert_eq!(titles, ["fleet.lock", "fleet.digests", "provenance.json", "sbom-i.spdx.json"]);

    let copy = ["copy", "-q", "--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false"];
    let layout = format!("oci:{}:x", sandbox.path("layout").display());
    skopeo(&[&copy[..], &[&reference("fleet:main"), &layout]].concat());
    skopeo(&[&copy[..], &[&layout, &reference("mirror:1")]].concat());
    let pull = format!("pull {} --out-dir pulled", registry.place("team/mirror:1"));
    let artifacts = pushed(&sandbox, &pull)["artifacts"].clone();
    assert!(artifacts.as_array().unwrap().iter().all(|one| one["pulled"] == true), "{artifacts}");
    assert_eq!(built(&sandbox.path("pulled")), built(&sandbox.path("out")));
    let runs = |dir: &str| {
        let file = fs::File::open(sandbox.path(dir).join("disk/home/disk.ext4")).unwrap();
        sisforge::sys::sparse::data_runs(&file).unwrap().iter().map(|(_, length)| length).sum::<u64>()
    };
    assert!(runs("pulled") <= runs("out"), "holes stay holes");
}

#[test]
fn of_one_changed_package_little_is_moved() {
    let test = "of_one_changed_package_little_is_moved";
    let Some((registry, sandbox)) = pushing(test) else { return };
    sandbox.write("more/big", noise(1, 6 << 20));
    sandbox
        .done("apk pack more --name big --pkgver 1.0-r0 --to repository/x86_64 --arch x86_64 --key me.rsa");
    sandbox.index();
    let text = sandbox.read("fleet.toml");
    sandbox.write("fleet.toml", text.replace("[\"tiny\"]", "[\"tiny\", \"big\"]"));
    sandbox.done("build");
    let first = pushed(&sandbox, "push");
    assert!(first["sent_bytes"].as_u64().unwrap() > 6 << 20, "{first}");
    // What a host has.
    let host = sandbox.path("host");
    sandbox.done("pull --out-dir host");

    sandbox.write("files/etc/tiny", noise(2, 20_000));
    sandbox.pack("tiny", "1.1-r0");
    sandbox.index();
    sandbox.done("lock --update tiny");
    sandbox.run("pull").fails(1, &["fleet.lock does not pin image/i"]);
    sandbox.done("build");
    let second = pushed(&sandbox, "push");
    let sent = second["sent_bytes"].as_u64().unwrap();
    assert!(sent < 1 << 20, "{second}");
    // A host takes from its earlier image what did not change: of the registry, it needs what was sent for it.
    let new: Vec<PathBuf> = registry.blobs().into_values().collect();
    for blob in &new {
        let is_old_piece = blob.metadata().unwrap().len() > 300_000;
        if is_old_piece
            && blob.metadata().unwrap().modified().unwrap() < fs::metadata(&host).unwrap().modified().unwrap()
        {
            fs::write(blob, "gone").unwrap();
        }
    }
    sandbox.done("pull --out-dir host");
    assert_eq!(built(&host), built(&sandbox.path("out")));
}

#[test]
fn one_byte_wrong_anywhere_in_the_registry_is_refused() {
    let test = "one_byte_wrong_anywhere_in_the_registry_is_refused";
    let Some((registry, sandbox)) = pushing(test) else { return };
    let allowed = signer(&sandbox, "team");
    sandbox.write("signers", allowed);
    sandbox.done("sign --key team");
    sandbox.done("push");
    let good = built(&sandbox.path("out"));
    // What a host has: neither packages nor kernel nor signatures.
    fs::remove_file(sandbox.path("fleet.digests.sig")).unwrap();
    fs::rename(sandbox.path("repository"), sandbox.path("away")).unwrap();
    fs::remove_file(sandbox.path("tiny.elf")).unwrap();
    let pull = |args: &str| {
        let _ = fs::remove_dir_all(sandbox.path("host"));
        sandbox.run(&format!("pull --verify signers --out-dir host{args}"))
    };
    let (mut refused, blobs) = (0, registry.blobs());
    for (digest, path) in &blobs {
        let bytes = fs::read(path).unwrap();
        let mut wrong = bytes.clone();
        wrong[bytes.len() / 2] ^= 1;
        fs::write(path, &wrong).unwrap();
        let run = pull("");
        match run.code {
            // Nothing of that is used: the bill of materials, and the lock.
            0 => assert_eq!(built(&sandbox.path("host")), good, "{digest}"),
            _ => {
                assert!(run.code == 1 || run.code == 2, "{run}");
                assert!(run.err.contains("error: "), "{run}");
                refused += 1;
            }
        }
        fs::write(path, bytes).unwrap();
    }
    // Not refused are fleet.lock, fleet.digests, provenance and bill of materials, which a host has no need of.
    assert_eq!(refused, blobs.len() - 4, "of {}", blobs.len());
    pull("").fails(0, &[]);
    assert_eq!(built(&sandbox.path("host")), good);
    // Who verified once needs no registry for it.
    sandbox.done("pull --verify signers --out-dir host --offline");

    // One digit of the lock.
    sandbox.write("out/disk/home/disk.ext4", noise(3, 4096));
    sandbox.run("verify").fails(1, &[]);
    let lock = sandbox.read("fleet.lock");
    for (at, _) in lock.match_indices("digest = \"verity-") {
        sandbox.write("fleet.lock", with_another_digit(&lock, at + "digest = \"verity-".len()));
        pull("").fails(1, &["with the digest", "that fleet.lock pins"]);
    }
    sandbox.write("fleet.lock", &lock);
    // Somebody else's signature, and none.
    let stranger = signer(&sandbox, "stranger");
    sandbox.write("others", stranger);
    sandbox.run("pull --verify others --out-dir host").fails(2, &["no key of others has signed"]);
}

#[test]
fn signatures_are_those_of_ssh_keygen_and_several_may_sign() {
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    for name in ["one", "two"] {
        let allowed = signer(&sandbox, name);
        sandbox.write(&format!("{name}.signers"), allowed);
    }
    let run = sandbox.run("sign --key one");
    run.fails(2, &["there is no fleet.lock", "help: run `sisforge lock` and commit the file"]);
    assert!(!run.err.contains("--locked"), "{run}");
    sandbox.done("lock");
    sandbox.run("sign --key one").fails(1, &["fleet.lock does not pin kernel/ready", "`sisforge build`"]);
    sandbox.done("build");
    sandbox.done("sign --key one");
    assert_eq!(pushed(&sandbox, "sign --key two")["signatures"], 2);
    assert_eq!(pushed(&sandbox, "sign --key two")["signatures"], 2, "the same signature once");
    // By hand, of the first.
    let mut keygen = Command::new("ssh-keygen");
    keygen.current_dir(sandbox.path("")).args(["-Y", "verify", "-n", "sisforge", "-f", "one.signers"]);
    keygen.args(["-I", "one@example.org", "-s", "fleet.digests.sig"]);
    let output = keygen.stdin(fs::File::open(sandbox.path("fleet.digests")).unwrap()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    for name in ["one", "two"] {
        let run = sandbox.run(&format!("up --no-build --verify {name}.signers nobody"));
        run.fails(2, &["there is no guest \"nobody\""]);
    }
    // Other digests have other signatures.
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("16MiB", "17MiB"));
    sandbox.done("build");
    assert_eq!(pushed(&sandbox, "sign --key two")["signatures"], 1);
    sandbox.run("sign --key fleet.toml").fails(2, &["cannot sign with fleet.toml"]);
}

#[test]
fn an_address_on_the_command_line_does_without_inputs_as_one_of_the_fleet_does() {
    let test = "an_address_on_the_command_line_does_without_inputs_as_one_of_the_fleet_does";
    let Some((registry, sandbox)) = pushing(test) else { return };
    sandbox.done("push");
    let place = registry.place("team/fleet:main");
    let text = sandbox.read("fleet.toml");
    let unnamed = text.replacen(&format!("artifacts = \"{place}\"\n"), "", 1);
    assert_ne!(unnamed, text);
    sandbox.write("fleet.toml", &unnamed);
    fs::rename(sandbox.path("repository"), sandbox.path("away")).unwrap();
    fs::remove_file(sandbox.path("tiny.elf")).unwrap();
    sandbox.run("pull").fails(2, &["there is no file"]);
    let pull = format!("pull {place} --out-dir host");
    sandbox.done(&pull);
    assert_eq!(built(&sandbox.path("host")), built(&sandbox.path("out")));
    // Only what is there to build of may be missing.
    fs::remove_dir_all(sandbox.path("keys")).unwrap();
    sandbox.run(&pull).fails(2, &["there are no keys in "]);
}

#[test]
fn a_blob_that_the_registry_lost_is_named() {
    let test = "a_blob_that_the_registry_lost_is_named";
    let Some((registry, sandbox)) = pushing(test) else { return };
    sandbox.done("push");
    // A piece of a file, which is packed by zstd.
    let is_piece = |path: &PathBuf| fs::read(path).unwrap().starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    let (digest, path) = registry.blobs().into_iter().find(|(_, path)| is_piece(path)).unwrap();
    let bytes = fs::read(&path).unwrap();
    let told = |what: &str| {
        let run = sandbox.run("pull --out-dir host");
        let blob = format!("has not the blob sha256:{digest}");
        run.fails(1, &["the registry of ", "was reached", &blob, "push it again"]);
        assert!(
            !run.err.contains("cannot reach") && !run.err.contains("pin its new digest"),
            "{what}: {run}"
        );
    };
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    told("cut");
    fs::write(&path, "").unwrap();
    told("empty");
    fs::remove_file(&path).unwrap();
    told("gone");
    // What the help says leads out of it.
    sandbox.done("push");
    sandbox.done("pull --out-dir host");
}

#[test]
fn wrong_addresses_are_refused_and_nothing_is_sent() {
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    sandbox.done("lock");
    for command in ["push", "pull"] {
        sandbox.run(command).fails(2, &["no registry is named", "[fleet] artifacts"]);
        sandbox.run(&format!("{command} docker://a.org/b")).fails(2, &["must begin with oci://"]);
        sandbox.run(&format!("{command} oci://a.org/b@sha256:00")).fails(2, &["must have no digest"]);
        let login = sandbox.run(&format!("{command} oci://ann:secret@a.org/b"));
        login.fails(2, &["must not hold a name and password", "podman login"]);
    }
    sandbox.run("push oci://127.0.0.1:1/b").fails(1, &["is not built"]);
    sandbox.run("pull oci://127.0.0.1:1/b").fails(1, &["fleet.lock does not pin"]);
    sandbox.done("build");
    sandbox.run("push oci://127.0.0.1:1/b --offline").fails(2, &["nothing can be pushed offline"]);
    let text = sandbox.read("fleet.toml");
    sandbox.write("fleet.toml", text.replacen("[fleet]\n", "[fleet]\nartifacts = \"a.org/b\"\n", 1));
    sandbox.run("check").fails(2, &["must begin with oci://", "fleet.toml:2"]);
}

#[test]
fn a_registry_that_is_away_costs_a_build() {
    let test = "a_registry_that_is_away_costs_a_build";
    let Some((mut registry, sandbox)) = pushing(test) else { return };
    sandbox.done("push");
    let out = |args: &str| {
        let _ = fs::remove_dir_all(sandbox.path("other"));
        sandbox.run(&format!("{args} --out-dir other"))
    };
    let run = out("build");
    run.fails(0, &[]);
    assert_eq!(run.out.matches("pulled").count(), 3, "{run}");
    let offline = out("build --offline");
    offline.fails(0, &["is built instead"]);
    registry.stop();
    let run = out("build image i");
    run.fails(0, &["image/i is built instead"]);
    assert!(run.out.contains(" built"), "{run}");
    assert_eq!(sandbox.run("build").code, 0, "what is there needs no registry");
    out("pull").fails(1, &["cannot ask 127.0.0.1"]);
}

#[test]
fn a_kernel_is_taken_by_its_pin_where_the_compiler_is_another_and_the_source_is_not_there() {
    let test = "a_kernel_is_taken_by_its_pin_where_the_compiler_is_another_and_the_source_is_not_there";
    if cannot_build("/") {
        return;
    }
    let Some(registry) = DockerRegistry::start(test, "127.0.0.1", Options::default()) else { return };
    let sandbox = small_kernel(SMALL);
    small_source(
        &sandbox,
        "@echo 'void _start(void) { for (;;); }' > a.c; gcc -nostdlib -static -o vmlinux a.c",
    );
    let key = format!("[fleet]\nartifacts = \"{}\"\n", registry.place("team/fleet"));
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replacen("[fleet]\n", &key, 1));
    sandbox.done("build");
    let lock = sandbox.read("fleet.lock");
    assert!(lock.contains("[artifact.\"kernel/small\"]") && lock.contains("\nconfig = \""), "{lock}");
    let told = pushed(&sandbox, "push");
    assert!(told["sent"].as_u64().unwrap() > 5, "{told}");
    let config = sandbox.read("out/kernel/small/config");
    fs::remove_dir_all(sandbox.path("linux")).unwrap();
    fs::remove_dir_all(sandbox.path("out")).unwrap();

    let gcc = sandbox.path("bin/gcc");
    sandbox.write("bin/gcc", "#!/bin/sh\necho 'gcc (of another host) 99'\n");
    fs::set_permissions(&gcc, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", sandbox.path("bin").display(), std::env::var("PATH").unwrap());
    let run = |args: &str| Run::of(sandbox.command().env("PATH", &path).args(args.split(' ')));
    for args in ["pull", "build", "build --locked"] {
        let pulled = run(args);
        pulled.fails(0, &[]);
        assert!(pulled.out.contains("kernel     small"), "{pulled}");
    }
    assert_eq!(sandbox.read("out/kernel/small/config"), config);
    assert_eq!(sandbox.read("fleet.lock"), lock, "the pin is the one of the compiler that built it");
    // The configuration is pinned, too.
    let at = lock.rfind("\nconfig = \"").unwrap() + "\nconfig = \"".len();
    sandbox.write("fleet.lock", with_another_digit(&lock, at));
    run("pull --out-dir other").fails(1, &["the kernel's configuration is not there"]);
}

#[test]
fn provenance_is_a_statement_of_in_toto_that_two_builders_write_alike() {
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    sandbox.done("lock");
    sandbox.run("provenance").fails(1, &["is not built"]);
    sandbox.done("build");
    let text = sandbox.done("provenance");
    fs::remove_dir_all(sandbox.path("out")).unwrap();
    sandbox.done("build");
    assert_eq!(sandbox.done("provenance"), text);
    let statement: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    let subjects = statement["subject"].as_array().unwrap();
    let names: Vec<_> = subjects.iter().map(|subject| subject["name"].as_str().unwrap()).collect();
    assert_eq!(names, FILES.map(|(name, _)| name));
    assert_eq!(subjects[1]["digest"]["sha256"], built(&sandbox.path("out"))[1].to_string());
    let definition = &statement["predicate"]["buildDefinition"];
    let dependencies = definition["resolvedDependencies"].as_array().unwrap();
    assert!(dependencies.iter().any(|one| one["name"] == "tiny-1.0-r0"), "{dependencies:?}");
    assert!(
        definition["buildType"].is_string()
            && statement["predicate"]["runDetails"]["builder"]["id"].is_string()
    );
}
