//! QEMU's microvm machine: the command line of the same guest, as data.

use std::path::Path;

use crate::base::{FileDigest, GuestName};
use crate::fleet::MachineSpec;
use crate::host::layout::Layout;
use crate::host::logs::{LogKind, LogStream};
use crate::host::names::{DISK, IMAGES, KERNEL, QMP_SOCKET, ROOTFS, SESSION_EMPTY};
use crate::host::state::Machine;
use crate::sys::jailer::Cause;
use crate::sys::qemu::PROGRAM;
use crate::sys::tool::Tool;

use super::{VmmProfile, VmmStart};

/// Translated code that QEMU keeps where it emulates. When that is full, all of it is thrown away: a guest that has booted and run its
/// first container has filled 256 MiB. By itself QEMU would keep 1 GiB.
const TRANSLATED_CODE_MIB: u64 = 512;

/// QEMU, which enters its jail by itself, and emulates the processor where the host has no KVM for it.
pub(super) struct Qemu;

impl VmmProfile for Qemu {
    fn program(&self) -> &'static str {
        PROGRAM
    }

    fn needed_programs(&self) -> &'static [&'static str] {
        &["qemu-system-x86_64"]
    }

    fn jailed_program(&self) -> Option<&'static str> {
        None
    }

    fn needs_kvm(&self) -> bool {
        false
    }

    fn command(&self, start: &VmmStart<'_>) -> Tool {
        command(start.guest, start.machine)
    }

    /// An emulator's translated code is far more than what it takes otherwise.
    fn memory_overhead(&self, kvm: bool) -> u64 {
        if kvm { 512 << 20 } else { (TRANSLATED_CODE_MIB + 256) << 20 }
    }

    /// The microvm machine describes its devices by ACPI and appends nothing. The clock of `-icount` runs at 1 GHz; nothing is
    /// measured. KVM tells its guest how fast the processor's counter is.
    fn boot_words(&self, kvm: bool) -> &'static [&'static str] {
        if kvm {
            &["reboot=t", "root=/dev/vda", "ro", "clocksource=kvm-clock"]
        } else {
            &["reboot=t", "root=/dev/vda", "ro", "tsc_early_khz=1000000", "tsc=reliable"]
        }
    }

    fn configuration(&self, _: &Machine) -> Option<Vec<u8>> {
        None
    }

    fn pipes(&self, _: &Machine) -> Vec<&'static str> {
        Vec::new()
    }

    fn log_streams(&self, layout: &Layout, guest: &GuestName, _: &Path) -> Vec<LogStream> {
        [LogKind::Serial, LogKind::Vmm]
            .map(|kind| LogStream { kind, pipe: layout.guest(guest).pipe(kind) })
            .into()
    }

    fn control_socket(&self) -> &'static str {
        QMP_SOCKET
    }

    fn run_time_files(&self) -> &'static [&'static str] {
        &[QMP_SOCKET]
    }

    fn shapes_traffic(&self) -> bool {
        false
    }

    /// Its virtual clock, and with KVM the guest's kvm-clock, go on from where they were stopped.
    fn keeps_time_while_paused(&self) -> bool {
        false
    }

    /// It takes no size of a balloon on its command line. One that goes on from a snapshot has the balloon that it had.
    fn reduce_to_start(&self, machine: &mut Machine) {
        if let (Some(balloon), None) = (&mut machine.spec.balloon, &machine.restored_from) {
            balloon.size_mib = 0;
        }
    }

    fn adjust(&self, spec: &mut MachineSpec<FileDigest>, wanted: &MachineSpec<FileDigest>) {
        super::adjust_balloon(spec, wanted);
    }

    fn can_freeze(&self, _: &Machine) -> bool {
        true
    }

    fn has_snapshot_in_jail(&self) -> bool {
        false
    }

    fn needs_its_host(&self, machine: &Machine) -> bool {
        machine.kvm
    }

    fn can_change_tap(&self, _: &str) -> bool {
        true
    }

    /// It writes pages of zeros as such by itself.
    fn can_leave_untouched(&self, _: &str) -> bool {
        false
    }

    fn origin_words(&self) -> [&'static str; 3] {
        ["QEMU", "the build of QEMU", "QEMU's snapshot format"]
    }

    fn cause(&self, _: &str) -> Option<Cause> {
        None
    }

    fn exit_reason(&self, _: i32) -> Option<&'static str> {
        None
    }

    fn exit_remedy(&self, _: i32) -> Option<&'static str> {
        None
    }
}

