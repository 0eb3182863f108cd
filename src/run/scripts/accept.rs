//! `accept-scripts` of an image in the text of a `fleet.toml`: what its author wrote stays byte for byte, comments and line ends too,
//! but for what is accepted otherwise now.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml_edit::{Array, Document, Item, Table, Value};

use crate::base::{Label, Sha256};
use crate::fleet::ScriptName;

/// Scripts that are accepted.
type Scripts = BTreeMap<ScriptName, BTreeSet<Sha256>>;

/// The key below an image.
const KEY: &str = "accept-scripts";

/// Bytes that others take the place of.
struct Edit {
    at: Range<usize>,
    new: String,
}

/// The text of a `fleet.toml` in which an image accepts these scripts, and no others; the rest is as it was.
pub(super) fn with_acceptances(text: &str, image: &Label, scripts: &Scripts) -> Result<String, String> {
    let document = Document::parse(text).map_err(|error| error.to_string())?;
    let images = document.as_table().get("image").and_then(Item::as_table_like);
    let item = images.and_then(|images| images.get(image.as_str()));
    let table = item.and_then(Item::as_table_like).ok_or("it has no table of that image")?;
    let body = |item| WrittenTable { text, item };
    let mut edits = match (table.get(KEY), item) {
        (Some(accepted), _) => body(accepted).changed(scripts),
        (None, Some(item)) => {
            let entries: Vec<String> = scripts.iter().map(entry).collect();
            let header = format!("[image.{image}]");
            vec![body(item).with_more(&[format!("{KEY} = {{ {} }}", entries.join(", "))], &header)]
        }
        (None, None) => Vec::new(),
    };
    edits.sort_by_key(|edit| Reverse((edit.at.start, edit.at.end)));
    let mut changed = text.to_owned();
    edits.into_iter().for_each(|edit| changed.replace_range(edit.at, &edit.new));
    Ok(changed)
}

fn entry((name, digests): (&ScriptName, &BTreeSet<Sha256>)) -> String {
    format!("\"{name}\" = {}", spelled_all(digests))
}

fn spelled(digest: &Sha256) -> String {
    format!("\"sha256:{digest}\"")
}

fn spelled_all(digests: &BTreeSet<Sha256>) -> String {
    let each: Vec<String> = digests.iter().map(spelled).collect();
    if let [one] = each.as_slice() { one.clone() } else { format!("[{}]", each.join(", ")) }
}

/// A table, in whichever of TOML's forms it is written.
struct WrittenTable<'a> {
    text: &'a str,
    item: &'a Item,
}

/// An entry of a table, and where it stands.
struct Placed<'a> {
    name: &'a str,
    item: &'a Item,
    /// From its key to the end of its value.
    at: Range<usize>,
}

