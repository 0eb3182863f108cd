//! Logs of JSON lines that outlive the program that wrote them: each line carries the version of its layout.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::base::text::{excerpt, json};
use crate::sys::fs::FileError;
use crate::sys::log::{Lines, Reader, Start};

/// Version of the layout that is written. Lines of before there were versions have the same layout.
const VERSION: u32 = 1;

fn unversioned() -> u32 {
    VERSION
}

#[derive(Deserialize)]
struct LineVersion {
    #[serde(default = "unversioned")]
    version: u32,
}

#[derive(Serialize)]
struct VersionedLine<'a, T> {
    version: u32,
    #[serde(flatten)]
    line: &'a T,
}

/// A line as it is written, with its end.
pub fn line(line: &impl Serialize) -> String {
    json(&VersionedLine { version: VERSION, line }) + "\n"
}

/// A line as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogLine<T> {
    Known(T),
    /// What the log says of itself: that some were dropped.
    Gap(String),
    /// Why it cannot be shown.
    Unread(String),
}

fn read<T: DeserializeOwned>(line: &[u8]) -> LogLine<T> {
    let text = String::from_utf8_lossy(line);
    if text.starts_with("[sisforge: ") {
        return LogLine::Gap(text.into_owned());
    }
    match serde_json::from_str::<LineVersion>(&text) {
        Ok(LineVersion { version }) if version != VERSION => LogLine::Unread(format!(
            "lines of version {version}, of another sisforge, are left out: this one reads version {VERSION}"
        )),
        _ => serde_json::from_str(&text).map_or_else(
            |_| LogLine::Unread(format!("a line is left out: {}", excerpt(&text))),
            LogLine::Known,
        ),
    }
}

/// Reads such a log from its beginning, as it grows.
#[derive(Debug)]
pub struct LogReader<T> {
    path: PathBuf,
    reader: Option<Reader>,
    lines: Lines,
    /// What was told already: a log of another version has one reason, and thousands of lines.
    told: BTreeSet<String>,
    of: PhantomData<T>,
}

impl<T: DeserializeOwned> LogReader<T> {
    /// Of the log at `path`, which need not be there yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, reader: None, lines: Lines::default(), told: BTreeSet::new(), of: PhantomData }
    }

    /// Whether nothing was ever written.
    pub fn is_empty(&self) -> bool {
        self.reader.is_none()
    }

    /// What was written since it was last asked. Why lines cannot be shown is told once.
    pub fn unread(&mut self) -> Result<Vec<LogLine<T>>, FileError> {
        let failed = || FileError::when("read", &self.path);
        if self.reader.is_none() {
            self.reader = Reader::open(&self.path, Start::This).map_err(failed())?;
        }
        let mut found = Vec::new();
        while let Some(reader) = &mut self.reader
            && let Some((time, bytes)) = reader.read().map_err(failed())?
        {
            self.lines.feed(time, &bytes, |_, line| {
                let line = (!line.is_empty()).then(|| read(line));
                let told = &mut self.told;
                let is_new = |line: &LogLine<T>| match line {
                    LogLine::Unread(why) => told.insert(why.clone()),
                    LogLine::Known(_) | LogLine::Gap(_) => true,
                };
                found.extend(line.filter(is_new));
            });
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Count {
        number: u32,
    }

    fn found(text: &str) -> Vec<LogLine<Count>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        std::fs::write(&path, text).unwrap();
        LogReader::new(path).unread().unwrap()
    }

    #[test]
    fn a_line_is_read_as_it_was_written_and_as_one_of_before_versions() {
        let written = line(&Count { number: 7 });
        assert_eq!(written, "{\"version\":1,\"number\":7}\n");
        let both = format!("{written}{{\"number\":8}}\n");
        assert_eq!(found(&both), [7, 8].map(|number| LogLine::Known(Count { number })));
    }

    #[test]
    fn a_line_that_cannot_be_read_is_told() {
        let text = "{\"version\":2,\"numbers\":[]}\n\n[sisforge: some were dropped]\n{\"numb\n{\"version\":1}\n{\"version\":2}\n";
        let lines = found(text);
        let [LogLine::Unread(newer), LogLine::Gap(gap), LogLine::Unread(cut), LogLine::Unread(other)] =
            &lines[..]
        else {
            panic!("{lines:?}")
        };
        assert!(newer.contains("of version 2,") && gap.contains("dropped"), "{newer} {gap}");
        assert!(cut.contains("{\"numb") && other.contains("{\"version\":1}"), "{cut} {other}");
    }
}
