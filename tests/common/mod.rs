//! The shared parts of the tests.

pub mod archive;
pub mod docker_registry;
pub mod namespaces;
pub mod nft;
pub mod random;
pub mod sandbox;
pub mod schema;
pub mod scripts;
pub mod server;
