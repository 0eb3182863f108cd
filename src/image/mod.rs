//! Image: package contents, recipes, users and files become a [`tree::Tree`], and the tree ext4 bytes.

pub mod tree;
