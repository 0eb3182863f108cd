//! Templates: minijinja, strict. A name that is no parameter is an error, and nothing is escaped.

use std::collections::BTreeMap;
use std::ops::Range;

use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior};

use crate::fleet::{ParameterValue, Problem, suggest};

/// Renders texts with the parameters that one recipe sees.
pub(super) struct Renderer {
    environment: Environment<'static>,
    parameters: BTreeMap<String, ParameterValue>,
}

impl Renderer {
    pub(super) fn new(parameters: BTreeMap<String, ParameterValue>) -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_keep_trailing_newline(true);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        Self { environment, parameters }
    }

    /// Renders a text.
    pub(super) fn render(&self, text: &str) -> Result<String, Problem> {
        self.environment.render_str(text, &self.parameters).map_err(|error| self.problem(text, &error))
    }

    fn problem(&self, text: &str, error: &minijinja::Error) -> Problem {
        let place = error.range().unwrap_or_else(|| line_of(text, error.line()));
        let known = || self.parameters.keys().map(String::as_str);
        if error.kind() == ErrorKind::UndefinedError
            && let Some(name) = self.unknown(text, &place)
        {
            return Problem::new(place, format!("`{name}` is not a parameter of this recipe")).hint(suggest(
                "parameters",
                &name,
                known(),
            ));
        }
        let words = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        Problem::new(place, format!("it cannot be rendered: {words}"))
    }

    /// The name at a place, or else the first of a text, that is no parameter.
    fn unknown(&self, text: &str, place: &Range<usize>) -> Option<String> {
        let template = self.environment.template_from_str(text).ok()?;
        let unknown = template.undeclared_variables(false);
        let mut unknown: Vec<_> =
            unknown.into_iter().filter(|name| !self.parameters.contains_key(name)).collect();
        unknown.sort();
        let here = text.get(place.clone()).unwrap_or_default();
        let at = unknown.iter().position(|name| here.contains(name.as_str()));
        at.map(|at| unknown.swap_remove(at)).or_else(|| unknown.into_iter().next())
    }
}

/// The place of a line, which counts from 1; of the whole text where there is none.
fn line_of(text: &str, line: Option<usize>) -> Range<usize> {
    let Some(line) = line else { return 0..text.len() };
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let length = text[start..].lines().next().map_or(0, str::len);
    start..start + length
}
