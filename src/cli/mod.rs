//! Speak: text, JSON, progress and exit status.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

mod apk;
mod ask;
mod build;
mod check;
mod completions;
mod console;
mod cp;
mod diff;
mod disk;
mod doctor;
mod down;
pub mod error;
mod events;
mod examples;
mod exec;
mod export;
mod fetch;
mod forensics;
mod gc;
mod init;
mod inspect;
mod keep_logs;
mod kernel;
mod keys;
mod launch;
mod lock;
mod logs;
mod man;
mod metrics;
mod outcome;
mod output;
mod plan;
mod policy;
mod progress;
mod prove;
mod provenance;
mod ps;
mod publish;
mod push;
mod quarantine;
mod render;
mod restart;
mod rollout;
mod sbom;
mod schema;
mod session;
mod settings;
mod snapshot;
mod ssh;
mod status;
mod systemd;
mod top;
mod tree;
mod ui;
mod up;
mod usage;
mod vendor;
mod verify;
mod watch;

use crate::sys::interrupt;
use error::CliError;
use settings::{GlobalArgs, Settings};
use ui::Ui;

/// Turn a committed fleet.toml into a fleet of hardened microVMs
#[derive(Parser)]
#[command(name = "sisforge", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a commented fleet.toml to start from
    Init(init::Args),
    /// Report every mistake in fleet.toml, recipes and kernel options, without building
    Check,
    /// Choose package versions, digests, addresses and uids, and write fleet.lock
    Lock(lock::Args),
    /// Download all inputs of fleet.lock into the cache
    Fetch(fetch::Args),
    /// Copy all inputs of fleet.lock into a directory, for builds without a network
    Vendor(vendor::Args),
    /// Build kernel, images and data disks into out/
    Build(build::Args),
    #[command(flatten)]
    Exchange(Exchange),
    /// Write complete jail trees into a directory without starting anything
    Tree(tree::Args),
    /// Show what `up` would do, and why
    Plan(plan::Args),
    /// Start guests, and wait until each is ready
    Up(up::Args),
    /// Stop and remove guests; data disks are kept
    Down(down::Args),
    /// Stop guests and start them again, whether anything of them changed or not
    Restart(restart::Args),
    /// List running guests
    Ps(ps::Args),
    /// List all guests, and how they differ from fleet.toml
    Status,
    /// Show what guests use of this host, live: CPU, memory, network, disk
    Top(top::Args),
    /// Show the logs of a guest's serial port and of its VMM
    Logs(logs::Args),
    /// Show what happened to the fleet on this host
    Events(events::Args),
    /// Print metrics of the fleet on this host, for Prometheus
    ///
    /// `watch --listen` serves the same, and tells of itself as well.
    Metrics(metrics::Args),
    #[command(flatten)]
    Access(Access),
    /// Say what guests may reach, and which line of fleet.toml says so
    #[command(subcommand)]
    Policy(policy::Command),
    #[command(flatten)]
    Distrust(Distrust),
    /// List the ports of the host that lead to guests, or print a proxy's configuration for them
    Publish(publish::Args),
    /// List, save, replace and remove data disks
    #[command(subcommand)]
    Disk(disk::Command),
    /// Save a running guest, and restore it once
    #[command(subcommand)]
    Snapshot(snapshot::Command),
    /// Remove artifacts, stored files and downloads that nothing names any more
    Gc(gc::Args),
    /// Check whether this host is ready for the fleet, and hardened: each check with its reason and remedy
    Doctor(doctor::Args),
    /// Follow a Git branch or a fleet.toml: apply each change, repair drift
    Watch(watch::Args),
    #[command(flatten)]
    Keeping(Keeping),
    /// Show what is in an image: packages, sizes, setuid files, users, services
    Inspect(inspect::Args),
    /// Show what differs between two images
    Diff(diff::Args),
    /// Print the bill of materials of an image: SPDX or CycloneDX
    ///
    /// It is made from the image's own package database; if fleet.lock pins the same packages, it also has their
    /// digests and download locations. It is dated at the build of the newest package, or at SOURCE_DATE_EPOCH.
    Sbom(sbom::Args),
    /// Explain the guest kernel: its configuration, why an option is set, how two kernels differ
    #[command(subcommand)]
    Kernel(kernel::Command),
    #[command(flatten)]
    PackageTools(PackageTools),
    #[command(flatten)]
    Reference(Reference),
    #[command(flatten)]
    Internal(Internal),
}

/// What was built, from one machine to another, and whether it is still that.
#[derive(Subcommand)]
enum Exchange {
    /// Push what was built to a registry
    Push(push::Args),
    /// Take what fleet.lock pins from a registry into out/, and build nothing
    Pull(push::PullArgs),
    /// Sign the digests that fleet.lock pins, with an SSH key
    Sign(push::SignArgs),
    /// Print what was built of what: an in-toto statement with SLSA's provenance
    Provenance,
    /// Read what was downloaded, built and stored, and compare it with fleet.lock and its digests
    Verify,
}

