//! Lists of domain names that policies deny or allow: one name a line, which means all names below it too; `#` begins a
//! comment. Names are compared as DNS does: without regard to case, with or without the dot at their end (RFC 1035, 4343).

use std::collections::HashSet;
use std::path::PathBuf;

use crate::base::{Class, Diagnosis, Diagnostic, Sha256};

/// A line that has no name in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{entry}` is no domain name: {why}")]
pub struct NoName {
    /// From 1.
    pub line: usize,
    pub entry: String,
    pub why: &'static str,
}

/// A file that is no list of names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameListError {
    #[error("{}:{}: {source}", path.display(), source.line)]
    Line { path: PathBuf, source: NoName },
    #[error("{} holds no name", .0.display())]
    Empty(PathBuf),
}

impl Diagnostic for NameListError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Line { .. } => Class::Invalid.no_hint(),
            Self::Empty(_) => Class::Invalid.hint("write names into it, or take it out of `names`"),
        }
    }
}

/// A list that was read, as one text: a million names are not a million allocations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameList {
    /// Of the names, however they were written.
    pub digest: Sha256,
    /// Each in lower case, without a dot at its end, on a line of its own, in the order of the list.
    text: String,
    count: usize,
}

impl NameList {
    /// The names, in the order of the list.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.text.lines()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Reads a list.
pub fn parse(list: &str) -> Result<NameList, NoName> {
    let mut text = String::with_capacity(list.len());
    let mut count = 0;
    for (line, entry) in entries(list) {
        let name = entry.strip_suffix('.').unwrap_or(entry);
        if let Some(why) = fault(name) {
            return Err(NoName { line, entry: shown(entry), why });
        }
        let start = text.len();
        text.push_str(name);
        text[start..].make_ascii_lowercase();
        text.push('\n');
        count += 1;
    }
    Ok(NameList { digest: Sha256::of(&text), text, count })
}

/// The first line, from 1, that has a name, which is in lower case.
pub fn line_of(list: &str, wanted: &str) -> Option<usize> {
    let is_it = |entry: &str| entry.strip_suffix('.').unwrap_or(entry).eq_ignore_ascii_case(wanted);
    entries(list).find(|(_, entry)| is_it(entry)).map(|(line, _)| line)
}

/// A name that somebody asks about, as lists have it.
pub fn name(text: &str) -> Result<String, &'static str> {
    let name = text.strip_suffix('.').unwrap_or(text);
    fault(name).map_or_else(|| Ok(name.to_ascii_lowercase()), Err)
}

/// What stands on each line that is neither empty nor a comment.
fn entries(list: &str) -> impl Iterator<Item = (usize, &str)> {
    list.lines().enumerate().filter_map(|(index, line)| {
        let entry = line.split('#').next().unwrap_or_default().trim();
        (!entry.is_empty()).then_some((index + 1, entry))
    })
}

/// As much of an entry as a message can hold.
fn shown(entry: &str) -> String {
    const MOST: usize = 80;
    match entry.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &entry[..end]),
        None => entry.to_owned(),
    }
}

/// Why a text is no name that could be asked for (RFC 1035, 2.3.4; letters as RFC 5890 has them).
fn fault(name: &str) -> Option<&'static str> {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !name.is_ascii() {
        return Some("other letters than ASCII's are written in Punycode, as in `xn--bcher-kva.example`");
    }
    if name.contains(['*', '/', ':', '|', '^', ' ', '\t', ',', ';']) {
        return Some("write the name alone; all names below it are meant too");
    }
    if name.len() > 253 {
        return Some("it is longer than 253 bytes");
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Some("a part between two dots is empty");
        }
        if label.len() > 63 {
            return Some("a part between two dots is longer than 63 bytes");
        }
        if !label.bytes().all(is_letter) {
            return Some("a name is made of letters, digits, `-` and `_`");
        }
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    last.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some("it is a number; addresses stand in [network.NAME] deny and allow")
}

/// Names with everything below them.
#[derive(Debug, Default)]
pub struct NameTree<'a>(HashSet<&'a str>);

impl<'a> NameTree<'a> {
    /// Those of these names.
    pub fn of(names: impl Iterator<Item = &'a str>) -> Self {
        Self(names.collect())
    }

    /// The name in the tree by which a name is in it: itself, or the nearest above it. The name is in lower case, without a dot
    /// at its end.
    pub fn holder<'b>(&self, name: &'b str) -> Option<&'b str> {
        let above = std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, above)| above));
        above.into_iter().find(|name| self.0.contains(*name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_names_and_comments_in_any_case() {
        let list = parse("# ours\nAds.Example.ORG. # all of it\n\n  zip\r\nxn--bcher-kva._x.de\n").unwrap();
        assert_eq!(list.names().collect::<Vec<_>>(), ["ads.example.org", "zip", "xn--bcher-kva._x.de"]);
        assert_eq!((list.len(), list.is_empty()), (3, false));
        assert_eq!(list.digest, parse("ads.example.org\nzip\nxn--bcher-kva._x.de").unwrap().digest);
        assert!(parse("# nothing\n").unwrap().is_empty());
        let line = |name: &str| line_of("# ours\nAds.Example.ORG. # all of it\n\n  zip\n", name);
        assert_eq!((line("ads.example.org"), line("zip"), line("org")), (Some(2), Some(4), None));
    }

    #[test]
    fn what_is_no_name_is_told_with_its_line() {
        let long = "a".repeat(64);
        for (entry, why) in [
            ("bücher.de", "Punycode"),
            ("*.example.org", "below"),
            ("0.0.0.0 example.org", "alone"),
            ("https://example.org/", "alone"),
            ("||example.org^", "alone"),
            ("a..b", "empty"),
            (".example.org", "empty"),
            (".", "empty"),
            (&long, "63"),
            (&["a"; 128].join("."), "253"),
            ("exa$mple.org", "letters"),
            ("192.0.2.1", "addresses"),
        ] {
            let error = parse(&format!("ok.org\n\n{entry}\n")).unwrap_err();
            assert_eq!(error.line, 3, "{entry}");
            assert!(error.why.contains(why), "{entry}: {error}");
        }
    }

    #[test]
    fn a_tree_holds_names_and_what_is_below() {
        let tree = NameTree::of(["example.org", "zip"].into_iter());
        for (name, holder) in [
            ("example.org", Some("example.org")),
            ("a.b.example.org", Some("example.org")),
            ("notexample.org", None),
            ("org", None),
            ("x.zip", Some("zip")),
        ] {
            assert_eq!(tree.holder(name), holder, "{name}");
        }
    }
}
