//! The program as people use it: its words, its exit status, and what it does to the machine.

mod crash;
mod drift;
mod jail;
mod line;
