//! Spellings that several formats share.

use std::cmp::Ordering;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// All but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Percent-encoding (RFC 3986) of every byte that means something in an address.
pub fn percent(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// The same, but for what a query takes as it is: `/` and `:`.
pub fn percent_query(text: &str) -> String {
    const IN_QUERY: &AsciiSet = &RESERVED.remove(b'/').remove(b':');
    utf8_percent_encode(text, IN_QUERY).to_string()
}

/// For `#[serde(with = ...)]`: a text that may not be there, in formats where an empty one says so.
pub mod none_is_empty {
    use serde::{Deserialize as _, Deserializer, Serializer};

    /// Writes it.
    pub fn serialize<S: Serializer>(text: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(text.as_deref().unwrap_or_default())
    }

    /// Reads it; `null` is none too.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.filter(|text| !text.is_empty()))
    }
}

/// A value of this program's own as JSON, on one line. None fails to be written: maps have texts for keys, and nothing is read
/// meanwhile.
pub fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| unreachable!("a type that JSON cannot say: {error}"))
}

/// Whether a terminal shows a character and does nothing else for it: no control character, none that turns the direction of
/// writing, none that ends a line.
pub fn is_plain(c: char) -> bool {
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !c.is_control() && !turns && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

/// A text of somebody else's, such as a file name: what a terminal would obey is shown instead.
pub fn printable(text: &str) -> String {
    let shown = |c: char| if is_plain(c) { c.to_string() } else { c.escape_default().to_string() };
    text.chars().map(shown).collect()
}

/// A message of one's own that may hold texts of somebody else's, as it is printed: tabs and line ends are kept, and no line but
/// the first begins at the margin, so that none looks like another message.
pub fn message(text: &str) -> String {
    let shown = |line: &str| {
        let line = line.strip_suffix('\r').unwrap_or(line);
        line.split('\t').map(printable).collect::<Vec<_>>().join("\t")
    };
    let mut lines = text.split('\n');
    let first = shown(lines.next().unwrap_or_default());
    let more = lines.map(|line| match line.starts_with("  ") {
        true => format!("\n{}", shown(line)),
        false => format!("\n    {}", shown(line)),
    });
    std::iter::once(first).chain(more).collect()
}

/// So many of something, such as `1 entry` and `2 entries`.
pub fn counted(count: impl std::fmt::Display, one: &str) -> String {
    let count = count.to_string();
    match (count.as_str(), one.strip_suffix('y')) {
        ("1", _) => format!("1 {one}"),
        (_, Some(stem)) => format!("{count} {stem}ies"),
        (_, None) => format!("{count} {one}s"),
    }
}

/// The order in which people list names: numbers in them count as numbers, so that `v-2` comes before `v-10`. Names that differ
/// only in leading zeros are in the order of their bytes, so that equal means the same.
pub fn natural_order(one: &str, other: &str) -> Ordering {
    let (mut left, mut right) = (one.as_bytes(), other.as_bytes());
    while let (Some(a), Some(b)) = (left.first(), right.first()) {
        let both = if a.is_ascii_digit() && b.is_ascii_digit() {
            let (a, b) = (take_number(&mut left), take_number(&mut right));
            a.len().cmp(&b.len()).then_with(|| a.cmp(b))
        } else {
            (left, right) = (&left[1..], &right[1..]);
            a.cmp(b)
        };
        if both.is_ne() {
            return both;
        }
    }
    left.len().cmp(&right.len()).then_with(|| one.cmp(other))
}

/// Takes the digits that a text begins with, and gives those that count.
fn take_number<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    *text = rest;
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    &digits[zeros..]
}

/// Longest text of somebody else's that a message shows, in characters.
const LONGEST: usize = 300;

/// What a message shows of somebody else's text: one line, printable, of bounded length.
pub fn excerpt(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", printable(&text[..end])),
        None => printable(text),
    }
}

/// Most lines that a message shows of somebody else's text.
const MOST_LINES: usize = 12;

/// The last lines of somebody else's text that hold something, each as an excerpt.
pub fn last_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<_> =
        text.lines().rev().filter(|line| !line.trim().is_empty()).take(MOST_LINES).map(excerpt).collect();
    lines.reverse();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_address_does_not_take_is_encoded() {
        assert_eq!(percent("libstdc++ ü"), "libstdc%2B%2B%20%C3%BC");
        assert_eq!(percent("1.2_p3~a-r0/x:y"), "1.2_p3~a-r0%2Fx%3Ay");
        assert_eq!(percent_query("a b/c:d"), "a%20b/c:d");
    }

    #[test]
    fn numbers_in_names_are_in_the_order_of_numbers() {
        let ordered = [
            "", "0", "00", "01", "1", "2", "a", "v", "v-1", "v-1-x", "v-2", "v-10", "v-10a", "v1", "v99",
            "v100",
        ];
        for (at, one) in ordered.iter().enumerate() {
            for (place, other) in ordered.iter().enumerate() {
                assert_eq!(natural_order(one, other), at.cmp(&place), "{one:?} {other:?}");
            }
        }
        // Longer than any integer.
        assert!(natural_order(&"9".repeat(40), &format!("1{}", "0".repeat(40))).is_lt());
    }

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        assert_eq!(printable("a\x1b[31m\nb ü"), "a\\u{1b}[31m\\nb ü");
        assert_eq!(printable("\u{9b}31m \u{202e}txt.exe\u{2028}"), "\\u{9b}31m \\u{202e}txt.exe\\u{2028}");
        assert_eq!(message("a\rb\n  c\td\r\nerror: e"), "a\\rb\n  c\td\n    error: e");
    }

    #[test]
    fn what_somebody_else_says_is_shown_in_part_and_on_lines_of_its_own() {
        assert_eq!(excerpt(" error: x\nerror: bob: gone\r\n"), "error: x\\nerror: bob: gone");
        assert_eq!(excerpt(&"ü".repeat(LONGEST)).chars().count(), LONGEST);
        assert_eq!(excerpt(&"ü".repeat(1 << 20)).chars().count(), LONGEST + 3);
        let text: String = (0..1000).map(|number| format!("line {number}\r\n\n")).collect();
        let lines = last_lines(&text);
        assert_eq!((lines.len(), lines[MOST_LINES - 1].as_str()), (MOST_LINES, "line 999"));
    }
}
