//! Tools: what the host's programs, files and kernel interfaces say, parsed. No domain type is known here.

pub mod accounts;
pub mod block;
pub mod cgroup;
pub mod e2fsck;
pub mod fetch;
pub mod firecracker;
pub mod fs;
pub mod git;
pub mod http;
pub mod ip;
pub mod jailer;
pub mod launch;
pub mod log;
pub mod make;
pub mod mount;
pub mod nft;
pub mod process;
pub mod qemu;
pub mod remove;
pub mod report;
pub mod sealed;
pub mod sparse;
pub mod ssh;
pub mod tiny_guest;
pub mod tool;
pub mod vendor;