/// What is done about a guest that nobody trusts any more.
#[derive(Subcommand)]
enum Distrust {
    /// Cut a guest off from every network, at once and until it is released
    ///
    /// What it has open ends. Its host still logs in to it (`exec`, `ssh`), and `up`, `watch` and a reboot leave it cut off.
    Quarantine(quarantine::Args),
    /// Bring a guest back that was quarantined
    Release(quarantine::Args),
    /// Take evidence of a guest as one signed archive, and read such archives
    Forensics(forensics::Args),
}

/// Ways into a guest that runs, and whose it is.
#[derive(Subcommand)]
enum Access {
    /// Attach to a guest's serial console
    Console(console::Args),
    /// Run a command in a guest, as its user
    Exec(exec::Args),
    /// Copy files and directories into a guest, or out of it
    Cp(cp::Args),
    /// Log in to a guest, as its user
    Ssh(ssh::Args),
    /// Hand out guests of pools, and take them back
    #[command(subcommand)]
    Session(session::Command),
}

/// What keeps a fleet on its hosts.
#[derive(Subcommand)]
enum Keeping {
    /// Print or install the systemd unit that keeps the fleet on this host
    Systemd(systemd::Args),
    /// Print what keeps the fleet on many hosts: a job of Nomad, a DaemonSet of Kubernetes
    #[command(subcommand)]
    Export(export::Command),
}

/// Repositories of packages.
#[derive(Subcommand)]
enum PackageTools {
    /// Write public keys of distributions, which the repositories of fleet.toml need
    #[command(subcommand)]
    Keys(keys::Command),
    /// Make apk packages and signed repositories
    #[command(subcommand)]
    Apk(apk::Command),
}

/// What the program tells of its own words.
#[derive(Subcommand)]
enum Reference {
    /// Print the JSON Schema of fleet.toml, recipe.toml, or of what a command prints with --json
    Schema(schema::Args),
    /// Print completions for a shell
    Completions(completions::Args),
    /// Write man pages, one for each command
    Man(man::ManArgs),
}

/// Commands that other commands use.
#[derive(Subcommand)]
enum Internal {
    /// Join cgroups and become another program (how `up` starts a VMM)
    #[command(hide = true)]
    Launch(launch::Args),
    /// Load rules, send a packet, and tell what nft traces of it (how `policy explain --prove` asks the kernel)
    #[command(hide = true)]
    Prove,
}

/// The commands, with their examples, and with what completes names.
fn command_line() -> clap::Command {
    settings::without_empty_variables(completions::of_guests(examples::added(Cli::command())))
}

fn parsed(words: &[OsString]) -> Result<Cli, clap::Error> {
    let matches = command_line().try_get_matches_from(words);
    let matches = matches.map_err(|error| settings::naming_variable(error, &command_line(), words))?;
    Cli::from_arg_matches(&matches)
}

/// Parses the command line, runs the command, and says how it ended.
pub fn main() -> ExitCode {
    let words = settings::words();
    if words.get(1).is_some_and(|word| word == keep_logs::NAME) {
        return keep_logs::main(&words[1..]);
    }
    completions::answer(command_line);
    let cli = match parsed(&words) {
        Ok(cli) => cli,
        Err(error) => return usage::print(&error, settings::asks_for_json(&words)),
    };
    let settings = Settings::resolve(cli.global);
    let ui = Ui::new(settings, cli.command.prints_events());
    interrupt::tell_by(|interrupted| {
        render::tell(&format!(
            "{interrupted}: what was begun is brought to an end; once more, and this ends at once"
        ));
    });
    let code = run(cli.command, &ui).unwrap_or_else(|error| {
        error.print(&ui.settings);
        ExitCode::from(error.status())
    });
    interrupt::asked().map_or(code, |interrupted| ExitCode::from(interrupted.status()))
}

impl Command {
    /// Whether it prints a line for each thing that happens with `--json`, and not one document at its end.
    fn prints_events(&self) -> bool {
        matches!(
            self,
            Self::Lock(_)
                | Self::Fetch(_)
                | Self::Vendor(_)
                | Self::Build(_)
                | Self::Up(_)
                | Self::Down(_)
                | Self::Restart(_)
                | Self::Policy(policy::Command::Reload)
                | Self::Watch(_)
                | Self::Exchange(Exchange::Push(_) | Exchange::Pull(_) | Exchange::Sign(_))
        )
    }
}

