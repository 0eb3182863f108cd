//! systemd: the one unit that keeps a fleet on its host, and those by which users who are not root hand out its guests.
//!
//! The unit is `watch`, and holds `watch` alone: guests and the keepers of their logs have cgroups of their own, beside
//! systemd's. Whatever becomes of the unit, guests run on, and the next start finds them. The kernel takes no controller away
//! from a cgroup whose children use it, so that systemd cannot lift their limits. Before the host goes down they are asked to
//! stop, while network and rules are still there.

use std::path::{Path, PathBuf};

use crate::apply::ApplyError;
use crate::sys::fs::{self, FileError};
use crate::sys::systemd::{self, UNITS, quoted};

use super::RunError;

/// What keeps a fleet: a call of this program.
#[derive(Clone, Debug)]
pub struct FleetUnit {
    /// Of the unit, without `.service`.
    pub name: String,
    /// What is followed, for people.
    pub followed: String,
    /// This program.
    pub program: PathBuf,
    /// Its arguments up to and with `watch` and what is followed.
    pub arguments: Vec<String>,
    /// Where downloads are kept.
    pub cache: PathBuf,
    /// Whether the fleet is brought up at each boot, and not followed.
    pub once: bool,
}

/// What a guest is not given: clocks, modules, the kernel's log, and the host itself. A VMM inherits it. Namespaces of mounts are
/// none of it: what is mounted for a guest must be seen by whoever takes it down.
const HARDENING: &str = "\
UMask=0077
NoNewPrivileges=yes
RestrictRealtime=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=~@clock @module @reboot @swap @obsolete
SystemCallErrorNumber=EPERM
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
CapabilityBoundingSet=~CAP_SYS_BOOT CAP_SYS_MODULE CAP_SYS_TIME CAP_SYSLOG CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_MAC_ADMIN \
CAP_MAC_OVERRIDE CAP_SYS_PACCT CAP_SYS_TTY_CONFIG CAP_LEASE CAP_AUDIT_CONTROL
";

impl FleetUnit {
    /// The unit's file name.
    pub fn file_name(&self) -> String {
        format!("{}.service", self.name)
    }

    /// The text of the unit (systemd.service(5)).
    pub fn unit(&self) -> String {
        let program = self.program.display().to_string();
        let words: Vec<_> = [&program].into_iter().chain(&self.arguments).map(|word| quoted(word)).collect();
        let command = words.join(" ");
        let (start, kind) = if self.once {
            (format!("{command} --once"), "Type=oneshot\nRemainAfterExit=yes\nTimeoutStartSec=infinity\n")
        } else {
            (command.clone(), "Type=exec\n")
        };
        let (followed, cache) = (self.followed.replace('%', "%%"), self.cache.display());
        let environment = quoted(&format!("SISFORGE_CACHE_DIR={cache}"));
        format!(
            "# Made by `sisforge systemd`. Guests outlive this unit: `systemctl stop` ends what follows the fleet, `sisforge down`\n\
             # the guests. When the host goes down, they are asked to stop first.\n\
             [Unit]\n\
             Description=microVMs of {followed}\n\
             Documentation=man:sisforge(1) man:sisforge-systemd(1)\n\
             Wants=network-online.target\n\
             After=network-online.target nftables.service\n\
             StartLimitIntervalSec=0\n\
             \n\
             [Service]\n\
             {kind}Environment={environment}\n\
             ExecStart={start}\n\
             # After what follows the fleet has ended, which would start them again.\n\
             ExecStopPost={command} --down-at-shutdown\n\
             TimeoutStopSec=300\n\
             # What it ends with that was asked to end while it changed something.\n\
             SuccessExitStatus=130 143\n\
             Restart=on-failure\n\
             RestartSec=5\n\
             KillMode=mixed\n\
             {HARDENING}\
             \n\
             [Install]\n\
             WantedBy=multi-user.target\n"
        )
    }

    /// The units by which users who are not root ask for sessions: a socket, and what answers one connection. `arguments` are up to
    /// and with `session socket`.
    pub fn sessions(&self, users: &[String]) -> SessionUnits<'_> {
        let name = format!("{}-sessions", self.name);
        SessionUnits { unit: self, name, users: users.to_vec() }
    }

    /// Writes the unit and has systemd start it at each boot. Gives its path.
    pub fn install(&self) -> Result<PathBuf, RunError> {
        if !systemd::is_running() {
            return Err(RunError::NoSystemd);
        }
        let path = Path::new(UNITS).join(self.file_name());
        fs::write(&path, self.unit().as_bytes(), 0o644)?;
        systemd::enable(&self.file_name()).map_err(ApplyError::from)?;
        Ok(path)
    }
}

/// The units of sessions (systemd.socket(5)).
#[derive(Clone, Debug)]
pub struct SessionUnits<'a> {
    unit: &'a FleetUnit,
    /// Of both units, without `.socket` and `@.service`.
    pub name: String,
    /// Who may ask beside root, by name or number.
    users: Vec<String>,
}

