//! Global flags and the environment, resolved once; nothing else reads the environment.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use clap::builder::{BoolishValueParser, Resettable, TypedValueParser};
use clap::error::{ContextKind, ContextValue};
use clap::{Args, ValueEnum};

use crate::run;
use crate::sys::http::Network;

/// Flags that every command takes; each has a `SISFORGE_*` variable.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// The fleet to work on
    #[arg(long, global = true, env = "SISFORGE_FILE", default_value = "fleet.toml", value_name = "PATH")]
    pub file: PathBuf,

    /// Directory for artifacts [default: out, beside the fleet file]
    #[arg(long, global = true, env = "SISFORGE_OUT_DIR", value_name = "DIR")]
    pub out_dir: Option<PathBuf>,

    /// Directory of `sisforge vendor`, looked into before the network [default: vendor, beside the fleet file]
    #[arg(long, global = true, env = "SISFORGE_VENDOR_DIR", value_name = "DIR")]
    pub vendor_dir: Option<PathBuf>,

    /// Print JSON: one document, or one object a line for long work
    #[arg(long, global = true, env = "SISFORGE_JSON", value_parser = BoolishValueParser::new())]
    pub json: bool,

    /// Print results and errors alone
    #[arg(short, long, global = true, env = "SISFORGE_QUIET", value_parser = BoolishValueParser::new(), conflicts_with = "verbose")]
    pub quiet: bool,

    /// Print more: each step before it is taken, what packing leaves out
    #[arg(short, long, global = true, env = "SISFORGE_VERBOSE", value_parser = BoolishValueParser::new())]
    pub verbose: bool,

    /// When to colour output
    #[arg(long, global = true, env = "SISFORGE_COLOR", default_value = "auto", value_name = "WHEN")]
    pub color: ColorWhen,

    /// Work to do at the same time [default: one per processor]
    #[arg(long, global = true, env = "SISFORGE_JOBS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,

    /// Never touch the network
    #[arg(long, global = true, env = "SISFORGE_OFFLINE", value_parser = BoolishValueParser::new())]
    pub offline: bool,
}

/// When output is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    Auto,
    Always,
    Never,
}

/// Where a host says whose signatures it demands for what runs on it. No key of `fleet.toml` says that: who may push to the branch
/// that `watch` follows could take it out.
const HOST_SIGNERS: &str = "/etc/sisforge/signers";

/// The signers that are demanded: those that the environment names, else the host's.
fn signers(named: Option<PathBuf>, of_host: &Path) -> Option<PathBuf> {
    // One that is there and cannot be read is demanded, too: then nothing is started.
    let is_absent = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let is_there = || !of_host.symlink_metadata().is_err_and(|error| is_absent(&error));
    named.or_else(|| is_there().then(|| of_host.to_owned()))
}

/// The global flags with every default filled in.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the work itself needs to know.
    pub run: run::WorkspaceSettings,
    pub json: bool,
    pub quiet: bool,
    pub verbose: bool,
    /// When a stream is coloured: never where `NO_COLOR` is set and the command line says nothing else.
    pub color: ColorWhen,
    /// Whether stderr is a terminal that can draw over what it shows; `TERM=dumb` cannot.
    pub draws: bool,
    /// `SOURCE_DATE_EPOCH`, by which a caller dates what is made (<https://reproducible-builds.org/specs/source-date-epoch/>).
    pub source_date_epoch: Option<String>,
}

/// What `--locked` asks for.
pub fn inputs(locked: bool) -> run::Inputs {
    if locked { run::Inputs::Locked } else { run::Inputs::Refresh }
}

/// The fleet to work on, as far as the environment says: completions know nothing else of a command line.
pub fn fleet_file() -> PathBuf {
    std::env::var_os("SISFORGE_FILE").map_or_else(|| "fleet.toml".into(), PathBuf::from)
}

/// The command line, the program first.
pub fn words() -> Vec<OsString> {
    std::env::args_os().collect()
}

/// Takes an empty variable for one that is not set, as others do; clap takes it for an empty value.
pub fn without_empty_variables(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        if value.is_some_and(|value| value.is_empty()) { arg.env(Resettable::Reset) } else { arg }
    })
}

/// Whether JSON is asked for by a command line that may be wrong otherwise: by its flag before a guest's own command, or by its
/// variable.
pub fn asks_for_json(words: &[OsString]) -> bool {
    let is_set = |value: OsString| {
        BoolishValueParser::new().parse(&clap::Command::default(), None, value).unwrap_or(false)
    };
    words.iter().take_while(|word| *word != "--").any(|word| word == "--json")
        || std::env::var_os("SISFORGE_JSON").is_some_and(is_set)
}

