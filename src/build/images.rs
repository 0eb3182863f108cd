//! Stores of container images: written once for all guests whose disks have the same `images`, and only read by them.

use std::path::Path;

use crate::base::text::counted;
use crate::base::{Label, Sha256};
use crate::fleet::{ContainerImage, RegistryImage};
use crate::image::container::{IdMap, Image, RULES};
use crate::image::disk::{ImageStore, image_store};
use crate::image::ext4::{Ext4Options, LAYOUT, Purpose, write_ext4};
use crate::image::read_back::{ReadBack, read_back};
use crate::lock::containers::puller;
use crate::lock::wanted::container_digest;
use crate::sys::fetch::Cache;
use crate::sys::registry::Pulled;
use crate::sys::report::{Report, Unit};

use super::artifacts::{ArtifactKind, BuiltFile};
use super::error::BuildError;
use super::key::{BuildKey, KeyBuilder};
use super::rootfs::ext4_options;
use super::threads::thread_pool;

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
            .input("rules", RULES)
            .input("ids", ids.map(u32::to_le_bytes).concat());
        for (image, (_, sha256)) in self.images.iter().zip(&self.containers) {
            // Not the whole path: an image that tells no name of its own is called after its file alone.
            let file = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let called = match image {
                ContainerImage::Registry(image) => image.called(),
                ContainerImage::DockerArchive(path) => file(path),
                ContainerImage::OciArchive { path, reference }
                | ContainerImage::OciLayout { path, reference } => {
                    format!("{}:{}", file(path), reference.as_deref().unwrap_or_default())
                }
            };
            key = key.input("container", called).input("sha256", sha256.0);
        }
        key.finish()
    }

    /// Writes the store into an empty directory.
    pub fn write(
        &self,
        key: &BuildKey,
        dir: &Path,
        puller: ImagePuller<'_>,
        jobs: usize,
    ) -> Result<BuiltFile, BuildError> {
        let store = self.store(puller)?;
        let begun = format!("write container images of {}", self.name);
        let task = puller.report.begin(&begun, None, Unit::Steps);
        let path = dir.join(ArtifactKind::Containers.file_name());
        let written = thread_pool(jobs)?
            .install(|| write_ext4(&store.tree, &store.sources(), &options(key), None, &path));
        let written = written.map_err(|source| BuildError::Images { disk: self.name.clone(), source })?;
        // An image that changed while it was read would stand under the wrong key.
        for (image, (spelled, sha256)) in self.images.iter().zip(&self.containers) {
            if container_digest(image)?.is_some_and(|now| now != *sha256) {
                return Err(BuildError::ContainerChanged(spelled.clone()));
            }
        }
        task.finish(&counted(self.containers.len(), "image"));
        Ok(BuiltFile { digest: written.digest, size: written.size })
    }

    /// Lays the store out again and holds a written one against it.
    pub fn read_back(
        &self,
        key: &BuildKey,
        image: &Path,
        puller: ImagePuller<'_>,
        jobs: usize,
    ) -> Result<ReadBack, BuildError> {
        let store = self.store(puller)?;
        Ok(thread_pool(jobs)?.install(|| read_back(image, &store.tree, &store.sources(), &options(key)))?)
    }

    fn store(&self, puller: ImagePuller<'_>) -> Result<ImageStore, BuildError> {
        let failed = |source| BuildError::ImagesLayout { disk: self.name.clone(), source };
        let open = |(image, (_, sha256)): (&ContainerImage, &(String, Sha256))| {
            let opened = match image {
                ContainerImage::Registry(image) => {
                    Image::pulled(image, puller.pull(image, *sha256)?).map(|image| vec![image])
                }
                _ => Image::open(image),
            };
            opened.map_err(|error| failed(error.into()))
        };
        let images = self.images.iter().zip(&self.containers).map(open).collect::<Result<Vec<_>, _>>()?;
        let images: Vec<Image> = images.into_iter().flatten().collect();
        image_store(&self.owner, &images).map_err(failed)
    }
}

/// How images of registries are had.
#[derive(Clone, Copy)]
pub(super) struct ImagePuller<'a> {
    pub cache: &'a Cache,
    pub offline: bool,
    pub report: &'a dyn Report,
}

impl ImagePuller<'_> {
    /// Everything of an image of a registry, downloaded where it is not here.
    pub fn pull(self, image: &RegistryImage, sha256: Sha256) -> Result<Pulled, BuildError> {
        Ok(puller(image, self.cache, self.offline, self.report).pull(sha256)?)
    }
}

fn options(key: &BuildKey) -> Ext4Options {
    ext4_options(key, None, Purpose::ReadOnly)
}
