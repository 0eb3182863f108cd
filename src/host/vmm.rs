//! How a machine is started: command lines and configurations of Firecracker and QEMU, as data.

use std::net::Ipv4Addr;
use std::path::Path;

use serde_json::json;

use crate::fleet::{GuestName, VmmKind};

use super::jail::{API_SOCKET, CONFIG, DISK, KERNEL, QMP_SOCKET, ROOTFS, VMM_LOG};
use super::layout::Layout;
use super::state::Machine;

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
        VmmKind::Qemu => ["reboot=t", "root=/dev/vda", "ro"].map(str::to_owned).to_vec(),
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
        "logger": { "log_path": format!("/{VMM_LOG}"), "level": "Info", "show_level": true, "show_log_origin": false },
    });
    let mut text = serde_json::to_vec_pretty(&config).unwrap_or_default();
    text.push(b'\n');
    text
}

/// The jailer's command line; `executable` is the Firecracker binary, a file of its own inode and static. The
/// jailer's own cgroup flags are not used: they cannot say everything, so the process is in its cgroup before.
pub fn jailer_command(
    guest: &GuestName,
    machine: &Machine,
    layout: &Layout,
    executable: &Path,
) -> Vec<String> {
    let (uid, jails) = (machine.uid.to_string(), layout.jails());
    let (jails, executable) = (jails.to_string_lossy(), executable.to_string_lossy());
    let (socket, config) = (format!("/{API_SOCKET}"), format!("/{CONFIG}"));
    let jail = ["--id", guest.as_str(), "--exec-file", &executable, "--uid", &uid, "--gid", &uid];
    let firecracker = ["--chroot-base-dir", &jails, "--", "--api-sock", &socket, "--config-file", &config];
    std::iter::once("jailer").chain(jail).chain(firecracker).map(str::to_owned).collect()
}

/// QEMU's command line for the same machine: chrooted, as the guest's uid, under its seccomp filter. It is run in
/// the jail's root, so that names are short (a socket's path holds 107 bytes); files are opened before the chroot.
pub fn qemu_command(guest: &GuestName, machine: &Machine) -> Vec<String> {
    let uid = machine.uid;
    let words: &[&str] = &[
        "qemu-system-x86_64",
        "-name",
        &format!("guest={guest}"),
        "-M",
        "microvm,rtc=on,isa-serial=on,pic=on,pit=on",
        "-accel",
        "tcg",
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
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    ];
    words.iter().map(|word| (*word).to_owned()).collect()
}