/// Names the variable that has a value which is refused, and not the option that nobody wrote.
pub fn naming_variable(mut error: clap::Error, command: &clap::Command, words: &[OsString]) -> clap::Error {
    let Some(ContextValue::String(named)) = error.get(ContextKind::InvalidArg) else { return error };
    // Such as `--jobs <N>`.
    let option = named.split(' ').next().unwrap_or_default();
    let with_value = format!("{option}=");
    if words.iter().any(|word| *word == *option || word.to_string_lossy().starts_with(&with_value)) {
        return error;
    }
    let long = option.strip_prefix("--");
    let of_variable = command.get_arguments().find(|arg| arg.get_long().is_some() && arg.get_long() == long);
    let variable = of_variable.and_then(clap::Arg::get_env).filter(|name| std::env::var_os(name).is_some());
    if let Some(variable) = variable {
        let variable = ContextValue::String(variable.to_string_lossy().into_owned());
        error.insert(ContextKind::InvalidArg, variable);
    }
    error
}

impl Settings {
    /// Whether what is written to a stream is coloured.
    pub fn colors(&self, stream: &impl IsTerminal) -> bool {
        match self.color {
            ColorWhen::Always => true,
            ColorWhen::Never => false,
            ColorWhen::Auto => stream.is_terminal(),
        }
    }

    /// Fills in what was not said from the environment and the machine.
    pub fn resolve(args: GlobalArgs) -> Self {
        let variable =
            |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let beside = args.file.parent().map(PathBuf::from).unwrap_or_default();
        let cache = variable("SISFORGE_CACHE_DIR")
            .or_else(|| variable("XDG_CACHE_HOME").map(|dir| dir.join("sisforge")))
            .or_else(|| variable("HOME").map(|dir| dir.join(".cache/sisforge")));
        let color = match args.color {
            // <https://no-color.org>
            ColorWhen::Auto if variable("NO_COLOR").is_some() => ColorWhen::Never,
            said => said,
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let run = run::WorkspaceSettings {
            out: args.out_dir.unwrap_or_else(|| beside.join("out")),
            cache: cache.unwrap_or_else(|| PathBuf::from("/var/cache/sisforge")),
            vendor: args.vendor_dir.unwrap_or_else(|| beside.join("vendor")),
            network: network(),
            file: args.file,
            confinement: None,
            jobs: args.jobs.map_or(processors, usize::from),
            offline: args.offline,
            artifacts: run::ArtifactSettings {
                signers: signers(variable("SISFORGE_VERIFY_ARTIFACTS"), Path::new(HOST_SIGNERS)),
                ..run::ArtifactSettings::default()
            },
        };
        Self {
            run,
            json: args.json,
            quiet: args.quiet,
            verbose: args.verbose,
            color,
            draws: std::io::stderr().is_terminal() && variable("TERM").is_some_and(|term| term != *"dumb"),
            source_date_epoch: variable("SOURCE_DATE_EPOCH")
                .map(|value| value.to_string_lossy().into_owned()),
        }
    }
}

/// What the variables say that curl, OpenSSL and others know; those in lower case come first.
fn network() -> Network {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let proxy = |name: &str| variable(name).or_else(|| variable(&name.to_ascii_uppercase()));
    Network {
        certificates: variable("SSL_CERT_FILE").map(PathBuf::from),
        http_proxy: proxy("http_proxy").or_else(|| proxy("all_proxy")),
        https_proxy: proxy("https_proxy").or_else(|| proxy("all_proxy")),
        no_proxy: proxy("no_proxy"),
        http_auth: variable("HTTP_AUTH"),
        netrc: variable("NETRC")
            .map(PathBuf::from)
            .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".netrc"))),
        auth_files: auth_files(&|name| variable(name).map(PathBuf::from)),
    }
}

/// Where Podman and skopeo (containers-auth.json(5)), and Docker, keep logins at registries.
fn auth_files(variable: &dyn Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    if let Some(file) = variable("REGISTRY_AUTH_FILE") {
        return vec![file];
    }
    let runtime = variable("XDG_RUNTIME_DIR").map(|dir| dir.join("containers"));
    let runtime = runtime.unwrap_or_else(|| format!("/run/containers/{}", user_id()).into());
    let below_home = |path: &str| variable("HOME").map(|home| home.join(path));
    let config = variable("XDG_CONFIG_HOME").or_else(|| below_home(".config"));
    let docker = variable("DOCKER_CONFIG").or_else(|| below_home(".docker"));
    let files = [Some(runtime.join("auth.json")), config.map(|dir| dir.join("containers/auth.json"))];
    files.into_iter().chain([docker.map(|dir| dir.join("config.json"))]).flatten().collect()
}

fn user_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_signers_are_demanded_wherever_they_are_there_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("signers"), dir.path().join("link"));
        assert_eq!(signers(None, &file), None);
        std::fs::write(&file, "").unwrap();
        assert_eq!(signers(None, &file), Some(file.clone()));
        assert_eq!(signers(Some("named".into()), &file), Some("named".into()));
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert_eq!(signers(None, &link), Some(link.clone()));
        assert_eq!(
            signers(None, &file.join("below")),
            Some(file.join("below")),
            "no directory: an error, not an absence"
        );
    }
}
