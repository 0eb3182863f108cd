//! Pin: a fleet and the indexes become a lock.

pub mod address;
pub mod kernel;
pub mod model;
