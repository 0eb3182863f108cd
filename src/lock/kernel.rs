//! What is wished of the guest kernel: base, fragments and `options`, laid over each other, and compared
//! with the `.config` that Kconfig made of them.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;

use crate::fleet::{InvalidValue, KernelOption, OptionValue};

/// Where a wish was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// A file such as `kernel-configs/fragments/nftables.config`, or `fleet.toml`.
    pub file: String,
    /// 1-based; 0 where the place has no line.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// A value that an option should have, and who wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    pub value: OptionValue,
    pub origin: Origin,
}

/// Every option that is asked for; whoever comes later wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelWishes {
    options: BTreeMap<KernelOption, Wish>,
}

/// A line of a kernel config file that is neither an option nor a comment.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {reason}")]
pub struct ConfigLineError {
    pub file: String,
    pub line: usize,
    pub reason: InvalidValue,
}

/// An option that Kconfig did not give the value that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    pub option: KernelOption,
    pub wish: Wish,
    /// What came out; `None` where the final config does not mention the option at all.
    pub got: Option<OptionValue>,
}

impl KernelWishes {
    /// Lays the text of a base or fragment over what is there.
    ///
    /// # Errors
    /// The first line that is not `CONFIG_X=value`, `# CONFIG_X is not set`, a comment or empty.
    pub fn overlay_file(&mut self, file: &str, text: &str) -> Result<(), ConfigLineError> {
        for (index, line) in text.lines().enumerate() {
            let line_number = index + 1;
            let parsed = parse_line(line).map_err(|reason| ConfigLineError {
                file: file.to_owned(),
                line: line_number,
                reason,
            })?;
            if let Some((option, value)) = parsed {
                self.overlay(option, value, Origin { file: file.to_owned(), line: line_number });
            }
        }
        Ok(())
    }

    /// Lays the `options` of `fleet.toml` over what is there.
    pub fn overlay_options(&mut self, options: &BTreeMap<KernelOption, OptionValue>) {
        for (option, value) in options {
            let origin = Origin { file: "fleet.toml".into(), line: 0 };
            self.overlay(option.clone(), value.clone(), origin);
        }
    }

    fn overlay(&mut self, option: KernelOption, value: OptionValue, origin: Origin) {
        self.options.insert(option, Wish { value, origin });
    }

    /// Who asked for an option, and for what.
    pub fn get(&self, option: &KernelOption) -> Option<&Wish> {
        self.options.get(option)
    }

    /// The wishes as a `KCONFIG_ALLCONFIG` file, sorted by name.
    pub fn to_allconfig(&self) -> String {
        let mut text = String::new();
        for (option, wish) in &self.options {
            let _ = match &wish.value {
                OptionValue::Yes => writeln!(text, "CONFIG_{option}=y"),
                OptionValue::No => writeln!(text, "# CONFIG_{option} is not set"),
                OptionValue::Number(number) => writeln!(text, "CONFIG_{option}={number}"),
                OptionValue::Text(value) => writeln!(text, "CONFIG_{option}={}", quoted(value)),
            };
        }
        text
    }

    /// The wishes that `outcome`, the `.config` after `olddefconfig`, does not fulfil.
    pub fn unmet(&self, outcome: &DotConfig) -> Vec<Unmet> {
        let differs = |option: &KernelOption, wish: &Wish| match (&wish.value, outcome.get(option)) {
            (OptionValue::No, None | Some(OptionValue::No)) => false,
            (wanted, Some(got)) => !same_value(wanted, got),
            (_, None) => true,
        };
        let unmet = self.options.iter().filter(|(option, wish)| differs(option, wish));
        unmet
            .map(|(option, wish)| Unmet {
                option: option.clone(),
                wish: wish.clone(),
                got: outcome.get(option).cloned(),
            })
            .collect()
    }
}

