//! Programs of the distribution that serve guests: each as a user of its own, without privileges, in namespaces of its own but
//! for the network, with one file of its own beside the system's programs, which it cannot change. The walls are those of
//! [`super::sandbox`].

use std::ffi::OsString;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

use super::sandbox::{CAPABILITIES, NAMESPACES, becoming, view};
use super::tool::{Tool, ToolError, find};

/// Where the program sees its configuration.
pub const CONFIG: &str = "/etc/service.conf";

/// What a program may use at most: no core files, and files (it writes none but what it says) of 1 MiB.
const BOUNDS: [&str; 2] = ["--core=0", "--fsize=1048576"];

/// A program that serves.
#[derive(Clone, Copy, Debug)]
pub struct SandboxedService<'a> {
    pub program: &'a str,
    /// Its arguments; its configuration is at [`CONFIG`].
    pub args: &'a [&'a str],
    pub config: &'a Path,
    /// Who runs it; the group has the same number.
    pub uid: u32,
    /// Files and connections that it may have open.
    pub open_files: u64,
}

/// The call that becomes the program, by bubblewrap, prlimit and setpriv (util-linux). It needs no capability for its ports,
/// which are above 1023.
pub fn call(service: &SandboxedService<'_>) -> Result<Tool, ToolError> {
    let installed = |program: &str| {
        find(program).map(OsString::from).ok_or_else(|| ToolError::Missing { tool: program.to_owned() })
    };
    let program = installed(service.program)?;
    // No more than there are to give.
    let files =
        getrlimit(Resource::Nofile).maximum.map_or(service.open_files, |most| most.min(service.open_files));
    Ok(Tool::new(installed("bwrap")?)
        .args(NAMESPACES)
        .args(CAPABILITIES)
        .args(view())
        .args([OsString::from("--ro-bind"), service.config.into(), CONFIG.into()])
        .args(["--remount-ro", "/", "--"])
        .arg(installed("prlimit")?)
        .args(BOUNDS)
        .arg(format!("--nofile={files}"))
        .arg(installed("setpriv")?)
        .args(becoming(service.uid))
        .arg(program)
        .args(service.args))
}
