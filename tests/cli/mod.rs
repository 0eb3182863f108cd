//! The program as people use it: its words, its exit status, and what it does to the machine.

mod crash;
mod disks;
mod drift;
mod hostile;
mod images;
mod input;
mod jail;
mod kernel;
mod limits;
mod line;
mod locking;
mod logs;
mod machine;
mod network;
mod packages;
mod reach;
mod recipes;
mod repository;
mod same_bytes;
mod scripts;
mod snapshot;
mod surface;
mod tree;
mod versions;
mod vmm;
mod watch;
