//! Whether guests can be run at all.

use crate::host::{versions, vmm};

use super::facts::{DirectoryFacts, Facts, FleetRequirements, Kvm, Program};
use super::{Check, CheckGroup, Level, Rule};

pub(super) fn checks(facts: &Facts, wants: &FleetRequirements) -> Vec<Check> {
    let firecracker = vmm::of(wants.vmm).needs_kvm();
    let mut all = vec![
        if firecracker { kvm(facts) } else { KVM.unneeded("QEMU emulates the processor in software") },
        kernel(facts),
        if firecracker { programs(facts) } else { PROGRAMS.unneeded("the fleet's VMM is QEMU") },
    ];
    if !firecracker {
        all.push(QEMU.passes_if(
            facts.qemu.is_some(),
            facts.qemu.as_ref().map_or("not installed".into(), |path| path.display().to_string()),
            "install it: on Debian, `apt-get install qemu-system-x86`",
        ));
    }
    all.push(jails(facts, firecracker));
    all.push(one_file_system(facts));
    all.push(cgroups(facts));
    all
}

const fn rule(id: &'static str, level: Level, why: &'static str) -> Rule {
    Rule { id, group: CheckGroup::Vmm, level, why }
}

const KVM: Rule =
    rule("kvm", Level::Fatal, "Firecracker needs KVM; a /dev/kvm that exists may still not work");

fn kvm(facts: &Facts) -> Check {
    let pvm = facts.kvm_modules.iter().any(|module| module == "kvm_pvm");
    let modules = facts.kvm_modules.join(", ");
    let qemu = "run it on hardware, or in a machine with nested virtualization, or set `vmm = \"qemu\"` \
      (for development)";
    match &facts.kvm {
        Kvm::Absent => KVM.missed(
            "there is no /dev/kvm",
            format!(
                "load kvm_intel or kvm_amd, enable \
          virtualization in the firmware; {qemu}"
            ),
        ),
        Kvm::Closed => KVM.unknown("/dev/kvm exists, but this user may not open it", "run it as root"),
        Kvm::Untried => KVM.unknown(
            "/dev/kvm exists, but was not tested: there is no firecracker to run a guest with",
            "install firecracker, and run doctor again",
        ),
        Kvm::Failed(words) => {
            KVM.missed(format!("a test guest of a few instructions did not run: {words}"), qemu)
        }
        Kvm::Ran if pvm || facts.hardware_virtualization == Some(false) => KVM.missed(
            format!(
                "a test guest of a few instructions ran, but this processor has neither VMX nor SVM \
                 (modules: {modules}): with such a KVM, an ordinary kernel crashes within seconds of its boot"
            ),
            qemu,
        ),
        Kvm::Ran => KVM.pass(format!("a guest of a few instructions ran (modules: {modules})")),
    }
}

const KERNEL: Rule = rule(
    "kernel",
    Level::Warning,
    "Firecracker is tested on these series of host kernels; others may lack KVM fixes that it relies on",
);
/// Firecracker's `docs/kernel-policy.md`.
const SERIES: [&str; 3] = ["5.10", "6.1", "6.18"];

fn kernel(facts: &Facts) -> Check {
    let series: Vec<_> = facts.kernel.split(['.', '-']).take(2).collect();
    let known = SERIES.contains(&series.join(".").as_str());
    KERNEL.passes_if(
        known,
        format!("Linux {}", facts.kernel),
        format!("run one of Linux {}", SERIES.join(", ")),
    )
}

const PROGRAMS: Rule = rule(
    "firecracker",
    Level::Fatal,
    "Firecracker has no shared libraries in its jail, and a jailer of another release may not be \
     compatible; 1.4.0 fails on processors whose name has no frequency",
);

