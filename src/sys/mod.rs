//! Tools: what the host's programs, files and kernel interfaces say, parsed. No domain type is known here.

pub mod firecracker;
pub mod fs;
pub mod jailer;
pub mod make;
pub mod report;
pub mod tool;
