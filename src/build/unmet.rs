//! Why an option is not what was asked for, in words.

use std::fmt;

use crate::base::KernelOption;
use crate::fleet::OptionValue;
use crate::lock::kernel::{DotConfig, Unmet};

use super::kconfig::{OptionValues, Symbol, Symbols};

/// An option that did not survive `olddefconfig`, explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnmetOption {
    pub unmet: Unmet,
    pub why: UnmetReason,
}

/// Why an option is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnmetReason {
    /// No Kconfig file declares it.
    Unknown { nearest: Option<String> },
    /// `NF_TABLES, which is off`, and the like.
    Needs(Vec<String>),
    /// Another one of its choice is on.
    Chosen { instead: String },
    /// Others that are on turn it on.
    Selected { by: Vec<String> },
    /// It has no prompt: only these turn it on.
    Hidden { selectors: Vec<String> },
    /// Its values are of another kind: `a number`.
    OtherKind { kind: &'static str },
    /// A number that is out of one of these ranges.
    Range { ranges: Vec<String> },
    /// Kconfig alone knows.
    Other,
}

/// Values of a configuration, as conditions compare them.
impl OptionValues for DotConfig {
    fn value(&self, name: &str) -> Option<String> {
        Some(match self.get(&KernelOption::parse(name).ok()?)? {
            OptionValue::Text(text) => text.clone(),
            other => shown(other),
        })
    }
}

/// Explains each requested option that a configuration does not fulfil.
pub fn explain(unmet: Vec<Unmet>, symbols: &Symbols, outcome: &DotConfig) -> Vec<UnmetOption> {
    let explained = |unmet: Unmet| UnmetOption { why: why(&unmet, symbols, outcome), unmet };
    unmet.into_iter().map(explained).collect()
}

/// Names that a message lists at most.
const LISTED: usize = 5;

fn why(unmet: &Unmet, symbols: &Symbols, outcome: &DotConfig) -> UnmetReason {
    let name = unmet.option.as_str();
    let owned = |names: Vec<&str>| names.into_iter().take(LISTED).map(str::to_owned).collect::<Vec<_>>();
    let Some(symbol) = symbols.get(name) else {
        return UnmetReason::Unknown { nearest: symbols.near(name).first().map(|near| (*near).to_owned()) };
    };
    if let Some(kind) = other_kind(symbol, &unmet.request.value) {
        return UnmetReason::OtherKind { kind };
    }
    if unmet.request.value == OptionValue::No {
        let by = owned(symbols.selected_by(name, outcome));
        return if by.is_empty() { UnmetReason::Other } else { UnmetReason::Selected { by } };
    }
    let missing = symbol.unmet(outcome);
    if !missing.is_empty() {
        return UnmetReason::Needs(missing);
    }
    if let Some(instead) = symbols.chosen_instead(name, outcome) {
        return UnmetReason::Chosen { instead: instead.to_owned() };
    }
    if !symbol.has_prompt() {
        return UnmetReason::Hidden {
            selectors: owned(symbols.selectors(name).map(|(name, _)| name).collect()),
        };
    }
    let ranges: Vec<_> = symbol.definitions.iter().flat_map(|one| one.ranges.iter().cloned()).collect();
    if ranges.is_empty() { UnmetReason::Other } else { UnmetReason::Range { ranges } }
}

/// What an option's values are, where they are of another kind than what was asked for.
fn other_kind(symbol: &Symbol, wanted: &OptionValue) -> Option<&'static str> {
    let is_switch = matches!(wanted, OptionValue::Yes | OptionValue::No);
    match (symbol.kind.as_deref()?, wanted) {
        ("bool" | "tristate", _) if !is_switch => Some("true or false"),
        ("int", OptionValue::Yes | OptionValue::Text(_)) => Some("a number"),
        ("hex", OptionValue::Yes) => Some("a number such as \"0x1000\""),
        ("string", OptionValue::Yes | OptionValue::Number(_)) => Some("a text"),
        _ => None,
    }
}

