//! The files of `kernel-configs/`: a base, fragments, and the options of `fleet.toml`, laid over each other.
//!
//! A base is a kernel config in which lines that begin with `#:` say what Kconfig has no word for:
//!
//! ```text
//! #: series 6.12             the Linux series that it is for
//! #: arch aarch64            the processors that it is for; x86_64 where nothing is said
//! #: include parts/guest.config   that file comes first (its path is below kernel-configs/)
//! #: rename OLD NEW          what base and fragments call OLD is NEW in this series
//! #: drop NAME               what base and fragments ask of NAME has no meaning in this series or on these processors
//! ```

use std::collections::BTreeMap;

use crate::base::{Class, Diagnosis, Diagnostic};
use crate::base::{KernelOption, Sha256};
use crate::fleet::{KernelBuild, OptionValue, SourceFiles};
use crate::sys::fs::FileError;

use super::kernel::{ConfigLineError, RequestedOptions};
use super::model::ARCH;

/// The configuration of a kernel that is to be built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelConfig {
    /// Base, fragments and options, laid over each other.
    pub requested: RequestedOptions,
    pub parts: KernelParts,
    /// The Linux series that the base is for, such as `6.1`, where it says so.
    pub series: Option<String>,
}

/// What a kernel's configuration is made of, each part by itself: an explanation, which decides nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelParts {
    /// Of each base and fragment, by its file below kernel-configs: digest of its options.
    pub files: BTreeMap<String, Sha256>,
    /// The options of `fleet.toml`, as Kconfig writes their values.
    pub options: BTreeMap<String, String>,
}

/// A kernel config that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Line(#[from] ConfigLineError),
    #[error("there is no {path}, neither next to fleet.toml nor built in{}", included(by.as_deref()))]
    Absent { path: String, by: Option<String> },
    #[error("{0} is not UTF-8")]
    NotUtf8(String),
    #[error("{file}:{line}: `{text}` is not a valid `series`, `arch`, `include`, `rename` or `drop` line")]
    Directive { file: String, line: usize, text: String },
    #[error("{0} includes itself")]
    Loop(String),
    #[error("{file} is for {arch}, but guests are {ARCH}")]
    Arch { file: String, arch: String },
}

fn included(by: Option<&str>) -> String {
    by.map(|file| format!("; {file} includes it")).unwrap_or_default()
}

impl Diagnostic for ConfigError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::File(error) => error.diagnosis(),
            Self::Line(error) => error.diagnosis(),
            Self::Absent { .. } => Class::Invalid.hint("write that file, or name another"),
            Self::NotUtf8(_) => Class::Invalid.hint("save it as UTF-8"),
            Self::Directive { .. } => {
                Class::Invalid.hint("comments begin with `# ` and options with CONFIG_")
            }
            Self::Loop(_) => Class::Invalid.hint("remove one of the `include` lines"),
            Self::Arch { .. } => Class::Invalid.hint("name a base that is for it"),
        }
    }
}

/// What the `#:` lines of a base say, and of all that it includes.
#[derive(Debug, Default)]
struct Adaption {
    series: Option<String>,
    arch: Option<String>,
    /// `None`: dropped.
    renamed: Vec<(KernelOption, Option<KernelOption>)>,
}

/// Reads the configuration of a kernel.
pub fn kernel_config(files: &SourceFiles, build: &KernelBuild) -> Result<KernelConfig, ConfigError> {
    let base = format!("{}.config", build.base);
    let mut config = KernelConfig::default();
    let adaption = config.read_base(files, &base)?;
    if let Some(arch) = adaption.arch.filter(|arch| arch != ARCH) {
        return Err(ConfigError::Arch { file: format!("kernel-configs/{base}"), arch });
    }
    config.fragments(files, build.fragments.iter().map(|name| name.as_str()), &adaption.renamed)?;
    config.requested.overlay_options(&build.options);
    let option = |(name, value): (&KernelOption, &OptionValue)| {
        let value = match value {
            OptionValue::Yes => "y".to_owned(),
            OptionValue::No => "n".to_owned(),
            OptionValue::Number(number) => number.to_string(),
            OptionValue::Text(text) => format!("{text:?}"),
        };
        (name.to_string(), value)
    };
    config.parts.options = build.options.iter().map(option).collect();
    Ok(config)
}

/// Reads a base and fragments for whatever processors the base is.
pub fn base_config(files: &SourceFiles, base: &str, fragments: &[&str]) -> Result<KernelConfig, ConfigError> {
    let mut config = KernelConfig::default();
    let adaption = config.read_base(files, &format!("{base}.config"))?;
    config.fragments(files, fragments.iter().copied(), &adaption.renamed)?;
    Ok(config)
}

impl KernelConfig {
    fn read_base(&mut self, files: &SourceFiles, name: &str) -> Result<Adaption, ConfigError> {
        let mut adaption = Adaption::default();
        self.include(files, name, &mut Vec::new(), &mut adaption)?;
        self.series.clone_from(&adaption.series);
        Ok(adaption)
    }

