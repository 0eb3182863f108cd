//! Build: a lock becomes artifacts, each under a key of all its inputs.
