//! Data disks, and the container images that guests share.

use std::fs;
use std::os::unix::fs::MetadataExt;

use tar::EntryType;

use crate::common::sandbox::Sandbox;
use crate::image::oci::{self, Item, file};
use crate::needs_firecracker;

/// A user whose home is the data disk.
const HOME: &str = r#"description = "a user"
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
    assert!(plan.contains(&format!("stop {a}: container images changed")), "{plan}");
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