/// Kconfig writes hexadecimal values as it was given them; a text that is a number is compared as one.
fn same_value(wanted: &OptionValue, got: &OptionValue) -> bool {
    let number = |value: &OptionValue| match value {
        OptionValue::Number(number) => Some(*number),
        OptionValue::Text(text) => parse_number(text),
        _ => None,
    };
    wanted == got || number(wanted).is_some_and(|wanted| number(got) == Some(wanted))
}

fn quoted(text: &str) -> String {
    if text.starts_with("0x") && parse_number(text).is_some() {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
}

fn parse_number(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn parse_line(line: &str) -> Result<Option<(KernelOption, OptionValue)>, InvalidValue> {
    let line = line.trim();
    if let Some(comment) = line.strip_prefix('#') {
        let off = comment.trim().strip_suffix(" is not set").and_then(|name| name.strip_prefix("CONFIG_"));
        return match off {
            Some(name) => Ok(Some((KernelOption::parse(name)?, OptionValue::No))),
            None => Ok(None),
        };
    }
    if line.is_empty() {
        return Ok(None);
    }
    let wrong = || InvalidValue(format!("`{line}` is not CONFIG_NAME=value, nor a comment"));
    let (name, value) =
        line.strip_prefix("CONFIG_").and_then(|rest| rest.split_once('=')).ok_or_else(wrong)?;
    let value = match value {
        "y" => OptionValue::Yes,
        "n" => OptionValue::No,
        "m" => return Err(InvalidValue(format!("CONFIG_{name}=m: the guest has no modules; use y or n"))),
        _ if value.starts_with('"') && value.ends_with('"') && value.len() > 1 => {
            OptionValue::Text(unquoted(&value[1..value.len() - 1]))
        }
        _ if value.starts_with("0x") => OptionValue::Text(value.to_owned()),
        _ => OptionValue::Number(value.parse().map_err(|_| wrong())?),
    };
    Ok(Some((KernelOption::parse(name)?, value)))
}

fn unquoted(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    plain
}

/// A `.config` as Kconfig wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DotConfig {
    options: BTreeMap<KernelOption, OptionValue>,
}

impl DotConfig {
    /// Reads a `.config`.
    ///
    /// # Errors
    /// The first line that is none of Kconfig's.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigLineError> {
        let mut wishes = KernelWishes::default();
        wishes.overlay_file(file, text)?;
        let options = wishes.options.into_iter().map(|(option, wish)| (option, wish.value)).collect();
        Ok(Self { options })
    }

    /// The value of an option; `None` where the config does not mention it.
    pub fn get(&self, option: &KernelOption) -> Option<&OptionValue> {
        self.options.get(option)
    }

    /// Whether an option is `=y`.
    pub fn is_on(&self, option: &KernelOption) -> bool {
        self.get(option) == Some(&OptionValue::Yes)
    }
}

/// What Kconfig files say of one symbol, as far as a person needs it to see why a wish was not met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbol {
    /// Each `depends on` expression and each enclosing `if`, as written.
    pub depends: Vec<String>,
    /// Whether the symbol has a prompt; one without can only be selected by others.
    pub has_prompt: bool,
}

