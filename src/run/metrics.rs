//! Metrics of a fleet on its host, in Prometheus's text format (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::fmt::Write as _;
use std::path::Path;
use std::time::SystemTime;

use crate::apply::status::GuestPhase;
use crate::base::FleetName;
use crate::fleet::Fleet;
use crate::sys::fs;

use super::usage::{GuestSample, samples};
use super::{Deployment, RunError, Workspace};

/// What the format is called where it is served.
pub const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What `watch` knows of itself. Durations are seconds.
#[derive(Clone, Debug, Default)]
pub struct WatchMetrics {
    /// The revision that was applied last, and when.
    pub applied: Option<(String, SystemTime)>,
    /// When the last look ended.
    pub looked: Option<SystemTime>,
    /// Whether the host was then as the last good revision wants it, even if no newer one could be asked for.
    pub is_in_sync: bool,
    pub seconds: f64,
    pub looks: u64,
    /// Looks that came to nothing, or after which the host was not as it should be.
    pub failed_looks: u64,
    pub repairs: u64,
}

/// Metrics of the fleet that a workspace names.
pub fn text(workspace: &Workspace<'_>) -> Result<String, RunError> {
    let fleet = workspace.fleet()?;
    let name = fleet.name.clone();
    Ok(rendered(&name, Some(&guests_of(workspace, fleet)?), None))
}

/// Metrics of the fleet that is followed, `last` or, where none is known, the workspace's own, and of following it. These are told
/// whatever is wrong with that fleet or its host, since alerts on that are on them.
///
/// # Errors
/// Where it cannot be told which fleet it is.
pub fn text_of_watch(
    workspace: &Workspace<'_>,
    last: Option<Fleet>,
    watch: &WatchMetrics,
) -> Result<String, RunError> {
    let Some(fleet) = last.or_else(|| workspace.fleet().ok()) else {
        return Ok(rendered(&workspace.head()?.name, None, Some(watch)));
    };
    let name = fleet.name.clone();
    Ok(rendered(&name, guests_of(workspace, fleet).ok().as_deref(), Some(watch)))
}

fn guests_of(workspace: &Workspace<'_>, fleet: Fleet) -> Result<Vec<GuestSample>, RunError> {
    let Deployment { host, observed, fleet, .. } = Deployment::look(workspace, fleet)?;
    Ok(samples(&host, &observed, fleet.guests.keys()))
}

/// Writes them where the node exporter looks, all at once.
pub fn write(path: &Path, text: &str) -> Result<(), RunError> {
    fs::require_dir_of(path)?;
    Ok(fs::write_unsynced(path, text.as_bytes(), 0o644)?)
}

/// A text of metrics that grows, one family after the other.
struct Families<'a> {
    text: String,
    fleet: &'a str,
}

impl Families<'_> {
    /// A family with a sample for each label and value; none where there is no sample.
    fn family(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = (String, f64)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_some() {
            let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        }
        for (labels, value) in samples {
            let _ = writeln!(self.text, "{name}{{fleet=\"{}\"{labels}}} {value}", self.fleet);
        }
    }

    /// A family with a sample for each guest of which the value is known.
    fn of_guests(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        guests: &[GuestSample],
        value: impl Fn(&GuestSample) -> Option<f64>,
    ) {
        let sample = |guest: &GuestSample| Some((label("guest", guest.status.name.as_str()), value(guest)?));
        self.family(name, kind, help, guests.iter().filter_map(sample));
    }
}

/// Such as `,guest="alice"`. Names of guests, states and revisions have nothing that would have to be escaped.
fn label(name: &str, value: &str) -> String {
    format!(",{name}=\"{value}\"")
}

/// Nothing is said of guests that are not known.
fn rendered(fleet: &FleetName, guests: Option<&[GuestSample]>, watch: Option<&WatchMetrics>) -> String {
    let mut families = Families { text: String::new(), fleet: fleet.as_str() };
    if let Some(guests) = guests {
        states(&mut families, guests);
        resources(&mut families, guests);
        traffic(&mut families, guests);
    }
    if let Some(watch) = watch {
        of_watch(&mut families, watch);
    }
    families.text
}

