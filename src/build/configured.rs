//! What Kconfig makes of the requested options: the final configuration, where each of its lines comes from, and who wants an option.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::KernelOption;
use crate::fleet::OptionValue;
use crate::lock::kernel::{DotConfig, FLEET, RequestedOption, RequestedOptions};
use crate::sys::beneath;
use crate::sys::fs as files;
use crate::sys::make::KernelTree;

use super::kconfig::Symbols;
use super::kernel_error::KernelError;
use super::unmet::explain;

/// The file of requested options in a tree.
const REQUESTED: &str = ".sisforge-requested";

/// Bytes of a `.config`: the largest of distributions have 300 KiB.
const LARGEST_CONFIG: u64 = 16 << 20;

/// A configured kernel source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configured {
    /// The `.config`.
    pub text: String,
    /// Everything that could have been set.
    pub symbols: Symbols,
}

/// Where a line of a final configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "from")]
pub enum LineOrigin {
    Base {
        place: String,
    },
    Fragment {
        name: String,
        place: String,
    },
    #[serde(rename = "fleet.toml")]
    Fleet,
    /// Options that are on have turned it on.
    Selected {
        by: Vec<String>,
    },
    Default,
}

/// A line of a final configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ConfigLine {
    pub option: String,
    /// As `.config` has it, `n` for what is off.
    pub value: String,
    pub origin: LineOrigin,
}

impl LineOrigin {
    fn of_request(request: &RequestedOption) -> Self {
        let place = request.origin.to_string();
        let file = request.origin.file.as_str();
        if file == FLEET {
            return Self::Fleet;
        }
        match file.rsplit_once("fragments/").and_then(|(_, name)| name.split_once(".config")) {
            Some((name, _)) => Self::Fragment { name: name.to_owned(), place },
            None => Self::Base { place },
        }
    }
}

impl std::fmt::Display for LineOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Base { place } => write!(f, "base, {place}"),
            Self::Fragment { name, place } => write!(f, "fragment {name}, {place}"),
            Self::Fleet => f.write_str(FLEET),
            Self::Selected { by } => write!(f, "needed by {}", by.join(", ")),
            Self::Default => f.write_str("default"),
        }
    }
}

impl Configured {
    /// Configures a source tree; `source_arch` is the architecture as its `arch/` calls it.
    pub fn make(
        tree: &KernelTree<'_>,
        source_arch: &str,
        requested: &RequestedOptions,
    ) -> Result<Self, KernelError> {
        files::write(&tree.dir.join(REQUESTED), requested.to_allconfig().as_bytes(), 0o644)?;
        tree.configure(REQUESTED).map_err(KernelError::Configure)?;
        let text = beneath::read(&tree.dir, Path::new(".config"), LARGEST_CONFIG)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok(Self { text, symbols: Symbols::read(&tree.dir, source_arch)? })
    }

    /// The configuration, read.
    pub fn config(&self) -> Result<DotConfig, KernelError> {
        Ok(DotConfig::parse(".config", &self.text)?)
    }

    /// Looks whether every requested option has survived.
    pub fn check(&self, requested: &RequestedOptions) -> Result<(), KernelError> {
        let outcome = self.config()?;
        match requested.unmet(&outcome) {
            unmet if unmet.is_empty() => Ok(()),
            unmet => Err(KernelError::Unmet(explain(unmet, &self.symbols, &outcome))),
        }
    }

    /// Each option that the configuration mentions, with who set it; sorted by name. What it does not mention cannot be set.
    pub fn lines(&self, requested: &RequestedOptions) -> Result<Vec<ConfigLine>, KernelError> {
        let config = self.config()?;
        let line = |(option, value): (&KernelOption, &OptionValue)| {
            let origin = match requested.get(option) {
                Some(request) => LineOrigin::of_request(request),
                None if *value == OptionValue::No => LineOrigin::Default,
                None => self.unasked(option, &config),
            };
            ConfigLine { option: option.to_string(), value: super::unmet::shown(value), origin }
        };
        Ok(config.options().map(line).collect())
    }

    fn unasked(&self, option: &KernelOption, config: &DotConfig) -> LineOrigin {
        let by = self.symbols.selected_by(option.as_str(), config);
        match by.is_empty() {
            true => LineOrigin::Default,
            false => LineOrigin::Selected { by: by.into_iter().map(str::to_owned).collect() },
        }
    }
}

/// Reads a configuration for a comparison: names and values, whoever made it and whatever the values are.
///
/// Gives nothing for a text that has no line of an option.
pub fn read_any(path: &Path) -> Result<std::collections::BTreeMap<String, String>, files::FileError> {
    let text = files::read_text(path)?;
    let set = |line: &str| {
        let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    };
    let off = |line: &str| {
        let name = line.strip_prefix("# CONFIG_")?.strip_suffix(" is not set")?;
        Some((name.to_owned(), "n".to_owned()))
    };
    Ok(text.lines().map(str::trim).filter_map(|line| set(line).or_else(|| off(line))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_says_where_it_comes_from() {
        let mut requested = RequestedOptions::default();
        requested.overlay_file("kernel-configs/b.config (built in)", "CONFIG_A=y\nCONFIG_OFF=n\n").unwrap();
        requested.overlay_file("kernel-configs/fragments/nft.config", "\nCONFIG_B=y\n").unwrap();
        let options = [("C", OptionValue::Number(3))];
        requested.overlay_options(
            &options.into_iter().map(|(name, value)| (KernelOption::parse(name).unwrap(), value)).collect(),
        );
        let configured = Configured {
            text: "CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=3\nCONFIG_D=y\nCONFIG_E=\"x\"\n# CONFIG_F is not set\n# CONFIG_OFF is not set\n".into(),
            symbols: Symbols::of("config B\n\tbool \"b\"\n\tselect D\n"),
        };
        let lines = configured.lines(&requested).unwrap();
        let shown: Vec<_> =
            lines.iter().map(|line| format!("{}={} {}", line.option, line.value, line.origin)).collect();
        assert_eq!(
            shown,
            [
                "A=y base, kernel-configs/b.config (built in):1",
                "B=y fragment nft, kernel-configs/fragments/nft.config:2",
                "C=3 fleet.toml",
                "D=y needed by B",
                "E=\"x\" default",
                "F=n default",
                "OFF=n base, kernel-configs/b.config (built in):2",
            ]
        );
    }
}
