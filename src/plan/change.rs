//! What differs between what runs and what is wanted, with both values where a person can compare them.

use std::borrow::Cow;
use std::fmt;

use crate::base::text::excerpt;
use crate::base::{ByteSize, FileDigest, Found, Rates};
use crate::fleet::{Balloon, CpuTemplate, LogLevel, MachineSpec};
use crate::host::observed::ObservedLimits;
use crate::host::state::{Machine, MachineDisk};

/// One thing that is to become another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it is called, such as `memory`.
    pub what: Cow<'static, str>,
    /// How it is and how it will be, where that can be told in a few words.
    pub values: Option<(String, String)>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.values {
            Some((from, to)) => write!(f, "{} {from} -> {to}", self.what),
            None => write!(f, "{} changed", self.what),
        }
    }
}

/// Longest part of a kernel command line that is shown, in characters.
const SHOWN_MAX: usize = 60;

/// A change that is told with both values, as far as a message shows them.
pub(super) fn told<T: PartialEq>(
    what: impl Into<Cow<'static, str>>,
    from: &T,
    to: &T,
    words: impl Fn(&T) -> String,
) -> Option<Change> {
    let words = |value| excerpt(&words(value));
    (from != to).then(|| Change { what: what.into(), values: Some((words(from), words(to))) })
}

/// A change of what has no short words.
pub(super) fn untold<T: PartialEq>(what: impl Into<Cow<'static, str>>, from: &T, to: &T) -> Option<Change> {
    (from != to).then(|| Change { what: what.into(), values: None })
}

/// A value that need not be there.
pub(super) fn or_none(value: Option<String>) -> String {
    value.unwrap_or_else(|| "none".to_owned())
}

fn switch(on: &bool) -> String {
    (if *on { "on" } else { "off" }).to_owned()
}

fn digest(digest: &Option<FileDigest>) -> String {
    or_none(digest.as_ref().map(FileDigest::short))
}

fn size_or_none(size: &Option<u64>) -> String {
    or_none(size.map(|size| ByteSize::from_bytes(size).to_string()))
}

fn disk(disk: &MachineDisk) -> String {
    match disk {
        MachineDisk::Kept => "kept".to_owned(),
        MachineDisk::Ephemeral { base, size, in_memory } => {
            let backing = if *in_memory { "tmpfs" } else { "ephemeral" };
            format!("{backing} {} {}", ByteSize::from_bytes(*size), base.short())
        }
    }
}

/// What two machines differ in. Every field is named, so that a new one does not compile before it is decided what it is
/// called.
pub(super) fn of_machines(running: &Machine, wanted: &Machine) -> Vec<Change> {
    let Machine {
        vmm,
        uid,
        tap,
        mac,
        ip,
        vcpus,
        memory_mib,
        kernel,
        image,
        disk: data_disk,
        images,
        command_line,
        spec,
        kvm,
        session_disk,
        restored_from,
    } = running;
    let address = told("address", ip, &wanted.ip, ToString::to_string)
        .or_else(|| untold("address", &(tap, mac), &(&wanted.tap, &wanted.mac)));
    let all = [
        told("vmm", vmm, &wanted.vmm, |vmm| vmm.word().to_owned()),
        told("KVM", kvm, &wanted.kvm, switch),
        told("uid", uid, &wanted.uid, ToString::to_string),
        told("kernel", kernel, &wanted.kernel, FileDigest::short),
        told("image", image, &wanted.image, FileDigest::short),
        told("disk", data_disk, &wanted.disk, disk),
        told("largest session disk", session_disk, &wanted.session_disk, size_or_none),
        told("container images", images, &wanted.images, digest),
        told("vcpus", vcpus, &wanted.vcpus, ToString::to_string),
        told("memory", memory_mib, &wanted.memory_mib, |mib| ByteSize::from_mib(*mib).to_string()),
        address,
        of_command_lines(command_line, &wanted.command_line),
        told("snapshot", restored_from, &wanted.restored_from, |snapshot| {
            snapshot.as_ref().map_or_else(|| "none (booted)".to_owned(), ToString::to_string)
        }),
    ];
    all.into_iter().flatten().chain(of_specs(spec, &wanted.spec)).collect()
}

