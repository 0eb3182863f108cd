//! How long work tells of itself: stages report, `cli/progress.rs` alone decides how it looks.

/// Receives what long work says of itself. Shared between threads.
pub trait Report: Send + Sync {
    /// A task begins. `total` is in `unit`s, `None` where it is not known.
    fn begin(&self, name: &str, total: Option<u64>, unit: Unit) -> Box<dyn Task>;
    /// One thing worth a line, such as a warning.
    fn note(&self, text: &str);
    /// Whether somebody still wants what is made under this key; work that takes long asks, and ends where nobody does.
    fn is_wanted(&self, _key: &str) -> bool {
        true
    }
}

/// What a task counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Steps,
}

/// A task under way; dropping it ends it.
pub trait Task: Send + Sync {
    /// So much more is done.
    fn advance(&self, amount: u64);
    /// What is being done right now.
    fn detail(&self, text: &str);
    /// Ends the task well, with a closing word such as `cached` or `3 packages`.
    fn finish(&self, text: &str);
}

/// Says nothing: for tests and `-q`.
#[derive(Debug, Default)]
pub struct Silent;

impl Report for Silent {
    fn begin(&self, _: &str, _: Option<u64>, _: Unit) -> Box<dyn Task> {
        Box::new(Silent)
    }
    fn note(&self, _: &str) {}
}

impl Task for Silent {
    fn advance(&self, _: u64) {}
    fn detail(&self, _: &str) {}
    fn finish(&self, _: &str) {}
}
