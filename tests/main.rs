//! Tests through the public interface, and against the real programs.

mod apk;
mod apply;
mod architecture;
mod cli;
mod common;
mod firecracker;
mod firewall;
mod image;
mod lock_build;
mod network;
mod policy;
mod sys;
