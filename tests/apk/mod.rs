//! Packages against real files, and against the genuine `apk`.

pub mod oracle;
mod packing;
mod reading;
mod solving;
mod worlds;
