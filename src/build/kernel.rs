//! The guest kernel: sources and wishes become a stripped `vmlinux`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::fleet::{KernelOption, Label, OptionValue, Sha256};
use crate::lock::kernel::{ConfigLineError, DotConfig, KernelWishes, Origin, Symbol, Unmet, read_kconfig};
use crate::sys::fs::{self as files, FileError};
use crate::sys::make::{self, KernelTree};
use crate::sys::report::{Report, Unit};
use crate::sys::tool::{self, ToolError};

use super::key::{BuildKey, KeyBuilder};
use super::source::{self, SourceError};

/// Everything that a kernel's bytes depend on.
#[derive(Clone, Debug)]
pub struct KernelInputs {
    /// A tarball or a directory on this machine.
    pub source: PathBuf,
    pub source_sha256: Sha256,
    pub wishes: KernelWishes,
    /// Patches in the order they are applied.
    pub patches: Vec<PathBuf>,
    pub patch_sha256: Vec<Sha256>,
    /// From [`make::toolchain`].
    pub toolchain: String,
}

/// A kernel that could not be built.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("building a kernel needs {}", named(.0))]
    MissingTools(Vec<MissingTool>),
    #[error("patch {} does not apply to {}", patch.display(), kernel.display())]
    Patch { patch: PathBuf, kernel: PathBuf, source: ToolError },
    #[error("Kconfig could not make a configuration")]
    Configure(#[source] ToolError),
    #[error(transparent)]
    ConfigLine(#[from] ConfigLineError),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Unmet(Vec<UnmetOption>),
    #[error("the kernel does not build; its whole output is in {}", log.display())]
    Build { log: PathBuf, source: ToolError },
    #[error("the kernel cannot be stripped")]
    Strip(#[source] ToolError),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Needs(Vec<UnmetNeed>),
}

/// A program or header that a kernel build needs, and the Debian package that brings it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingTool {
    pub what: &'static str,
    pub package: &'static str,
}

fn named(missing: &[MissingTool]) -> String {
    missing
        .iter()
        .map(|tool| format!("{} (Debian package {})", tool.what, tool.package))
        .collect::<Vec<_>>()
        .join(", ")
}

/// An option that did not survive `olddefconfig`, explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnmetOption {
    pub unmet: Unmet,
    /// `None`: no Kconfig file declares it.
    pub symbol: Option<Symbol>,
    /// A name that is close, where it is unknown.
    pub nearest: Option<String>,
    /// Names in its dependencies that came out off.
    pub off: Vec<String>,
}

impl std::fmt::Display for UnmetOption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Unmet { option, wish, got } = &self.unmet;
        let Some(symbol) = &self.symbol else {
            write!(f, "{}: this kernel has no option {option}", wish.origin)?;
            return match &self.nearest {
                Some(nearest) => write!(f, "; did you mean {nearest}?"),
                None => Ok(()),
            };
        };
        let came_out = got.as_ref().map_or_else(|| "off".to_owned(), shown);
        write!(f, "{}: {option} should be {}, but came out {came_out}", wish.origin, shown(&wish.value))?;
        if !self.off.is_empty() {
            write!(f, "; it depends on {}, which is off", self.off.join(", "))
        } else if !symbol.has_prompt {
            write!(f, "; it cannot be set by itself, other options select it")
        } else if symbol.depends.is_empty() {
            Ok(())
        } else {
            write!(f, "; it depends on {}", symbol.depends.join(" && "))
        }
    }
}

fn shown(value: &OptionValue) -> String {
    match value {
        OptionValue::Yes => "y".into(),
        OptionValue::No => "n".into(),
        OptionValue::Number(number) => number.to_string(),
        OptionValue::Text(text) => format!("\"{text}\""),
    }
}

/// An option that a recipe needs and the kernel does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "recipe {recipe} needs the kernel option {option}, which is off; add it to [kernel] options, or a fragment that sets it"
)]
pub struct UnmetNeed {
    pub recipe: Label,
    pub option: KernelOption,
}

