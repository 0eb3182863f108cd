//! Plan: observed and desired state become a list of steps.

pub mod diff;
pub mod step;

pub use diff::{Shrinks, diff, shrinking};
pub use step::{GuestSteps, Plan, Step};
