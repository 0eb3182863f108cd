//! What keeps guests apart from each other, beyond the VMM.

use super::facts::{Facts, FleetRequirements};
use super::{Check, CheckGroup, Fix, Level, Rule};

pub(super) fn checks(facts: &Facts, _: &FleetRequirements) -> Vec<Check> {
    vec![swap(facts), ksm(facts), smt(facts), vulnerabilities(facts), microcode(facts), nested(facts)]
}

const fn rule(id: &'static str, level: Level, why: &'static str) -> Rule {
    Rule { id, group: CheckGroup::Hardening, level, why }
}

fn swap(facts: &Facts) -> Check {
    let rule =
        rule("swap", Level::Error, "a guest's memory, including keys, could end up on the host's disk");
    let found = if facts.swaps.is_empty() { "none".into() } else { facts.swaps.join(", ") };
    rule.passes_if(facts.swaps.is_empty(), found, "run `swapoff -a`, and remove swap from /etc/fstab")
}

const KSM_RUN: &str = "/sys/kernel/mm/ksm/run";

fn ksm(facts: &Facts) -> Check {
    let rule =
        rule("ksm", Level::Error, "merged pages let one guest find out by timing what another has in memory");
    let off = Fix::File { path: KSM_RUN.into(), value: "2".into() };
    match facts.ksm {
        None => rule.pass("this kernel has none"),
        Some(false) => rule.pass("off"),
        Some(true) => {
            rule.missed("on", format!("echo 2 > {KSM_RUN}, and disable ksmtuned")).fixed_by(vec![off])
        }
    }
}

fn smt(facts: &Facts) -> Check {
    let rule = rule(
        "smt",
        Level::Error,
        "two guests on one core can read from each other through the resources that the core shares",
    );
    match facts.smt {
        None => rule.unknown("the kernel does not report it", "check the firmware's settings"),
        Some(false) => rule.pass("off"),
        Some(true) => rule.missed(
            "on: processors share cores",
            "boot with `nosmt`, or echo off > /sys/devices/system/cpu/smt/control",
        ),
    }
}

fn vulnerabilities(facts: &Facts) -> Check {
    let rule = rule(
        "vulnerabilities",
        Level::Error,
        "known flaws of the processor let a guest read memory that is not its own",
    );
    let open: Vec<_> = facts.vulnerabilities.iter().filter(|(_, text)| text.contains("Vulnerable")).collect();
    if facts.vulnerabilities.is_empty() {
        return rule.unknown("the kernel does not report it", "");
    }
    if open.is_empty() {
        return rule
            .pass(format!("all {} that the kernel knows of are mitigated", facts.vulnerabilities.len()));
    }
    let found: Vec<_> = open.iter().map(|(name, text)| format!("{name}: {text}")).collect();
    rule.missed(
        found.join("; "),
        "install the newest kernel and microcode, and boot without `mitigations=off`; a host that is a virtual machine \
         depends on its own host for it",
    )
}

fn microcode(facts: &Facts) -> Check {
    let rule = rule(
        "microcode",
        Level::Warning,
        "a processor with older microcode has flaws that the others do not have",
    );
    match facts.microcode.len() {
        0 => rule.unknown("the kernel does not report it", ""),
        1 => rule.pass(facts.microcode.first().cloned().unwrap_or_default()),
        _ => {
            let all: Vec<_> = facts.microcode.iter().map(String::as_str).collect();
            rule.missed(
                format!("processors have different ones: {}", all.join(", ")),
                "load the same microcode early at boot",
            )
        }
    }
}

fn nested(facts: &Facts) -> Check {
    let rule =
        rule("nested", Level::Warning, "guests that may run guests reach far more of the kernel's code");
    match facts.nested {
        None => rule.pass("KVM offers none"),
        Some(false) => rule.pass("off"),
        Some(true) => rule.missed(
            "on",
            "`options kvm_intel nested=0` (or kvm_amd) in /etc/modprobe.d/kvm.conf, and reload the module",
        ),
    }
}