fn programs(facts: &Facts) -> Check {
    let install = "take firecracker and jailer of one release from \
      https://github.com/firecracker-microvm/firecracker/releases";
    let (Some(firecracker), Some(jailer)) = (&facts.firecracker, &facts.jailer) else {
        let missing: Vec<_> = [("firecracker", &facts.firecracker), ("jailer", &facts.jailer)]
            .iter()
            .filter(|(_, program)| program.is_none())
            .map(|(name, _)| *name)
            .collect();
        return PROGRAMS.missed(format!("not installed: {}", missing.join(", ")), install);
    };
    let version =
        |program: &Program| program.version.map_or("an unknown version".to_owned(), |v| v.to_string());
    let found = format!("{} {}", firecracker.path.display(), version(firecracker));
    if firecracker.version.is_none() || firecracker.version != jailer.version {
        return PROGRAMS.missed(format!("{found}, but jailer {}", version(jailer)), install);
    }
    if firecracker.version == Some(versions::BROKEN) {
        return PROGRAMS.missed(found, install);
    }
    PROGRAMS.passes_if(
        firecracker.is_static,
        format!("{found}, {}", if firecracker.is_static { "static" } else { "which needs shared libraries" }),
        "take a release, which is static, or build it for x86_64-unknown-linux-musl",
    )
}

const QEMU: Rule = rule("qemu", Level::Fatal, "it is the VMM that [fleet] vmm names");

const JAILS: Rule = rule(
    "jail-base",
    Level::Fatal,
    "a jail contains a program and device nodes, which whoever can write to a directory above it could \
     replace",
);

fn jails(facts: &Facts, firecracker: bool) -> Check {
    let Some(DirectoryFacts { path, uid, mode, nodev, noexec, .. }) = &facts.jails else {
        return JAILS.unknown("cannot be read", "run it as root");
    };
    let path = path.display();
    if *uid != 0 || mode & 0o022 != 0 {
        let found = format!("{path} belongs to uid {uid}, mode {:o}", mode & 0o7777);
        return JAILS.missed(found, format!("chown root {path}; chmod go-w {path}"));
    }
    let flags: Vec<_> =
        [("nodev", *nodev), ("noexec", *noexec)].iter().filter(|f| f.1).map(|f| f.0).collect();
    if firecracker && !flags.is_empty() {
        let flags = flags.join(",");
        return JAILS.missed(
            format!("{path} is mounted {flags}"),
            "mount it without that option, or move [host] store to another file system",
        );
    }
    JAILS
        .pass(format!("{path}: root's alone{}", if firecracker { ", programs and devices work" } else { "" }))
}

const ONE_FILE_SYSTEM: Rule = rule(
    "one-file-system",
    Level::Warning,
    "jails hard-link kernels and images of the store at no cost; across file systems they are copied for \
     each guest",
);

fn one_file_system(facts: &Facts) -> Check {
    let (Some(jails), Some(files)) = (&facts.jails, &facts.files) else {
        return ONE_FILE_SYSTEM.unknown("cannot be read", "run it as root");
    };
    let found = format!("{} and {}", jails.path.display(), files.path.display());
    ONE_FILE_SYSTEM.passes_if(jails.device == files.device, found, "put jails and store on one file system")
}

const CGROUPS: Rule = rule(
    "cgroups",
    Level::Fatal,
    "each guest's processor time, memory, disk traffic and processes are limited by its cgroup",
);
/// As version 2 names them.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "memory", "io", "pids"];

fn cgroups(facts: &Facts) -> Check {
    let has = |name: &&&str| facts.controllers.contains(**name);
    let missing: Vec<_> = CONTROLLERS.iter().filter(|name| !has(name)).copied().collect();
    let found =
        if missing.is_empty() { CONTROLLERS.join(", ") } else { format!("missing: {}", missing.join(", ")) };
    CGROUPS.passes_if(
        missing.is_empty(),
        found,
        "mount cgroup2 at /sys/fs/cgroup; for memory on some systems, boot with cgroup_enable=memory",
    )
}
