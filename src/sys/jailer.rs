//! `jailer`: Firecracker's own tool that puts it behind a chroot, a uid, cgroups and limits
//! (`docs/jailer.md` in its sources, version 1.16).
//!
//! What it makes, below a base directory that must exist:
//!
//! ```text
//! BASE/firecracker/ID/root/           0700, owned by the uid; what Firecracker sees as /
//!     firecracker                     a copy of the binary, owned by the uid
//!     firecracker.pid                 its process id, owned by root
//!     dev/{kvm,net/tun,urandom,userfaultfd}
//!     run/firecracker.socket          the API, made by Firecracker itself
//! ```
//!
//! `root` may be there already with the kernel, disks and configuration in it, and should be; the binary, the
//! pid file and `dev` must not, so a jail is used once. The jailer removes nothing, ever.
//!
//! It never forks here: it becomes Firecracker by exec, so the process that is started is the VMM, with
//! the stdin, stdout and stderr it was given. Two of its options would break that and are not offered.
//! `--daemonize` points all three at `/dev/null`, and with them the serial console and the log;
//! `--new-pid-ns` leaves a child whose end nobody can wait for, and both report success before
//! Firecracker has started. `--cgroup` is not offered either: whoever starts the jailer in a cgroup has Firecracker in it,
//! with every limit (`io.max` has a `=` in its value, on which the jailer stumbles), and from the first instruction on.
//!
//! The console and the log are best kept apart, and in pipes whose readers keep them outside the jail:
//! - stdin and stdout are the guest's serial port.
//! - `--log-path /vmm.log` takes the log from the first line on; the `logger` section of a configuration
//!   file is read only after two lines have gone to stdout. It is opened as the uid, for reading and writing, without
//!   waiting: a full pipe loses lines, which `missed_log_count` of the metrics counts. A plain file is written from its
//!   offset 0 on and not appended to, so that one that is truncated gets a hole. `--metrics-path` likewise.
//! - stderr has the jailer's own errors, and Firecracker's last one, which the log has as well. It may be the log's
//!   pipe, and must not be its file: Firecracker would write over what was appended there.

mod cause;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::tool::Tool;

pub use cause::{Cause, cause};

/// One jail for one Firecracker process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JailerArgs {
    /// Must exist, on a file system without `nodev` and `noexec`.
    pub base: PathBuf,
    /// 1 to 64 of letters, digits and `-`; also Firecracker's `--id`.
    pub id: String,
    /// A static binary; its file name names a directory below the base.
    pub exec_file: PathBuf,
    pub uid: u32,
    pub gid: u32,
    /// Resource limits: `no-file` on open files at a time (2048 unless given), `fsize` on the bytes of a file.
    pub limits: Vec<(&'static str, u64)>,
}

impl JailerArgs {
    /// All that belongs to this jail and to no other.
    pub fn dir(&self) -> PathBuf {
        self.base.join(self.exec_name()).join(&self.id)
    }

    /// What Firecracker sees as `/`.
    pub fn root(&self) -> PathBuf {
        self.dir().join("root")
    }

    /// Where the API is, unless Firecracker's arguments move it.
    pub fn api_socket(&self) -> PathBuf {
        self.root().join("run/firecracker.socket")
    }

    /// Holds the process id in decimal, without a newline, from just before Firecracker starts.
    pub fn pid_file(&self) -> PathBuf {
        let mut name = self.exec_name();
        name.push(".pid");
        self.root().join(name)
    }

    fn exec_name(&self) -> OsString {
        self.exec_file.file_name().unwrap_or_default().to_owned()
    }

    /// The call of `jailer`; `arguments` are Firecracker's, with paths as seen from inside.
    pub fn tool(&self, jailer: &Path, arguments: &[&str]) -> Tool {
        let mut tool = Tool::new(jailer)
            .args(["--id", &self.id])
            .arg("--exec-file")
            .arg(&self.exec_file)
            .args(["--uid", &self.uid.to_string(), "--gid", &self.gid.to_string()])
            .arg("--chroot-base-dir")
            .arg(&self.base);
        for (name, limit) in &self.limits {
            tool = tool.args(["--resource-limit", &format!("{name}={limit}")]);
        }
        tool.arg("--").args(arguments)
    }
}

/// Directories that the jailer makes, or takes over: 0700, of the uid; the first is the jail's root.
pub const FOLDERS: [&str; 4] = ["", "dev", "dev/net", "run"];

/// A character device that the jailer makes: 0600, of the uid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceNode {
    /// Below the jail's root.
    pub path: &'static str,
    pub major: u32,
    pub minor: u32,
}

/// The devices of a jail on a host whose `/proc/misc` says this.
pub fn nodes(misc: &str) -> Vec<DeviceNode> {
    let node = |path, major, minor| DeviceNode { path, major, minor };
    // The jailer splits lines at single spaces, and numbers below 100 have one before them: it knows those of three digits.
    let userfaultfd = misc.lines().find_map(|line| line.strip_suffix(" userfaultfd")?.parse().ok());
    [node("dev/net/tun", 10, 200), node("dev/kvm", 10, 232), node("dev/urandom", 1, 9)]
        .into_iter()
        .chain(userfaultfd.map(|minor| node("dev/userfaultfd", 10, minor)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jail() -> JailerArgs {
        JailerArgs {
            base: "/srv/jails".into(),
            id: "alice-1".to_owned(),
            exec_file: "/usr/local/bin/firecracker".into(),
            uid: 200_000,
            gid: 200_000,
            limits: vec![("no-file", 1024)],
        }
    }

    #[test]
    fn a_jail_is_told_all_of_its_limits() {
        assert_eq!(
            jail().tool(Path::new("jailer"), &["--config-file", "/config.json"]).command_line(),
            "jailer --id alice-1 --exec-file /usr/local/bin/firecracker --uid 200000 --gid 200000 \
             --chroot-base-dir /srv/jails --resource-limit no-file=1024 -- --config-file /config.json"
        );
    }

    #[test]
    fn a_jail_knows_where_its_files_are() {
        let jail = jail();
        assert_eq!(jail.pid_file(), Path::new("/srv/jails/firecracker/alice-1/root/firecracker.pid"));
        assert_eq!(
            jail.api_socket(),
            Path::new("/srv/jails/firecracker/alice-1/root/run/firecracker.socket")
        );
    }

    #[test]
    fn a_jail_has_the_devices_that_its_host_has() {
        let with = nodes("257 userfaultfd\n 60 cpu_dma_latency\n200 tun\n");
        assert_eq!(with.last(), Some(&DeviceNode { path: "dev/userfaultfd", major: 10, minor: 257 }));
        assert_eq!(nodes(" 58 userfaultfd\n").len(), 3);
    }
}
