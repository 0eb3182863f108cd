//! What is asked of the guest kernel: base, fragments and `options`, laid over each other, and compared
//! with the `.config` that Kconfig made of them.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;

use crate::base::{Class, Diagnosis, Diagnostic};
use crate::base::{InvalidValue, KernelOption};
use crate::fleet::OptionValue;

/// Where an option was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionOrigin {
    /// A file such as `kernel-configs/fragments/nftables.config`, or `fleet.toml`.
    pub file: String,
    /// 1-based; `None` where the place has no line.
    pub line: Option<usize>,
}

impl fmt::Display for OptionOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            None => f.write_str(&self.file),
            Some(line) => write!(f, "{}:{line}", self.file),
        }
    }
}

/// Where the `options` of a fleet are written.
pub const FLEET: &str = "fleet.toml";

/// A value that an option should have, and who wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedOption {
    pub value: OptionValue,
    pub origin: OptionOrigin,
    /// The comment that the option stands below.
    pub reason: Option<String>,
}

/// Every option that is asked for; whoever comes later wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestedOptions {
    /// In the order in which they were asked for; none is empty.
    options: BTreeMap<KernelOption, Vec<RequestedOption>>,
}

/// A line of a kernel config file that is neither an option nor a comment.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {reason}")]
pub struct ConfigLineError {
    pub file: String,
    pub line: usize,
    pub reason: InvalidValue,
}

impl Diagnostic for ConfigLineError {
    fn diagnosis(&self) -> Diagnosis {
        Class::Invalid.no_hint()
    }
}

/// An option that Kconfig did not give the value that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    pub option: KernelOption,
    pub request: RequestedOption,
    /// What came out; `None` where the final config does not mention the option at all.
    pub got: Option<OptionValue>,
}