/// The needs of recipes that a final config does not meet.
///
/// # Errors
/// All of them together.
pub fn check_needs(config: &DotConfig, needs: &[(Label, KernelOption)]) -> Result<(), KernelError> {
    let unmet = needs.iter().filter(|(_, option)| !config.is_on(option));
    let unmet: Vec<_> =
        unmet.map(|(recipe, option)| UnmetNeed { recipe: recipe.clone(), option: option.clone() }).collect();
    if unmet.is_empty() { Ok(()) } else { Err(KernelError::Needs(unmet)) }
}

/// An option that a recipe needs, and that the wishes do not turn on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NeedDoubt {
    #[error("recipe {recipe} needs the kernel option {option}, which {origin} turns off")]
    TurnedOff { recipe: Label, option: KernelOption, origin: Origin },
    #[error(
        "recipe {recipe} needs the kernel option {option}, which neither base, fragments nor options mention"
    )]
    NotMentioned { recipe: Label, option: KernelOption },
}

/// The needs of recipes that wishes do not meet by themselves. What is not mentioned may still come out on, because other
/// options select it; what is turned off hardly.
pub fn need_doubts(wishes: &KernelWishes, needs: &[(Label, KernelOption)]) -> Vec<NeedDoubt> {
    let doubt = |(recipe, option): &(Label, KernelOption)| {
        let (recipe, option) = (recipe.clone(), option.clone());
        match wishes.get(&option) {
            Some(wish) if wish.value == OptionValue::Yes => None,
            Some(wish) => Some(NeedDoubt::TurnedOff { recipe, option, origin: wish.origin.clone() }),
            None => Some(NeedDoubt::NotMentioned { recipe, option }),
        }
    };
    needs.iter().filter_map(doubt).collect()
}

impl KernelInputs {
    /// The key of the kernel that these inputs make.
    pub fn key(&self) -> BuildKey {
        let key = KeyBuilder::new("kernel")
            .input("source", self.source_sha256.0)
            .input("config", self.wishes.to_allconfig())
            .input("toolchain", &self.toolchain);
        self.patch_sha256.iter().fold(key, |key, patch| key.input("patch", patch.0)).finish()
    }
}

