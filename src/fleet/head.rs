//! The few words of a `fleet.toml` that tell where a fleet is on its host: all that is needed to act on what is there, whatever
//! else is wrong in the file.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::LoadError;
use super::model::{Fleet, HostSpec};
use super::reader::FromToml;
use super::scalar::AbsolutePath;
use crate::base::FleetName;
use crate::base::problem::{InvalidFile, Problem, Problems, Read};
use crate::sys::fs as sys_fs;

/// Which fleet it is, and where it is on its host.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetHead {
    pub name: FleetName,
    /// Its places; where [`head`] read it, everything else as if it were not given.
    pub host: HostSpec,
}

impl Fleet {
    /// Which one it is, and its host.
    pub fn head(&self) -> FleetHead {
        FleetHead { name: self.name.clone(), host: self.host.clone() }
    }
}

/// Reads them; nothing else in the file is looked at.
pub fn head(path: &Path) -> Result<FleetHead, LoadError> {
    let text = sys_fs::read_text(path)?;
    let mut problems = Problems::default();
    read(&text, &mut problems).map_err(|_| {
        InvalidFile { path: path.to_owned(), text: text.clone(), problems: problems.into_sorted() }.into()
    })
}

fn read(text: &str, problems: &mut Problems) -> Read<FleetHead> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let Some(error) = errors.first() else {
        let head = of(document.get_ref(), problems)?;
        let doubt = misspelt_store(document.get_ref()).filter(|_| !is_there(&head));
        return match doubt {
            None => Ok(head),
            Some(place) => Err(problems.report(unknown_store(place, "this is no key of [host]"))),
        };
    };
    // What is no TOML is of no interest where it hides nothing that is needed: what the lines say that can be read counts.
    let needed = needed_lines(text);
    let (document, ambiguous) = DeTable::parse_recoverable(&needed);
    let head = of(document.get_ref(), problems)?;
    let is_told = value(document.get_ref(), "host", "store").is_some();
    if !ambiguous.is_empty() || (!is_told && !is_there(&head)) {
        let place = error.span().unwrap_or(0..0);
        return Err(problems.report(unknown_store(place, "this is no TOML")));
    }
    Ok(head)
}

/// By the store of another fleet, a command would act on what is not there, and say that all is well.
fn unknown_store(place: Range<usize>, why: &str) -> Problem {
    Problem::new(place, format!("{why}, so it cannot be told where the store of this fleet is"))
        .label("mend this first")
        .hint("where its `name` and its `store` can be read, nothing else matters to this command")
}

/// Whether the store that is taken has such a fleet.
fn is_there(head: &FleetHead) -> bool {
    head.host.store.join(head.name.as_str()).exists()
}

/// A key of `[host]` that is likely to be `store`, where there is none.
fn misspelt_store(document: &DeTable<'_>) -> Option<Range<usize>> {
    let DeValue::Table(host) = document.get("host")?.get_ref() else { return None };
    let is_like = |key: &str| strsim::damerau_levenshtein(key, "store") <= 2;
    let like = host.keys().find(|key| is_like(key.get_ref()))?;
    (!host.contains_key("store")).then(|| like.span())
}

/// Of a text that is no TOML as a whole, the lines of `[fleet]` and `[host]` that are, each at the place where it stands.
fn needed_lines(text: &str) -> String {
    let mut section = String::new();
    let mut kept = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let is_whole = DeTable::parse(line).is_ok();
        let word = line.trim_start();
        if word.starts_with('[') && is_whole {
            section = word.trim_end().to_owned();
        }
        let of = |head: &str| section.trim_end().starts_with(head);
        let is_needed = match section.is_empty() {
            true => word.starts_with("fleet") || word.starts_with("host"),
            false => of("[fleet]") || of("[host]"),
        };
        match is_whole && is_needed {
            true => kept.push_str(line),
            // Places of problems stay as they are.
            false => kept.extend(line.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' })),
        }
    }
    kept
}

fn value<'a, 'i>(document: &'a DeTable<'i>, table: &str, key: &str) -> Option<&'a Spanned<DeValue<'i>>> {
    match document.get(table)?.get_ref() {
        DeValue::Table(table) => table.get(key),
        _ => None,
    }
}

fn of(document: &DeTable<'_>, problems: &mut Problems) -> Read<FleetHead> {
    let value = |table: &str, key: &str| value(document, table, key);
    let mut path = |key: &str| -> Read<Option<PathBuf>> {
        let path = value("host", key).map(|value| AbsolutePath::from_toml(value, problems)).transpose()?;
        Ok(path.map(|AbsolutePath(path)| path))
    };
    let (store, jails) = (path("store")?, path("jails")?);
    let default = HostSpec::default();
    let host = HostSpec { store: store.unwrap_or(default.store.clone()), jails, ..default };
    match value("fleet", "name") {
        Some(name) => Ok(FleetHead { name: FleetName::from_toml(name, problems)?, host }),
        None => {
            let place = document.get("fleet").map_or(0..0, Spanned::span);
            Err(problems.report(Problem::new(place, "[fleet] has no `name`").label("`name` belongs here")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head_of(text: &str) -> Result<FleetHead, LoadError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        head(file.path())
    }

    #[test]
    fn name_and_places_are_read_whatever_else_is_wrong() {
        let wrong = "[fleet]\nname = \"sis\"\nvmm = 7\n[host]\nstore = \"/srv/s\"\nuplnk = 1\n[user.ALICE]\nmemory = \"x\"\n";
        let found = head_of(wrong).unwrap();
        assert_eq!((found.name.as_str(), found.host.store.to_str()), ("sis", Some("/srv/s")));
        for text in
            ["", "[fleet]\n", "[fleet]\nname = \"a b\"\n", "[fleet]\nname = \"a\"\n[host]\nstore = \"s\"\n"]
        {
            assert!(matches!(head_of(text), Err(LoadError::Invalid(_))), "{text}");
        }
    }

    #[test]
    fn a_text_that_is_no_toml_never_leads_to_another_store() {
        let whole =
            "[fleet]\nname = \"sis\"\n# Ä\nvmm = \"qemu\"\n[host]\nstore = \"/srv/s\"\nuids = \"1-9\"\n";
        let lines: Vec<&str> = whole.split_inclusive('\n').collect();
        for at in 0..=lines.len() {
            for damage in ["<<<<<<< HEAD\n", "[user.\n", "sto re = 1\n"] {
                let text = [&lines[..at].concat(), damage, &lines[at..].concat()].concat();
                let found = head_of(&text).unwrap();
                assert_eq!(found.host.store.to_str(), Some("/srv/s"), "{text}");
            }
        }
        for (store, why) in [
            ("sto re = \"/srv/s\"", "this is no TOML"),
            ("stroe = \"/srv/s\"", "no key of [host]"),
            ("<<<<<<<\nstore = \"/a\"\n=======\nstore = \"/b\"\n>>>>>>>", "this is no TOML"),
        ] {
            let text = whole.replace("store = \"/srv/s\"", store);
            let Err(LoadError::Invalid(invalid)) = head_of(&text) else { panic!("{text}") };
            assert!(invalid.problems[0].message.contains(why), "{:?}", invalid.problems);
        }
    }
}
