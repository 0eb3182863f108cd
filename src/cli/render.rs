//! How results look: text on stdout, tables, JSON.

use std::io::Write;
use std::time::Duration;

use crate::base;

/// Prints text as it is. A reader that went away ends the program, as it does for every tool in a pipe.
pub fn text(text: &str) {
    bytes_as_they_are(text.as_bytes());
}

/// Prints bytes, which need not be UTF-8, as they are; ends the program where they are not taken.
pub fn bytes_as_they_are(bytes: &[u8]) {
    if let Err(error) = attempt(bytes) {
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            tell(&format!("error: cannot write to stdout: {error}"));
        }
        std::process::exit(1);
    }
}

/// Prints bytes, and gives the error to whoever has more to do than to end.
pub fn attempt(bytes: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush())
}

/// Writes a line to stderr, for people. A reader that went away, or a full disk behind it, ends nothing: what is done to a host goes
/// on.
pub fn tell(text: &str) {
    tell_open(&format!("{text}\n"));
}

/// The same without the end of the line, as a question has none.
pub fn tell_open(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// A line of what is about to be done to something, as two writes: whoever reads stops it between both.
pub fn tell_step(of: &str, step: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(format!("{of} -> ").as_bytes());
    let _ = stderr.write_all(format!("{step}\n").as_bytes());
}

/// Prints one JSON document.
pub fn json(value: &impl serde::Serialize) {
    text(&(base::text::json(value) + "\n"));
}

/// Columns as wide as their widest cell, two spaces between them; the first row is the head.
pub fn table(rows: &[Vec<String>]) -> String {
    let widths = widths(rows);
    rows.iter().map(|row| line(row, &widths)).collect()
}

/// How wide the columns of a table are.
pub fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    (0..columns).map(width).collect()
}

/// One row of a table.
pub fn line(row: &[String], widths: &[usize]) -> String {
    let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
    format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
}

/// A size for people: three digits and a binary unit, such as `1.25 MiB`.
pub fn bytes(size: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if size < 1024 {
        return format!("{size} B");
    }
    let mut number = size as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    while number >= 999.5 {
        let Some(next) = units.next() else { break };
        (number, unit) = (number / 1024.0, Some(next));
    }
    let digits = if number < 9.995 {
        2
    } else if number < 99.95 {
        1
    } else {
        0
    };
    format!("{number:.digits$} {}", unit.unwrap_or(&""))
}

pub use crate::base::text::printable as plain;

/// A duration in its two largest units, such as `3m 20s`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m {s}s"),
        (0, h, m, _) => format!("{h}h {m}m"),
        (d, h, _, _) => format!("{d}d {h}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["NAME", "PID"], ["alice", "7"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "NAME   PID\nalice  7\n");
    }

    #[test]
    fn sizes_have_three_digits() {
        let shown: Vec<_> = [0, 1023, 1024, 1_310_720, 52 << 20, 1023 << 20, u64::MAX].map(bytes).into();
        assert_eq!(shown, ["0 B", "1023 B", "1.00 KiB", "1.25 MiB", "52.0 MiB", "1.00 GiB", "16384 PiB"]);
    }

    #[test]
    fn durations_show_their_two_largest_units() {
        let shown: Vec<_> =
            [5, 200, 7_260, 90_000].iter().map(|s| duration(Duration::from_secs(*s))).collect();
        assert_eq!(shown, ["5s", "3m 20s", "2h 1m", "1d 1h"]);
    }
}
