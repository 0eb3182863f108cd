//! Run: what a user asks for, from the text of a fleet to the end. Each use case is a file; all of them go the same way:
//! open the fleet, look at its host, find out what it wants, plan, carry out ([`Deployment`]).
//!
//! Nothing here prints, asks or knows of a command line. What may lose data, or needs a yes, comes in two halves: the first
//! gives a value that holds the host and tells what will be, the second carries it out.

pub mod backoff;
pub mod built;
pub mod check;
pub mod containers;
pub mod copy;
mod demand;
pub mod deployment;
pub mod disk;
pub mod doctor;
pub mod down;
pub mod error;
pub mod events;
pub mod exchange;
pub mod export;
pub mod facts;
mod fleet_host;
pub mod flow_log;
pub mod flows;
pub mod forensics;
pub mod gc;
pub mod guests;
pub mod held;
pub mod host;
pub mod keys;
pub mod lock;
pub mod log_lines;
pub mod logs;
pub mod metrics;
pub mod names;
mod outcome;
pub mod packing;
pub mod place;
pub mod plan;
pub mod policy;
pub mod proof;
pub mod publish;
pub mod quarantine;
pub mod reach;
pub mod reload;
pub mod restart;
pub mod restore;
pub mod retention;
pub mod saved_plan;
pub mod sbom;
pub mod scripts;
pub mod session;
mod session_containers;
mod signatures;
pub mod snapshot_view;
pub mod snapshots;
pub mod status;
pub mod systemd;
pub mod transfer;
pub mod tree;
pub mod up;
pub mod usage;
pub mod verify;
pub mod watch;
pub mod workspace;

pub use deployment::Deployment;
pub use error::RunError;
pub use lock::{Inputs, LockedProject};
pub use outcome::{Done, Outcome};
pub use workspace::{ArtifactSettings, Workspace, WorkspaceSettings};
