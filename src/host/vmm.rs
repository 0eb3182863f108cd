//! How a machine is started: command lines and configurations of Firecracker and QEMU, as data.

use std::net::Ipv4Addr;
use std::path::Path;

use serde_json::json;

use crate::fleet::{GuestName, VmmKind};
use crate::sys::cgroup::Hierarchy;
use crate::sys::jailer::{self, CgroupVersion, JailCgroup};
use crate::sys::tool::Tool;

use super::layout::Layout;
use super::limits::limits;
use super::names::{API_SOCKET, CONFIG, DISK, KERNEL, QMP_SOCKET, ROOTFS, VMM_LOG};
use super::state::{CPU_PERIOD, CgroupLimits, Machine};

pub use crate::image::recipe::GUEST_USER;

/// What the guest's kernel is told of itself.
#[derive(Clone, Debug)]
pub struct BootInfo<'a> {
    pub guest: &'a GuestName,
    pub ip: Ipv4Addr,
    pub host: Ipv4Addr,
    pub dns: &'a [std::net::IpAddr],
    /// Base64 part of the ed25519 key that may log in; none where there is no key yet.
    pub ssh_key: Option<&'a str>,
}

/// Longest command line that Firecracker and the x86 kernel take, in bytes.
pub const COMMAND_LINE_MAX: usize = 2048;

/// The kernel command line. Firecracker appends `root=` and what finds its devices; QEMU's microvm machine
/// describes its devices by ACPI and appends nothing.
pub fn command_line(vmm: VmmKind, boot: &BootInfo<'_>) -> String {
    let (ip, host, guest) = (boot.ip, boot.host, boot.guest);
    let mut words = vec![
        "console=ttyS0".to_owned(),
        "panic=-1".to_owned(),
        "nomodule".to_owned(),
        "quiet".to_owned(),
        format!("ip={ip}::{host}:255.255.255.252:{guest}:eth0:off"),
    ];
    words.extend(match vmm {
        VmmKind::Firecracker => {
            ["reboot=k", "i8042.noaux", "i8042.nomux", "swiotlb=noforce"].map(str::to_owned).to_vec()
        }
        // The clock of `-icount` runs at 1 GHz; nothing is measured.
        VmmKind::Qemu => ["reboot=t", "root=/dev/vda", "ro", "tsc_early_khz=1000000", "tsc=reliable"]
            .map(str::to_owned)
            .to_vec(),
    });
    let dns: Vec<_> = boot.dns.iter().map(ToString::to_string).collect();
    if !dns.is_empty() {
        words.push(format!("sisforge.dns={}", dns.join(",")));
    }
    if let Some(key) = boot.ssh_key {
        words.push(format!("sisforge.key={key}"));
    }
    words.join(" ")
}

/// The guest's own address, as its command line tells it.
pub fn guest_address(command_line: &str) -> Option<Ipv4Addr> {
    let ip = command_line.split(' ').find_map(|word| word.strip_prefix("ip="))?;
    ip.split(':').next()?.parse().ok()
}

/// Firecracker's configuration file (its `docs/getting-started.md`, "Configuration file"); paths are the jail's.
pub fn firecracker_config(machine: &Machine) -> Vec<u8> {
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

/// QEMU's command line for the same machine: chrooted, as the guest's uid, under its seccomp filter. It is run in
/// the jail's root, so that names are short (a socket's path holds 107 bytes). Files are opened before the chroot, and
/// again by name after it (a snapshot reopens the disks), so names are relative: they are right on both sides.
///
/// `-icount`: microvm has no timer but the local APIC's, which Linux calibrates by the TSC, and that against the PIT. On
/// a busy host the latter fails, and the kernel hangs before its first clock tick. Counted instructions make a clock that
/// the host's load cannot reach.
///
/// The filter cannot refuse `setuid`, because it is in force before `-runas` takes effect (QEMU would end by SIGSYS);
/// it sets `no_new_privs`, so the guest's uid gains nothing by it.
pub fn qemu(guest: &GuestName, machine: &Machine) -> Tool {
    let uid = machine.uid;
    Tool::new("qemu-system-x86_64").args([
        "-name",
        &format!("guest={guest}"),
        "-M",
        "microvm,rtc=on,isa-serial=on,pic=on,pit=on",
        "-accel",
        "tcg",
        "-icount",
        "shift=auto",
        "-cpu",
        "max",
        "-smp",
        &machine.vcpus.to_string(),
        "-m",
        &machine.memory_mib.to_string(),
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-kernel",
        KERNEL,
        "-append",
        &machine.command_line,
        "-chardev",
        "stdio,id=serial,signal=off",
        "-serial",
        "chardev:serial",
        "-drive",
        &format!("id=root,file={ROOTFS},format=raw,if=none,readonly=on"),
        "-device",
        "virtio-blk-device,drive=root",
        "-drive",
        &format!("id=data,file={DISK},format=raw,if=none,discard=unmap"),
        "-device",
        "virtio-blk-device,drive=data",
        "-netdev",
        &format!("tap,id=net,ifname={},script=no,downscript=no", machine.tap),
        "-device",
        &format!("virtio-net-device,netdev=net,mac={}", machine.mac),
        "-device",
        "virtio-rng-device",
        "-qmp",
        &format!("unix:{QMP_SOCKET},server=on,wait=off"),
        "-chroot",
        ".",
        "-runas",
        &format!("{uid}:{uid}"),
        "-sandbox",
        "on,obsolete=deny,spawn=deny,resourcecontrol=deny",
    ])
}