/// QEMU's command line for the same machine: chrooted, as the guest's uid, under its seccomp filter. It is run in
/// the jail's root, so that names are short (a socket's path holds 107 bytes). Files are opened before the chroot, and
/// again by name after it (a snapshot reopens the disks), so names are relative: they are right on both sides.
///
/// `-icount`, where the processor is emulated: microvm has no timer but the local APIC's, which Linux calibrates by the TSC, and that
/// against the PIT. On a busy host the latter fails, and the kernel hangs before its first clock tick. Counted instructions make a
/// clock that the host's load cannot reach.
///
/// The filter cannot refuse `setuid`, because it is in force before `-runas` takes effect (QEMU would end by SIGSYS);
/// it sets `no_new_privs`, so the guest's uid gains nothing by it.
fn command(guest: &GuestName, machine: &Machine) -> Tool {
    let (uid, spec) = (machine.uid, &machine.spec);
    let mut board = "microvm,rtc=on,isa-serial=on,pic=on,pit=on".to_owned();
    let tool = Tool::new(PROGRAM).args(["-name", &format!("guest={guest}")]);
    let tool = if spec.huge_pages {
        board.push_str(",memory-backend=memory");
        tool.args(["-object", &huge_pages(machine.memory_mib)])
    } else {
        tool
    };
    let tool = processor(tool.args(["-M", &board]), machine.kvm)
        .args(["-smp", &machine.vcpus.to_string(), "-m", &machine.memory_mib.to_string()])
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
        .args(["-kernel", KERNEL, "-append", &machine.command_line])
        .args(["-chardev", "stdio,id=serial,signal=off", "-serial", "chardev:serial"]);
    let tool = devices(tool, machine);
    // One that goes on from a snapshot waits for it.
    let incoming: &[&str] = if machine.restored_from.is_some() { &["-incoming", "defer"] } else { &[] };
    tool.args(incoming)
        .args(["-qmp", &format!("unix:{QMP_SOCKET},server=on,wait=off")])
        .args(["-chroot", ".", "-runas", &format!("{uid}:{uid}")])
        .args(["-sandbox", "on,obsolete=deny,spawn=deny,resourcecontrol=deny"])
}

fn processor(tool: Tool, kvm: bool) -> Tool {
    if kvm {
        tool.args(["-accel", "kvm", "-cpu", "host"])
    } else {
        let accelerator = format!("tcg,tb-size={TRANSLATED_CODE_MIB}");
        tool.args(["-accel", &accelerator, "-icount", "shift=auto", "-cpu", "max"])
    }
}

/// Memory of huge pages, all of them taken at once: a page that is missing ends QEMU here, and not the guest later.
fn huge_pages(mib: u64) -> String {
    format!("memory-backend-memfd,id=memory,size={mib}M,hugetlb=on,hugetlbsize=2M,prealloc=on")
}

/// The guest's devices; it finds its disks in this order.
fn devices(tool: Tool, machine: &Machine) -> Tool {
    let spec = &machine.spec;
    let throttled = |drive: String| {
        let limits = [("bps-total", spec.disk.bandwidth), ("iops-total", spec.disk.operations)];
        limits.into_iter().fold(drive, |drive, (name, limit)| match limit {
            Some(limit) => format!("{drive},throttling.{name}={}", limit.per_second),
            None => drive,
        })
    };
    let mtu = spec.network.mtu.map(|mtu| format!(",host_mtu={mtu}")).unwrap_or_default();
    let entropy = spec.entropy.bandwidth.map(|limit| format!(",max-bytes={},period=1000", limit.per_second));
    let tool = tool
        .args(["-drive", &throttled(format!("id=root,file={ROOTFS},format=raw,if=none,readonly=on"))])
        .args(["-device", "virtio-blk-device,drive=root"])
        .args(["-drive", &throttled(format!("id=data,file={DISK},format=raw,if=none,discard=unmap"))])
        .args(["-device", "virtio-blk-device,drive=data"]);
    let images =
        machine.images.map(|_| ("images", format!("id=images,file={IMAGES},format=raw,if=none,readonly=on")));
    let session = machine.session_disk.map(|_| ("session", session_drive()));
    let tool = images.into_iter().chain(session).fold(tool, |tool, (id, drive)| {
        tool.args(["-drive", &throttled(drive), "-device", &format!("virtio-blk-device,drive={id}")])
    });
    let tool = tool
        .args(["-netdev", &format!("tap,id=net,ifname={},script=no,downscript=no", machine.tap)])
        .args(["-device", &format!("virtio-net-device,netdev=net,mac={}{mtu}", machine.mac)])
        .args(["-device", &format!("virtio-rng-device{}", entropy.unwrap_or_default())]);
    match &spec.balloon {
        Some(balloon) => {
            let on = |on| if on { "on" } else { "off" };
            let (oom, reporting) = (on(balloon.deflate_on_oom), on(balloon.reporting));
            let device =
                format!("virtio-balloon-device,deflate-on-oom={oom},free-page-reporting={reporting}");
            tool.args(["-device", &device])
        }
        None => tool,
    }
}

