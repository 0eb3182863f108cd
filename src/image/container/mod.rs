//! Container images that are there when a guest first boots: every digest verified, and written as the files that
//! containers/storage would have made of them, so that the guest has nothing to import.

mod blobs;
mod docker;
mod entry;
mod layer;
mod names;
mod oci;
mod packed;
mod platform;
mod split;
mod storage;
mod tar;

pub use layer::Layer;
pub use names::{ImageNames, full_name};
pub use oci::Image;
pub use storage::{IdMap, SubIds, add_images};

pub use super::error::{ContainerError, ContainerProblem};

use std::path::Path;

use crate::fleet::ContainerImage;

use blobs::Blobs;

/// Part of every key of a store: changed whenever the same images would be laid out otherwise.
pub const RULES: &str = "3";

/// What the images of a file are called, of whom nothing else is read or verified; none for an image of a registry, which
/// `fleet.toml` itself names.
pub fn names_in(image: &ContainerImage) -> Result<Vec<ImageNames>, ContainerError> {
    let (path, names) = match image {
        ContainerImage::OciArchive { path, reference } => {
            let names = Blobs::open_archive(path)
                .and_then(|blobs| oci::names(&blobs, path, reference.as_deref()).map(|names| vec![names]));
            (path, names)
        }
        ContainerImage::OciLayout { path, reference } => {
            let blobs = Blobs::Directory(path.clone());
            (path, oci::names(&blobs, path, reference.as_deref()).map(|names| vec![names]))
        }
        ContainerImage::DockerArchive(path) => (path, docker::names(path)),
        ContainerImage::Registry(_) => return Ok(Vec::new()),
    };
    names.map_err(|problem| ContainerError { path: path.clone(), problem })
}

impl Image {
    /// Opens the images in a file and verifies all of them: manifest, config, and each layer both compressed and unpacked. A layout
    /// gives one, the one of its reference where that is given; what `docker save` wrote may hold several.
    /// An image of a registry is opened by [`Image::pulled`].
    pub fn open(image: &ContainerImage) -> Result<Vec<Self>, ContainerError> {
        let named = |path: &Path| {
            let path = path.to_owned();
            move |problem| ContainerError { path, problem }
        };
        match image {
            ContainerImage::OciArchive { path, reference } => Blobs::open_archive(path)
                .and_then(|blobs| oci::open(blobs, path, reference.as_deref()))
                .map(|image| vec![image])
                .map_err(named(path)),
            ContainerImage::OciLayout { path, reference } => {
                oci::open(Blobs::Directory(path.clone()), path, reference.as_deref())
                    .map(|image| vec![image])
                    .map_err(named(path))
            }
            ContainerImage::DockerArchive(path) => docker::open(path).map_err(named(path)),
            ContainerImage::Registry(image) => {
                let problem = ContainerProblem::Missing(format!("file: {image} is of a registry"));
                Err(named(Path::new(&image.called()))(problem))
            }
        }
    }
}
