//! QEMU's microvm machine: the command line of the same guest, as data.

use crate::fleet::GuestName;
use crate::sys::tool::Tool;

use super::names::{DISK, KERNEL, QMP_SOCKET, ROOTFS};
use super::state::Machine;

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
pub fn command(guest: &GuestName, machine: &Machine) -> Tool {
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
