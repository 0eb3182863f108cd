//! What an error tells beside its words: whose fault it is, and what to do. Each error says so where it is declared; `cli/`
//! prints it, and `watch` goes by the class.

use std::borrow::Cow;
use std::error::Error;

/// Whose fault an error is, which decides the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Something did not work that may work another time: exit status 1.
    Failed,
    /// What was asked for cannot be had as it was asked for, by a flag or by a file: exit status 2. Only another wording mends it.
    Invalid,
}

/// An error that people read.
pub trait Diagnostic: Error {
    /// Whose fault it is. An error that wraps another asks that one.
    fn class(&self) -> Class;

    /// What to do about it, in one sentence that stands behind `help:`; `None` where nothing is known that helps.
    fn hint(&self) -> Option<Cow<'static, str>>;
}

/// The words of the causes of an error, each once, the nearest first: a transparent error says what its source says.
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
    std::iter::once(error.to_string()).chain(causes(error)).collect::<Vec<_>>().join(": ")
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
    }
}