fn run(command: Command, ui: &Ui) -> Result<ExitCode, CliError> {
    match command {
        Command::Init(args) => init::run(&args, ui),
        Command::Check => check::run(ui),
        Command::Lock(args) => lock::run(&args, ui),
        Command::Fetch(args) => fetch::run(&args, ui),
        Command::Vendor(args) => vendor::run(&args, ui),
        Command::Build(args) => build::run(&args, ui),
        Command::Exchange(command) => exchange(&command, ui),
        Command::Tree(args) => tree::run(&args, ui),
        Command::Plan(args) => plan::run(&args, ui),
        Command::Up(args) => up::run(&args, ui),
        Command::Down(args) => down::run(&args, ui),
        Command::Restart(args) => restart::run(&args, ui),
        Command::Ps(args) => ps::run(&args, ui),
        Command::Status => status::run(ui),
        Command::Top(args) => top::run(&args, ui),
        Command::Logs(args) => logs::run(&args, ui),
        Command::Events(args) => events::run(&args, ui),
        Command::Metrics(args) => metrics::run(&args, ui),
        Command::Access(command) => access(&command, ui),
        Command::Policy(command) => policy::run(&command, ui),
        Command::Distrust(command) => distrust(&command, ui),
        Command::Publish(args) => publish::run(&args, ui),
        Command::Disk(command) => disk::run(&command, ui),
        Command::Snapshot(command) => snapshot::run(&command, ui),
        Command::Gc(args) => gc::run(&args, ui),
        Command::Doctor(args) => doctor::run(&args, ui),
        Command::Watch(args) => watch::run(&args, ui),
        Command::Keeping(command) => keeping(&command, ui),
        Command::Inspect(args) => inspect::run(&args, ui),
        Command::Diff(args) => diff::run(&args, ui),
        Command::Sbom(args) => sbom::run(&args, ui),
        Command::Kernel(command) => kernel::run(&command, ui),
        Command::PackageTools(command) => packages(&command, ui),
        Command::Reference(command) => reference(&command),
        Command::Internal(command) => internal(&command),
    }
}

fn distrust(command: &Distrust, ui: &Ui) -> Result<ExitCode, CliError> {
    match command {
        Distrust::Quarantine(args) => quarantine::cut_off(args, ui),
        Distrust::Release(args) => quarantine::release(args, ui),
        Distrust::Forensics(args) => forensics::run(args, ui),
    }
}

fn exchange(command: &Exchange, ui: &Ui) -> Result<ExitCode, CliError> {
    match command {
        Exchange::Push(args) => push::run(args, ui),
        Exchange::Pull(args) => push::pull(args, ui),
        Exchange::Sign(args) => push::sign(args, ui),
        Exchange::Provenance => provenance::run(ui),
        Exchange::Verify => verify::run(ui),
    }
}

fn access(command: &Access, ui: &Ui) -> Result<ExitCode, CliError> {
    match command {
        Access::Console(args) => console::run(args, ui),
        Access::Exec(args) => exec::run(args, ui),
        Access::Cp(args) => cp::run(args, ui),
        Access::Ssh(args) => ssh::run(args, ui),
        Access::Session(command) => session::run(command, ui),
    }
}

fn keeping(command: &Keeping, ui: &Ui) -> Result<ExitCode, CliError> {
    match command {
        Keeping::Systemd(args) => systemd::run(args, ui),
        Keeping::Export(command) => export::run(command, ui),
    }
}

fn packages(command: &PackageTools, ui: &Ui) -> Result<ExitCode, CliError> {
    match command {
        PackageTools::Keys(command) => keys::run(command, ui),
        PackageTools::Apk(command) => apk::run(command, ui),
    }
}

fn reference(command: &Reference) -> Result<ExitCode, CliError> {
    match command {
        Reference::Schema(args) => schema::run(args),
        Reference::Completions(args) => completions::print(args),
        Reference::Man(args) => man::pages(args, command_line()),
    }
}

fn internal(command: &Internal) -> Result<ExitCode, CliError> {
    match command {
        Internal::Launch(args) => launch::run(args),
        Internal::Prove => prove::run(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// clap keeps one value for each id: an argument of a command with the id of a global one is both.
    #[test]
    fn no_argument_of_a_command_has_the_id_of_a_global_one() {
        let root = command_line();
        let global: BTreeSet<_> =
            root.get_arguments().filter(|arg| arg.is_global_set()).map(clap::Arg::get_id).collect();
        assert!(global.contains(&clap::Id::from("file")), "{global:?}");
        let mut waiting: Vec<_> =
            root.get_subcommands().map(|command| (command.get_name().to_owned(), command)).collect();
        while let Some((path, command)) = waiting.pop() {
            let clash = command.get_arguments().find(|arg| global.contains(arg.get_id()));
            assert!(clash.is_none(), "sisforge {path}: {:?}", clash.map(clap::Arg::get_id));
            waiting.extend(
                command.get_subcommands().map(|below| (format!("{path} {}", below.get_name()), below)),
            );
        }
    }
}
