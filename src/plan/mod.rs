//! Plan: observed and desired state become a list of steps.
