//! sisforge turns a committed `fleet.toml` into a fleet of hardened microVMs.
//!
//! Modules stand in data-flow order; each may use only those above it (`tests/architecture.rs` holds that).

// What is told goes through `cli::render`: `println!` ends a program whose reader went away, in the midst of its work.
#![warn(clippy::print_stdout, clippy::print_stderr)]

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
