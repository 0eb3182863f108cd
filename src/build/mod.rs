//! Build: a lock becomes artifacts, each under a key of all its inputs.

pub mod artifacts;
pub mod kernel;
pub mod key;
pub mod project;
pub mod source;
pub mod vmlinux;
