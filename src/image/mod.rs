//! Image: package contents, recipes, users and files become a [`tree::Tree`], and the tree ext4 bytes.

mod accounts;
pub mod container;
pub mod content;
pub mod difference;
pub mod disk;
pub mod error;
pub mod ext4;
pub mod inspect;
pub mod layout;
mod links;
pub mod read;
pub mod read_back;
pub mod recipe;
pub mod sbom;
pub mod scripts;
mod space;
pub mod tree;
