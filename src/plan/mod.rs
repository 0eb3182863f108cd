//! Plan: observed and desired state become a list of steps.

pub mod diff;
pub mod restore;
pub mod step;

pub use diff::{Shrinks, diff, shrinking};
pub use restore::restore;
pub use step::{GuestSteps, Plan, Step};
