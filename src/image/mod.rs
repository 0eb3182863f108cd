//! Image: package contents, recipes, users and files become a [`tree::Tree`], and the tree ext4 bytes.

pub mod container;
pub mod content;
pub mod ext4;
mod space;
pub mod tree;
