//! Licenses as packages spell them, brought into SPDX's expressions where that can be done without guessing.

use ::spdx::{Expression, ParseMode, exception_id, license_id};

/// A license as an expression, with the words in it that SPDX does not list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct License {
    pub expression: String,
    /// `LicenseRef-...` and what the package says in its place.
    pub own: Vec<(String, String)>,
}

/// Packages were built when names were current that have been replaced since.
const MODE: ParseMode = ParseMode { allow_deprecated: true, ..ParseMode::STRICT };

impl License {
    /// Reads what a package says; `None` where it says nothing.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.is_empty() || text.eq_ignore_ascii_case("unknown") {
            return None;
        }
        if Expression::parse_mode(text, MODE).is_ok() {
            return Some(Self { expression: text.to_owned(), own: Vec::new() });
        }
        // An expression with words of the package's own, such as `MIT AND Public-Domain`.
        let mut own = Vec::new();
        let expression: String = words(text)
            .map(|word| {
                if is_known(word) || word.trim().is_empty() {
                    return word.to_owned();
                }
                let id = reference(word);
                own.push((id.clone(), word.to_owned()));
                id
            })
            .collect();
        if Expression::parse_mode(&expression, MODE).is_ok() {
            return Some(Self { expression, own });
        }
        let id = reference(text);
        Some(Self { expression: id.clone(), own: vec![(id, text.to_owned())] })
    }
}

/// Words, and what stands between them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_between = |c: char| c.is_whitespace() || "()".contains(c);
    text.split_inclusive(is_between).flat_map(move |part| {
        let (word, between) = part.split_at(part.trim_end_matches(is_between).len());
        [word, between].into_iter().filter(|text| !text.is_empty())
    })
}

fn is_known(word: &str) -> bool {
    matches!(word, "AND" | "OR" | "WITH" | "(" | ")")
        || license_id(word.trim_end_matches('+')).is_some()
        || exception_id(word).is_some()
        || word.starts_with("LicenseRef-")
}

/// An identifier of a license that SPDX does not list. Where letters are lost, a digest keeps it apart from others.
fn reference(text: &str) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '-' };
    let short: String = text.chars().map(kept).take(60).collect();
    if short == text {
        return format!("LicenseRef-{short}");
    }
    format!("LicenseRef-{short}-{}", &crate::base::Sha256::of(text).short()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (String, Vec<(String, String)>) {
        let License { expression, own } = License::parse(text).unwrap();
        (expression, own)
    }

    #[test]
    fn what_spdx_knows_stays_as_it_is() {
        for text in [
            "MIT",
            "GPL-2.0-only",
            "GPL-2.0",
            "MIT AND (Apache-2.0 OR BSD-2-Clause)",
            "GPL-2.0-or-later WITH Classpath-exception-2.0",
        ] {
            assert_eq!(parsed(text), (text.to_owned(), Vec::new()));
        }
    }

    #[test]
    fn a_word_of_its_own_becomes_a_reference() {
        let own = |id: &str, text: &str| (id.to_owned(), text.to_owned());
        let public = own("LicenseRef-Public-Domain", "Public-Domain");
        let text = "(MIT OR Public-Domain) AND Zlib";
        assert_eq!(parsed(text), ("(MIT OR LicenseRef-Public-Domain) AND Zlib".to_owned(), vec![public]));
    }

    #[test]
    fn what_is_no_expression_becomes_one_reference_as_a_whole() {
        let (expression, own) = parsed("MIT BSD GPL2+");
        assert!(expression.starts_with("LicenseRef-MIT-BSD-GPL2--"), "{expression}");
        assert_eq!(own, [(expression.clone(), "MIT BSD GPL2+".to_owned())]);
        assert_ne!(expression, parsed("MIT BSD GPL2-").0);
        assert_eq!((License::parse(""), License::parse("unknown")), (None, None));
    }
}
