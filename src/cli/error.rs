//! The only place that turns errors of the library into words for people: message, causes, hint, exit status.

use crate::apk::SolveError;
use crate::base::diagnostic::{Class, Diagnostic, causes};
use crate::base::problem::{self, InvalidFile, render as render_problems};
use crate::base::text::message as shown;

use super::output::{FailureJson, ProblemJson};
use super::render;
use super::settings::Settings;

/// How a command ended that did not do its work.
#[derive(Debug)]
pub struct CliError {
    class: Class,
    body: Body,
}

#[derive(Debug)]
enum Body {
    /// Everything was said already; the exit status.
    Said(u8),
    /// Files with problems in them.
    Files(Vec<InvalidFile>),
    Words {
        message: String,
        causes: Vec<String>,
        hint: Option<String>,
    },
}

impl<E: Diagnostic> From<E> for CliError {
    fn from(error: E) -> Self {
        let class = error.class();
        if !error.problems().is_empty() {
            return Self { class, body: Body::Files(error.problems().to_vec()) };
        }
        let hint = error.hint().map(Into::into);
        Self { class, body: Body::Words { message: error.to_string(), causes: causes(&error), hint } }
    }
}

impl CliError {
    /// A failure in words.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::words(Class::Failed, message)
    }

    /// Wrong usage or configuration.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::words(Class::Invalid, message)
    }

    /// What was wrong has been printed already.
    pub fn said(status: u8) -> Self {
        Self { class: Class::Failed, body: Body::Said(status) }
    }

    fn words(class: Class, message: impl Into<String>) -> Self {
        Self { class, body: Body::Words { message: message.into(), causes: Vec::new(), hint: None } }
    }

    /// Whose fault it is.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The exit status: 1 failed; 2 wrong usage or invalid configuration.
    pub fn status(&self) -> u8 {
        match (&self.body, self.class) {
            (Body::Said(status), _) => *status,
            (_, Class::Failed) => 1,
            (_, Class::Invalid) => 2,
        }
    }

    /// Has it end with status 1, for a command whose status 2 means something else.
    #[must_use]
    pub fn as_failure(self) -> Self {
        Self { class: Class::Failed, ..self }
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        if let Body::Words { hint, .. } = &mut self.body {
            *hint = Some(text.into());
        }
        self
    }

    /// A failure for each of these reasons.
    pub fn because(message: impl Into<String>, causes: impl IntoIterator<Item = impl ToString>) -> Self {
        let causes = causes.into_iter().map(|cause| cause.to_string()).collect();
        Self { class: Class::Failed, body: Body::Words { message: message.into(), causes, hint: None } }
    }

    /// Dependencies that cannot be met together.
    pub fn unsolvable(error: &SolveError) -> Self {
        let told = Self::because("these packages cannot be installed together", &error.problems);
        Self { class: error.class(), ..told }
    }

    /// What failed, without causes and hint.
    pub fn message(&self) -> String {
        match &self.body {
            Body::Said(_) => String::new(),
            Body::Files(files) => files.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            Body::Words { message, .. } => message.clone(),
        }
    }

    /// Prints the error on stderr, or as one object on stdout with `--json`.
    pub fn print(&self, settings: &Settings) {
        let color = settings.colors(&std::io::stderr());
        match &self.body {
            Body::Said(_) => {}
            Body::Files(files) if settings.json => render::json(&problems(files, self.message())),
            Body::Files(files) => {
                let shown = files.iter().map(|file| render_problems(file, color));
                render::tell_open(&shown.collect::<Vec<_>>().join("\n"));
            }
            Body::Words { message, causes, hint } if settings.json => {
                let (error, causes, hint) = (message.clone(), causes.clone(), hint.clone());
                render::json(&FailureJson::Words { error, causes, hint });
            }
            Body::Words { message, causes, hint } => {
                let (red, bold, plain) =
                    if color { ("\x1b[1;31m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
                render::tell(&format!("{red}error{plain}{bold}:{plain} {}", shown(message)));
                for cause in causes {
                    render::tell(&format!("  because: {}", shown(&cause.trim_end().replace('\n', "\n    "))));
                }
                if let Some(hint) = hint {
                    render::tell(&format!("  help: {}", shown(hint)));
                }
            }
        }
    }
}

fn problems(files: &[InvalidFile], error: String) -> FailureJson {
    let of_file = |file: &InvalidFile| {
        let problem = |problem: &problem::Problem| {
            let (line, column) = file.line_column(problem.span.start);
            let (message, hint) = (problem.message.clone(), problem.hint.clone());
            ProblemJson { file: file.path.clone(), line, column, message, hint }
        };
        file.problems.iter().map(problem).collect::<Vec<_>>()
    };
    FailureJson::Files { error, problems: files.iter().flat_map(of_file).collect() }
}

#[cfg(test)]
mod tests;
