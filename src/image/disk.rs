//! What a guest's user finds: the data disk, which is the home, and the container images that many guests share.

use std::sync::Arc;

use crate::base::{Class, Diagnosis, Diagnostic};

use super::container::{ContainerError, IdMap, Image, Layer, add_images};
use super::content::{Content, SequentialArchive};
use super::recipe::Recipes;
use super::tree::{Node, NodeKind, Tree, TreeError};

/// A read-only store of container images, for all guests whose disks have the same `images`.
#[derive(Debug)]
pub struct ImageStore {
    pub tree: Tree<Content>,
    layers: Vec<Arc<Layer>>,
}

/// Why a data disk or its images cannot be laid out.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("{what} need a user, but none of the recipes has a [[user]] with subids")]
    NoOwner { what: &'static str },
    #[error("the disk's `owner` is {0:?}, but none of the recipes has that user")]
    UnknownOwner(String),
    #[error("it cannot be laid out")]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Container(#[from] ContainerError),
}

impl Diagnostic for DiskError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::NoOwner { .. } | Self::UnknownOwner(_) => Class::Invalid
                .hint("add a recipe with such a user, as rootless-podman, to the images that use this disk"),
            Self::Tree(error) => error.diagnosis(),
            Self::Container(error) => error.diagnosis(),
        }
    }
}

impl ImageStore {
    /// What the tree's contents are numbered by.
    pub fn sources(&self) -> Vec<&dyn SequentialArchive> {
        self.layers.iter().map(|layer| &**layer as &dyn SequentialArchive).collect()
    }
}

/// Lays out the data disk: a home and the recipes' files in it, all of the recipes' user with subordinate ids, or of the one
/// that is named. Its root is the home.
pub fn data_disk(recipes: &Recipes, owner: Option<&str>) -> Result<Tree<Content>, DiskError> {
    let mut tree = Tree::new();
    let ids = match owner {
        Some("root") => Some((0, 0)),
        Some(name) => Some(recipes.ids_of(name).ok_or_else(|| DiskError::UnknownOwner(name.to_owned()))?),
        None => recipes.owner().map(|owner| (owner.uid, owner.gid)),
    };
    let Some((uid, gid)) = ids else {
        return if recipes.home.is_empty() {
            Ok(tree)
        } else {
            Err(DiskError::NoOwner { what: "files of a home" })
        };
    };
    let directory = || Node::new(NodeKind::Directory, 0o700).owned_by(uid, gid);
    tree.insert("", directory())?;
    for (path, file) in &recipes.home {
        let (path, file) = (path.as_str(), &file.value);
        tree.make_parents(path, directory)?;
        let content = Content::Inline(Arc::from(file.content.as_slice()));
        let kind = NodeKind::File { size: file.content.len() as u64, content };
        tree.insert(path, Node::new(kind, file.mode).owned_by(uid, gid))?;
    }
    Ok(tree)
}

/// The user whose ids the files of container images get.
pub fn images_owner(recipes: &Recipes) -> Result<IdMap, DiskError> {
    recipes.owner().ok_or(DiskError::NoOwner { what: "container images" })
}

/// Lays out a store of container images for a user.
pub fn image_store(owner: &IdMap, images: &[Image]) -> Result<ImageStore, DiskError> {
    let mut tree = Tree::new();
    // Whoever may enter is said by the directory that it is mounted on.
    tree.insert("", Node::new(NodeKind::Directory, 0o755).owned_by(owner.uid, owner.gid))?;
    let layers = add_images(&mut tree, images, owner)?;
    Ok(ImageStore { tree, layers })
}