fn of_specs(running: &MachineSpec<FileDigest>, wanted: &MachineSpec<FileDigest>) -> Vec<Change> {
    let MachineSpec {
        huge_pages,
        cpu_template,
        seccomp,
        log_level,
        metrics,
        balloon,
        entropy,
        vsock,
        metadata,
        disk,
        network,
    } = running;
    let template = |template: &Option<CpuTemplate<FileDigest>>| match template {
        None => "none".to_owned(),
        Some(CpuTemplate::Static(template)) => format!("{template:?}"),
        Some(CpuTemplate::Custom(file)) => file.short(),
    };
    let log = |level: &Option<LogLevel>| level.map_or("default", LogLevel::word).to_owned();
    let all = [
        told("huge pages", huge_pages, &wanted.huge_pages, switch),
        told("cpu template", cpu_template, &wanted.cpu_template, template),
        told("seccomp filter", seccomp, &wanted.seccomp, digest),
        told("log level", log_level, &wanted.log_level, log),
        told("metrics", metrics, &wanted.metrics, switch),
        of_balloons(balloon, &wanted.balloon),
        untold("entropy limits", entropy, &wanted.entropy),
        told("vsock", vsock, &wanted.vsock, switch),
        untold("metadata", metadata, &wanted.metadata),
        untold("disk limits", disk, &wanted.disk),
        untold("network device", network, &wanted.network),
    ];
    all.into_iter().flatten().collect()
}

/// Two balloons of the same size differ in what has no short words.
fn of_balloons(running: &Option<Balloon>, wanted: &Option<Balloon>) -> Option<Change> {
    let size = |balloon: &Option<Balloon>| {
        or_none(balloon.as_ref().map(|balloon| ByteSize::from_mib(balloon.size_mib).to_string()))
    };
    let change = told("balloon", running, wanted, size)?;
    Some(Change { values: change.values.filter(|(from, to)| from != to), ..change })
}

/// The words that only one of two command lines has.
fn of_command_lines(running: &str, wanted: &str) -> Option<Change> {
    let only = |one: &str, other: &str| {
        let words = one.split(' ').filter(|word| !other.split(' ').any(|known| known == *word));
        let words: Vec<_> = words.collect();
        if words.is_empty() { "none".to_owned() } else { words.join(" ") }
    };
    let values = match (only(running, wanted), only(wanted, running)) {
        // The same words in another order, or another number of times.
        (from, to) if from == to => (running.to_owned(), wanted.to_owned()),
        values => values,
    };
    let values = Some((shortened(&values.0), shortened(&values.1)));
    (running != wanted).then_some(Change { what: "kernel command line".into(), values })
}

/// A text that is not too long to be shown.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// What two limits of a cgroup differ in.
pub(super) fn of_limits(found: &ObservedLimits, wanted: &ObservedLimits) -> Vec<Change> {
    let ObservedLimits { memory, pids, cpu_quota, cpu_weight, io } = found;
    let all = [
        told("memory limit", memory, &wanted.memory, size_or_none),
        told("pids limit", pids, &wanted.pids, |pids| or_none(pids.as_ref().map(u64::to_string))),
        told("cpu limit", cpu_quota, &wanted.cpu_quota, |quota| {
            or_none(quota.map(|quota| format!("{quota} us")))
        }),
        told("cpu weight", cpu_weight, &wanted.cpu_weight, ToString::to_string),
        untold("io limits", io, &wanted.io),
    ];
    all.into_iter().flatten().collect()
}

/// What rates differ in; those that are wanted are in bytes a second.
pub(super) fn of_rates(found: Rates<Found<u64>>, wanted: Rates<u64>) -> Vec<Change> {
    let words = |rate: &Option<Found<u64>>| match rate {
        None => "none".to_owned(),
        Some(Found::Half) => "not whole".to_owned(),
        Some(Found::Whole(bytes)) => format!("{} kbit/s", bytes.saturating_mul(8) / 1000),
    };
    let wanted = wanted.whole();
    let up = told("rate up", &found.up, &wanted.up, words);
    up.into_iter().chain(told("rate down", &found.down, &wanted.down, words)).collect()
}
