//! Build: a lock becomes artifacts, each under a key of all its inputs.

pub mod artifacts;
mod builder;
mod chunks;
pub mod compact;
mod compare;
mod configuration;
pub mod configured;
pub mod containers;
mod disk;
mod earlier;
mod images;
mod inputs;
pub mod kconfig;
pub mod kernel;
mod kernel_artifact;
mod kernel_notes;
pub mod key;
pub mod needs;
mod project;
pub mod provenance;
mod push;
pub mod remote;
mod rootfs;
mod series;
pub mod source;
mod tools;
pub mod unmet;
pub mod vmlinux;

pub use builder::{BuildError, Builder, Built, MissingArtifact, Selection};
pub use compare::{Comparison, FileSystemCheck, first_difference};
pub use configuration::Configuration;
pub use inputs::{Input, VendorError, Vendored};
pub use project::{Project, ProjectError};
pub use push::Pushed;
