//! Pin: a fleet and the indexes become a lock.
