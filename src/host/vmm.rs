//! What a guest's kernel is told, whichever VMM boots it. How each VMM is called is in `firecracker.rs` and `qemu.rs`.

use std::net::Ipv4Addr;

use crate::base::GuestName;
use crate::fleet::VmmKind;

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
        // Per-CPU memory grows by 2 MiB a CPU otherwise, and memory cgroups keep 4 MiB of books on each such piece: the first
        // container of a guest would cost it that.
        "percpu_alloc=page".to_owned(),
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
