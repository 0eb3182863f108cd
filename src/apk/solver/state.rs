//! What is known of names and packages while a world is solved.

use super::universe::{Provider, RepositorySet};

/// What is known of a name so far.
#[derive(Clone, Debug, Default)]
pub(super) struct NameState<'u> {
    pub seen: bool,
    pub in_world: bool,
    /// Dependencies for it, conflicts not counted.
    pub requirers: u32,
    /// Decided: by `chosen`, or by nobody.
    pub locked: bool,
    pub chosen: Option<Provider<'u>>,
    /// Where no better reason is known, the highest is decided first. Asked for by the world: above zero.
    pub order: i32,
    pub in_dirty: bool,
    pub queue: Option<Queue>,
    pub recheck_depends: bool,
    pub recheck_install_if: bool,
    /// No provider's install_if can be met any more.
    pub no_install_if: bool,
    /// A provider's install_if is met.
    pub has_install_if: bool,
    /// A conflict in some install_if waits for this name to be decided.
    pub install_if_waits: bool,
    pub has_options: bool,
    pub has_auto_selectable: bool,
    /// Every name that depends on it is decided.
    pub reverse_done: bool,
    /// How many candidates in a row had it among their dependencies, and among what they provide.
    pub merged_depends: usize,
    pub merged_provides: usize,
    pub merged_virtual: bool,
}

/// What is known of a package so far.
#[derive(Clone, Debug, Default)]
pub(super) struct PackageState {
    pub seen: bool,
    pub selectable: bool,
    /// Dependencies that it does not meet though it has their name.
    pub conflicts: u32,
    pub tag_ok: bool,
    pub tag_preferred: bool,
    pub allowed: RepositorySet,
    pub install_if_met: bool,
    pub install_if_failed: bool,
    pub merging: bool,
    /// Was it a candidate when its name's candidates were last compared?
    pub merged: bool,
    pub in_order: bool,
}

/// Lists of names that wait for a decision, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    Now,
    Selectable,
    Unresolved,
}
