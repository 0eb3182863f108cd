//! Pin: a fleet and the indexes become a lock.

pub mod address;
pub mod artifact;
mod changes;
pub mod containers;
pub mod digest;
mod hold;
pub mod indexes;
pub mod kernel;
pub mod kernel_config;
pub mod kernel_source;
mod listings;
pub mod model;
mod ports;
mod refusal;
pub mod repository;
pub mod request;
pub mod resolve;
pub mod stale;
pub mod wanted;

pub use changes::changes;
