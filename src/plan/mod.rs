//! Plan: what a host has and what it should have become a list of steps.

pub mod check;
pub mod diff;
pub mod restore;
pub mod step;

pub use diff::{GuestScope, Shrinks, diff, shrinking};
pub use restore::restore;
pub use step::{GuestSteps, Plan, Step};
