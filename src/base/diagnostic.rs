//! What an error tells beside its words: whose fault it is, and what to do. Each error says so where it is declared; `cli/`
//! prints it, and `watch` goes by the class.

use std::borrow::Cow;
use std::error::Error;

use super::problem::InvalidFile;
use super::text::message;

/// Whose fault an error is, which decides the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Something did not work that may work another time: exit status 1.
    Failed,
    /// What was asked for cannot be had as it was asked for, by a flag or by a file: exit status 2. Only another wording mends it.
    Invalid,
}

impl Class {
    /// An error of this class, and what to do about it.
    pub fn hint(self, hint: impl Into<Cow<'static, str>>) -> Diagnosis {
        Diagnosis { class: self, hint: Some(hint.into()) }
    }

    /// An error of this class of which nothing is known that helps, or whose words say it already.
    pub const fn no_hint(self) -> Diagnosis {
        Diagnosis { class: self, hint: None }
    }
}

/// What an error tells beside its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    pub class: Class,
    /// What to do about it, in one sentence that stands behind `help:`.
    pub hint: Option<Cow<'static, str>>,
}

impl Diagnosis {
    /// The same with this hint: whoever wraps an error may know better.
    #[must_use]
    pub fn hint(self, hint: impl Into<Cow<'static, str>>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The same with this hint where it has none.
    #[must_use]
    pub fn or_hint(self, hint: &'static str) -> Self {
        Self { hint: self.hint.or(Some(hint.into())), ..self }
    }

    /// The same in another class.
    #[must_use]
    pub fn of(self, class: Class) -> Self {
        Self { class, ..self }
    }
}

/// An error that people read.
///
/// An implementation matches all variants by name, so that a new one does not compile until it is decided; one that wraps
/// another error asks that one.
pub trait Diagnostic: Error {
    /// Whose fault it is, and what to do about it.
    fn diagnosis(&self) -> Diagnosis;

    /// Files with problems in them: where there are some, they are shown in place of the error's own words.
    fn problems(&self) -> &[InvalidFile] {
        &[]
    }

    /// Whose fault it is.
    fn class(&self) -> Class {
        self.diagnosis().class
    }

    /// What to do about it; `None` where nothing is known that helps.
    fn hint(&self) -> Option<Cow<'static, str>> {
        self.diagnosis().hint
    }
}

impl Diagnostic for InvalidFile {
    /// Each problem has a hint of its own.
    fn diagnosis(&self) -> Diagnosis {
        Class::Invalid.no_hint()
    }

    fn problems(&self) -> &[InvalidFile] {
        std::slice::from_ref(self)
    }
}

/// The words of the causes of an error, each once, the nearest first: a transparent error says what its source says, and
/// others end with it.
pub fn causes(error: &dyn Error) -> Vec<String> {
    let mut said = error.to_string();
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !said.ends_with(&text) {
            causes.push(text.clone());
            said = text;
        }
        next = cause.source();
    }
    causes
}

/// The words of an error and of its causes in one line.
pub fn one_line(error: &dyn Error) -> String {
    message(&std::iter::once(error.to_string()).chain(causes(error)).collect::<Vec<_>>().join(": "))
}

/// Several errors with their causes, one behind the other.
pub fn each<E: Error>(errors: &[E]) -> String {
    errors.iter().map(|error| one_line(error)).collect::<Vec<_>>().join("; ")
}

/// Of errors that are each a reason of one: it may go better another time where one of them may, and the first hint is the one
/// that helps most.
pub fn together<E: Diagnostic>(errors: &[E]) -> Diagnosis {
    let may_pass = errors.iter().any(|error| error.class() == Class::Failed);
    let class = if may_pass { Class::Failed } else { Class::Invalid };
    Diagnosis { class, hint: errors.iter().find_map(Diagnostic::hint) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("cannot start")]
        Named(#[source] std::num::ParseIntError),
        #[error(transparent)]
        Same(std::num::ParseIntError),
    }

    #[test]
    fn each_cause_is_told_once() {
        let cause = || "x".parse::<u8>().unwrap_err();
        assert_eq!(one_line(&Outer::Named(cause())), "cannot start: invalid digit found in string");
        assert_eq!(one_line(&Outer::Same(cause())), "invalid digit found in string");
        let both = [Outer::Named(cause()), Outer::Same(cause())];
        let told = "cannot start: invalid digit found in string; invalid digit found in string";
        assert_eq!(each(&both), told);
    }

    #[test]
    fn whoever_wraps_may_know_better() {
        let inner = Class::Invalid.hint("take a smaller one");
        assert_eq!(inner.clone().hint("take none"), Class::Invalid.hint("take none"));
        assert_eq!(inner.clone().or_hint("take none"), inner);
        assert_eq!(Class::Failed.no_hint().or_hint("take none"), Class::Failed.hint("take none"));
    }
}
