//! HTML where something else was expected: what a server answers that wants a login, or has no such file.

/// So many bytes tell.
pub const HEAD: u64 = 256;

/// What to do about one.
pub const HINT: &str = "look at its address with a browser: something else answers there";

/// Whether a file that begins so is one.
pub fn is(head: &[u8]) -> bool {
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let begins =
        |with: &str| text.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with.as_bytes()));
    ["<!doctype html", "<html", "<head", "<?xml", "<!--"].into_iter().any(begins)
}
