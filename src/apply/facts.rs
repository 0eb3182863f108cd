//! Reading what `doctor` judges by.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::StatVfsMountFlags;

use crate::base::diagnostic::one_line;
use crate::base::network::TAP_NAME_PREFIX;
use crate::fleet::VmmKind;
use crate::host::doctor::{
    DirectoryFacts, Facts, Fix, FleetRequirements, HUGE_PAGE, Kvm, Program, Uplink, sample_ruleset,
};
use crate::host::layout::Layout;
use crate::host::vmm;
use crate::sys::accounts::HostAccounts;
use crate::sys::fs::{FileError, existing_ancestor};
use crate::sys::tool::{self, Tool};
use crate::sys::{cgroup, firecracker, ip, kernel, kvm, memory, nft};

use super::{ApplyError, network};

/// Sysctls that checks look at.
const SETTINGS: [&str; 16] = [
    "fs.file-max",
    "kernel.pid_max",
    "net.ipv4.ip_forward",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.default.rp_filter",
    "net.ipv4.conf.all.accept_redirects",
    "net.ipv4.conf.default.accept_redirects",
    "net.ipv4.conf.all.send_redirects",
    "net.ipv4.conf.default.send_redirects",
    "net.ipv4.conf.all.accept_source_route",
    "net.ipv4.conf.default.accept_source_route",
    "net.ipv4.neigh.default.gc_thresh1",
    "net.ipv4.neigh.default.gc_thresh2",
    "net.ipv4.neigh.default.gc_thresh3",
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_count",
];

/// Reads a host. What cannot be read is left out: a check says so.
pub fn read(wants: &FleetRequirements, layout: &Layout) -> Facts {
    let text = |path: &str| kernel::value(path).unwrap_or_default();
    let (cpuinfo, mounts) = (text("/proc/cpuinfo"), text("/proc/self/mounts"));
    let flags = kernel::parse_cpuinfo(&cpuinfo, "flags");
    let has = |flag: &str| flags.iter().any(|flags| flags.split(' ').any(|word| word == flag));
    let own = cgroup::detect().ok().and_then(|hierarchy| hierarchy.memory_current(&layout.cgroups()));
    Facts {
        kvm: prove_kvm(wants.vmm),
        kernel: text("/proc/sys/kernel/osrelease"),
        hardware_virtualization: cfg!(target_arch = "x86_64").then(|| has("vmx") || has("svm")),
        kvm_modules: kernel::modules("kvm"),
        firecracker: program("firecracker"),
        jailer: program("jailer"),
        qemu: tool::find("qemu-system-x86_64"),
        lacking: wants.programs.iter().copied().filter(|program| tool::find(program).is_none()).collect(),
        jails: place(&layout.jails()),
        files: place(&layout.files()),
        controllers: kernel::parse_controllers(&mounts, |path| kernel::value(path)),
        mounts: mounts.lines().count(),
        swaps: kernel::parse_swaps(&text("/proc/swaps")),
        ksm: kernel::value("/sys/kernel/mm/ksm/run").map(|run| run == "1"),
        smt: kernel::switch("/sys/devices/system/cpu/smt/active"),
        vulnerabilities: kernel::values("/sys/devices/system/cpu/vulnerabilities"),
        microcode: kernel::parse_cpuinfo(&cpuinfo, "microcode"),
        nested: ["kvm_intel", "kvm_amd"]
            .iter()
            .find_map(|module| kernel::switch(format!("/sys/module/{module}/parameters/nested"))),
        huge_pages: memory::huge_pages().map_or(0, |pages| pages.total) / HUGE_PAGE,
        memory: memory::available().map(|available| available + own.unwrap_or(0)),
        uplink: uplink(wants),
        settings: settings(),
        nft: is_root().then(accepts_ruleset),
        forward_drops: if is_root() { forward_drops() } else { None },
        taken_uids: HostAccounts::read(&BTreeSet::new()).within(&wants.uids),
        clocksource: kernel::value("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The interface that faces the network, where there is one.
fn uplink(wants: &FleetRequirements) -> Option<Uplink> {
    let by_route = || ip::default_uplink(&ip::routes().ok()?).ok()?;
    let name = wants.uplink.as_ref().map(ToString::to_string).or_else(by_route)?;
    let forwards = ip::get_sysctl(&network::forwarding::key(&name)).ok()?? == "1";
    let flags = rustix::fs::statvfs("/proc/sys").ok()?.f_flag;
    Some(Uplink { name, forwards, can_be_set: !flags.contains(StatVfsMountFlags::RDONLY) })
}

fn settings() -> BTreeMap<String, String> {
    let value = |key: &&str| Some(((*key).to_owned(), ip::get_sysctl(key).ok()??));
    SETTINGS.iter().filter_map(value).collect()
}

fn prove_kvm(vmm: VmmKind) -> Kvm {
    if !Path::new("/dev/kvm").exists() {
        return Kvm::Absent;
    }
    if std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    {
        return Kvm::Closed;
    }
    let vmm = vmm::of(vmm);
    match tool::find(vmm.program()).filter(|_| vmm.needs_kvm()) {
        None => Kvm::Untried,
        Some(path) => match kvm::probe(&path) {
            Ok(()) => Kvm::Ran,
            Err(error) => Kvm::Failed(one_line(&error)),
        },
    }
}

fn program(name: &'static str) -> Option<Program> {
    let path = tool::find(name)?;
    let is_static = firecracker::check_static(&path).is_ok();
    Some(Program { version: firecracker::version_of(name).ok(), is_static, path })
}

/// A directory, or the nearest one above it that is there.
fn place(path: &Path) -> Option<DirectoryFacts> {
    let path = existing_ancestor(path)?;
    let meta = std::fs::metadata(path).ok()?;
    let flags = rustix::fs::statvfs(path).ok()?.f_flag;
    Some(DirectoryFacts {
        path: path.to_owned(),
        uid: meta.uid(),
        mode: meta.mode(),
        nodev: flags.contains(StatVfsMountFlags::NODEV),
        noexec: flags.contains(StatVfsMountFlags::NOEXEC),
        device: meta.dev(),
    })
}

fn accepts_ruleset() -> Result<(), String> {
    let ruleset = sample_ruleset().ok_or("internal error: there is no ruleset to try")?;
    nft::check(&ruleset).map_err(|error| one_line(&error))
}

fn forward_drops() -> Option<Vec<String>> {
    let mut chains = nft::forward_drops("sisforge-", &format!("{TAP_NAME_PREFIX}*")).ok()?;
    // The iptables of old is seen by nobody else. It is asked only where it is in use: asking would load it.
    let tables = kernel::value("/proc/net/ip_tables_names").unwrap_or_default();
    if tables.lines().any(|table| table == "filter") {
        let legacy = tool::find("iptables-legacy").or_else(|| tool::find("iptables"))?;
        let rules = Tool::new(legacy).args(["-S", "FORWARD"]).text().ok()?;
        chains.extend(rules.contains("-P FORWARD DROP").then(|| "iptables-legacy filter FORWARD".to_owned()));
    }
    Some(chains)
}

/// Sets what a check asks for, until the next boot.
pub fn fix(fix: &Fix) -> Result<(), ApplyError> {
    match fix {
        Fix::Sysctl { key, value } => Ok(ip::set_sysctl(key, value)?),
        Fix::File { path, value } => Ok(std::fs::write(path, value).map_err(FileError::when("write", path))?),
    }
}
