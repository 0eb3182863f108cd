//! The shared parts of the tests.

pub mod namespaces;
pub mod tiny_guest;
