//! VMMs: started in their cgroup, waited for, asked to stop, and ended.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode};

use crate::fleet::{ContainerSpec, GuestName, VmmKind};
use crate::host::layout::Layout;
use crate::host::names::{API_SOCKET, QMP_SOCKET};
use crate::host::state::Machine;
use crate::host::vmm::{GUEST_USER, guest_address};
use crate::host::{console, firecracker, qemu};
use crate::sys::firecracker::Api;
use crate::sys::fs::{self as files, FileError};
use crate::sys::launch;
use crate::sys::process::{self, ProcessInfo, Signal};
use crate::sys::qemu::Qmp;
use crate::sys::ssh::{self, Target};
use crate::sys::tool::{self, Tool};

use super::linux::LinuxHost;
use super::record::{self, Ready};
use super::{ApplyError, jail, observe};

const POLL: Duration = Duration::from_millis(50);
/// How often a new process is looked for in its cgroup.
const JOIN_POLL: Duration = Duration::from_millis(1);
/// How long the kernel may take to end a process that was killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// Lines of a log that an error shows.
const SHOWN_LINES: usize = 12;

/// Starts the VMM of a machine whose jail is laid out.
pub(super) fn start(host: &LinuxHost, guest: &GuestName, machine: &Machine) -> Result<(), ApplyError> {
    let layout = &host.layout;
    let newest = jail::of(layout, guest)?.pop().filter(|place| place.vmm == machine.vmm);
    let place = newest.ok_or_else(|| ApplyError::NoJail(guest.clone()))?;
    // The record first: a VMM that runs is then always known.
    files::remove(&layout.ready(guest))?;
    record::write(&layout.machine(guest), &machine.as_started())?;
    let input = fifo(&layout.console_input(guest))?;
    let vmm = match machine.vmm {
        VmmKind::Qemu => qemu::command(guest, machine),
        VmmKind::Firecracker => {
            let executable = tool::find("firecracker").ok_or(ApplyError::NoVmm { program: "firecracker" })?;
            firecracker::jailer(guest, place.attempt, machine, layout, &executable)
        }
    };
    let launcher = Tool::new(&host.launcher).arg("launch");
    let cgroups = host.hierarchy.procs_files(&layout.cgroup(guest));
    let launcher = cgroups.iter().fold(launcher, |tool, file| tool.arg("--cgroup").arg(file));
    let launcher = launcher.arg("--").args(vmm.argv()).dir(place.root(layout, guest));
    let (serial, said) = (append(&layout.serial_log(guest))?, append(&layout.launch_log(guest))?);
    let pid = launch::spawn(&launcher, input, serial, said)?;
    // From here on the cgroup says whether the VMM runs, so it must be in it, or have ended.
    while process::inspect(pid).is_some() && !host.hierarchy.procs(&layout.cgroup(guest)).contains(&pid) {
        std::thread::sleep(JOIN_POLL);
    }
    Ok(())
}

/// A FIFO that stays open: its reader never sees an end.
fn fifo(path: &Path) -> Result<File, ApplyError> {
    files::remove(path)?;
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .map_err(|error| FileError::when("create", path)(error.into()))?;
    Ok(File::options().read(true).write(true).open(path).map_err(FileError::when("open", path))?)
}

fn append(path: &Path) -> Result<File, ApplyError> {
    Ok(File::options().append(true).open(path).map_err(FileError::when("open", path))?)
}

/// Waits until a guest says that it is ready, or its VMM ends, or it takes too long.
pub(super) fn await_ready(host: &LinuxHost, guest: &GuestName) -> Result<(), ApplyError> {
    let layout = &host.layout;
    let begun = Instant::now();
    loop {
        // Looked for before the log is read, so that the last words of one that ended are seen.
        let vmm = observe::vmm_process(layout, &host.hierarchy, guest);
        let serial = read_lossy(&layout.serial_log(guest))?;
        let last_lines = || -> Result<Vec<String>, ApplyError> {
            let mut lines = Vec::new();
            for log in [layout.vmm_log(guest), layout.launch_log(guest)] {
                lines.extend(console::last_lines(&read_lossy(&log)?, SHOWN_LINES));
            }
            lines.extend(console::last_lines(&serial, SHOWN_LINES));
            Ok(lines)
        };
        if let Some(services) = console::failed_services(&serial) {
            return Err(ApplyError::Services { guest: guest.clone(), services, last_lines: last_lines()? });
        }
        match (console::ready_key(&serial), vmm) {
            (Some(host_key), Some(vmm)) => {
                let (pid, start_time) = (vmm.pid, vmm.start_time);
                let ready = Ready { pid, start_time, host_key, containers: Vec::new() };
                return record::write(&layout.ready(guest), &ready);
            }
            (_, None) => return Err(ApplyError::Ended { guest: guest.clone(), last_lines: last_lines()? }),
            (None, Some(_)) if begun.elapsed() > host.ready_timeout => {
                let after = host.ready_timeout;
                return Err(ApplyError::NotReady { guest: guest.clone(), after, last_lines: last_lines()? });
            }
            (None, Some(_)) => std::thread::sleep(POLL),
        }
    }
}

