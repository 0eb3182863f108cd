//! Conditions of Kconfig files: read, judged by a final configuration, and told where they do not hold.

use std::fmt;

/// A condition (Documentation/kbuild/kconfig-language.rst, "Menu dependencies").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// A symbol, or a constant such as `y` or `"x86"`.
    Word(String),
    /// What depends on the compiler or on other parts of make: `$(cc-option,-mfoo)`.
    Macro(String),
    Not(Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
    /// Left side, one of `= != < > <= >=`, right side.
    Compare(String, String, String),
}

/// Values of options in a final configuration, by name without prefix: `y`, `n`, or what an option that is no switch says.
pub trait OptionValues {
    /// `None` where the configuration does not mention it.
    fn value(&self, name: &str) -> Option<String>;
}

impl Expression {
    /// Reads a condition. What cannot be read is kept as a [`Expression::Macro`], of which nothing is known: conditions
    /// explain, they decide nothing.
    pub fn parse(text: &str) -> Self {
        let mut reader = ExpressionParser { words: words(text), next: 0 };
        match reader.either() {
            Some(expression) if reader.next == reader.words.len() => expression,
            _ => Self::Macro(text.trim().to_owned()),
        }
    }

    /// Whether it holds; `None` where that depends on more than the configuration.
    pub fn holds(&self, values: &dyn OptionValues) -> Option<bool> {
        match self {
            Self::Word(word) => Some(value_of(word, values) == "y"),
            Self::Macro(_) => None,
            Self::Not(inner) => inner.holds(values).map(|holds| !holds),
            Self::And(parts) => all(parts.iter().map(|part| part.holds(values))),
            Self::Or(parts) => {
                let none = all(parts.iter().map(|part| part.holds(values).map(|holds| !holds)));
                none.map(|none| !none)
            }
            Self::Compare(left, operator, right) => {
                let (left, right) = (value_of(left, values), value_of(right, values));
                let order = match (left.parse::<i64>(), right.parse::<i64>()) {
                    (Ok(left), Ok(right)) => left.cmp(&right),
                    _ => left.cmp(&right),
                };
                Some(match operator.as_str() {
                    "=" => order.is_eq(),
                    "!=" => order.is_ne(),
                    "<" => order.is_lt(),
                    ">" => order.is_gt(),
                    "<=" => order.is_le(),
                    _ => order.is_ge(),
                })
            }
        }
    }

    /// The parts of it that do not hold, each in words that end a sentence beginning with `NAME needs`.
    pub fn unmet(&self, values: &dyn OptionValues) -> Vec<String> {
        if self.holds(values) != Some(false) {
            return Vec::new();
        }
        match self {
            Self::And(parts) => parts.iter().flat_map(|part| part.unmet(values)).collect(),
            Self::Word(word) => vec![format!("{word}, which is off")],
            Self::Not(inner) => match inner.as_ref() {
                Self::Word(word) => vec![format!("{word} to be off, but it is on")],
                _ => vec![format!("{self}, which does not hold")],
            },
            Self::Or(parts) if parts.iter().all(|part| matches!(part, Self::Word(_))) => {
                let names: Vec<_> = parts.iter().map(ToString::to_string).collect();
                vec![format!("one of {}, which are all off", names.join(", "))]
            }
            _ => vec![format!("{self}, which does not hold")],
        }
    }
}

/// No where one says no, else unknown where one is unknown.
fn all(parts: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut all = Some(true);
    for part in parts {
        match part {
            Some(false) => return Some(false),
            None => all = None,
            Some(true) => {}
        }
    }
    all
}

fn value_of(word: &str, values: &dyn OptionValues) -> String {
    if let Some(text) = word.strip_prefix('"') {
        return text.trim_end_matches('"').to_owned();
    }
    // A symbol that is not there has its own name as its value, as Kconfig has it; `y`, `n` and numbers live by that.
    let is_constant =
        matches!(word, "y" | "n" | "m") || word.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    if is_constant { word.to_owned() } else { values.value(word).unwrap_or_else(|| "n".to_owned()) }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |parts: &[Self], with: &str| {
            let part = |part: &Self| match part {
                Self::And(_) | Self::Or(_) => format!("({part})"),
                _ => part.to_string(),
            };
            parts.iter().map(part).collect::<Vec<_>>().join(with)
        };
        match self {
            Self::Word(text) | Self::Macro(text) => f.write_str(text),
            Self::Not(inner) if matches!(**inner, Self::Word(_)) => write!(f, "!{inner}"),
            Self::Not(inner) => write!(f, "!({inner})"),
            Self::And(parts) => f.write_str(&joined(parts, " && ")),
            Self::Or(parts) => f.write_str(&joined(parts, " || ")),
            Self::Compare(left, operator, right) => write!(f, "{left} {operator} {right}"),
        }
    }
}