impl fmt::Display for UnmetOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unmet { option, request, got } = &self.unmet;
        let came_out = got.as_ref().map_or_else(|| "off".to_owned(), shown);
        let differs = format!("{option} should be {}, but came out as {came_out}", shown(&request.value));
        write!(f, "{}: ", request.origin)?;
        match &self.why {
            UnmetReason::Unknown { nearest: None } => write!(f, "this kernel has no option {option}"),
            UnmetReason::Unknown { nearest: Some(near) } => {
                write!(f, "this kernel has no option {option}; did you mean {near}?")
            }
            UnmetReason::Needs(what) => write!(f, "{option} needs {}", what.join("; and ")),
            UnmetReason::Chosen { instead } => {
                write!(
                    f,
                    "{option} cannot be on together with {instead}, which is on: they are \
                  alternatives of one choice"
                )
            }
            UnmetReason::Selected { by } => write!(f, "{option} cannot be off: {} needs it", by.join(", ")),
            UnmetReason::Hidden { selectors } if selectors.is_empty() => {
                write!(f, "{option} cannot be set: Kconfig computes it")
            }
            UnmetReason::Hidden { selectors } => {
                write!(
                    f,
                    "{option} cannot be set directly: turn on an option that selects it, such as {}",
                    selectors.join(", ")
                )
            }
            UnmetReason::OtherKind { kind } => {
                write!(f, "{option} is {kind}, but {} was given", shown(&request.value))
            }
            UnmetReason::Range { ranges } => write!(f, "{differs}; its range is {}", ranges.join(", ")),
            UnmetReason::Other => f.write_str(&differs),
        }
    }
}

/// A value as `.config` has it, `n` for what is off.
pub fn shown(value: &OptionValue) -> String {
    match value {
        OptionValue::Yes => "y".into(),
        OptionValue::No => "n".into(),
        OptionValue::Number(number) => number.to_string(),
        OptionValue::Text(text) if text.starts_with("0x") => text.clone(),
        OptionValue::Text(text) => format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::kernel::RequestedOptions;

    const KCONFIG: &str = "\
config NF_TABLES
	bool \"tables\"
config NFT_MASQ
	bool \"masquerade\"
	depends on NF_TABLES && NET
	select CRC
config NET
	bool \"net\"
	select HIDDEN
config HIDDEN
	bool
config CRC
	bool
config NR_CPUS
	int \"CPUs\"
	range 2 8192
choice
config HZ_100
	bool \"100\"
config HZ_250
	bool \"250\"
endchoice
";

    fn unmet(requested: &str, outcome: &str) -> Vec<String> {
        let mut all = RequestedOptions::default();
        all.overlay_file("base.config", requested).unwrap();
        let outcome = DotConfig::parse(".config", outcome).unwrap();
        explain(all.unmet(&outcome), &Symbols::of(KCONFIG), &outcome)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn what_an_option_needs_and_does_not_have_is_named() {
        assert_eq!(
            unmet("\nCONFIG_NFT_MASQ=y\n", "CONFIG_NET=y\n"),
            ["base.config:2: NFT_MASQ needs NF_TABLES, which is off"]
        );
        assert_eq!(
            unmet("CONFIG_NFT_MASQ=y\n", ""),
            ["base.config:1: NFT_MASQ needs NF_TABLES, which is off; and NET, which is off"]
        );
    }

    #[test]
    fn an_unknown_option_names_the_nearest() {
        assert_eq!(
            unmet("CONFIG_NF_TABLE=y\n", ""),
            ["base.config:1: this kernel has no option NF_TABLE; did you mean NF_TABLES?"]
        );
    }

    #[test]
    fn what_others_turn_on_cannot_be_turned_off() {
        assert_eq!(
            unmet("CONFIG_HIDDEN=n\n", "CONFIG_NET=y\nCONFIG_HIDDEN=y\n"),
            ["base.config:1: HIDDEN cannot be off: NET needs it"]
        );
    }

    #[test]
    fn what_has_no_prompt_names_who_turns_it_on() {
        assert_eq!(
            unmet("CONFIG_CRC=y\n", ""),
            [
                "base.config:1: CRC cannot be set directly: turn on an option that selects it, such as NFT_MASQ"
            ]
        );
    }

    #[test]
    fn values_that_cannot_be_are_refused_with_the_reason() {
        assert_eq!(
            unmet("CONFIG_HZ_100=y\n", "CONFIG_HZ_250=y\n"),
            ["base.config:1: HZ_100 cannot be on together with HZ_250, which is on: they are alternatives \
              of one choice"]
        );
        assert_eq!(
            unmet("CONFIG_NR_CPUS=1\n", "CONFIG_NR_CPUS=2\n"),
            ["base.config:1: NR_CPUS should be 1, but came out as 2; its range is 2 8192"]
        );
        assert_eq!(
            unmet("CONFIG_NR_CPUS=y\nCONFIG_NET=3\n", "CONFIG_NR_CPUS=2\n"),
            [
                "base.config:2: NET is true or false, but 3 was given",
                "base.config:1: NR_CPUS is a number, but y was given"
            ]
        );
    }
}