impl SessionUnits<'_> {
    /// File names and texts, the socket first.
    pub fn units(&self) -> [(String, String); 2] {
        [
            (format!("{}.socket", self.name), self.socket()),
            (format!("{}@.service", self.name), self.service()),
        ]
    }

    /// Where the socket is.
    pub fn path(&self) -> PathBuf {
        Path::new("/run").join(format!("{}.sock", self.name))
    }

    /// One user has the socket alone. Of several the kernel tells which one asks, and others are refused by what answers.
    fn socket(&self) -> String {
        let access = match &self.users[..] {
            [user] => format!("SocketUser={user}\nSocketMode=0600\n"),
            _ => "SocketMode=0666\n".to_owned(),
        };
        let (followed, path) = (self.unit.followed.replace('%', "%%"), self.path());
        format!(
            "# Made by `sisforge systemd --sessions`: for each connection, systemd starts {}@.service.\n\
             [Unit]\n\
             Description=Sessions of {followed}\n\
             Documentation=man:sisforge(1) man:sisforge-session-socket(1)\n\
             \n\
             [Socket]\n\
             ListenStream={}\n\
             {access}\
             Accept=yes\n\
             MaxConnections=256\n\
             RemoveOnStop=yes\n\
             \n\
             [Install]\n\
             WantedBy=sockets.target\n",
            self.name,
            path.display(),
        )
    }

    fn service(&self) -> String {
        let (unit, program) = (self.unit, self.unit.program.display().to_string());
        let allowed = self.users.iter().flat_map(|user| ["--allow", user.as_str()]);
        let words =
            [program.as_str()].into_iter().chain(unit.arguments.iter().map(String::as_str)).chain(allowed);
        let command = words.map(quoted).collect::<Vec<_>>().join(" ");
        let environment = quoted(&format!("SISFORGE_CACHE_DIR={}", unit.cache.display()));
        let followed = unit.followed.replace('%', "%%");
        format!(
            "# Made by `sisforge systemd --sessions`. Who is connected has an hour; guests outlive this unit.\n\
             [Unit]\n\
             Description=Sessions of {followed}, for one connection\n\
             Documentation=man:sisforge(1) man:sisforge-session-socket(1)\n\
             CollectMode=inactive-or-failed\n\
             \n\
             [Service]\n\
             Type=exec\n\
             Environment={environment}\n\
             ExecStart={command}\n\
             StandardInput=socket\n\
             StandardOutput=socket\n\
             StandardError=journal\n\
             RuntimeMaxSec=1h\n\
             TimeoutStopSec=300\n\
             SuccessExitStatus=130 143\n\
             KillMode=mixed\n\
             {HARDENING}"
        )
    }

    /// Writes both units and has systemd listen at each boot. Gives the path of the first.
    pub fn install(&self) -> Result<PathBuf, RunError> {
        if !systemd::is_running() {
            return Err(RunError::NoSystemd);
        }
        let units = self.units();
        for (name, text) in &units {
            fs::write(&Path::new(UNITS).join(name), text.as_bytes(), 0o644)?;
        }
        let [(socket, _), _] = units;
        systemd::enable(&socket).map_err(ApplyError::from)?;
        Ok(Path::new(UNITS).join(socket))
    }
}

/// A fleet file that a unit can name from anywhere.
pub fn absolute(path: &Path) -> Result<PathBuf, RunError> {
    Ok(std::fs::canonicalize(path).map_err(FileError::when("find", path))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(once: bool) -> FleetUnit {
        FleetUnit {
            name: "sisforge-sis".to_owned(),
            followed: "/srv/100% fleet.toml".to_owned(),
            program: "/usr/bin/sisforge".into(),
            arguments: ["--file", "/srv/100% fleet.toml", "watch"].map(str::to_owned).into(),
            cache: "/var/cache/sisforge".into(),
            once,
        }
    }

    #[test]
    fn the_fleet_is_followed_after_the_network_and_asked_to_stop_before_it_goes() {
        let unit = service(false).unit();
        for line in [
            "Description=microVMs of /srv/100%% fleet.toml",
            "After=network-online.target nftables.service",
            "ExecStart=/usr/bin/sisforge --file \"/srv/100%% fleet.toml\" watch",
            "ExecStopPost=/usr/bin/sisforge --file \"/srv/100%% fleet.toml\" watch --down-at-shutdown",
            "Restart=on-failure",
        ] {
            assert!(unit.lines().any(|there| there == line), "{line}\n{unit}");
        }
        let once = service(true).unit();
        assert!(once.contains("watch --once\n") && once.contains("Type=oneshot\n"), "{once}");
    }

    #[test]
    fn one_user_has_the_socket_alone_and_several_are_told_apart() {
        let unit = FleetUnit { arguments: vec!["session".into(), "socket".into()], ..service(false) };
        let text = |users: &[&str]| {
            let users: Vec<String> = users.iter().map(|user| (*user).to_owned()).collect();
            unit.sessions(&users).units().map(|(name, text)| format!("{name}\n{text}")).concat()
        };
        let one = text(&["portal"]);
        for line in [
            "sisforge-sis-sessions.socket",
            "ListenStream=/run/sisforge-sis-sessions.sock",
            "SocketUser=portal",
            "SocketMode=0600",
            "ExecStart=/usr/bin/sisforge session socket --allow portal",
        ] {
            assert!(one.lines().any(|there| there == line), "{line}\n{one}");
        }
        let two = text(&["portal", "1000"]);
        assert!(two.contains("SocketMode=0666\n") && two.contains(" --allow portal --allow 1000\n"), "{two}");
    }

    #[test]
    fn mounts_of_guests_are_those_of_the_host() {
        for option in ["Private", "Protect", "ReadOnly", "Inaccessible", "RootDirectory", "MountFlags"] {
            assert!(!service(false).unit().lines().any(|line| line.starts_with(option)), "{option}");
        }
    }
}
