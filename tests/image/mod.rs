//! Images, written and read back: by another reader, by the kernel, by Podman, and against what apk itself lays out.

mod container;
mod corpus;
mod difference;
mod disk;
mod ext4;
mod files;
mod genuine_apk;
mod layouts;
pub mod oci;
mod podman;
pub mod reading;
pub mod sbom;
mod scripts;
pub mod tars;

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use sisforge::image::container::Image;
use sisforge::sys::tool::{self, Tool};

use crate::common::namespaces::{self, skip};

/// What a test lacks that mounts images.
fn missing(tools: &[&str]) -> Option<String> {
    if !Path::new("/dev/loop-control").exists() {
        return Some("needs loop devices".to_owned());
    }
    namespaces::missing(tools)
}

/// The one image of a file.
fn only(images: Vec<Image>) -> Image {
    let count = images.len();
    let mut images = images.into_iter();
    images.next().filter(|_| count == 1).unwrap_or_else(|| panic!("{count} images"))
}

/// Lets e2fsck find fault with a file system, where it is installed.
fn e2fsck(image: &Path) {
    if tool::find("e2fsck").is_none() {
        return skip("e2fsck", "e2fsck is not installed");
    }
    if let Err(error) = Tool::new("e2fsck").args(["-f", "-n"]).arg(image).run() {
        panic!("{error}");
    }
}

/// A file system, read by a program that shares nothing with the one that wrote it.
fn open_ext4(image: &Path) -> ext4_view::Ext4 {
    struct Image(File);
    impl ext4_view::Ext4Read for Image {
        fn read(
            &mut self,
            start: u64,
            bytes: &mut [u8],
        ) -> Result<(), Box<dyn Error + Send + Sync + 'static>> {
            Ok(self.0.read_exact_at(bytes, start)?)
        }
    }
    ext4_view::Ext4::load(Box::new(Image(File::open(image).unwrap()))).unwrap()
}
