//! sisforge turns a committed `fleet.toml` into a fleet of hardened microVMs.
//!
//! Modules stand in data-flow order; each may use only those above it (`tests/architecture.rs` holds that).

pub mod base;

pub mod sys;

pub mod fleet;

pub mod apk;

pub mod lock;

pub mod image;

pub mod build;

pub mod host;

pub mod plan;

pub mod apply;

pub mod run;

pub mod cli;
