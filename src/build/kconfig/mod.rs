//! What a kernel's Kconfig files say of its options: enough to explain a configuration, which Kconfig itself makes.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::sys::beneath;
use crate::sys::fs::FileError;

mod expression;
mod reader;

pub use expression::{Expression, OptionValues};

/// Kconfig files that are read, and bytes of one: Linux 6.12 has 1,700 for all architectures, the largest 70 KiB.
const MOST_FILES: usize = 20_000;
const LARGEST_FILE: u64 = 4 << 20;

/// Every option that the Kconfig files of one architecture declare, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Symbols(BTreeMap<String, Symbol>);

/// One option.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Symbol {
    /// `bool`, `tristate`, `int`, `hex` or `string`.
    pub kind: Option<String>,
    /// Most have one; some are declared by several files.
    pub definitions: Vec<Definition>,
}

/// One place that declares an option.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// File and line.
    pub place: String,
    /// What a person is asked. An option without it cannot be set by itself.
    pub prompt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_condition: Option<String>,
    /// Its `depends on`, those of menus and choices around it, and each `if`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub selects: Vec<Select>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub defaults: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<String>,
    /// Place of the choice that it is one of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<String>,
}

/// `select OPTION if CONDITION`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Select {
    pub option: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

fn is_nothing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    beneath::is_absent(error) || matches!(error.kind(), ErrorKind::IsADirectory | ErrorKind::CrossesDevices)
}

impl Definition {
    /// All that must hold for the option to be there, and to be set by a person where it has a prompt.
    pub fn needs(&self) -> Expression {
        let all: Vec<_> = self.depends.iter().chain(&self.prompt_condition).cloned().collect();
        reader::all_of(&all)
    }
}

impl Symbol {
    /// Whether a person can set it.
    pub fn has_prompt(&self) -> bool {
        self.definitions.iter().any(|definition| definition.prompt.is_some())
    }

    /// What it needs and does not have, in words; empty where nothing is missing. Of several definitions the one that
    /// is nearest to being there is told.
    pub fn unmet(&self, values: &dyn OptionValues) -> Vec<String> {
        let prompted = self.definitions.iter().filter(|definition| definition.prompt.is_some());
        prompted.map(|definition| definition.needs().unmet(values)).min_by_key(Vec::len).unwrap_or_default()
    }
}

impl Symbols {
    /// Reads what `dir/Kconfig` declares, and all that it sources below `dir`, for an architecture as `arch/` calls it.
    pub fn read(dir: &Path, arch: &str) -> Result<Self, FileError> {
        let mut symbols = Self::default();
        let mut waiting = vec![("Kconfig".to_owned(), Vec::new())];
        // A file that sources itself would have no end.
        let mut left = MOST_FILES;
        while let Some((file, conditions)) = waiting.pop().filter(|_| left > 0) {
            left -= 1;
            let text = match beneath::read(dir, Path::new(&file), LARGEST_FILE) {
                Ok(text) => text,
                // What is left out of a source tree, or lies outside of it, declares nothing.
                Err(error) if is_nothing(&error.source) => continue,
                Err(error) => return Err(error),
            };
            let sources = reader::read(&file, &String::from_utf8_lossy(&text), &conditions, &mut symbols);
            waiting.extend(
                sources.into_iter().map(|(path, conditions)| (path.replace("$(SRCARCH)", arch), conditions)),
            );
        }
        Ok(symbols)
    }

    /// Reads one file's text, for tests.
    #[cfg(test)]
    pub fn of(text: &str) -> Self {
        let mut symbols = Self::default();
        reader::read("Kconfig", text, &[], &mut symbols);
        symbols
    }

    /// An option, by its name without prefix.
    pub fn get(&self, name: &str) -> Option<&Symbol> {
        self.0.get(name)
    }

    /// Names that are like one that is not there, the nearest first.
    pub fn near(&self, name: &str) -> Vec<&str> {
        let name = name.to_ascii_uppercase();
        let likeness = |known: &'_ str| strsim::jaro_winkler(&name, known);
        let mut near: Vec<_> = self
            .0
            .keys()
            .map(|known| (likeness(known), known.as_str()))
            .filter(|(likeness, _)| *likeness > 0.85)
            .collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0));
        near.into_iter().map(|(_, known)| known).collect()
    }

    /// Who selects an option, and on what condition beyond being on itself.
    pub fn selectors<'a>(
        &'a self,
        option: &'a str,
    ) -> impl Iterator<Item = (&'a str, Option<&'a String>)> + 'a {
        self.0.iter().flat_map(move |(name, symbol)| {
            let selects = symbol.definitions.iter().flat_map(|definition| &definition.selects);
            let these = selects.filter(move |selection| selection.option == option);
            these.map(move |selection| (name.as_str(), selection.condition.as_ref()))
        })
    }

    /// Those of them that are in force in a configuration.
    pub fn selected_by<'a>(&'a self, option: &'a str, values: &dyn OptionValues) -> Vec<&'a str> {
        let in_force = |(name, condition): &(&str, Option<&String>)| {
            let holds = |condition: &String| Expression::parse(condition).holds(values) != Some(false);
            values.value(name).as_deref() == Some("y") && condition.is_none_or(holds)
        };
        let mut names: Vec<_> = self.selectors(option).filter(in_force).map(|(name, _)| name).collect();
        names.dedup();
        names
    }

    /// The option that is on in the choice that another one is of, if it is not that one itself.
    pub fn chosen_instead(&self, option: &str, values: &dyn OptionValues) -> Option<&str> {
        let choices =
            self.get(option)?.definitions.iter().filter_map(|definition| definition.choice.as_ref());
        let choices: Vec<_> = choices.collect();
        let is_of = |symbol: &Symbol| {
            symbol
                .definitions
                .iter()
                .any(|definition| definition.choice.as_ref().is_some_and(|choice| choices.contains(&choice)))
        };
        self.0
            .iter()
            .find(|(name, symbol)| {
                *name != option && is_of(symbol) && values.value(name).as_deref() == Some("y")
            })
            .map(|(name, _)| name.as_str())
    }
}

#[cfg(test)]
mod tests;
