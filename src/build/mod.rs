//! Build: a lock becomes artifacts, each under a key of all its inputs.

pub mod artifacts;
mod builder;
mod compare;
mod disk;
mod earlier;
mod inputs;
pub mod kernel;
mod kernel_artifact;
pub mod key;
mod project;
mod rootfs;
pub mod source;
pub mod vmlinux;

pub use builder::{BuildError, Builder, Built, Missing, Selection};
pub use compare::{Comparison, first_difference};
pub use inputs::{Input, VendorError, Vendored};
pub use project::{Project, ProjectError};