/// Programs that a build runs, and headers that it includes.
const TOOLS: [(&str, &str); 8] = [
    ("make", "make"),
    ("gcc", "gcc"),
    ("ld", "binutils"),
    ("objcopy", "binutils"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("patch", "patch"),
];
const HEADERS: [(&str, &str, &str); 1] = [("libelf.h", "/usr/include/libelf.h", "libelf-dev")];

/// What is missing on this machine to build a kernel.
pub fn missing_tools() -> Vec<MissingTool> {
    let programs = TOOLS.iter().filter(|(program, _)| tool::find(program).is_none());
    let programs = programs.map(|(what, package)| MissingTool { what, package });
    let headers = HEADERS.iter().filter(|(_, path, _)| !Path::new(path).exists());
    programs.chain(headers.map(|(what, _, package)| MissingTool { what, package })).collect()
}

/// Builds `vmlinux`, `config` and `build.log` into `dir`, an empty directory; the sources are unpacked below it and removed.
///
/// # Errors
/// Missing tools, sources or patches that do not fit, wishes that did not survive, and a failed build, whose log is
/// kept at `failed_log`.
pub fn build(
    inputs: &KernelInputs,
    dir: &Path,
    failed_log: &Path,
    jobs: usize,
    report: &dyn Report,
) -> Result<(), KernelError> {
    let missing = missing_tools();
    if !missing.is_empty() {
        return Err(KernelError::MissingTools(missing));
    }
    let tree = KernelTree { dir: dir.join("src"), arch: "x86_64", jobs };
    files::create_dir_all(&tree.dir)?;
    source::unpack(&inputs.source, "x86", &tree.dir, report)?;
    for path in &inputs.patches {
        let kernel = inputs.source.clone();
        make::patch(&tree.dir, &files::read(path)?).map_err(|source| KernelError::Patch {
            patch: path.clone(),
            kernel,
            source,
        })?;
    }
    configure(inputs, &tree, &dir.join("config"))?;
    let vmlinux = compile(&tree, &dir.join("build.log"), failed_log, report)?;
    make::strip(&vmlinux, &dir.join("vmlinux")).map_err(KernelError::Strip)?;
    Ok(files::remove(&tree.dir)?)
}

fn configure(inputs: &KernelInputs, tree: &KernelTree, config: &Path) -> Result<(), KernelError> {
    let wishes = tree.dir.join(".sisforge-wishes");
    files::write(&wishes, inputs.wishes.to_allconfig().as_bytes(), 0o644)?;
    tree.configure(&wishes).map_err(KernelError::Configure)?;
    let text = files::read_text(&tree.dir.join(".config"))?;
    let outcome = DotConfig::parse(".config", &text)?;
    let unmet = inputs.wishes.unmet(&outcome);
    if !unmet.is_empty() {
        return Err(KernelError::Unmet(explain(unmet, &read_symbols(&tree.dir)?, &outcome)));
    }
    Ok(files::write(config, text.as_bytes(), 0o644)?)
}

/// Every symbol of the Kconfig files of a tree.
fn read_symbols(tree: &Path) -> Result<BTreeMap<String, Symbol>, FileError> {
    let mut symbols = BTreeMap::new();
    let mut waiting = vec![tree.to_owned()];
    while let Some(dir) = waiting.pop() {
        let named = || FileError::when("read", &dir);
        for entry in std::fs::read_dir(&dir).map_err(named())? {
            let entry = entry.map_err(named())?;
            if entry.file_type().map_err(named())?.is_dir() {
                waiting.push(entry.path());
            } else if entry.file_name().to_string_lossy().starts_with("Kconfig") {
                let text = files::read(&entry.path())?;
                read_kconfig(&String::from_utf8_lossy(&text), &mut symbols);
            }
        }
    }
    Ok(symbols)
}

fn explain(unmet: Vec<Unmet>, symbols: &BTreeMap<String, Symbol>, outcome: &DotConfig) -> Vec<UnmetOption> {
    let is_off = |name: &str| KernelOption::parse(name).is_ok_and(|option| !outcome.is_on(&option));
    unmet
        .into_iter()
        .map(|unmet| {
            let symbol = symbols.get(unmet.option.as_str()).cloned();
            let nearest = match symbol {
                Some(_) => None,
                None => nearest(unmet.option.as_str(), symbols.keys()),
            };
            let plain = symbol.iter().flat_map(|symbol| &symbol.depends).flat_map(|expression| {
                let simple =
                    !expression.contains("||") && !expression.contains('!') && !expression.contains('=');
                let names = if simple { expression.as_str() } else { "" };
                names.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|name| !name.is_empty())
            });
            let off: Vec<String> = plain.filter(|name| is_off(name)).map(str::to_owned).collect();
            UnmetOption { unmet, symbol, nearest, off }
        })
        .collect()
}

fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Option<String> {
    known
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(likeness, _)| *likeness > 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known.clone())
}

/// Targets that make names on the way to a guest kernel, where no earlier build tells: about as many as the
/// project's own configuration has.
const USUAL_TARGETS: u64 = 1_700;

