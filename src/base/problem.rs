//! What is wrong with a `fleet.toml` or a `recipe.toml`: collected while it is read, told all at once.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Byte offsets into the text.
    pub span: Range<usize>,
    pub message: String,
    /// A few words at the underlined text.
    pub label: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// A second place that has to do with it, and its label.
    pub also: Option<(Range<usize>, String)>,
}

impl Problem {
    /// A problem without label and hint.
    pub fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), label: None, hint: None, also: None }
    }

    /// Adds a few words at the underlined text.
    pub fn label(self, label: impl Into<String>) -> Self {
        Self { label: Some(label.into()), ..self }
    }

    /// Adds what to do about it.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Adds a second place.
    pub fn also(self, span: Range<usize>, label: impl Into<String>) -> Self {
        Self { also: Some((span, label.into())), ..self }
    }
}

/// Proof that a problem was told: whoever holds one need not tell of it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reported(());

/// A value, or proof that somebody was told why there is none. What depends on a value that could not be
/// read ends with `?`, so that one mistake is told once.
pub type Read<T> = Result<T, Reported>;

/// Borrows what was read.
pub trait ReadRef<T> {
    /// The value by reference.
    fn by_ref(&self) -> Read<&T>;
}

impl<T> ReadRef<T> for Read<T> {
    fn by_ref(&self) -> Read<&T> {
        self.as_ref().map_err(|told| *told)
    }
}

/// Problems as they are found.
#[derive(Debug, Default)]
pub struct Problems {
    list: Vec<Problem>,
}

impl Problems {
    /// Adds a problem.
    pub fn report(&mut self, problem: Problem) -> Reported {
        self.list.push(problem);
        Reported(())
    }

    /// Whether none was found.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All problems in the order of the text.
    pub fn into_sorted(mut self) -> Vec<Problem> {
        self.list.sort_by_key(|problem| (problem.span.start, problem.span.end));
        self.list
    }
}

/// A file that cannot be used, with everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct InvalidFile {
    pub path: PathBuf,
    /// The text that the problems point into.
    pub text: String,
    /// At least one, in the order of the text.
    pub problems: Vec<Problem>,
}

impl fmt::Display for InvalidFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        write!(f, "{count} problem{} in {}", if count == 1 { "" } else { "s" }, self.path.display())
    }
}

impl InvalidFile {
    /// Each problem in one line, behind its place.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.problems.iter().map(|problem| {
            let (line, column) = self.line_column(problem.span.start);
            format!("{}:{line}:{column}: {}", self.path.display(), problem.message)
        })
    }

    /// Line and column of a byte offset, both from 1, the column in characters.
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        line_column(&self.text, offset)
    }
}

/// Line and column of a byte offset into a text, both from 1, the column in characters.
pub fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..floor_char_boundary(text, offset)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// A problem as `--json` prints it.
#[derive(Serialize)]
struct ProblemRecord<'a> {
    line: usize,
    column: usize,
    message: &'a str,
    label: Option<&'a str>,
    hint: Option<&'a str>,
}

impl Serialize for InvalidFile {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let records: Vec<ProblemRecord<'_>> = self
            .problems
            .iter()
            .map(|problem| {
                let (line, column) = self.line_column(problem.span.start);
                ProblemRecord {
                    line,
                    column,
                    message: &problem.message,
                    label: problem.label.as_deref(),
                    hint: problem.hint.as_deref(),
                }
            })
            .collect();
        let mut document = serializer.serialize_struct("InvalidFile", 2)?;
        document.serialize_field("file", &self.path.to_string_lossy())?;
        document.serialize_field("problems", &records)?;
        document.end()
    }
}

/// The problems as text for people, each with its line underlined and its hint below, ending with a newline.
pub fn render(invalid: &InvalidFile, color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let path = invalid.path.to_string_lossy();
    let mut reports: Vec<String> = Vec::new();
    for problem in &invalid.problems {
        let span = clamp(&invalid.text, &problem.span);
        let mut snippet = Snippet::source(&invalid.text)
            .path(path.as_ref())
            .annotation(AnnotationKind::Primary.span(span).label(problem.label.as_deref()));
        if let Some((span, label)) = &problem.also {
            let span = clamp(&invalid.text, span);
            snippet = snippet.annotation(AnnotationKind::Context.span(span).label(label.as_str()));
        }
        let mut report = Level::ERROR.primary_title(problem.message.as_str()).element(snippet);
        if let Some(hint) = &problem.hint {
            report = report.element(Level::HELP.message(hint.as_str()));
        }
        reports.push(renderer.render(&[report]));
    }
    reports.join("\n\n") + "\n"
}

