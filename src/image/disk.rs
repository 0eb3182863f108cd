//! Data disks: the home of the guest's user, with what it holds at the first boot.

use std::sync::Arc;

use super::container::{ContainerError, Image, Layer, add_images};
use super::content::{Content, Source};
use super::recipe::Recipes;
use super::tree::{Node, NodeKind, Tree, TreeError};

/// What a data disk holds when it is made. Its root is the user's home.
#[derive(Debug)]
pub struct DataDisk {
    pub tree: Tree<Content>,
    layers: Vec<Arc<Layer>>,
}

/// Why a data disk cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("{what} need a user: none of the recipes has a [[user]] with subids")]
    NoOwner { what: &'static str },
    #[error("the home cannot be laid out")]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Container(#[from] ContainerError),
}

impl DataDisk {
    /// What the tree's contents are numbered by.
    pub fn sources(&self) -> Vec<&dyn Source> {
        self.layers.iter().map(|layer| &**layer as &dyn Source).collect()
    }
}

/// Lays out the data disk of the recipes' user: the home, the recipes' files in it, and container images.
///
/// # Errors
/// Where there are files or images and no user to own them, or an image does not fit that user's ids.
pub fn data_disk(recipes: &Recipes, images: &[Image]) -> Result<DataDisk, DiskError> {
    let mut tree = Tree::new();
    let Some(owner) = recipes.owner() else {
        return match (recipes.home.is_empty(), images.is_empty()) {
            (false, _) => Err(DiskError::NoOwner { what: "files of a home" }),
            (_, false) => Err(DiskError::NoOwner { what: "container images" }),
            _ => Ok(DataDisk { tree, layers: Vec::new() }),
        };
    };
    let directory = || Node::new(NodeKind::Directory, 0o700).owned_by(owner.uid, owner.gid);
    tree.insert("", directory())?;
    for (path, file) in &recipes.home {
        let (path, file) = (path.as_str(), &file.value);
        tree.make_parents(path, directory)?;
        let content = Content::Inline(Arc::from(file.content.as_slice()));
        let kind = NodeKind::File { size: file.content.len() as u64, content };
        tree.insert(path, Node::new(kind, file.mode).owned_by(owner.uid, owner.gid))?;
    }
    let layers = add_images(&mut tree, images, &owner)?;
    Ok(DataDisk { tree, layers })
}
