//! Reads Kconfig files as far as a person needs them to see why an option is what it is.

use super::expression::Expression;
use super::{Definition, Select, Symbol, Symbols};

/// A file under way.
struct KconfigParser<'a> {
    file: &'a str,
    symbols: &'a mut Symbols,
    /// Conditions of the menus, choices and `if`s around, one entry for each block.
    blocks: Vec<Block>,
    current: Option<String>,
    help: Option<Help>,
    sources: Vec<(String, Vec<String>)>,
}

struct Block {
    kind: &'static str,
    conditions: Vec<String>,
    /// Where a choice begins: its place is its name.
    choice: Option<String>,
}

/// A help text lasts as long as lines are indented as its first one is.
struct Help {
    indentation: Option<usize>,
}

/// Reads one file, whose own `source` line stood below `conditions`. Gives the files that it names in turn, and the
/// conditions of each.
///
/// Follows Documentation/kbuild/kconfig-language.rst, but for macros, which are kept as they are written.
pub fn read(
    file: &str,
    text: &str,
    conditions: &[String],
    symbols: &mut Symbols,
) -> Vec<(String, Vec<String>)> {
    let around = Block { kind: "file", conditions: conditions.to_vec(), choice: None };
    let mut reader =
        KconfigParser { file, symbols, blocks: vec![around], current: None, help: None, sources: Vec::new() };
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let mut line = line.to_owned();
        while line.ends_with('\\') {
            line.pop();
            line.push_str(lines.next().map_or("", |(_, more)| more));
        }
        reader.line(index + 1, &line);
    }
    reader.sources
}

fn indentation(line: &str) -> usize {
    let width = |c: char| if c == '\t' { 8 } else { 1 };
    line.chars().take_while(|c| c.is_whitespace()).map(width).sum()
}

/// The text of a quoted beginning, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| "\"'".contains(*c))?;
    text[1..].split_once(quote)
}

/// A rest such as `NAME if CONDITION`.
fn conditional(text: &str) -> (&str, Option<String>) {
    let is_if = |word: &str| word == "if";
    match text.split_whitespace().position(is_if) {
        Some(_) => match text.split_once(" if ") {
            Some((before, condition)) => (before.trim(), Some(condition.trim().to_owned())),
            None => (text.trim(), None),
        },
        None => (text.trim(), None),
    }
}

impl KconfigParser<'_> {
    fn line(&mut self, number: usize, line: &str) {
        if let Some(help) = &mut self.help {
            if line.trim().is_empty() {
                return;
            }
            let here = indentation(line);
            if here > 0 && here >= help.indentation.unwrap_or(here) {
                help.indentation.get_or_insert(here);
                return;
            }
            self.help = None;
        }
        let line = line.trim();
        let end = line.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(line.len());
        let (first, rest) = (&line[..end], line[end..].trim());
        match first {
            "config" | "menuconfig" => self.config(number, rest),
            "menu" | "choice" => {
                let choice = (first == "choice").then(|| format!("{}:{number}", self.file));
                let kind = if first == "menu" { "menu" } else { "choice" };
                self.blocks.push(Block { kind, conditions: Vec::new(), choice });
                self.current = None;
            }
            "if" => {
                let condition = rest.to_owned();
                self.blocks.push(Block { kind: "if", conditions: vec![condition], choice: None });
                self.current = None;
            }
            "endif" | "endmenu" | "endchoice" => {
                if self.blocks.last().is_some_and(|block| block.kind == &first[3..]) {
                    self.blocks.pop();
                }
                self.current = None;
            }
            "comment" => self.current = Some(String::new()),
            "mainmenu" => self.current = None,
            "source" => {
                self.current = None;
                let path = rest.trim_matches(['"', '\'']).to_owned();
                self.sources.push((path, self.conditions()));
            }
            "help" | "---help---" => self.help = Some(Help { indentation: None }),
            _ => self.property(first, rest),
        }
    }

    fn conditions(&self) -> Vec<String> {
        self.blocks.iter().flat_map(|block| block.conditions.iter().cloned()).collect()
    }

    fn config(&mut self, line: usize, name: &str) {
        let definition = Definition {
            place: format!("{}:{line}", self.file),
            depends: self.conditions(),
            choice: self.blocks.iter().rev().find_map(|block| block.choice.clone()),
            ..Definition::default()
        };
        self.symbols.0.entry(name.to_owned()).or_default().definitions.push(definition);
        self.current = Some(name.to_owned());
    }

    /// A line of the symbol, menu or choice that is being read.
    fn property(&mut self, first: &str, rest: &str) {
        let Some(name) = &self.current else {
            // `depends on` of a menu or choice holds for everything in it.
            if first == "depends" {
                let condition = rest.trim_start_matches("on").trim().to_owned();
                if let Some(block) = self.blocks.last_mut() {
                    block.conditions.push(condition);
                }
            }
            return;
        };
        let Some(symbol) = self.symbols.0.get_mut(name) else { return };
        let Symbol { kind, definitions } = symbol;
        let Some(definition) = definitions.last_mut() else { return };
        match first {
            "depends" => definition.depends.push(rest.trim_start_matches("on").trim().to_owned()),
            "bool" | "tristate" | "int" | "hex" | "string" => {
                kind.get_or_insert_with(|| first.to_owned());
                prompt(definition, rest);
            }
            "prompt" => prompt(definition, rest),
            "def_bool" | "def_tristate" => {
                kind.get_or_insert_with(|| first[4..].to_owned());
                definition.defaults.push(rest.to_owned());
            }
            "default" => definition.defaults.push(rest.to_owned()),
            "select" => {
                let (option, condition) = conditional(rest);
                definition.selects.push(Select { option: option.to_owned(), condition });
            }
            "range" => definition.ranges.push(rest.to_owned()),
            _ => {}
        }
    }
}

fn prompt(definition: &mut Definition, rest: &str) {
    if let Some((text, after)) = quoted(rest) {
        definition.prompt = Some(text.to_owned());
        definition.prompt_condition = after.trim().strip_prefix("if").map(|text| text.trim().to_owned());
    }
}

/// All conditions of a definition as one.
pub(super) fn all_of(conditions: &[String]) -> Expression {
    let mut parts: Vec<_> = conditions.iter().map(|text| Expression::parse(text)).collect();
    if parts.len() == 1 { parts.remove(0) } else { Expression::And(parts) }
}
