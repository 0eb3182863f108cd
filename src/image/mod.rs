//! Image: package contents, recipes, users and files become a [`tree::Tree`], and the tree ext4 bytes.

mod accounts;
pub mod container;
pub mod content;
pub mod disk;
pub mod ext4;
pub mod layout;
pub mod recipe;
pub mod scripts;
mod space;
pub mod tree;
