//! How long work tells of itself: stages report, `cli/progress.rs` alone decides how it looks.

/// Receives what long work says of itself. Shared between threads.
pub trait Report: Send + Sync {
    /// A task begins. `total` is in `unit`s, `None` where it is not known.
    fn begin(&self, name: &str, total: Option<u64>, unit: Unit) -> Box<dyn Task>;
    /// One thing worth a line, without a word for its severity.
    fn say(&self, severity: Severity, text: &str);
    /// What was done, or is under way.
    fn info(&self, text: &str) {
        self.say(Severity::Info, text);
    }
    /// What is to be borne in mind.
    fn note(&self, text: &str) {
        self.say(Severity::Note, text);
    }
    /// What may be wrong.
    fn warn(&self, text: &str) {
        self.say(Severity::Warning, text);
    }
    /// Whether somebody still wants what is made under this key; work that takes long asks, and ends where nobody does.
    fn is_wanted(&self, _key: &str) -> bool {
        true
    }
}

/// How much a line of a report weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// What was done, or is under way.
    Info,
    /// What is to be borne in mind.
    Note,
    /// What may be wrong.
    Warning,
    /// What failed, while other work goes on.
    Error,
}

impl Severity {
    /// A line as people read it.
    pub fn labelled(self, text: &str) -> String {
        match self {
            Self::Info => text.to_owned(),
            Self::Note => format!("note: {text}"),
            Self::Warning => format!("warning: {text}"),
            Self::Error => format!("error: {text}"),
        }
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
    fn say(&self, _: Severity, _: &str) {}
}

impl Task for Silent {
    fn advance(&self, _: u64) {}
    fn detail(&self, _: &str) {}
    fn finish(&self, _: &str) {}
}