impl<'a> WrittenTable<'a> {
    /// The entries that stand in the table itself, in the order of the text; not tables with a header of their own.
    fn entries(&self) -> Vec<Placed<'a>> {
        let Some(table) = self.item.as_table_like() else { return Vec::new() };
        let place = |(name, item): (&'a str, &'a Item)| {
            let key = table.get_key_value(name)?.0.span()?;
            Some(Placed { name, item, at: key.start..end_of(item)? })
        };
        let mut placed: Vec<Placed<'a>> = table.iter().filter_map(place).collect();
        placed.sort_by_key(|entry| entry.at.end);
        placed
    }

    /// Whether it stands in one line, with commas between its entries.
    fn is_inline(&self) -> bool {
        self.item.is_value()
    }

    /// Where the dotted key begins whose last part begins there.
    fn path_start(&self, key: usize) -> usize {
        let begins: &[char] = if self.is_inline() { &['{', ','] } else { &['\n'] };
        let before = &self.text[self.text[..key].rfind(begins).map_or(0, |at| at + 1)..key];
        key - before.trim_start().len()
    }

    fn line_start(&self, at: usize) -> usize {
        self.text[..at].rfind('\n').map_or(0, |at| at + 1)
    }

    fn line_end(&self, at: usize) -> usize {
        self.text[at..].find('\n').map_or(self.text.len(), |more| at + more + 1)
    }

    /// As the text ends its lines.
    fn newline(&self) -> &'static str {
        match self.text.find('\n') {
            Some(at) if self.text[..at].ends_with('\r') => "\r\n",
            _ => "\n",
        }
    }

    /// Entries more, behind those that are there. A table that is nowhere said to begin gets its header.
    fn with_more(&self, more: &[String], header: &str) -> Edit {
        let (entries, newline) = (self.entries(), self.newline());
        // Entries of a dotted table say whose they are.
        let owner = |first: &Placed<'_>| &self.text[self.path_start(first.at.start)..first.at.start];
        let owner = entries.first().map_or("", owner);
        let more: Vec<String> = more.iter().map(|entry| format!("{owner}{entry}")).collect();
        let last = entries.last().map(|last| last.at.clone());
        let is_headless = self.item.as_table().is_some_and(Table::is_implicit);
        let place = last.clone().or_else(|| self.item.span().filter(|_| !is_headless));
        match (place, &last) {
            (Some(table), None) if self.is_inline() => {
                let at = table.start + 1..table.end.max(table.start + 2) - 1;
                Edit { at, new: format!(" {} ", more.join(", ")) }
            }
            (Some(last), Some(_)) if self.is_inline() => {
                Edit { at: last.end..last.end, new: format!(", {}", more.join(", ")) }
            }
            (Some(above), last) => {
                let indent = |last: &Range<usize>| {
                    &self.text[self.line_start(last.start)..self.path_start(last.start)]
                };
                self.with_lines(self.line_end(above.end), last.as_ref().map_or("", indent), &more)
            }
            (None, _) => {
                let more = [&[format!("{newline}{header}")], &more[..]].concat();
                self.with_lines(self.text.len(), "", &more)
            }
        }
    }

    /// Lines more where one begins, or behind the last one, which may have no end.
    fn with_lines(&self, at: usize, indent: &str, lines: &[String]) -> Edit {
        let newline = self.newline();
        let text: String = lines.iter().map(|line| format!("{indent}{line}{newline}")).collect();
        let is_begun = at > 0 && !self.text[..at].ends_with('\n');
        Edit { at: at..at, new: if is_begun { format!("{newline}{}", text.trim_end()) } else { text } }
    }

    /// What is to change so that the entries are these scripts.
    fn changed(&self, scripts: &Scripts) -> Vec<Edit> {
        let entries = self.entries();
        let wanted = |entry: &Placed<'_>| scripts.get_key_value(&entry.name.parse::<ScriptName>().ok()?);
        let (mut edits, mut kept) = (Vec::new(), BTreeSet::new());
        for entry in &entries {
            match (wanted(entry), entry.item) {
                (Some((name, digests)), Item::Value(value)) => {
                    kept.insert(name);
                    edits.extend(self.with_digests(value, digests));
                }
                _ => {
                    let at = self.line_start(entry.at.start)..self.line_end(entry.at.end);
                    edits.push(Edit { at, new: String::new() });
                }
            }
        }
        if let (true, Some(first), Some(last)) = (self.is_inline(), entries.first(), entries.last())
            && kept.len() < entries.len()
        {
            // Of one line, nothing is said beside it but behind it: its entries are written anew.
            let all: Vec<String> = scripts.iter().map(entry).collect();
            let at = self.path_start(first.at.start)..last.at.end;
            let owner = &self.text[at.start..first.at.start];
            let all: Vec<String> = all.iter().map(|entry| format!("{owner}{entry}")).collect();
            return vec![Edit { at, new: all.join(", ") }];
        }
        let more: Vec<String> = scripts.iter().filter(|(name, _)| !kept.contains(name)).map(entry).collect();
        if !more.is_empty() {
            edits.push(self.with_more(&more, ""));
        }
        edits
    }

    /// What is to change so that a value is these digests.
    fn with_digests(&self, value: &Value, wanted: &BTreeSet<Sha256>) -> Vec<Edit> {
        let of = |value: &Value| {
            value.as_str().and_then(|text| text.trim_start_matches("sha256:").parse::<Sha256>().ok())
        };
        let whole = |new: String| value.span().map(|at| Edit { at, new }).into_iter().collect::<Vec<_>>();
        let Some(array) = value.as_array() else {
            let is_same = of(value).is_some_and(|one| *wanted == BTreeSet::from([one]));
            return if is_same { Vec::new() } else { whole(spelled_all(wanted)) };
        };
        let there: Vec<(Option<Sha256>, Range<usize>)> =
            array.iter().filter_map(|one| Some((of(one), one.span()?))).collect();
        let is_wanted = |digest: &Option<Sha256>| digest.is_some_and(|digest| wanted.contains(&digest));
        let mut new =
            wanted.iter().filter(|digest| !there.iter().any(|(other, _)| other.as_ref() == Some(*digest)));
        let mut edits = Vec::new();
        for (_, at) in there.iter().filter(|(digest, _)| !is_wanted(digest)) {
            // A digest that is no longer there has its successor in its place.
            let Some(new) = new.next() else { return whole(spelled_all(wanted)) };
            edits.push(Edit { at: at.clone(), new: spelled(new) });
        }
        let new: Vec<String> = new.map(spelled).collect();
        edits.extend(self.with_elements(array, &new));
        edits
    }

    /// Elements more in an array, before those that are there: what is said of one stands behind it.
    fn with_elements(&self, array: &Array, new: &[String]) -> Option<Edit> {
        let (open, first) = (array.span()?.start + 1, array.iter().next().and_then(Value::span)?);
        let is_in_lines = self.text[open..first.start].contains('\n');
        let indent = &self.text[self.line_start(first.start)..first.start];
        let each = new.iter().map(|digest| match is_in_lines {
            true => format!("{}{indent}{digest},", self.newline()),
            false => format!("{digest}, "),
        });
        let at = if is_in_lines { open } else { first.start };
        (!new.is_empty()).then(|| Edit { at: at..at, new: each.collect() })
    }
}

