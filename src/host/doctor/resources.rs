//! Whether the host has what the fleet asks for.

use super::facts::{Facts, FleetRequirements};
use super::{Check, CheckGroup, Fix, Level, Rule};

pub(super) fn checks(facts: &Facts, wants: &FleetRequirements) -> Vec<Check> {
    vec![
        memory(facts, wants),
        huge_pages(facts, wants),
        mounts(facts),
        at_least(FILE_MAX, facts, "fs.file-max", FILES + FILES_PER_GUEST * wants.guests),
        at_least(PID_MAX, facts, "kernel.pid_max", PIDS + PIDS_PER_GUEST * wants.guests),
        uids(facts, wants),
        clocksource(facts),
    ]
}

const fn rule(id: &'static str, level: Level, why: &'static str) -> Rule {
    Rule { id, group: CheckGroup::Resources, level, why }
}

const MEMORY: Rule = rule(
    "memory",
    Level::Fatal,
    "guests may use all the memory that they were given; if the host runs out, the kernel kills one of them",
);

fn memory(facts: &Facts, wants: &FleetRequirements) -> Check {
    let mib = |bytes: u64| bytes >> 20;
    if wants.guests == 0 {
        return MEMORY.unneeded("no fleet to count");
    }
    let Some(there) = facts.memory else { return MEMORY.unknown("/proc/meminfo cannot be read", "") };
    // A tenth for page tables, the VMMs themselves and what the host caches.
    let needed = wants.memory + wants.memory / 10;
    let found = format!(
        "{} MiB for the fleet; {} guests may use {} MiB, plus a tenth",
        mib(there),
        wants.guests,
        mib(wants.memory)
    );
    MEMORY.passes_if(
        there >= needed,
        found,
        "give guests less `memory`, have fewer guests, or use a larger host",
    )
}

const HUGE_PAGES: Rule =
    rule("huge-pages", Level::Fatal, "a guest with huge pages is killed by SIGBUS when none are left");

fn huge_pages(facts: &Facts, wants: &FleetRequirements) -> Check {
    if wants.huge_pages == 0 {
        return HUGE_PAGES.unneeded("no guest uses them");
    }
    let found = format!("{} of 2 MiB are reserved, guests use {}", facts.huge_pages, wants.huge_pages);
    let remedy =
        format!("set vm.nr_hugepages to {} or more at boot, before memory is fragmented", wants.huge_pages);
    HUGE_PAGES.passes_if(facts.huge_pages >= wants.huge_pages, found, remedy)
}

const MOUNTS: Rule = rule(
    "mounts",
    Level::Warning,
    "each jailer copies the mount table: with 500 mounts, ten jails at a time take ten times as long",
);
const MOUNTS_MAX: usize = 100;

fn mounts(facts: &Facts) -> Check {
    let found = format!("{} mounts", facts.mounts);
    MOUNTS.passes_if(
        facts.mounts < MOUNTS_MAX,
        found,
        "unmount what is not used (`findmnt` lists all \
      mounts)",
    )
}

const FILE_MAX: Rule = rule(
    "file-max",
    Level::Warning,
    "when the host's limit of open files is reached, no program can open a \
      file",
);
/// Beside those of guests.
const FILES: u64 = 100_000;
/// What the jailer lets a VMM open at the most.
const FILES_PER_GUEST: u64 = 2048;

const PID_MAX: Rule = rule(
    "pid-max",
    Level::Warning,
    "each thread of each VMM needs a process id; when they run out, nothing more can be started",
);
/// The kernel's own least default.
const PIDS: u64 = 32_768;
/// A VMM with the most virtual processors that it may have, and threads of its own.
const PIDS_PER_GUEST: u64 = 64;

/// A sysctl that is to be so large.
pub(super) fn at_least(rule: Rule, facts: &Facts, key: &str, least: u64) -> Check {
    let Some(value) = facts.number(key) else {
        return rule.unknown(format!("{key} cannot be read"), "");
    };
    rule.passes_if(value >= least, format!("{key} = {value}"), format!("set it to {least} or more"))
        .fixed_by(vec![Fix::sysctl(key, least)])
}

const UIDS: Rule = rule(
    "uids",
    Level::Error,
    "if a guest's uid is also that of an account or its subordinate ids, each can access the other's files",
);

fn uids(facts: &Facts, wants: &FleetRequirements) -> Check {
    let range = format!("{}-{}", wants.uids.start(), wants.uids.end());
    if facts.taken_uids.is_empty() {
        return UIDS.pass(format!("{range} is nobody's"));
    }
    let found = format!("{range} overlaps with {}", facts.taken_uids.join(", "));
    UIDS.missed(found, "give [host] uids another range")
}

const CLOCKSOURCE: Rule = rule(
    "clocksource",
    Level::Warning,
    "guests can read the time without a VM exit only if the host's clock source is the TSC",
);

fn clocksource(facts: &Facts) -> Check {
    let Some(name) = &facts.clocksource else { return CLOCKSOURCE.unknown("cannot be read", "") };
    let remedy = "the kernel's log says why it rejected the TSC; on hardware with a stable TSC, boot with \
      tsc=reliable";
    CLOCKSOURCE.passes_if(name == "tsc", name, remedy)
}
