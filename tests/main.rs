//! Tests through the public interface, and against the real programs.

mod apk;
mod cli;
mod common;
mod firecracker;
mod image;
mod lock_build;
mod sys;