/// Where the value of an entry ends; `None` for tables with a header of their own.
fn end_of(item: &Item) -> Option<usize> {
    match item {
        Item::Value(Value::InlineTable(table)) if table.is_dotted() => {
            table.iter().filter_map(|(_, value)| Some(value.span()?.end)).max()
        }
        Item::Value(value) => Some(value.span()?.end),
        Item::Table(table) if table.is_dotted() => table.iter().filter_map(|(_, item)| end_of(item)).max(),
        Item::Table(_) | Item::ArrayOfTables(_) | Item::None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scripts(all: &[(&str, &[&str])]) -> Scripts {
        let digests = |digests: &[&str]| digests.iter().map(Sha256::of).collect();
        all.iter().map(|(name, of)| (name.parse().unwrap(), digests(of))).collect()
    }

    fn accepting(text: &str, all: &[(&str, &[&str])]) -> String {
        let changed = with_acceptances(text, &"i".parse().unwrap(), &scripts(all)).unwrap();
        // With other line ends, the same with these.
        let other = text.replace('\n', "\r\n");
        let other = with_acceptances(&other, &"i".parse().unwrap(), &scripts(all)).unwrap();
        assert_eq!(other, changed.replace('\n', "\r\n"));
        changed
    }

    /// A text in which `<x>` stands for the digest of `x`, as it is written.
    fn told(text: &str) -> String {
        ["one", "two", "three"].iter().fold(text.to_owned(), |text, name| {
            text.replace(&format!("<{name}>"), &spelled(&Sha256::of(name)))
        })
    }

    #[test]
    fn an_acceptance_changes_its_own_line_alone() {
        let text = "# fleet\n[image.i] # why\npackages = [ 'a' ]\n\n[image.j]\naccept-scripts = { 'a.trigger' = 'x' } # b\n";
        let added = text.replace("]\n\n", "]\naccept-scripts = { \"a.trigger\" = <one> }\n\n");
        assert_eq!(accepting(text, &[("a.trigger", &["one"])]), told(&added));
        let of_j = text.replace("[image.i]", "[image.k]").replace("[image.j]", "[image.i]");
        let changed = of_j.replace("'x'", "<one>");
        assert_eq!(accepting(&of_j, &[("a.trigger", &["one"])]), told(&changed));
        let both =
            told("image = { i = { packages = [], accept-scripts = { \"a.trigger\" = [<one>, <two>] } } }\n");
        let inline = accepting("image = { i = { packages = [] } }\n", &[("a.trigger", &["one", "two"])]);
        assert!(
            inline == both || inline == both.replace(&told("<one>, <two>"), &told("<two>, <one>")),
            "{inline}"
        );
    }

    #[test]
    fn comments_and_what_is_accepted_already_stay_as_they_are() {
        let table = told(
            "[image.i]\npackages = []\n\n[image.i.accept-scripts]\n# Read by me.\n  'a.trigger' = <one> # fine\n\
             # Of old.\n'b.trigger' = 'sha256:0' # gone\n# The end.\n[disk.home]\n",
        );
        let more = table.replace("'b.trigger' = 'sha256:0' # gone\n", &told("\"c.trigger\" = <two>\n"));
        assert_eq!(accepting(&table, &[("a.trigger", &["one"]), ("c.trigger", &["two"])]), more);
        let other = table.replace("'sha256:0'", &told("<two>"));
        assert_eq!(accepting(&table, &[("a.trigger", &["one"]), ("b.trigger", &["two"])]), other);

        let lines = told("[image.i.accept-scripts]\n'a.trigger' = [\n  # Why.\n  <one>, # of 1.0\n]");
        let more = lines.replace("[\n  #", &told("[\n  <two>,\n  #"));
        assert_eq!(accepting(&lines, &[("a.trigger", &["one", "two"])]), more);
        let next = lines.replace(&told("<one>"), &told("<two>"));
        assert_eq!(accepting(&lines, &[("a.trigger", &["two"])]), next);
        let behind = format!("{lines}\n\"b.trigger\" = {}", told("<two>"));
        assert_eq!(accepting(&lines, &[("a.trigger", &["one"]), ("b.trigger", &["two"])]), behind);
    }

    #[test]
    fn dotted_keys_and_tables_without_a_header_are_added_to_as_well() {
        let dotted = told("[image]\ni.packages = []\n  i.accept-scripts.'a.trigger' = <one> # a\n");
        let more = told(&format!("{dotted}  i.accept-scripts.\"b.trigger\" = <two>\n"));
        assert_eq!(accepting(&dotted, &[("a.trigger", &["one"]), ("b.trigger", &["two"])]), more);
        let bare = "image.i.packages = []\n[fleet]\n";
        let more =
            told("image.i.packages = []\nimage.i.accept-scripts = { \"a.trigger\" = <one> }\n[fleet]\n");
        assert_eq!(accepting(bare, &[("a.trigger", &["one"])]), more);
        let below = "[image.i.files]\n";
        let more = told("[image.i.files]\n\n[image.i]\naccept-scripts = { \"a.trigger\" = <one> }\n");
        assert_eq!(accepting(below, &[("a.trigger", &["one"])]), more);
        let inline =
            told("image = { i = { accept-scripts = { 'a.trigger' = <one>, 'b.trigger' = <two> } } } # all\n");
        let less = told("image = { i = { accept-scripts = { \"a.trigger\" = <three> } } } # all\n");
        assert_eq!(accepting(&inline, &[("a.trigger", &["three"])]), less);
    }
}