impl RequestedOptions {
    /// Lays the text of a base or fragment over what is there. The first line that is not `CONFIG_X=value`, `# CONFIG_X
    /// is not set`, a comment or empty is an error.
    pub fn overlay_file(&mut self, file: &str, text: &str) -> Result<(), ConfigLineError> {
        let mut comment: Vec<&str> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line_number = index + 1;
            let parsed = parse_line(line).map_err(|reason| ConfigLineError {
                file: file.to_owned(),
                line: line_number,
                reason,
            })?;
            match parsed {
                Some((option, value)) => {
                    let origin = OptionOrigin { file: file.to_owned(), line: Some(line_number) };
                    let reason = Some(std::mem::take(&mut comment).join(" ")).filter(|text| !text.is_empty());
                    self.overlay(option, RequestedOption { value, origin, reason });
                }
                None => match line.trim().strip_prefix('#').filter(|text| !text.starts_with(':')) {
                    Some(text) => comment.push(text.trim()),
                    None => comment.clear(),
                },
            }
        }
        Ok(())
    }

    /// Lays the `options` of `fleet.toml` over what is there.
    pub fn overlay_options(&mut self, options: &BTreeMap<KernelOption, OptionValue>) {
        for (option, value) in options {
            let origin = OptionOrigin { file: FLEET.into(), line: None };
            self.overlay(option.clone(), RequestedOption { value: value.clone(), origin, reason: None });
        }
    }

    fn overlay(&mut self, option: KernelOption, request: RequestedOption) {
        self.options.entry(option).or_default().push(request);
    }

    /// Gives what is asked of an option to another name, or to none.
    pub fn rename(&mut self, old: &KernelOption, new: Option<&KernelOption>) {
        if let (Some(requested), Some(new)) = (self.options.remove(old), new) {
            self.options.entry(new.clone()).or_default().extend(requested);
        }
    }

    /// Who has the last word on an option, and what it is.
    pub fn get(&self, option: &KernelOption) -> Option<&RequestedOption> {
        self.options.get(option)?.last()
    }

    /// Everyone who asked for an option; the last one wins.
    pub fn all(&self, option: &KernelOption) -> &[RequestedOption] {
        self.options.get(option).map_or(&[], Vec::as_slice)
    }

    /// Every option that is asked for, with the line that counts.
    fn winners(&self) -> impl Iterator<Item = (&KernelOption, &RequestedOption)> {
        self.options.iter().filter_map(|(option, requested)| Some((option, requested.last()?)))
    }

    /// The requested options as a `KCONFIG_ALLCONFIG` file, sorted by name.
    pub fn to_allconfig(&self) -> String {
        let mut text = String::new();
        for (option, request) in self.winners() {
            let _ = match &request.value {
                OptionValue::Yes => writeln!(text, "CONFIG_{option}=y"),
                OptionValue::No => writeln!(text, "# CONFIG_{option} is not set"),
                OptionValue::Number(number) => writeln!(text, "CONFIG_{option}={number}"),
                OptionValue::Text(value) => writeln!(text, "CONFIG_{option}={}", quoted(value)),
            };
        }
        text
    }

    /// The requested options that `outcome`, the `.config` after `olddefconfig`, does not fulfil.
    pub fn unmet(&self, outcome: &DotConfig) -> Vec<Unmet> {
        let differs =
            |option: &KernelOption, request: &RequestedOption| match (&request.value, outcome.get(option)) {
                (OptionValue::No, None | Some(OptionValue::No)) => false,
                (wanted, Some(got)) => !same_value(wanted, got),
                (_, None) => true,
            };
        let unmet = self.winners().filter(|(option, request)| differs(option, request));
        unmet
            .map(|(option, request)| Unmet {
                option: option.clone(),
                request: request.clone(),
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
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigLineError> {
        let mut requested = RequestedOptions::default();
        requested.overlay_file(file, text)?;
        let options =
            requested.winners().map(|(option, request)| (option.clone(), request.value.clone())).collect();
        Ok(Self { options })
    }

    /// The value of an option; `None` where the config does not mention it.
    pub fn get(&self, option: &KernelOption) -> Option<&OptionValue> {
        self.options.get(option)
    }

    /// Every option that it mentions, by name.
    pub fn options(&self) -> impl Iterator<Item = (&KernelOption, &OptionValue)> {
        self.options.iter()
    }

    /// Whether an option is `=y`.
    pub fn is_on(&self, option: &KernelOption) -> bool {
        self.get(option) == Some(&OptionValue::Yes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(name: &str) -> KernelOption {
        KernelOption::parse(name).unwrap()
    }

    fn requested(texts: &[(&str, &str)]) -> RequestedOptions {
        let mut requested = RequestedOptions::default();
        for (file, text) in texts {
            requested.overlay_file(file, text).unwrap();
        }
        requested
    }

    #[test]
    fn whoever_comes_later_wins_and_is_named() {
        let mut requested =
            requested(&[("base", "CONFIG_NET=y\nCONFIG_A=y\n"), ("nft", "# why\nCONFIG_NET=n\n")]);
        requested.overlay_options(&BTreeMap::from([(option("NR_CPUS"), OptionValue::Number(8))]));
        assert_eq!(requested.get(&option("NET")).unwrap().origin.to_string(), "nft:2");
        assert_eq!(requested.to_allconfig(), "CONFIG_A=y\n# CONFIG_NET is not set\nCONFIG_NR_CPUS=8\n");
    }

    #[test]
    fn the_reason_is_the_comment_above_an_option() {
        let requested = requested(&[
            ("base", "# A title\n\n# because of A,\n# and of B\nCONFIG_A=y\nCONFIG_B=y\n"),
            ("more", "# not here\n# CONFIG_A is not set\n"),
        ]);
        let reasons = |name| {
            requested.all(&option(name)).iter().map(|request| request.reason.as_deref()).collect::<Vec<_>>()
        };
        assert_eq!(reasons("A"), [Some("because of A, and of B"), Some("not here")]);
        assert_eq!(reasons("B"), [None]);
        assert_eq!(reasons("C"), []);
    }

    #[test]
    fn a_requested_option_that_did_not_survive_is_reported_with_what_came_out() {
        let requested = requested(&[(
            "base",
            "CONFIG_GONE=y\nCONFIG_KEPT=y\n# CONFIG_OFF is not set\nCONFIG_HZ=100\nCONFIG_NAME=\"a\\\"b\"\nCONFIG_HEX=0x10\n",
        )]);
        let outcome = DotConfig::parse(
            ".config",
            "CONFIG_KEPT=y\nCONFIG_HZ=250\nCONFIG_NAME=\"a\\\"b\"\nCONFIG_HEX=0x10\n",
        )
        .unwrap();
        let unmet: Vec<_> =
            requested.unmet(&outcome).into_iter().map(|u| (u.option.to_string(), u.got)).collect();
        assert_eq!(unmet, [("GONE".into(), None), ("HZ".into(), Some(OptionValue::Number(250)))]);
    }

    #[test]
    fn a_module_is_refused_with_the_reason() {
        let error = RequestedOptions::default().overlay_file("x.config", "\nCONFIG_TUN=m\n").unwrap_err();
        assert_eq!(error.to_string(), "x.config:2: CONFIG_TUN=m: the guest has no modules; use y or n");
    }

    #[test]
    fn a_line_that_is_no_option_is_refused() {
        for wrong in ["NET=y", "CONFIG_NET", "CONFIG_NET=maybe", "CONFIG_N-T=y"] {
            assert!(RequestedOptions::default().overlay_file("x", wrong).is_err(), "{wrong} was accepted");
        }
    }
}
