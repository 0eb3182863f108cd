//! The shared parts of the tests.

pub mod sandbox;
pub mod tiny_guest;