fn states(families: &mut Families<'_>, guests: &[GuestSample]) {
    let phases =
        [GuestPhase::Ready, GuestPhase::Spare, GuestPhase::Starting, GuestPhase::Broken, GuestPhase::Down];
    let of_state = |phase: &GuestPhase| {
        let count = guests.iter().filter(|guest| guest.status.state == *phase).count();
        (label("state", phase.word()), count as f64)
    };
    families.family("sisforge_guests", "gauge", "Guests by their state.", phases.iter().map(of_state));
    families.of_guests(
        "sisforge_guest_ready",
        "gauge",
        "Whether a guest runs and is ready, or is a spare that is.",
        guests,
        |guest| Some(f64::from(matches!(guest.status.state, GuestPhase::Ready | GuestPhase::Spare))),
    );
    families.of_guests(
        "sisforge_guest_quarantined",
        "gauge",
        "Whether a guest is cut off.",
        guests,
        |guest| Some(f64::from(guest.status.quarantined.is_some())),
    );
    families.of_guests(
        "sisforge_guest_uptime_seconds",
        "gauge",
        "Since the VMM of a guest started.",
        guests,
        |guest| Some(guest.status.uptime?.as_secs_f64()),
    );
}

fn resources(families: &mut Families<'_>, guests: &[GuestSample]) {
    let mut of = |name: &str, kind: &str, help: &str, value: &dyn Fn(&GuestSample) -> Option<f64>| {
        families.of_guests(&format!("sisforge_guest_{name}"), kind, help, guests, value);
    };
    let cgroup = |guest: &GuestSample| guest.usage.cgroup;
    of("cpu_seconds_total", "counter", "Processor time of a guest and its VMM.", &|guest| {
        Some(cgroup(guest).cpu?.as_secs_f64())
    });
    of("memory_bytes", "gauge", "Memory of a guest and its VMM, page cache included.", &|guest| {
        Some(cgroup(guest).memory? as f64)
    });
    of("memory_limit_bytes", "gauge", "Memory that a guest and its VMM may have.", &|guest| {
        Some(guest.memory_limit? as f64)
    });
    of("oom_kills_total", "counter", "Processes that the kernel killed for want of memory.", &|guest| {
        guest.status.pid.map(|_| guest.status.oom_kills as f64)
    });
    of("disk_read_bytes_total", "counter", "Read from the host's disks.", &|guest| {
        Some(cgroup(guest).io?.read as f64)
    });
    of("disk_written_bytes_total", "counter", "Written to the host's disks.", &|guest| {
        Some(cgroup(guest).io?.written as f64)
    });
    of("data_disk_bytes", "gauge", "What a data disk takes of the host's disk.", &|guest| {
        Some(guest.usage.disk? as f64)
    });
}

/// A guest receives what its TAP sends.
fn traffic(families: &mut Families<'_>, guests: &[GuestSample]) {
    let mut of = |name: &str, help: &str, value: &dyn Fn(&crate::sys::traffic::InterfaceTraffic) -> u64| {
        families.of_guests(
            &format!("sisforge_guest_network_{name}_total"),
            "counter",
            help,
            guests,
            |guest| guest.usage.tap.as_ref().map(|tap| value(tap) as f64),
        );
    };
    of("receive_bytes", "Bytes that a guest received.", &|tap| tap.sent_bytes);
    of("receive_packets", "Packets that a guest received.", &|tap| tap.sent_packets);
    of("transmit_bytes", "Bytes that a guest sent, before its policy.", &|tap| tap.received_bytes);
    of("transmit_packets", "Packets that a guest sent, before its policy.", &|tap| tap.received_packets);
}

fn of_watch(families: &mut Families<'_>, watch: &WatchMetrics) {
    let mut one = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        let sample = value.map(|value| (String::new(), value));
        families.family(&format!("sisforge_watch_{name}"), kind, help, sample);
    };
    one("looks_total", "counter", "Looks that watch took.", Some(watch.looks as f64));
    one(
        "failed_looks_total",
        "counter",
        "Looks that failed, or after which the host was not as it should be.",
        Some(watch.failed_looks as f64),
    );
    one("repairs_total", "counter", "Times that watch repaired drift.", Some(watch.repairs as f64));
    let in_step = watch.looked.map(|_| f64::from(watch.is_in_sync));
    one("in_step", "gauge", "Whether the host was as it should be after the last look.", in_step);
    one("look_timestamp_seconds", "gauge", "When the last look ended.", watch.looked.map(unix));
    one(
        "look_duration_seconds",
        "gauge",
        "How long the last look took.",
        watch.looked.map(|_| watch.seconds),
    );
    one(
        "applied_timestamp_seconds",
        "gauge",
        "When the last revision was applied.",
        watch.applied.as_ref().map(|(_, time)| unix(*time)),
    );
    let revision = watch.applied.as_ref().map(|(revision, _)| (label("revision", revision), 1.0));
    families.family("sisforge_watch_revision_info", "gauge", "The revision that was applied last.", revision);
}

fn unix(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
