//! Container images that are not what they claim to be.

use std::error::Error;
use std::fs;
use std::path::Path;

use sisforge::fleet::ContainerImage;
use sisforge::image::container::Image;

use super::oci::{self, directory, file};
use super::tars::Tar;

fn open(path: &Path) -> Result<Image, String> {
    let image = ContainerImage::OciArchive { path: path.to_owned(), reference: None };
    Image::open(&image).map(super::only).map_err(|error| {
        assert_eq!(error.to_string(), format!("container image {} is refused", path.display()));
        error.source().unwrap().to_string()
    })
}

fn layers() -> [Vec<u8>; 2] {
    [oci::layer(&[directory("etc/"), file("etc/a", b"a")]), oci::layer(&[file("b", b"b")])]
}

#[test]
fn a_container_image_with_one_byte_changed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.tar");
    oci::write_archive(&path, "a:1", &layers(), |_, _| {});
    assert_eq!(open(&path).unwrap().names.own, ["localhost/a:1"]);
    let cases = [
        ("manifest.v1+json", "manifest"),
        ("config.v1+json", "config"),
        ("layer.v1.tar", "layer"),
        ("layer.v1.tar+gzip", "layer"),
    ];
    for (kind, what) in cases {
        oci::write_archive(&path, "a:1", &layers(), |blob, bytes| {
            if blob.ends_with(kind) {
                let at = bytes.len() / 2;
                bytes[at] ^= 1;
            }
        });
        let error = open(&path).unwrap_err();
        assert!(error.starts_with(&format!("its {what} does not match its digest")), "{kind}: {error}");
    }
}

#[test]
fn a_layer_cannot_leave_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.tar");
    let mut evil = layers();
    // The tar library writes no such names itself.
    evil[1][..1024].copy_from_slice(&{
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..7].copy_from_slice(b"../evil");
        header.set_size(1);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        let mut block = [0; 1024];
        block[..512].copy_from_slice(header.as_bytes());
        block
    });
    oci::write_archive(&path, "a:1", &evil, |_, _| {});
    let error = open(&path).unwrap_err();
    assert!(error.ends_with("\"../evil\" leads out of the layer"), "{error}");
}

#[test]
fn what_no_file_system_of_a_guest_holds_is_refused_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.tar");
    let refused = |tar: Vec<u8>| {
        oci::write_archive(&path, "a:1", &[tar], |_, _| {});
        open(&path).unwrap_err()
    };
    let target = b"t".repeat(4096);
    let link = Tar::default().pax(&[("linkpath", &target)]).symlink("far", "t").ended();
    let error = refused(link);
    assert!(error.contains("\"/far\" leads to a path of 4096 bytes"), "{error}");
    let large = [("SCHILY.xattr.user.x", &b"v".repeat(5000)[..])];
    let error = refused(Tar::default().pax(&large).file("heavy", b"x").ended());
    assert!(error.contains("\"/heavy\" has more extended attributes"), "{error}");
}

#[test]
fn what_is_no_oci_archive_is_said_to_be_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.tar");
    for packed in [&[0x28, 0xb5, 0x2f, 0xfd, 0][..], b"BZh91AY", &[0x1f, 0x8b, 8, 0, 0]] {
        fs::write(&path, packed).unwrap();
        assert_eq!(open(&path).unwrap_err(), "the archive cannot be read");
    }
    fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n").unwrap();
    let image = ContainerImage::OciArchive { path: path.clone(), reference: None };
    let error = Image::open(&image).unwrap_err();
    let cause = error.source().unwrap().source().unwrap().to_string();
    assert!(cause.contains("Git LFS") && cause.contains("git lfs pull"), "{cause}");
    fs::write(&path, [0; 1024]).unwrap();
    assert_eq!(open(&path).unwrap_err(), "it contains no index.json; is it an OCI image layout?");
    oci::write_archive(&path, "a:1", &[], |_, _| {});
    assert_eq!(open(&path).unwrap().layers.len(), 0, "an image may have no layers");
}
