//! Firecracker in its jail: its configuration file and the jailer's call, as data.

use std::path::Path;

use serde_json::json;

use crate::fleet::GuestName;
use crate::sys::jailer;
use crate::sys::tool::Tool;

use super::layout::{Layout, jail_id};
use super::names::{API_SOCKET, CONFIG, DISK, KERNEL, ROOTFS, VMM_LOG};
use super::state::Machine;

/// Firecracker's configuration file (its `docs/getting-started.md`, "Configuration file"); paths are the jail's.
pub fn config(machine: &Machine) -> Vec<u8> {
    let drive = |id: &str, path: &str, is_root: bool| json!({ "drive_id": id, "path_on_host": format!("/{path}"), "is_root_device": is_root, "is_read_only": is_root });
    let config = json!({
        "boot-source": { "kernel_image_path": format!("/{KERNEL}"), "boot_args": machine.command_line },
        "machine-config": { "vcpu_count": machine.vcpus, "mem_size_mib": machine.memory_mib },
        "drives": [drive("root", ROOTFS, true), drive("data", DISK, false)],
        "network-interfaces": [
            { "iface_id": "eth0", "host_dev_name": machine.tap.as_str(), "guest_mac": machine.mac }
        ],
        "entropy": {},
    });
    let mut text = serde_json::to_vec_pretty(&config).unwrap_or_default();
    text.push(b'\n');
    text
}

/// The jailer's call; `executable` is the Firecracker binary, static. It is told of no cgroup: its process is in the
/// guest's from its first instruction on, and the jailer can neither set `io.max` nor name a cgroup after a guest.
pub fn jailer(
    guest: &GuestName,
    attempt: u32,
    machine: &Machine,
    layout: &Layout,
    executable: &Path,
) -> Tool {
    let jail = jailer::Jail {
        base: layout.jails(),
        id: jail_id(guest, attempt),
        exec_file: executable.to_owned(),
        uid: machine.uid,
        gid: machine.uid,
        open_files: None,
    };
    let [socket, config, log] = [API_SOCKET, CONFIG, VMM_LOG].map(|path| format!("/{path}"));
    // A logger of the configuration file would begin too late: the first lines would go to the guest's console.
    let arguments = ["--api-sock", &socket, "--config-file", &config, "--log-path", &log, "--show-level"];
    jail.tool(Path::new("jailer"), &arguments)
}
