//! Text to document: what TOML itself refuses becomes problems like any other.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::reader::Value;
use crate::base::problem::{Problem, Problems, Read};

/// What the parser says of a key or table that stands twice.
const DUPLICATE: &str = "duplicate key";

/// Parses TOML. Keys that stand twice are told and the rest is read on; after any other error the document
/// is not trusted, since a misread line would make problems of its own.
pub fn parse<'i>(text: &'i str, problems: &mut Problems) -> Read<Value<'i>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut broken = None;
    for error in errors {
        let span = error.span().unwrap_or(text.len()..text.len());
        if error.message() == DUPLICATE {
            problems.report(duplicate(text, span));
        } else {
            let told = problems.report(Problem::new(span, error.message()).label("not valid TOML"));
            broken = broken.or(Some(told));
        }
    }
    match broken {
        Some(told) => Err(told),
        None => Ok(Spanned::new(0..0, DeValue::Table(document.into_inner()))),
    }
}

fn duplicate(text: &str, span: Range<usize>) -> Problem {
    let name = text.get(span.clone()).unwrap_or_default();
    let line_start = text[..span.start].rfind('\n').map_or(0, |newline| newline + 1);
    let is_header = text[line_start..].trim_start().starts_with('[');
    let first = if is_header { first_header(text, line_start) } else { first_key(text, line_start, name) };
    let what = if is_header { "table" } else { "key" };
    let problem = Problem::new(span, format!("{what} `{name}` is declared twice")).label("again");
    let problem = problem.hint(format!("keep one of the two {what}s"));
    match first {
        Some(first) => problem.also(first, "first"),
        None => problem,
    }
}

/// The place of the line before `end` that is the same table header as the line at `end`.
fn first_header(text: &str, end: usize) -> Option<Range<usize>> {
    let header = |line: &str| line.trim().split(']').next().map(str::to_owned);
    let wanted = header(text[end..].lines().next()?)?;
    let (start, line) = lines(&text[..end]).find(|(_, line)| header(line).as_ref() == Some(&wanted))?;
    Some(start..start + line.trim_end().len())
}

/// The place of `key` in the table that the line at `end` belongs to.
fn first_key(text: &str, end: usize, key: &str) -> Option<Range<usize>> {
    let table: Vec<(usize, &str)> = lines(&text[..end]).collect();
    let in_table = table.iter().rev().take_while(|(_, line)| !line.trim_start().starts_with('['));
    in_table
        .filter_map(|(start, line)| {
            let rest = line.trim_start().strip_prefix(key)?;
            let at = start + (line.len() - line.trim_start().len());
            rest.trim_start().starts_with(['=', '.']).then_some(at..at + key.len())
        })
        .last()
}

/// Lines and where they begin.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split_inclusive('\n').scan(0, |offset, line| {
        let start = *offset;
        *offset += line.len();
        Some((start, line))
    })
}