/// Splits a condition into operators, words, strings with their quotes, and whole `$(...)`.
fn words(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' | '\'' => rest[1..].find(first).map_or(rest.len(), |end| end + 2),
            '$' => closing(rest).unwrap_or(rest.len()),
            '&' | '|' => 2.min(rest.len()),
            '!' | '<' | '>' => 1 + usize::from(rest[1..].starts_with('=')),
            '(' | ')' | '=' => 1,
            _ => {
                let is_end = |c: char| c.is_whitespace() || "()!=<>&|\"'$".contains(c);
                rest.find(is_end).unwrap_or(rest.len()).max(first.len_utf8())
            }
        };
        let (word, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
        found.push(word.to_owned());
        rest = after.trim_start();
    }
    found
}

/// Where the bracket that a macro begins with is closed.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (index, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => return Some(index + 1),
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

struct ExpressionParser {
    words: Vec<String>,
    next: usize,
}

impl ExpressionParser {
    fn peek(&self) -> Option<&str> {
        self.words.get(self.next).map(String::as_str)
    }

    fn take(&mut self) -> Option<String> {
        let word = self.words.get(self.next).cloned();
        self.next += 1;
        word
    }

    fn takes(&mut self, wanted: &str) -> bool {
        let is_there = self.peek() == Some(wanted);
        self.next += usize::from(is_there);
        is_there
    }

    fn either(&mut self) -> Option<Expression> {
        let mut parts = vec![self.both()?];
        while self.takes("||") {
            parts.push(self.both()?);
        }
        Some(if parts.len() == 1 { parts.remove(0) } else { Expression::Or(parts) })
    }

    fn both(&mut self) -> Option<Expression> {
        let mut parts = vec![self.single()?];
        while self.takes("&&") {
            parts.push(self.single()?);
        }
        Some(if parts.len() == 1 { parts.remove(0) } else { Expression::And(parts) })
    }

    fn single(&mut self) -> Option<Expression> {
        if self.takes("!") {
            return Some(Expression::Not(Box::new(self.single()?)));
        }
        if self.takes("(") {
            let inner = self.either()?;
            return self.takes(")").then_some(inner);
        }
        let word = self.take()?;
        if word.starts_with('$') {
            return Some(Expression::Macro(word));
        }
        if ["&&", "||", ")", "="].contains(&word.as_str()) {
            return None;
        }
        if let Some(operator @ ("=" | "!=" | "<" | ">" | "<=" | ">=")) = self.peek() {
            let operator = operator.to_owned();
            self.next += 1;
            return Some(Expression::Compare(word, operator, self.take()?));
        }
        Some(Expression::Word(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct On(&'static [(&'static str, &'static str)]);

    impl OptionValues for On {
        fn value(&self, name: &str) -> Option<String> {
            self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        }
    }

    const VALUES: On = On(&[("NET", "y"), ("INET", "y"), ("NR_CPUS", "32")]);

    fn unmet(text: &str) -> Vec<String> {
        Expression::parse(text).unmet(&VALUES)
    }

    #[test]
    fn only_the_parts_that_do_not_hold_are_told() {
        assert_eq!(
            unmet("NET && NF_TABLES && !INET"),
            ["NF_TABLES, which is off", "INET to be off, but it is on"]
        );
        assert_eq!(unmet("NET || NF_TABLES"), [""; 0]);
        assert_eq!(unmet("IPX || (ATALK)"), ["one of IPX, ATALK, which are all off"]);
        assert_eq!(unmet("NET && (IPX || !INET)"), ["IPX || !INET, which does not hold"]);
    }

    #[test]
    fn numbers_and_strings_are_compared() {
        assert_eq!(Expression::parse("NR_CPUS>=4").holds(&VALUES), Some(true));
        assert_eq!(Expression::parse("NR_CPUS < 4 || NET!=y").holds(&VALUES), Some(false));
        assert_eq!(Expression::parse("\"x86\" = 'x86'").to_string(), "\"x86\" = 'x86'");
    }

    #[test]
    fn of_the_compiler_nothing_is_known() {
        let asks = Expression::parse("$(cc-option,-mfoo=(x)) && NET");
        assert_eq!((asks.holds(&VALUES), asks.unmet(&VALUES)), (None, Vec::new()));
        assert_eq!(unmet("$(success,true) && NF_TABLES"), ["NF_TABLES, which is off"]);
    }

    #[test]
    fn what_is_no_condition_is_kept_as_it_is() {
        for wrong in ["", "&&", "NET &&", "(NET", "NET )", "= y", "A B", "ä$(", "$"] {
            assert_eq!(Expression::parse(wrong).holds(&VALUES), None, "{wrong:?}");
        }
    }
}
