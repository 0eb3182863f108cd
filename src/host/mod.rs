//! Desire: a fleet and its artifacts become the state that a host should have, as data.