/// The start of a log, as text: readiness is said early, and a log may be long.
fn read_lossy(path: &Path) -> Result<String, ApplyError> {
    use std::io::Read;
    const LONGEST: u64 = 1 << 20;
    let named = || FileError::when("read", path);
    let mut bytes = Vec::new();
    File::open(path).map_err(named())?.take(LONGEST).read_to_end(&mut bytes).map_err(named())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Asks a guest to shut down where it can hear, waits, and kills what is left.
pub(super) fn stop(host: &LinuxHost, guest: &GuestName) -> Result<(), ApplyError> {
    if let Some(vmm) = observe::vmm_process(&host.layout, &host.hierarchy, guest) {
        let machine: Option<Machine> = record::read(&host.layout.machine(guest)).unwrap_or_default();
        let is_ready = observe::ready(&host.layout, guest, Some(&vmm)).is_ok_and(|ready| ready.is_some());
        // One that never came up does not listen, and one that does not hear is killed below.
        if let Some(machine) = machine.filter(|_| is_ready) {
            if ask_to_stop(&host.layout, guest, &machine, &vmm).is_ok() {
                process::wait_gone(vmm.pid, vmm.start_time, host.stop_timeout);
            }
        }
    }
    host.hierarchy.kill(&host.layout.cgroup(guest))?;
    while let Some(left) = observe::vmm_process(&host.layout, &host.hierarchy, guest) {
        end(guest, &left)?;
    }
    Ok(())
}

fn end(guest: &GuestName, vmm: &ProcessInfo) -> Result<(), ApplyError> {
    // A process that is gone already is what is wanted.
    let _ = process::terminate(vmm.pid, vmm.start_time, Signal::KILL);
    if process::wait_gone(vmm.pid, vmm.start_time, KILL_TIMEOUT) {
        Ok(())
    } else {
        Err(ApplyError::DoesNotEnd(guest.clone()))
    }
}

/// The power button on QEMU, Ctrl-Alt-Del on Firecracker: the guest's init takes both alike.
fn ask_to_stop(
    layout: &Layout,
    guest: &GuestName,
    machine: &Machine,
    vmm: &ProcessInfo,
) -> Result<(), ApplyError> {
    let root = root_in_use(layout, guest, vmm)?;
    match machine.vmm {
        VmmKind::Qemu => Ok(Qmp::connect(&root.join(QMP_SOCKET))?.system_powerdown()?),
        VmmKind::Firecracker => Ok(Api::connect(&root.join(API_SOCKET))?.send_ctrl_alt_del()?),
    }
}

/// The root of the jail that a VMM runs in.
fn root_in_use(layout: &Layout, guest: &GuestName, vmm: &ProcessInfo) -> Result<PathBuf, ApplyError> {
    let place = jail::in_use(layout, guest, &jail::of(layout, guest)?, vmm);
    Ok(place.ok_or_else(|| ApplyError::NoJail(guest.clone()))?.root(layout, guest))
}

/// Tells a running VMM what changed of its machine, and then remembers it as that.
pub(super) fn adjust(host: &LinuxHost, guest: &GuestName, machine: &Machine) -> Result<(), ApplyError> {
    let layout = &host.layout;
    let vmm = observe::vmm_process(layout, &host.hierarchy, guest);
    let vmm = vmm.ok_or_else(|| ApplyError::Gone(guest.clone()))?;
    let root = root_in_use(layout, guest, &vmm)?;
    let running: Machine = record::read(&layout.machine(guest))?.unwrap_or_else(|| machine.as_started());
    match machine.vmm {
        VmmKind::Firecracker => {
            let api = Api::connect(&root.join(API_SOCKET))?;
            for (path, body) in firecracker::adjustments(&running, machine) {
                api.patch(&path, &body)?;
            }
        }
        VmmKind::Qemu => inflate(&mut Qmp::connect(&root.join(QMP_SOCKET))?, machine)?,
    }
    record::write(&layout.machine(guest), machine)
}

/// Tells QEMU how much memory its balloon leaves to the guest; no argument of its command line does.
fn inflate(qmp: &mut Qmp, machine: &Machine) -> Result<(), ApplyError> {
    match qemu::balloon_target(machine) {
        Some(target) => Ok(qmp.balloon(target)?),
        None => Ok(()),
    }
}

/// Starts a container in a guest, in place of one of the same name, and remembers that it was started.
pub(super) fn start_container(
    layout: &Layout,
    guest: &GuestName,
    container: &ContainerSpec,
) -> Result<(), ApplyError> {
    let failed = |reason: String| ApplyError::Container {
        guest: guest.clone(),
        container: container.name.to_string(),
        reason,
    };
    let Some(mut ready) = record::read::<Ready>(&layout.ready(guest))? else {
        return Err(failed("the guest is not ready".into()));
    };
    let target = target(layout, guest, &ready)?.ok_or_else(|| failed("the guest runs no sshd".into()))?;
    let words =
        ["podman", "run", "--detach", "--replace", "--name", container.name.as_str(), &container.image];
    let output = ssh::run(&target, &words.map(str::to_owned), ssh::Io::Capture)?;
    if output.code != 0 {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    ready.containers.push(container.clone());
    record::write(&layout.ready(guest), &ready)
}

/// How the host reaches a guest's sshd; `None` where it runs none, or its machine has no address.
///
/// # Errors
/// Where a record cannot be read.
pub fn target(layout: &Layout, guest: &GuestName, ready: &Ready) -> Result<Option<Target>, ApplyError> {
    let machine: Option<Machine> = record::read(&layout.machine(guest))?;
    let address = machine.and_then(|machine| guest_address(&machine.command_line));
    Ok(address.filter(|_| !ready.host_key.is_empty()).map(|address| Target {
        address,
        user: GUEST_USER.to_owned(),
        identity: layout.key(),
        host_key: ready.host_key.clone(),
    }))
}
