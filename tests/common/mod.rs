//! The shared parts of the tests.

pub mod namespaces;
pub mod sandbox;
pub mod server;
pub mod tiny_guest;
