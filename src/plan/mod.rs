//! Plan: what a host has and what it should have become a list of steps.

mod change;
pub mod check;
mod containers;
pub mod diff;
mod losses;
mod model;
pub mod names;
pub mod restore;
pub mod rollout;
pub mod step;
mod why;

pub use change::Change;
pub use diff::{DiskWouldShrink, GuestScope, diff, reload, restart, shrinking};
pub use losses::losses;
pub use model::{GuestSteps, Plan, PlanCounts};
pub use names::{PolicyNames, name_changes};
pub use restore::{restore, restore_obstacles};
pub use rollout::Strategy;
pub use step::{ContainerStep, DiskStep, NetworkStep, PoolStep, SnapshotStep, Step};
pub use why::StepReason;
