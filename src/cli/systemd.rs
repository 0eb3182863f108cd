//! `systemd`: the one unit that keeps the fleet on this host, and those of its sessions.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::run::host;
use crate::run::systemd::{FleetUnit, absolute};

use crate::sys::accounts;
use crate::sys::systemd::UNITS;

use super::error::CliError;
use super::render;
use super::ui::Ui;
use super::watch::FollowArgs;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    fleet: FleetArgs,
    /// Write it to /etc/systemd/system, and start it at each boot
    #[arg(long)]
    install: bool,
    /// Bring the fleet up at each boot, instead of following it
    #[arg(long)]
    once: bool,
    /// Print or install the units by which this user, who is not root, asks for sessions over a socket; several may be named
    ///
    /// They stand beside the unit of the fleet. What is said over the socket: `sisforge session socket --help`.
    #[arg(long, value_name = "USER", value_parser = session_user, conflicts_with_all = ["once", "repo"])]
    sessions: Vec<String>,
}

/// What is kept on hosts, and under which name.
#[derive(clap::Args)]
pub struct FleetArgs {
    #[command(flatten)]
    source: FollowArgs,
    /// Name of the unit, job or set [default: sisforge-FLEET, of a repository sisforge-REPOSITORY]
    #[arg(long, value_name = "NAME", value_parser = unit_name)]
    name: Option<String>,
}

impl FleetArgs {
    /// Whether a branch of Git is followed, and not a file of each host.
    pub fn follows_branch(&self) -> bool {
        self.source.repo.is_some()
    }
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    if !args.sessions.is_empty() {
        return sessions(args, ui);
    }
    let service = FleetUnit { once: args.once, ..fleet_unit(&args.fleet, None, ui)? };
    if !args.install {
        render::text(&service.unit());
        return Ok(ExitCode::SUCCESS);
    }
    let path = service.install()?;
    ui.wrote(&path, &format!("; start it now: systemctl start {}", service.name));
    Ok(ExitCode::SUCCESS)
}

fn sessions(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    if let Some(user) = args.sessions.iter().find(|user| accounts::uid_of(user).is_none()) {
        return Err(CliError::invalid(format!("--sessions: there is no user {user}"))
            .hint("`useradd --system` makes one"));
    }
    let fleet = fleet_unit(&args.fleet, None, ui)?;
    let watched = fleet.arguments.iter().take_while(|word| *word != "watch").cloned();
    let arguments = watched.chain(["session", "socket"].map(str::to_owned)).collect();
    let unit = FleetUnit { arguments, ..fleet };
    let sessions = unit.sessions(&args.sessions);
    if args.install {
        let path = sessions.install()?;
        let how = format!("; have it listen now: systemctl start {}.socket", sessions.name);
        ui.wrote(&path, &how);
        return Ok(ExitCode::SUCCESS);
    }
    let texts =
        sessions.units().map(|(name, text)| format!("# {}\n{text}", Path::new(UNITS).join(name).display()));
    render::text(&texts.join("\n"));
    Ok(ExitCode::SUCCESS)
}

/// The call of this program that keeps a fleet; artifacts go where they go here, unless somewhere else is named.
pub fn fleet_unit(args: &FleetArgs, out: Option<PathBuf>, ui: &Ui) -> Result<FleetUnit, CliError> {
    if !args.source.names_repository() {
        let url = args.source.repo.as_deref().unwrap_or_default();
        let message = format!("--repo {url} is neither a URL, nor HOST:PATH, nor a path that is there");
        return Err(CliError::invalid(message));
    }
    let run = &ui.settings.run;
    let absolute_of = |path: &std::path::Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (file, followed, name) = match &args.source.repo {
        // A path in the repository.
        Some(url) => (run.file.clone(), url.clone(), repository_name(url)),
        None => {
            let fleet = ui.workspace().fleet()?;
            let file = absolute(&run.file)?;
            (file.clone(), file.display().to_string(), fleet.name.to_string())
        }
    };
    let out = out.unwrap_or_else(|| absolute_of(&run.out)).display().to_string();
    let words = ["--file".to_owned(), file.display().to_string(), "--out-dir".to_owned(), out];
    let name = args.name.clone().unwrap_or_else(|| format!("sisforge-{name}"));
    Ok(FleetUnit {
        name,
        followed,
        program: host::program()?,
        arguments: words.into_iter().chain(["watch".to_owned()]).chain(args.source.words()).collect(),
        cache: absolute_of(&run.cache),
        once: false,
    })
}

/// The last part of a URL, of what a unit's name may have.
fn repository_name(url: &str) -> String {
    let last = url.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or_default();
    let name: String = last.trim_end_matches(".git").chars().filter(|c| is_plain(*c)).collect();
    if name.is_empty() { "fleet".to_owned() } else { name }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// A user, as a unit may name one.
fn session_user(text: &str) -> Result<String, String> {
    let is_name = text.chars().all(|c| is_plain(c) || c == '.') && !text.starts_with('-');
    if is_name && !text.is_empty() {
        Ok(text.to_owned())
    } else {
        Err("a user, by name or number".to_owned())
    }
}

fn unit_name(text: &str) -> Result<String, String> {
    let is_name = !text.is_empty() && text.len() < 100 && text.chars().all(is_plain);
    if is_name {
        Ok(text.to_owned())
    } else {
        Err("letters, digits, `-` and `_`, without `.service`".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_names_its_unit() {
        assert_eq!(repository_name("https://git.example.org/team/fleets.git"), "fleets");
        assert_eq!(repository_name("git@example.org:fleets.git"), "fleets");
        assert_eq!(repository_name("/"), "fleet");
        assert!(unit_name("a.service").is_err() && unit_name("../x").is_err());
    }
}
