//! Plan: observed and desired state become a list of steps.

pub mod diff;
pub mod step;

pub use diff::diff;
pub use step::{GuestSteps, Plan, Step};
