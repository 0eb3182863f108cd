//! Looking into images: `inspect`, `diff`, `sbom`, and what `build --check` says of them.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};

use serde_json::Value;

use crate::common::sandbox::{Run, Sandbox};

/// A project with two images: `i` with one package, `j` with that in another version, one more, and a file.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("other/usr/bin/more", "#!/bin/sh\n");
    let setuid = fs::Permissions::from_mode(0o4755);
    fs::set_permissions(sandbox.path("other/usr/bin/more"), setuid).unwrap();
    let to = "--to repository/x86_64 --arch x86_64 --key me.rsa";
    sandbox.done(&format!("apk pack other --name more --pkgver 2.0-r0 {to}"));
    sandbox.write("files/etc/tiny", "TINY\n");
    sandbox.pack("tiny", "1.1-r0");
    sandbox.index();
    let j = "[image.j]\npackages = [\"tiny\", \"more\"]\n\
             files = { \"/etc/motd\" = { content = \"hello\\n\", mode = 0o600 } }\n";
    sandbox.fleet_with("a", j);
    let text = sandbox.read("fleet.toml").replacen("[\"tiny\"]", "[\"tiny=1.0-r0\"]", 1);
    sandbox.write("fleet.toml", text);
    sandbox.done("build");
    sandbox
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn an_image_is_inspected_by_any_of_its_names() {
    let sandbox = sandbox();
    let text = sandbox.done("inspect j");
    for line in [
        "packages: 2\n",
        "tiny     1.1-r0",
        "more     2.0-r0",
        "in no package\n",
        "/usr/bin\n",
        "  4755  0:0    setuid  /usr/bin/more\n",
        "  root  0    0    locked    /root  /bin/sh\n",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    let key = fs::read_link(sandbox.path("out/image/j")).unwrap().into_os_string().into_string().unwrap();
    for name in ["out/image/j/rootfs.ext4", &key, &key[..8]] {
        assert_eq!(sandbox.done(&format!("inspect {name}")), text, "{name}");
    }
    let found = sandbox.document("inspect j --depth 1", "inspect");
    assert_eq!(found["packages"].as_array().unwrap().len(), 2);
    assert_eq!(found["privileged"][0]["path"], "/usr/bin/more");
    assert_eq!(found["label"].as_str().unwrap().len(), 16);
    assert!(found["directories"].as_array().unwrap().iter().all(|one| one["path"] != "/usr/bin"));
    let shown = sandbox.done("inspect j --top 1");
    assert!(shown.contains("  and 1 more\n"), "{shown}");
    // A data disk is an image, too.
    assert!(sandbox.done("inspect home").contains("16.0 MiB"));
}

#[test]
fn what_is_no_image_is_refused() {
    let sandbox = sandbox();
    // A disk and its container images have one name.
    std::fs::create_dir_all(sandbox.path("out/containers/home")).unwrap();
    sandbox.write("out/containers/home/images.ext4", "");
    let named = sandbox.run("inspect qqqq");
    named.fails(2, &["`home`"]);
    assert_eq!(named.err.matches("`home`").count(), 1, "{named}");
    for command in ["inspect", "sbom", "diff i"] {
        let run = |what: &str| sandbox.run(&format!("{command} {what}"));
        run("jj").fails(2, &["\"jj\" is neither a file nor an image in out", "help: "]);
        run("none/none").fails(2, &["cannot read the image none/none", "No such file"]);
        run("fleet.toml")
            .fails(2, &["cannot read the image fleet.toml", "it is not an ext4 file system", "help: "]);
    }
    sandbox.run("sbom home").fails(2, &["has no package database", "help: "]);
    let image = sandbox.path("out/image/i/rootfs.ext4");
    fs::File::options().write(true).open(&image).unwrap().set_len(8192).unwrap();
    sandbox.run("inspect i").fails(2, &["it is truncated", "help: "]);
    assert!(sandbox.document("inspect i", "error")["error"].is_string());
}

#[test]
fn two_images_are_told_apart() {
    let sandbox = sandbox();
    let text = sandbox.done("diff i j");
    for line in [
        "packages: 2\n  + more 2.0-r0\n  ~ tiny 1.0-r0 -> 1.1-r0\n",
        "  + /etc/motd  file of 6 B, 0600 0:0\n",
        "  ~ /etc/tiny  content, 5 B both\n",
        "  + /usr/bin/more  file of 10 B, 4755 0:0\n",
        "setuid, setgid and capabilities: 1\n  + /usr/bin/more  setuid (4755 0:0)\n",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    let back = sandbox.done("diff j i");
    assert!(back.contains("  - more 2.0-r0\n  ~ tiny 1.1-r0 -> 1.0-r0\n"), "{back}");
    let found = sandbox.document("diff i j", "diff");
    let changed = found["files"].as_array().unwrap().iter().find(|file| file["path"] == "/etc/tiny").unwrap();
    assert_eq!(changed["what"], json("[\"content\"]"));

    sandbox.run("diff i j --exit-code").fails(1, &[]);
    sandbox.run("diff i j --exit-code -q --json").fails(1, &[]);
    fs::copy(sandbox.path("out/image/j/rootfs.ext4"), sandbox.path("copy")).unwrap();
    let run = sandbox.run("diff j copy --exit-code");
    run.fails(0, &["they are the same"]);
    assert_eq!(run.out, "");
}

#[test]
fn a_bill_of_materials_knows_what_was_locked() {
    let sandbox = sandbox();
    let bill = sandbox.done("sbom j");
    assert_eq!(bill, sandbox.done("sbom out/image/j/rootfs.ext4"), "its name is that of the file system");
    let lock: toml::Table = sandbox.read("fleet.lock").parse().unwrap();
    let locked = lock["package"].as_array().unwrap().iter().find(|one| one["name"].as_str() == Some("more"));
    let sha256 = locked.unwrap()["sha256"].as_str().unwrap();
    let more = |bill: &str| {
        let bill = json(bill);
        let packages = bill["packages"].as_array().unwrap();
        packages.iter().find(|one| one["SPDXID"] == "SPDXRef-Package-more").unwrap().clone()
    };
    assert_eq!(more(&bill)["checksums"][0]["checksumValue"], sha256);
    assert_eq!(more(&bill)["downloadLocation"], "NOASSERTION", "a directory is no place for others");
    let text = sandbox.read("fleet.lock");
    sandbox.write("fleet.lock", text.replace("= \"repository\"", "= \"https://example.org/alpine\""));
    let url = "https://example.org/alpine/x86_64/more-2.0-r0.apk";
    let elsewhere = sandbox.done("sbom j");
    assert_eq!(more(&elsewhere)["downloadLocation"], url);
    let cyclonedx = json(&sandbox.done("sbom j --format cyclonedx --json"));
    assert_eq!(cyclonedx["components"][0]["externalReferences"][0]["url"], url);
    assert_ne!(json(&elsewhere)["documentNamespace"], json(&bill)["documentNamespace"]);
    fs::remove_file(sandbox.path("fleet.lock")).unwrap();
    assert!(more(&sandbox.done("sbom j"))["checksums"].is_null());
}

#[test]
fn a_bill_of_materials_is_valid_and_dated_as_the_caller_wants() {
    use crate::image::sbom::{complaint, validators};
    use sisforge::image::sbom::Format;
    let sandbox = sandbox();
    let dated = |date: &str, format: &str| {
        let args = ["sbom", "j", "--json", "--format", format];
        Run::of(sandbox.command().env("SOURCE_DATE_EPOCH", date).args(args))
    };
    assert_eq!(json(&dated("1000000000", "spdx").out)["creationInfo"]["created"], "2001-09-09T01:46:40Z");
    let cyclonedx = json(&dated("1000000000", "cyclonedx").out);
    assert_eq!(cyclonedx["metadata"]["timestamp"], "2001-09-09T01:46:40Z");
    for wrong in ["yesterday", "-1", "253402300800"] {
        let run = dated(wrong, "spdx");
        assert!(run.code == 2 && run.out.contains("SOURCE_DATE_EPOCH"), "{run}");
    }
    let Some(validators) = validators("a_bill_of_materials_is_valid_and_dated_as_the_caller_wants") else {
        return;
    };
    let spdx = json(&sandbox.done("sbom j"));
    assert_eq!(complaint(&validators, Format::Spdx, &spdx), "");
    assert_eq!(complaint(&validators, Format::CycloneDx, &cyclonedx), "");
}

#[test]
fn a_check_reads_images_and_disks_back() {
    let sandbox = sandbox();
    let run = sandbox.run("build --check");
    let good = ["image i: ", " both times", " of files read back correctly", "disk home: "];
    run.fails(0, &good);
    if sisforge::sys::tool::find("e2fsck").is_some() {
        run.fails(0, &["image j: e2fsck found no errors"]);
    } else {
        run.fails(0, &["image j: not checked by e2fsck, which is not installed"]);
    }
    let found = json(sandbox.done("build --check --json").lines().last().unwrap());
    let image = found["artifacts"].as_array().unwrap().iter().find(|one| one["name"] == "j").unwrap();
    assert_eq!(image["file_system"]["read_back"]["mismatches"], json("[]"));

    // One byte of one file, somewhere on the way to the disk.
    let path = sandbox.path("out/image/j/rootfs.ext4");
    let bytes = fs::read(&path).unwrap();
    let place = bytes.windows(5).position(|text| text == b"TINY\n").unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    let times = fs::FileTimes::new().set_modified(file.metadata().unwrap().modified().unwrap());
    file.write_all_at(b"t", place as u64).unwrap();
    file.set_times(times).unwrap();
    let words =
        ["image j: a second build differs at byte ", "error: image j: /etc/tiny: its content differs"];
    sandbox.run("build --check").fails(1, &words);
    // Errors are told whoever wants to hear of nothing else.
    sandbox.run("-q build --check").fails(1, &words);

    // The next image is not made from it, be it that it is checked.
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("hello\\n", "hi\\n"));
    sandbox.run("build --check image j").fails(0, &["image j: ", " both times"]);
    assert!(sandbox.done("build image j").contains("up to date"));
}

/// A project whose disk brings the image `localhost/a:1`, and whose guest has a container of this image.
fn with_container(image: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("recipes/home/recipe.toml", super::disks::HOME);
    let layer = crate::image::oci::layer(&[crate::image::oci::file("f", b"x")]);
    crate::image::oci::write_archive(&sandbox.path("a.tar"), "localhost/a:1", &[layer], |_, _| {});
    let text = sandbox.fleet_text("a", "");
    let text = text.replace("packages = [\"tiny\"]", "packages = [\"tiny\"]\nrecipes = [\"home\"]");
    let disk = "size = \"16MiB\"\nimages = [\"oci-archive:a.tar\"]";
    let text = text.replace("size = \"16MiB\"", disk);
    let user = format!("[user.{}]\n", sandbox.guest('a'));
    let container = format!("{user}containers = [{{ name = \"web\", image = \"{image}\" }}]\n");
    sandbox.write("fleet.toml", text.replace(&user, &container));
    sandbox
}

#[test]
fn a_container_whose_image_is_nowhere_is_told_by_check() {
    let run = with_container("localhost/a:1").run("check");
    run.fails(0, &[]);
    assert!(!run.out.contains("not among the images"), "{run}");
    let absent = "the container web is of localhost/b:1, which is not among the images of the disk of ";
    let run = with_container("localhost/b:1").run("check");
    run.fails(
        2,
        &["fleet.toml:", absent, "no registry has it", "image = \"localhost/b:1\"", "^^^", "help: "],
    );
    let run = with_container("quay.io/a/b:1").run("check");
    run.fails(0, &["note: line ", "the container web is of quay.io/a/b:1", "it has to be pulled there"]);
}

#[test]
fn a_pointer_of_git_lfs_is_never_taken_for_the_file() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n";
    let sandbox = with_container("localhost/a:1");
    sandbox.write("a.tar", pointer);
    let told = |sandbox: &Sandbox, args: &str, file: &str| {
        let run = sandbox.run(args);
        let text = run.to_string();
        assert!(run.code == 2 && text.contains(file), "{run}");
        assert!(text.contains("a Git LFS pointer") && text.contains("help: run `git lfs pull`"), "{run}");
    };
    told(&sandbox, "lock", "a.tar");
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    sandbox.write("tiny.elf", pointer);
    told(&sandbox, "lock", "tiny.elf");
    let sandbox = Sandbox::new();
    for file in ["fleet.toml", "fleet.lock"] {
        sandbox.fleet("a");
        sandbox.write(file, pointer);
        told(&sandbox, "plan", file);
    }
    sandbox.write("x.apk", pointer);
    told(&sandbox, "apk ls x.apk", "x.apk");
}

