//! Packages against real files, and against the genuine `apk`.

mod oracle;
mod packing;
mod reading;
mod solving;
