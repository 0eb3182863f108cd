//! Stores of container images: written once for all guests whose disks have the same `images`, and only read by them.

use std::path::Path;

use crate::fleet::{ContainerImage, Label, Sha256};
use crate::image::container::{IdMap, Image};
use crate::image::disk::{ImageStore, image_store};
use crate::image::ext4::{Ext4Options, LAYOUT, Purpose, write_ext4};
use crate::image::read_back::{ReadBack, read_back};
use crate::lock::wanted::container_digest;
use crate::sys::report::{Report, Unit};

use super::artifacts::{ArtifactKind, Made};
use super::builder::{BuildError, pool};
use super::key::{BuildKey, KeyBuilder};
use super::rootfs::ext4_options;

/// A store that is to be built.
pub(super) struct ImagesPlan<'a> {
    /// That of the disk.
    pub name: Label,
    pub images: &'a [ContainerImage],
    /// Spelling and digest of each image.
    pub containers: Vec<(String, Sha256)>,
    pub owner: IdMap,
}

impl ImagesPlan<'_> {
    /// The key of the store: the images, and whose ids their files get.
    pub fn key(&self) -> BuildKey {
        let IdMap { uid, gid, subuids, subgids } = &self.owner;
        let ids = [*uid, *gid, subuids.start, subuids.count, subgids.start, subgids.count];
        let mut key = KeyBuilder::new("containers")
            .input("layout", LAYOUT)
            .input("ids", ids.map(u32::to_le_bytes).concat());
        for (spelled, sha256) in &self.containers {
            // Not the whole path: an image that tells no name of its own is called after its file alone.
            let file = spelled.rsplit(['/', ':']).next().unwrap_or(spelled);
            key = key.input("container", file).input("sha256", sha256.0);
        }
        key.finish()
    }

    /// Writes the store into an empty directory.
    pub fn write(
        &self,
        key: &BuildKey,
        dir: &Path,
        jobs: usize,
        report: &dyn Report,
    ) -> Result<Made, BuildError> {
        let task = report.begin(&format!("write container images of {}", self.name), None, Unit::Steps);
        let store = self.store()?;
        let path = dir.join(ArtifactKind::Containers.file_name());
        let written =
            pool(jobs)?.install(|| write_ext4(&store.tree, &store.sources(), &options(key), None, &path));
        let written = written.map_err(|source| BuildError::Images { disk: self.name.clone(), source })?;
        // An image that changed while it was read would stand under the wrong key.
        for (image, (spelled, sha256)) in self.images.iter().zip(&self.containers) {
            if container_digest(image)? != *sha256 {
                return Err(BuildError::ContainerChanged(spelled.clone()));
            }
        }
        task.finish(&format!("{} images", self.containers.len()));
        match written.sha256 {
            Some(sha256) => Ok(Made { digest: sha256.into(), size: written.size }),
            None => Ok(Made::of(&path)?),
        }
    }

    /// Lays the store out again and holds a written one against it.
    pub fn read_back(&self, key: &BuildKey, image: &Path, jobs: usize) -> Result<ReadBack, BuildError> {
        let store = self.store()?;
        Ok(pool(jobs)?.install(|| read_back(image, &store.tree, &store.sources(), &options(key)))?)
    }

    fn store(&self) -> Result<ImageStore, BuildError> {
        let failed = |source| BuildError::ImagesLayout { disk: self.name.clone(), source };
        let images = self.images.iter().map(Image::open).collect::<Result<Vec<_>, _>>();
        image_store(&self.owner, &images.map_err(|error| failed(error.into()))?).map_err(failed)
    }
}

fn options(key: &BuildKey) -> Ext4Options {
    ext4_options(key, None, Purpose::ReadOnly)
}
