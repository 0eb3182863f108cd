//! The few words of a `fleet.toml` that tell where a fleet is on its host: all that is needed to act on what is there, whatever
//! else is wrong in the file.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::LoadError;
use super::model::HostSpec;
use super::reader::FromToml;
use super::scalar::AbsolutePath;
use crate::base::FleetName;
use crate::base::problem::{InvalidFile, Problem, Problems, Read};
use crate::sys::fs as sys_fs;

/// Which fleet it is, and where it is on its host.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetHead {
    pub name: FleetName,
    /// Its places; everything else as if it were not given.
    pub host: HostSpec,
}

/// Reads them; nothing else in the file is looked at.
pub fn head(path: &Path) -> Result<FleetHead, LoadError> {
    let text = sys_fs::read_text(path)?;
    let mut problems = Problems::default();
    // What is no TOML is of no interest where it hides nothing that is needed.
    let (document, _) = DeTable::parse_recoverable(&text);
    of(document.get_ref(), &mut problems).map_err(|_| {
        InvalidFile { path: path.to_owned(), text: text.clone(), problems: problems.into_sorted() }.into()
    })
}

fn of(document: &DeTable<'_>, problems: &mut Problems) -> Read<FleetHead> {
    let value = |table: &str, key: &str| match document.get(table)?.get_ref() {
        DeValue::Table(table) => table.get(key),
        _ => None,
    };
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

    fn read(text: &str) -> Result<FleetHead, LoadError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        head(file.path())
    }

    #[test]
    fn name_and_places_are_read_whatever_else_is_wrong() {
        let wrong = "[fleet]\nname = \"sis\"\nvmm = 7\n[host]\nstore = \"/srv/s\"\nuplnk = 1\n[user.ALICE]\nmemory = \"x\"\n";
        let found = read(wrong).unwrap();
        assert_eq!((found.name.as_str(), found.host.store.to_str()), ("sis", Some("/srv/s")));
        let broken = read("[fleet]\nname = \"sis\"\n[network.n]\nallow = [{\n").unwrap();
        assert_eq!(broken.host.store, HostSpec::default().store);
        for text in
            ["", "[fleet]\n", "[fleet]\nname = \"a b\"\n", "[fleet]\nname = \"a\"\n[host]\nstore = \"s\"\n"]
        {
            assert!(matches!(read(text), Err(LoadError::Invalid(_))), "{text}");
        }
    }
}
