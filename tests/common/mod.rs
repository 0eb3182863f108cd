//! The shared parts of the tests.

pub mod tiny_guest;