/// The node whose file is another from the moment on in which a session brings its disk. QEMU's microvm has no hot-plug, but
/// `blockdev-reopen` takes a node another file, and `block_resize` tells the guest's driver.
pub const SESSION_NODE: &str = "session-disk";

/// What the file is called that it is opened upon.
pub const SESSION_FILE: &str = "session-file";

fn session_drive() -> String {
    let file = format!("file.driver=file,file.filename={SESSION_EMPTY}");
    format!("id=session,node-name={SESSION_NODE},driver=raw,{file},if=none,discard=unmap")
}

/// The memory that a balloon leaves to the guest, in bytes: what QMP's `balloon` is told.
pub fn balloon_target(machine: &Machine) -> Option<u64> {
    let balloon = machine.spec.balloon.as_ref()?;
    Some(machine.memory_mib.saturating_sub(balloon.size_mib) << 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Sha256;
    use crate::fleet::{Balloon, Bucket, NetworkLimits, RateLimiter, VmmKind};

    #[test]
    fn qemu_is_told_what_it_can_do() {
        let limits = |operations| RateLimiter { bandwidth: Some(Bucket::steady(1000)), operations };
        let machine = Machine {
            images: Some(Sha256::of("images").into()),
            spec: MachineSpec {
                huge_pages: true,
                balloon: Some(Balloon {
                    size_mib: 64,
                    deflate_on_oom: true,
                    statistics: 0,
                    reporting: false,
                }),
                entropy: limits(None),
                disk: limits(Some(Bucket::steady(10))),
                network: NetworkLimits { mtu: Some(1400), ..NetworkLimits::default() },
                ..MachineSpec::default()
            },
            ..Machine::example(VmmKind::Qemu)
        };
        let line = command(&"alice".parse().unwrap(), &machine).command_line();
        for words in [
            "drive=data -drive id=images,file=images.ext4,format=raw,if=none,readonly=on,throttling.bps-total=1000",
            "memory-backend-memfd,id=memory,size=512M,hugetlb=on,hugetlbsize=2M,prealloc=on",
            "microvm,rtc=on,isa-serial=on,pic=on,pit=on,memory-backend=memory",
            "id=data,file=data/disk.ext4,format=raw,if=none,discard=unmap,throttling.bps-total=1000,throttling.iops-total=10",
            "virtio-rng-device,max-bytes=1000,period=1000",
            "virtio-net-device,netdev=net,mac=02:53:0a:6b:00:02,host_mtu=1400",
            "virtio-balloon-device,deflate-on-oom=on,free-page-reporting=off",
        ] {
            assert!(line.contains(words), "{words}\n{line}");
        }
        assert_eq!(balloon_target(&machine), Some(448 << 20));
        assert!(line.contains("-accel tcg,tb-size=512 -icount shift=auto -cpu max"), "{line}");
        let machine = Machine { kvm: true, ..machine };
        let line = command(&"alice".parse().unwrap(), &machine).command_line();
        assert!(line.contains("-accel kvm -cpu host") && !line.contains("icount"), "{line}");
        // Counted instructions have a frequency of their own, of which a real processor must not be told.
        assert!(!Qemu.boot_words(true).iter().any(|word| word.contains("tsc")));
    }
}
