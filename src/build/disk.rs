//! Data disks: what a guest finds in its home when it first boots, one artifact for all guests that begin alike.

use std::collections::BTreeMap;
use std::path::Path;

use crate::base::{ByteSize, GuestName, Label, Sha256};
use crate::fleet::{DiskSpec, Fleet, GuestSpec};
use crate::image::content::Content;
use crate::image::disk::{data_disk, images_owner};
use crate::image::ext4::{Ext4Options, LAYOUT, Purpose, write_ext4};
use crate::image::read_back::{ReadBack, read_back};
use crate::image::recipe::Recipes;
use crate::image::tree::Tree;
use crate::lock::model::Lock;
use crate::lock::wanted::spelled_container;
use crate::sys::report::{Report, Unit};

use super::artifacts::{ArtifactKind, BuiltFile};
use super::error::BuildError;
use super::images::ImagesPlan;
use super::key::{BuildKey, KeyBuilder};
use super::names::label;
use super::rootfs::ext4_options;
use super::threads::thread_pool;

/// A data disk that is to be built, and for whom.
pub(super) struct DiskPlan<'a> {
    /// Of the link in `out/disk/`: the declared disk, else `user.NAME` or `pool.NAME`; where guests of several images have
    /// the same disk and different homes, the image follows.
    pub name: Label,
    spec: &'a DiskSpec,
    recipes: &'a Recipes,
    /// Spelling and digest of each container image.
    containers: Vec<(String, Sha256)>,
    pub guests: Vec<&'a GuestName>,
}

impl DiskPlan<'_> {
    /// The size of the disk.
    pub fn size(&self) -> ByteSize {
        self.spec.size
    }
}

/// The data disks of a fleet: as few as there are differences.
pub(super) fn plan<'a>(
    fleet: &'a Fleet,
    recipes: &'a BTreeMap<Label, Recipes>,
    lock: &Lock,
) -> Result<Vec<DiskPlan<'a>>, BuildError> {
    let mut groups: BTreeMap<(String, &Label), Vec<(&GuestName, &GuestSpec)>> = BTreeMap::new();
    for (name, guest) in &fleet.guests {
        groups.entry((disk_name(name, guest), &guest.image)).or_default().push((name, guest));
    }
    let mut plans: Vec<DiskPlan<'a>> = Vec::new();
    let images = |name: &String| groups.keys().filter(|(other, _)| other == name).count();
    for ((name, image), guests) in &groups {
        let full = if images(name) > 1 { format!("{name}.{image}") } else { name.clone() };
        let name = label(full)?;
        let Some((_, first)) = guests.first() else { continue };
        let recipes = recipes.get(*image).ok_or_else(|| BuildError::NotLocked((*image).clone()))?;
        let containers = first.disk.images.iter().map(|container| {
            let spelled = spelled_container(&fleet.root, container);
            match lock.container.get(&spelled) {
                Some(sha256) => Ok((spelled, *sha256)),
                None => Err(BuildError::ContainerNotLocked(spelled)),
            }
        });
        let containers = containers.collect::<Result<_, _>>()?;
        let guests = guests.iter().map(|(name, _)| *name).collect();
        plans.push(DiskPlan { name, spec: &first.disk, recipes, containers, guests });
    }
    Ok(plans)
}

/// A disk that is written out in a guest or pool has the name of that table.
fn disk_name(guest: &GuestName, spec: &GuestSpec) -> String {
    match (&spec.disk_name, &spec.pool) {
        (Some(declared), _) => declared.to_string(),
        (None, Some(member)) => format!("pool.{}", member.pool),
        (None, None) => format!("user.{guest}"),
    }
}

impl<'a> DiskPlan<'a> {
    /// The key of the disk. Where it is kept plays no part.
    pub fn key(&self) -> BuildKey {
        let mut key = KeyBuilder::new("disk")
            .input("layout", LAYOUT)
            .input("digest", "sparse")
            .input("size", self.spec.size.bytes().to_le_bytes())
            .recipes(self.recipes);
        for (what, value) in [("label", &self.spec.label), ("owner", &self.spec.owner)] {
            if let Some(value) = value {
                key = key.input(what, value);
            }
        }
        key.finish()
    }

    /// The container images that go with the disk, if there are any.
    pub fn images(&self) -> Result<Option<ImagesPlan<'a>>, BuildError> {
        if self.containers.is_empty() {
            return Ok(None);
        }
        let owner = images_owner(self.recipes);
        let owner = owner.map_err(|source| BuildError::ImagesLayout { disk: self.name.clone(), source })?;
        let (name, containers) = (self.name.clone(), self.containers.clone());
        Ok(Some(ImagesPlan { name, images: &self.spec.images, containers, owner }))
    }

    /// Writes the disk into an empty directory.
    pub fn write(
        &self,
        key: &BuildKey,
        dir: &Path,
        jobs: usize,
        report: &dyn Report,
    ) -> Result<BuiltFile, BuildError> {
        let task = report.begin(&format!("write disk {}", self.name), None, Unit::Steps);
        let tree = self.tree()?;
        let path = dir.join(ArtifactKind::Disk.file_name());
        let written = thread_pool(jobs)?.install(|| write_ext4(&tree, &[], &self.options(key), None, &path));
        let written = written.map_err(|source| BuildError::Disk { disk: self.name.clone(), source })?;
        task.finish(&self.spec.size.to_string());
        Ok(BuiltFile { digest: written.digest, size: written.size })
    }

    /// Lays the disk out again and holds a written one against it.
    pub fn read_back(&self, key: &BuildKey, image: &Path, jobs: usize) -> Result<ReadBack, BuildError> {
        let tree = self.tree()?;
        Ok(thread_pool(jobs)?.install(|| read_back(image, &tree, &[], &self.options(key)))?)
    }

    fn tree(&self) -> Result<Tree<Content>, BuildError> {
        data_disk(self.recipes, self.spec.owner.as_deref())
            .map_err(|source| BuildError::DiskLayout { disk: self.name.clone(), source })
    }

    fn options(&self, key: &BuildKey) -> Ext4Options {
        let options = ext4_options(key, Some(self.spec.size), Purpose::ReadWrite);
        Ext4Options { label: self.spec.label.clone().unwrap_or(options.label.clone()), ..options }
    }
}
