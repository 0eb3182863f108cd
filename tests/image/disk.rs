//! Data disks and container images: whose they are, and what a store holds of an image.

use std::error::Error;
use std::fs;
use std::path::Path;

use sisforge::base::{ByteSize, Sha256};
use sisforge::fleet::{ContainerImage, SourceFiles};
use sisforge::image::container::Image;
use sisforge::image::content::Content;
use sisforge::image::disk::{DiskError, ImageStore, data_disk, image_store, images_owner};
use sisforge::image::ext4::{Ext4Error, Ext4Options, Purpose, write_ext4};
use sisforge::image::recipe::{Parameters, Recipes};
use sisforge::image::tree::Tree;
use tar::EntryType;

use super::oci::{self, Item, directory, file};

fn podman() -> Recipes {
    let files = SourceFiles::new(env!("CARGO_MANIFEST_DIR"));
    Recipes::load(&["rootless-podman".parse().unwrap()], &Parameters::new(), &files).unwrap()
}

/// An image in an archive called `file`.
fn image(dir: &Path, file: &str, name: &str, layers: &[Vec<u8>]) -> Image {
    let path = dir.join(file);
    oci::write_archive(&path, name, layers, |_, _| {});
    super::only(Image::open(&ContainerImage::OciArchive { path, reference: None }).unwrap())
}

fn store(images: &[Image]) -> Result<ImageStore, DiskError> {
    image_store(&images_owner(&podman()).unwrap(), images)
}

/// Why images cannot be put into a store.
fn problem(images: &[Image]) -> String {
    let error = store(images).unwrap_err();
    error.source().unwrap().to_string()
}

fn owner(tree: &Tree<Content>, path: &str) -> (u32, u32, u16) {
    let node = tree.get(path).unwrap_or_else(|| panic!("there is no {path}"));
    (node.uid, node.gid, node.mode)
}

fn write(disk: &ImageStore, path: &Path) -> Result<(), Ext4Error> {
    let options = Ext4Options {
        label: "home".into(),
        uuid: [1; 16],
        hash_seed: [1; 16],
        size: Some(ByteSize::from_mib(32)),
        purpose: Purpose::ReadWrite,
    };
    write_ext4(&disk.tree, &disk.sources(), &options, None, path).map(drop)
}

fn base() -> Vec<u8> {
    oci::layer(&[directory("etc/"), Item { owner: (1, 2), ..file("etc/a", b"a") }])
}

#[test]
fn disk_and_images_are_the_recipes_users() {
    let dir = tempfile::tempdir().unwrap();
    let disk = data_disk(&podman(), None).unwrap();
    assert_eq!(owner(&disk, ""), (1000, 1000, 0o700));
    assert_eq!(owner(&disk, "/.config/containers/storage.conf"), (1000, 1000, 0o644));
    assert_eq!(disk.get("/.local"), None, "images are elsewhere");

    let image = image(dir.path(), "a.tar", "a:1", &[base()]);
    let store = store(&[image]).unwrap().tree;
    let layer = Sha256::of(base());
    assert_eq!(owner(&store, &format!("/overlay/{layer}/diff")), (1000, 1000, 0o555));
    assert_eq!(owner(&store, &format!("/overlay/{layer}/diff/etc/a")), (100_000, 100_001, 0o644));
    assert_eq!(owner(&store, "/overlay-images/images.lock"), (1000, 1000, 0o600));

    let error = images_owner(&Recipes::default()).unwrap_err().to_string();
    assert_eq!(error, "container images need a user, but none of the recipes has a [[user]] with subids");
}

#[test]
fn images_that_share_a_layer_hold_it_once() {
    let dir = tempfile::tempdir().unwrap();
    let on_top = |text: &[u8]| vec![base(), oci::layer(&[file("top", text)])];
    let images = [
        image(dir.path(), "one.tar", "one:1", &on_top(b"1")),
        image(dir.path(), "two.tar", "two:1", &on_top(b"2")),
    ];
    let disk = store(&images).unwrap();
    assert_eq!(disk.sources().len(), 3);
    assert_eq!(disk.tree.children("/overlay").count(), 3 + 1, "and the directory of links");

    let images =
        [image(dir.path(), "a.tar", "a:1", &[base()]), image(dir.path(), "b.tar", "a:1", &on_top(b"1"))];
    assert_eq!(problem(&images), "another image of the same disk is also named localhost/a:1");
}

#[test]
fn an_owner_beyond_the_users_ids_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let layer = oci::layer(&[Item { owner: (65_537, 0), ..file("f", b"") }]);
    assert_eq!(
        problem(&[image(dir.path(), "a.tar", "a", &[layer])]),
        "/f belongs to uid 65537 of the container, but the user has subordinate ids for 1 to 65536 only"
    );
}

#[test]
fn the_same_image_gives_the_same_store_wherever_it_is() {
    let layers = [base(), oci::layer(&[Item { kind: EntryType::Fifo, ..file("pipe", b"") }])];
    let written = |file: &str| {
        let dir = tempfile::tempdir().unwrap();
        let disk = store(&[image(dir.path(), file, "localhost/a:1", &layers)]).unwrap();
        let path = dir.path().join("disk");
        write(&disk, &path).unwrap();
        Sha256::of(fs::read(path).unwrap())
    };
    assert_eq!(written("one.tar"), written("two.tar"));
}

#[test]
fn an_image_that_changes_before_it_is_written_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let before = image(dir.path(), "a.tar", "a:1", &[oci::layer(&[file("f", &[b'a'; 9000])])]);
    let disk = store(&[before]).unwrap();
    let mut archive = fs::read(dir.path().join("a.tar")).unwrap();
    let layer = archive.windows(2).position(|bytes| bytes == [0x1f, 0x8b]).unwrap();
    archive[layer + 20] ^= 1;
    fs::write(dir.path().join("a.tar"), archive).unwrap();
    let error = write(&disk, &dir.path().join("disk")).unwrap_err().to_string();
    assert!(error.starts_with("container image "), "{error}");
}
