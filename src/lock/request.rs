//! What is asked of a lock.

use std::collections::BTreeSet;

use crate::fleet::Fleet;
use crate::sys::fetch::Cache;
use crate::sys::report::Report;

use super::model::Lock;
use super::wanted::Wanted;

/// What may change though it still fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    None,
    All,
    /// These packages alone, and what they then need.
    Packages(BTreeSet<String>),
}

/// All that a lock is made from.
pub struct Request<'a> {
    pub fleet: &'a Fleet,
    pub wanted: &'a Wanted,
    pub old: Option<&'a Lock>,
    pub update: &'a Update,
    /// From [`crate::sys::make::toolchain`]; `None` where this machine cannot build a kernel.
    pub toolchain: Option<&'a str>,
    pub cache: &'a Cache,
    pub offline: bool,
    pub report: &'a dyn Report,
}