/// Reads the symbols that one Kconfig file declares into `symbols`.
///
/// Follows Documentation/kbuild/kconfig-language.rst as far as `config`, `menuconfig`, `if`, `depends on` and
/// prompts; it explains, it does not resolve.
pub fn read_kconfig(text: &str, symbols: &mut BTreeMap<String, Symbol>) {
    let mut conditions: Vec<String> = Vec::new();
    let mut current: Option<String> = None;
    for line in text.lines() {
        let words = line.trim();
        let (first, rest) = words.split_once(char::is_whitespace).unwrap_or((words, ""));
        match first {
            "config" | "menuconfig" => {
                let symbol = symbols.entry(rest.trim().to_owned()).or_default();
                symbol.depends.extend(conditions.iter().cloned());
                current = Some(rest.trim().to_owned());
            }
            "if" if !line.starts_with(char::is_whitespace) => conditions.push(rest.trim().to_owned()),
            "endif" => drop(conditions.pop()),
            "menu" | "endmenu" | "choice" | "endchoice" | "source" | "comment" => current = None,
            _ => {}
        }
        let Some(symbol) = current.as_ref().and_then(|name| symbols.get_mut(name)) else { continue };
        match first {
            "depends" => {
                symbol.depends.push(rest.trim().trim_start_matches("on").trim().to_owned());
            }
            "bool" | "tristate" | "string" | "int" | "hex" | "prompt" if rest.contains('"') => {
                symbol.has_prompt = true;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(name: &str) -> KernelOption {
        KernelOption::parse(name).unwrap()
    }

    fn wishes(texts: &[(&str, &str)]) -> KernelWishes {
        let mut wishes = KernelWishes::default();
        for (file, text) in texts {
            wishes.overlay_file(file, text).unwrap();
        }
        wishes
    }

    #[test]
    fn whoever_comes_later_wins_and_is_named() {
        let mut wishes = wishes(&[("base", "CONFIG_NET=y\nCONFIG_A=y\n"), ("nft", "# why\nCONFIG_NET=n\n")]);
        wishes.overlay_options(&BTreeMap::from([(option("NR_CPUS"), OptionValue::Number(8))]));
        assert_eq!(wishes.get(&option("NET")).unwrap().origin.to_string(), "nft:2");
        assert_eq!(wishes.to_allconfig(), "CONFIG_A=y\n# CONFIG_NET is not set\nCONFIG_NR_CPUS=8\n");
    }

    #[test]
    fn a_wish_that_did_not_survive_is_reported_with_what_came_out() {
        let wishes = wishes(&[(
            "base",
            "CONFIG_GONE=y\nCONFIG_KEPT=y\n# CONFIG_OFF is not set\nCONFIG_HZ=100\nCONFIG_NAME=\"a\\\"b\"\nCONFIG_HEX=0x10\n",
        )]);
        let outcome = DotConfig::parse(
            ".config",
            "CONFIG_KEPT=y\nCONFIG_HZ=250\nCONFIG_NAME=\"a\\\"b\"\nCONFIG_HEX=0x10\n",
        )
        .unwrap();
        let unmet: Vec<_> =
            wishes.unmet(&outcome).into_iter().map(|u| (u.option.to_string(), u.got)).collect();
        assert_eq!(unmet, [("GONE".into(), None), ("HZ".into(), Some(OptionValue::Number(250)))]);
    }

    #[test]
    fn a_module_is_refused_with_the_reason() {
        let error = KernelWishes::default().overlay_file("x.config", "\nCONFIG_TUN=m\n").unwrap_err();
        assert_eq!(error.to_string(), "x.config:2: CONFIG_TUN=m: the guest has no modules; use y or n");
    }

    #[test]
    fn a_line_that_is_no_option_is_refused() {
        for wrong in ["NET=y", "CONFIG_NET", "CONFIG_NET=maybe", "CONFIG_N-T=y"] {
            assert!(KernelWishes::default().overlay_file("x", wrong).is_err(), "{wrong} was accepted");
        }
    }

    #[test]
    fn kconfig_says_what_a_symbol_depends_on() {
        let mut symbols = BTreeMap::new();
        read_kconfig(
            "if NF_TABLES\nconfig NFT_MASQ\n\tdepends on NF_CONNTRACK\n\tdepends on NF_NAT\n\ttristate \"masquerade\"\n\thelp\n\t  bool of help\nendif\nconfig HIDDEN\n\tbool\n",
            &mut symbols,
        );
        assert_eq!(symbols["NFT_MASQ"].depends, ["NF_TABLES", "NF_CONNTRACK", "NF_NAT"]);
        assert!(symbols["NFT_MASQ"].has_prompt);
        assert!(!symbols["HIDDEN"].has_prompt);
    }
}
