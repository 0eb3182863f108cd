//! Spellings that several formats share.

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

/// A text of somebody else's, such as a file name: what a terminal would obey is shown instead.
pub fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
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
    fn what_a_terminal_would_obey_is_shown() {
        assert_eq!(printable("a\x1b[31m\nb ü"), "a\\u{1b}[31m\\nb ü");
    }
}
