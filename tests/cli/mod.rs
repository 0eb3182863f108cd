//! The program as people use it: its words, its exit status, and what it does to the machine.

mod crash;
mod drift;
mod input;
mod jail;
mod kernel;
mod line;
mod machine;
mod packages;
mod repository;
mod surface;
mod tree;
mod watch;