#[test]
fn an_image_that_is_cut_off_is_named_as_a_mistake_of_its_file() {
    let sandbox = with_container("localhost/a:1");
    let good = std::fs::read(sandbox.path("a.tar")).unwrap();
    for length in [700, good.len() / 2, 2000] {
        sandbox.write("a.tar", &good[..length]);
        sandbox.run("build disk home").fails(2, &["a.tar", "help: "]);
    }
    let packed: Vec<u8> = crate::image::tars::gzip(&good);
    sandbox.write("a.tar", &packed[..packed.len() - 100]);
    sandbox.run("build disk home").fails(2, &["a.tar", "the archive cannot be read", "help: it was cut off"]);
    std::fs::remove_file(sandbox.path("a.tar")).unwrap();
    std::fs::create_dir(sandbox.path("a.dir")).unwrap();
    sandbox.write("a.dir/version", "Directory Transport Version: 1.1\n");
    sandbox.write("a.dir/manifest.json", "{}");
    let text = sandbox.read("fleet.toml");
    sandbox.write("fleet.toml", text.replace("oci-archive:a.tar", "oci:a.dir"));
    sandbox.run("check").fails(2, &["fleet.toml:", "is no OCI image layout", "`skopeo copy dir:", "oci:NEW"]);
    sandbox.write("fleet.toml", text.replace("oci-archive:a.tar", "dir:a.dir"));
    sandbox.run("check").fails(2, &["fleet.toml:", "`skopeo copy dir:a.dir oci:NEW`"]);
}

#[test]
fn an_image_of_several_is_named_by_its_reference() {
    let sandbox = with_container("localhost/a:1");
    let text = sandbox.read("fleet.toml").replace("oci-archive:a.tar", "oci-archive:a.tar:localhost/b:1");
    sandbox.write("fleet.toml", text);
    let there = "it has no image \"localhost/b:1\"; there is localhost/a:1";
    sandbox.run("check").fails(2, &["a.tar", there]);
    let text = sandbox.read("fleet.toml").replace("a.tar:localhost/b:1", "a.tar:localhost/a:1");
    sandbox.write("fleet.toml", text);
    sandbox.done("check");
    sandbox.done("lock");
    assert!(sandbox.read("fleet.lock").contains("oci-archive:a.tar:localhost/a:1"));
}