/// The span, kept within the text and on whole characters.
fn clamp(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = floor_char_boundary(text, span.start);
    start..floor_char_boundary(text, span.end).max(start)
}

fn floor_char_boundary(text: &str, offset: usize) -> usize {
    (0..=offset.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The known name that a mistyped one was most likely meant to be.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let length = name.chars().count();
    let allowed = (length / 3).max(1);
    let close = known.into_iter().filter_map(|known| {
        let other = known.to_lowercase();
        // Each step of the distance changes at most one letter: most of many names need no closer look.
        let longer = length.max(other.chars().count());
        if longer - shared(&name, &other).min(longer) > allowed {
            return None;
        }
        let distance = strsim::damerau_levenshtein(&name, &other);
        (distance <= allowed).then_some((distance, known))
    });
    close.min().map(|(_, known)| known)
}

/// At most how many letters two names can have in common, in whatever order.
pub fn shared(one: &str, other: &str) -> usize {
    let mut counts = [0u32; 256];
    one.bytes().for_each(|byte| counts[usize::from(byte)] += 1);
    let is_in_both = |byte: &u8| {
        let count = &mut counts[usize::from(*byte)];
        let is_left = *count > 0;
        *count = count.saturating_sub(1);
        is_left
    };
    other.bytes().filter(is_in_both).count()
}

/// A hint for a name that is not one of `known`, which are called `kind`, such as `images`.
pub fn suggest<'a>(kind: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => format!("there are no {kind}"),
        None => format!("the {kind} are {}", list(&known)),
    }
}

/// `` `a`, `b` and `c` ``; more than twelve are cut short.
fn list(names: &[&str]) -> String {
    const SHOWN: usize = 12;
    let quoted: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    match quoted.as_slice() {
        _ if names.len() > SHOWN => format!("{} and {} more", quoted.join(", "), names.len() - SHOWN),
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        all => all.join(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_of_many_names_is_found_at_once() {
        let names: Vec<String> =
            (0..30_000).map(|n| format!("a-package-of-a-long-name-{n:x}-{}", n * 7919)).collect();
        let known = || names.iter().map(String::as_str).chain(["podman", "Podman-Doc"]);
        let begun = std::time::Instant::now();
        for _ in 0..20 {
            assert_eq!(nearest("podmna", known()), Some("podman"));
            assert_eq!(nearest("podman-dcc", known()), Some("Podman-Doc"));
        }
        assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    }

    #[test]
    fn no_name_that_is_near_is_left_out() {
        for (one, other) in [("abc", "cba"), ("\u{f6}a", "a\u{f6}"), ("podman", "pdman"), ("aab", "abb")] {
            let longer = one.chars().count().max(other.chars().count());
            assert!(longer - shared(one, other).min(longer) <= strsim::damerau_levenshtein(one, other));
        }
        assert_eq!(shared("aab", "abb"), 2);
    }

    fn invalid(text: &str, problem: Problem) -> InvalidFile {
        InvalidFile { path: "fleet.toml".into(), text: text.into(), problems: vec![problem] }
    }

    #[test]
    fn columns_count_characters() {
        let invalid = invalid("a = 1\nß = \"ü\" x\n", Problem::new(0..0, ""));
        assert_eq!(invalid.line_column(0), (1, 1));
        assert_eq!(invalid.line_column(invalid.text.find('x').unwrap()), (2, 9));
        assert_eq!(invalid.line_column(1000), (3, 1));
    }

    #[test]
    fn a_problem_at_the_end_of_the_text_can_be_shown() {
        let text = "[fleet\n";
        let shown = render(&invalid(text, Problem::new(7..9, "unclosed")), false);
        assert!(shown.starts_with("error: unclosed\n"), "{shown}");
        assert!(render(&invalid("", Problem::new(0..0, "empty")), false).contains("empty"));
    }

    #[test]
    fn a_far_name_is_answered_with_those_there_are() {
        assert_eq!(suggest("images", "surff", ["surf", "kiosk"]), "did you mean `surf`?");
        assert_eq!(suggest("images", "desktop", ["surf", "kiosk"]), "the images are `surf` and `kiosk`");
        assert_eq!(suggest("images", "desktop", []), "there are no images");
    }
}
