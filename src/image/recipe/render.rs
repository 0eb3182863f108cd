//! Templates: minijinja, strict. A name that is no parameter is an error, and nothing is escaped.

use std::collections::BTreeMap;

use minijinja::{AutoEscape, Environment, UndefinedBehavior};

use super::schema::{Number, ParameterValue};
use super::{Parameters, RecipeError};

/// Renders texts with the parameters of one recipe.
pub(super) struct Renderer<'a> {
    environment: Environment<'static>,
    parameters: &'a Parameters,
    /// Path of `recipe.toml`, for errors.
    recipe: &'a str,
}

impl<'a> Renderer<'a> {
    pub(super) fn new(recipe: &'a str, parameters: &'a Parameters) -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_keep_trailing_newline(true);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        Self { environment, parameters, recipe }
    }

    /// Renders the text of a template file.
    pub(super) fn file(&self, path: &str, text: &str) -> Result<String, RecipeError> {
        self.environment
            .render_named_str(path, text, self.parameters)
            .map_err(|source| RecipeError::Render { path: path.to_owned(), source })
    }

    /// Renders a text of `recipe.toml` itself.
    pub(super) fn text(&self, text: &str) -> Result<String, RecipeError> {
        self.file(self.recipe, text)
    }

    /// Renders a number.
    pub(super) fn number(&self, number: &Number) -> Result<u32, RecipeError> {
        match number {
            Number::Plain(number) => Ok(*number),
            Number::Template(text) => {
                let rendered = self.text(text)?;
                rendered.trim().parse().map_err(|_| RecipeError::Invalid {
                    path: self.recipe.to_owned(),
                    problem: format!(
                        "{text:?} renders to {rendered:?}, which is no number from 0 to 2^32 - 1"
                    ),
                })
            }
        }
    }
}

/// Puts the parameters given in place of defaults.
pub(super) fn with_given(defaults: &Parameters, given: &Parameters) -> Result<Parameters, RecipeError> {
    let chosen = |name: &String, default: &ParameterValue| -> Result<ParameterValue, RecipeError> {
        match (given.get(name), default) {
            (None, default) => Ok(default.clone()),
            (Some(value @ ParameterValue::Number(_)), ParameterValue::Number(_)) => Ok(value.clone()),
            (Some(value @ ParameterValue::Text(_)), ParameterValue::Text(_)) => Ok(value.clone()),
            (Some(_), ParameterValue::Number(_)) => {
                Err(RecipeError::ParameterKind { name: name.clone(), kind: "number" })
            }
            (Some(_), ParameterValue::Text(_)) => {
                Err(RecipeError::ParameterKind { name: name.clone(), kind: "text" })
            }
        }
    };
    defaults
        .iter()
        .map(|(name, default)| Ok((name.clone(), chosen(name, default)?)))
        .collect::<Result<BTreeMap<_, _>, _>>()
}
