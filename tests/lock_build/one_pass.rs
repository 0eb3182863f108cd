//! What makes an image quick never changes its bytes: what is remembered of packages, and files of an earlier image.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use sisforge::base::Sha256;
use sisforge::build::Selection;
use sisforge::sys::verity::digest_of_bytes;

use super::site::{Site, chain};

fn image() -> Selection {
    Selection::Image("small".parse().unwrap())
}

/// The image that is built of a site as it is now: its key, and its bytes.
fn built(site: &Site) -> (String, Vec<u8>) {
    let built = site.build_one(&image());
    let bytes = fs::read(&built.artifact.path).unwrap();
    assert_eq!(built.artifact.digest, digest_of_bytes(&bytes), "the digest that was taken on the way");
    (built.artifact.key.to_string(), bytes)
}

/// The same from nothing: no earlier image, nothing remembered.
fn from_nothing(site: &Site) -> Vec<u8> {
    fs::rename(site.path("out"), site.path("out.aside")).unwrap();
    let _ = fs::remove_dir_all(site.path("cache/listings"));
    let bytes = built(site).1;
    fs::remove_dir_all(site.path("out")).unwrap();
    fs::rename(site.path("out.aside"), site.path("out")).unwrap();
    bytes
}

fn listings(site: &Site) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(site.path("cache/listings/1")).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// Three packages, one of them with a large file; `hello` is what changes.
fn site() -> Site {
    let site = Site::new();
    let large = "0123456789abcdef".repeat(40_000);
    site.package("large", "1.0-r0", &[("usr/lib/large", &large), ("usr/lib/small", "small")], &[]);
    site.edit("fleet.toml", r#"packages = ["hello"]"#, r#"packages = ["hello", "large"]"#);
    site.index();
    site
}

fn change_hello(site: &Site, text: &str) {
    site.package("hello", "1.0-r0", &[("usr/bin/hello", text), ("usr/bin/more", "more")], &["base"]);
    site.index();
}

#[test]
fn an_image_with_files_of_an_earlier_one_has_the_bytes_of_one_made_from_nothing() {
    let site = site();
    let (first, _) = built(&site);
    change_hello(&site, "hello again");
    let lock = site.lock(None);
    // What did not change is not opened: there is nothing but zeros to be found.
    let unchanged = ["base-1.0-r0", "large-1.0-r0"].map(|name| site.path(&format!("repo/x86_64/{name}.apk")));
    let packages = unchanged.each_ref().map(|path| fs::read(path).unwrap());
    unchanged.iter().zip(&packages).for_each(|(path, bytes)| fs::write(path, vec![0; bytes.len()]).unwrap());
    let again = site.with_builder(&lock, |builder| builder.build(&image())).unwrap().remove(0);
    unchanged.iter().zip(&packages).for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    assert_ne!(again.artifact.key.to_string(), first);
    assert!(fs::read(&again.artifact.path).unwrap() == from_nothing(&site), "the same bytes");
}

#[test]
fn an_earlier_image_that_somebody_touched_is_not_taken_from() {
    let site = site();
    built(&site);
    let path = site.path("out/image/small/rootfs.ext4");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(16).position(|window| window == b"0123456789abcdef").unwrap();
    bytes[at] = b'X';
    fs::write(&path, bytes).unwrap();
    let later = SystemTime::now() + Duration::from_secs(1);
    fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
    change_hello(&site, "hello again");
    assert!(built(&site).1 == from_nothing(&site), "the same bytes");
}

#[test]
fn what_is_remembered_wrongly_of_a_package_is_forgotten() {
    let site = site();
    let lock = site.lock(None);
    let good = built(&site).1;
    let remembered = listings(&site);
    assert_eq!(remembered.len(), 3);
    for listing in &remembered {
        // A listing that is whole in itself, and says something else of its package.
        let mut bytes = fs::read(listing).unwrap();
        let at = bytes.windows(4).position(|window| window == b"usr/" || window == b"etc/").unwrap();
        bytes[at] = b'v';
        let sum = Sha256::of(&bytes[32..]).0;
        bytes[..32].copy_from_slice(&sum);
        fs::write(listing, bytes).unwrap();
    }
    fs::remove_dir_all(site.path("out")).unwrap();
    let again = site.with_builder(&lock, |builder| builder.build(&image())).unwrap().remove(0);
    assert!(fs::read(&again.artifact.path).unwrap() == good, "the same bytes");
    // And the package itself is still held to be what the lock says.
    let path = site.path("repo/x86_64/large-1.0-r0.apk");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    fs::remove_dir_all(site.path("out")).unwrap();
    let error = chain(&site.with_builder(&lock, |builder| builder.build(&image())).unwrap_err());
    assert!(error.contains("package large-1.0-r0: its SHA-256 is"), "{error}");
    assert!(!site.path("out/image/small").exists());
}