    fn fragments<'a>(
        &mut self,
        files: &SourceFiles,
        names: impl Iterator<Item = &'a str>,
        renamed: &[(KernelOption, Option<KernelOption>)],
    ) -> Result<(), ConfigError> {
        for name in names {
            self.overlay(files, &format!("fragments/{name}.config"))?;
        }
        renamed.iter().for_each(|(old, new)| self.requested.rename(old, new.as_ref()));
        Ok(())
    }

    /// Lays a file over what is there, after all that it includes.
    fn include(
        &mut self,
        files: &SourceFiles,
        name: &str,
        around: &mut Vec<String>,
        adaption: &mut Adaption,
    ) -> Result<(), ConfigError> {
        if around.iter().any(|outer| outer == name) {
            return Err(ConfigError::Loop(format!("kernel-configs/{name}")));
        }
        let (origin, text) = read(files, name, around.last())?;
        around.push(name.to_owned());
        // Wherever it stands, what a file says itself is said over what it includes.
        let (mut series, mut arch) = (None, None);
        for (index, line) in text.lines().enumerate() {
            let Some(directive) = line.strip_prefix("#:") else { continue };
            let wrong = || ConfigError::Directive {
                file: origin.clone(),
                line: index + 1,
                text: directive.trim().to_owned(),
            };
            let option = |name: &str| KernelOption::parse(name).map_err(|_| wrong());
            match directive.split_whitespace().collect::<Vec<_>>().as_slice() {
                ["series", said] => series = Some((*said).to_owned()),
                ["arch", said] => arch = Some((*said).to_owned()),
                ["include", file] => self.include(files, file, around, adaption)?,
                ["rename", old, new] => adaption.renamed.push((option(old)?, Some(option(new)?))),
                ["drop", old] => adaption.renamed.push((option(old)?, None)),
                _ => return Err(wrong()),
            }
        }
        adaption.series = series.or(adaption.series.take());
        adaption.arch = arch.or(adaption.arch.take());
        around.pop();
        self.overlay(files, name)
    }

    fn overlay(&mut self, files: &SourceFiles, name: &str) -> Result<(), ConfigError> {
        let (origin, text) = read(files, name, None)?;
        self.requested.overlay_file(&origin, &text)?;
        let mut alone = RequestedOptions::default();
        alone.overlay_file(&origin, &text)?;
        // What is renamed or dropped is a part of it as well.
        let said = text.lines().filter(|line| line.starts_with("#:")).collect::<String>();
        self.parts.files.insert(name.to_owned(), Sha256::of(alone.to_allconfig() + &said));
        Ok(())
    }
}

/// Where a file of kernel-configs is, and its text; `by` is the one that includes it.
fn read(files: &SourceFiles, name: &str, by: Option<&String>) -> Result<(String, String), ConfigError> {
    let path = format!("kernel-configs/{name}");
    let Some(file) = files.read(&path)? else {
        return Err(ConfigError::Absent { path, by: by.map(|name| format!("kernel-configs/{name}")) });
    };
    let text = std::str::from_utf8(&file.bytes).map_err(|_| ConfigError::NotUtf8(file.origin.clone()))?;
    Ok((file.origin.clone(), text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files of kernel-configs.
    fn config(base: &str, fragments: &[&str], texts: &[(&str, &str)]) -> Result<KernelConfig, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in texts {
            let path = dir.path().join("kernel-configs").join(name);
            crate::sys::fs::write(&path, text.as_bytes(), 0o644).unwrap();
        }
        base_config(&SourceFiles::new(dir.path()), base, fragments)
    }

    #[test]
    fn a_base_says_for_all_its_fragments_what_its_series_calls_otherwise() {
        let texts = [
            ("old.config", "#: series 6.1\nCONFIG_A=y\nCONFIG_B=y\n"),
            (
                "new.config",
                "#: series 6.12\n#: include old.config\n#: rename A NEW_A\n#: drop GONE\nCONFIG_C=y\n",
            ),
            ("fragments/f.config", "CONFIG_GONE=y\n# CONFIG_B is not set\n"),
        ];
        let new = config("new", &["f"], &texts).unwrap();
        assert_eq!(new.requested.to_allconfig(), "# CONFIG_B is not set\nCONFIG_C=y\nCONFIG_NEW_A=y\n");
        assert_eq!(new.series.as_deref(), Some("6.12"));
        let old = config("old", &["f"], &texts).unwrap();
        assert_eq!(old.requested.to_allconfig(), "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_GONE=y\n");
        assert_eq!(old.series.as_deref(), Some("6.1"));
    }

    #[test]
    fn what_no_base_can_say_is_refused_with_its_place() {
        let refused = |text: &str| config("b", &[], &[("b.config", text)]).unwrap_err().to_string();
        for wrong in ["#: series", "#: rename A", "#: drop A-B", "#: incude x"] {
            let told = refused(&format!("\n{wrong}\n"));
            assert!(told.starts_with("kernel-configs/b.config:2: `"), "{told}");
        }
        assert_eq!(refused("#: include b.config\n"), "kernel-configs/b.config includes itself");
        assert!(
            refused("#: include parts/none.config\n")
                .starts_with("there is no kernel-configs/parts/none.config")
        );
    }
}
