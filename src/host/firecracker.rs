//! Firecracker in its jail: its configuration file and the jailer's call, as data.

use std::path::Path;

use serde_json::json;

use crate::fleet::GuestName;
use crate::sys::cgroup::Hierarchy;
use crate::sys::jailer::{self, CgroupVersion, JailCgroup};
use crate::sys::tool::Tool;

use super::layout::Layout;
use super::limits::limits;
use super::names::{API_SOCKET, CONFIG, DISK, KERNEL, ROOTFS, VMM_LOG};
use super::state::{CPU_PERIOD, CgroupLimits, Machine};

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

/// Files and values by which a hierarchy takes limits.
fn cgroup_values(hierarchy: &Hierarchy, limits: &CgroupLimits) -> (CgroupVersion, Vec<(String, String)>) {
    let (memory, pids, quota) = (limits.memory, limits.pids, limits.cpu_quota);
    let (version, values) = match hierarchy {
        Hierarchy::V1 { .. } => (
            CgroupVersion::V1,
            [
                ("memory.limit_in_bytes", memory.to_string()),
                ("pids.max", pids.to_string()),
                ("cpu.cfs_period_us", CPU_PERIOD.to_string()),
                ("cpu.cfs_quota_us", quota.to_string()),
            ]
            .to_vec(),
        ),
        Hierarchy::V2 { .. } => (
            CgroupVersion::V2,
            [
                ("memory.max", memory.to_string()),
                ("pids.max", pids.to_string()),
                ("cpu.max", format!("{quota} {CPU_PERIOD}")),
            ]
            .to_vec(),
        ),
    };
    (version, values.into_iter().map(|(file, value)| (file.to_owned(), value)).collect())
}

/// The jailer's call; `executable` is the Firecracker binary, static. The cgroup that it makes is the one that its
/// process is in already.
pub fn jailer(
    guest: &GuestName,
    machine: &Machine,
    layout: &Layout,
    executable: &Path,
    hierarchy: &Hierarchy,
) -> Tool {
    let (version, values) = cgroup_values(hierarchy, &limits(machine));
    let jail = jailer::Jail {
        base: layout.jails(),
        id: guest.to_string(),
        exec_file: executable.to_owned(),
        uid: machine.uid,
        gid: machine.uid,
        cgroup: Some(JailCgroup { version, parent: layout.cgroups(), values }),
        open_files: None,
    };
    let [socket, config, log] = [API_SOCKET, CONFIG, VMM_LOG].map(|path| format!("/{path}"));
    // A logger of the configuration file would begin too late: the first lines would go to the guest's console.
    let arguments = ["--api-sock", &socket, "--config-file", &config, "--log-path", &log, "--show-level"];
    jail.tool(Path::new("jailer"), &arguments)
}