fn compile(
    tree: &KernelTree,
    log: &Path,
    failed_log: &Path,
    report: &dyn Report,
) -> Result<PathBuf, KernelError> {
    let mut file = std::fs::File::create(log).map_err(FileError::when("create", log))?;
    let before = failed_log.with_file_name("targets");
    let expected = files::read_text_if_present(&before)?.and_then(|text| text.trim().parse().ok());
    let task = report.begin("build kernel", Some(expected.unwrap_or(USUAL_TARGETS)), Unit::Steps);
    let (mut targets, mut unwritten) = (0u64, None);
    let built = tree.build(|line| {
        if let Err(error) = writeln!(file, "{line}") {
            unwritten.get_or_insert(error);
        }
        if let Some(target) = make::parse_target(line) {
            targets += 1;
            task.advance(1);
            task.detail(target);
        }
    });
    if let Some(error) = unwritten {
        return Err(FileError::when("write", log)(error).into());
    }
    match built {
        Ok(vmlinux) => {
            files::write(&before, format!("{targets}\n").as_bytes(), 0o644)?;
            task.finish("built");
            Ok(vmlinux)
        }
        Err(source) => {
            std::fs::copy(log, failed_log).map_err(FileError::when("write", failed_log))?;
            Err(KernelError::Build { log: failed_log.to_owned(), source })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unmet_lines(wishes: &str, outcome: &str, kconfig: &str) -> Vec<String> {
        let mut all = KernelWishes::default();
        all.overlay_file("base.config", wishes).unwrap();
        let outcome = DotConfig::parse(".config", outcome).unwrap();
        let mut symbols = BTreeMap::new();
        read_kconfig(kconfig, &mut symbols);
        explain(all.unmet(&outcome), &symbols, &outcome).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_unmet_option_names_what_it_depends_on() {
        let kconfig = "config NF_TABLES\n\tbool \"tables\"\nconfig NFT_MASQ\n\tbool \"masquerade\"\n\tdepends on NF_TABLES\n";
        assert_eq!(
            unmet_lines("\nCONFIG_NFT_MASQ=y\n", "", kconfig),
            ["base.config:2: NFT_MASQ should be y, but came out off; it depends on NF_TABLES, which is off"]
        );
    }

    #[test]
    fn an_unknown_option_names_the_nearest() {
        let kconfig = "config NETFILTER\n\tbool \"netfilter\"\n";
        assert_eq!(
            unmet_lines("CONFIG_NETFILTR=y\n", "", kconfig),
            ["base.config:1: this kernel has no option NETFILTR; did you mean NETFILTER?"]
        );
    }

    #[test]
    fn a_need_of_a_recipe_that_the_kernel_does_not_meet_is_named() {
        let config = DotConfig::parse(".config", "CONFIG_TUN=y\n").unwrap();
        let need = |option: &str| ("rootless-podman".parse().unwrap(), KernelOption::parse(option).unwrap());
        check_needs(&config, &[need("TUN")]).unwrap();
        let error = check_needs(&config, &[need("TUN"), need("FUSE_FS")]).unwrap_err();
        assert!(
            error.to_string().starts_with("recipe rootless-podman needs the kernel option FUSE_FS"),
            "{error}"
        );
    }

    #[test]
    fn a_need_that_the_configuration_does_not_turn_on_is_doubted() {
        let mut wishes = KernelWishes::default();
        wishes.overlay_file("base.config", "CONFIG_TUN=y\n# CONFIG_FUSE_FS is not set\n").unwrap();
        let needs = ["TUN", "FUSE_FS", "MEMCG"]
            .map(|option| ("podman".parse().unwrap(), KernelOption::parse(option).unwrap()));
        let doubts: Vec<_> = need_doubts(&wishes, &needs).iter().map(ToString::to_string).collect();
        assert_eq!(
            doubts,
            [
                "recipe podman needs the kernel option FUSE_FS, which base.config:2 turns off",
                "recipe podman needs the kernel option MEMCG, which neither base, fragments nor options mention"
            ]
        );
    }

    #[test]
    fn every_input_changes_the_key() {
        let inputs = KernelInputs {
            source: "/a/linux.tar".into(),
            source_sha256: Sha256::of("linux"),
            wishes: KernelWishes::default(),
            patches: Vec::new(),
            patch_sha256: Vec::new(),
            toolchain: "gcc 12".into(),
        };
        let elsewhere = KernelInputs { source: "/b/linux.tar".into(), ..inputs.clone() };
        assert_eq!(inputs.key(), elsewhere.key());
        let mut wishes = KernelWishes::default();
        wishes.overlay_file("x", "CONFIG_A=y").unwrap();
        for other in [
            KernelInputs { source_sha256: Sha256::of("other"), ..inputs.clone() },
            KernelInputs { wishes, ..inputs.clone() },
            KernelInputs { patch_sha256: vec![Sha256::of("p")], ..inputs.clone() },
            KernelInputs { toolchain: "gcc 13".into(), ..inputs.clone() },
        ] {
            assert_ne!(inputs.key(), other.key());
        }
    }
}
