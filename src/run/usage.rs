//! What guests use of their host: at one moment, and over time.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::apply::linux::LinuxHost;
use crate::apply::status::GuestStatus;
use crate::apply::usage::{self, GuestUsage};
use crate::base::{Found, GuestName};
use crate::host::observed::ObservedHost;

use super::fleet_host::FleetHost;
use super::status::every_guest;
use super::{RunError, Workspace};

/// One guest at one moment.
#[derive(Clone, Debug)]
pub struct GuestSample {
    pub status: GuestStatus,
    pub usage: GuestUsage,
    /// Bytes that a guest and its VMM may have.
    pub memory_limit: Option<u64>,
}

/// Every guest that the fleet declares, or that the host has anything of.
pub(super) fn samples<'a>(
    host: &LinuxHost,
    observed: &'a ObservedHost,
    declared: impl IntoIterator<Item = &'a GuestName>,
) -> Vec<GuestSample> {
    let used = usage::guests(host, observed);
    let limit = |name: &GuestName| match observed.guests.get(name)?.cgroup?.limits {
        Found::Whole(limits) => limits.memory,
        Found::Half => None,
    };
    every_guest(host, observed, declared)
        .into_iter()
        .map(|status| GuestSample {
            usage: used.get(&status.name).copied().unwrap_or_default(),
            memory_limit: limit(&status.name),
            status,
        })
        .collect()
}

/// What one guest has used since the look before.
#[derive(Clone, Debug)]
pub struct GuestLoad {
    pub sample: GuestSample,
    /// Processors in use: 1.5 is one and a half. `None` at the first look at a VMM, and where the kernel does not say it.
    pub cpu: Option<f64>,
    /// Bytes in a second that the guest received, and sent.
    pub network: Option<Throughput>,
    /// Bytes in a second that were read from the host's disks, and written to them.
    pub disk: Option<Throughput>,
    /// Of the last looks, the newest last.
    pub history: History,
}

/// Bytes in a second, both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Throughput {
    pub into: f64,
    pub out: f64,
}

/// Values of the last looks, the newest last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    pub cpu: VecDeque<f64>,
    /// Both ways together.
    pub network: VecDeque<f64>,
}

impl History {
    /// How many are kept.
    pub const LENGTH: usize = 20;

    fn push(values: &mut VecDeque<f64>, value: f64) {
        if values.len() == Self::LENGTH {
            values.pop_front();
        }
        values.push_back(value);
    }
}

/// Compares each look at a fleet with the one before.
#[derive(Debug, Default)]
pub struct Meter {
    before: BTreeMap<GuestName, (Instant, GuestSample)>,
    histories: BTreeMap<GuestName, History>,
}

impl Meter {
    /// Looks at the fleet that a workspace names, by its name and store alone.
    pub fn look(&mut self, workspace: &Workspace<'_>) -> Result<Vec<GuestLoad>, RunError> {
        let found = FleetHost::look(workspace)?;
        let samples = samples(&found.host, &found.observed, &found.declared);
        Ok(self.compare(samples, Instant::now()))
    }

    fn compare(&mut self, samples: Vec<GuestSample>, now: Instant) -> Vec<GuestLoad> {
        let before = std::mem::take(&mut self.before);
        let mut histories = std::mem::take(&mut self.histories);
        samples
            .into_iter()
            .map(|sample| {
                let name = sample.status.name.clone();
                // Counters of another VMM began anew.
                let earlier = before.get(&name).filter(|(_, then)| then.status.pid == sample.status.pid);
                let mut history = earlier.and_then(|_| histories.remove(&name)).unwrap_or_default();
                let load = GuestLoad::between(earlier, &mut history, sample, now);
                self.before.insert(name.clone(), (now, load.sample.clone()));
                self.histories.insert(name, history);
                load
            })
            .collect()
    }
}

impl GuestLoad {
    fn between(
        earlier: Option<&(Instant, GuestSample)>,
        history: &mut History,
        sample: GuestSample,
        now: Instant,
    ) -> Self {
        let since = earlier.map(|(at, then)| (now.duration_since(*at), &then.usage));
        let (cpu, network, disk) = since.map_or((None, None, None), |(passed, then)| {
            (
                cpu(then, &sample.usage, passed),
                network(then, &sample.usage, passed),
                disk(then, &sample.usage, passed),
            )
        });
        if let Some(cpu) = cpu {
            History::push(&mut history.cpu, cpu);
        }
        if let Some(rate) = network {
            History::push(&mut history.network, rate.into + rate.out);
        }
        Self { cpu, network, disk, history: history.clone(), sample }
    }
}

fn cpu(then: &GuestUsage, now: &GuestUsage, passed: Duration) -> Option<f64> {
    let used = now.cgroup.cpu?.checked_sub(then.cgroup.cpu?)?;
    Some(used.as_secs_f64() / passed.as_secs_f64())
}

/// A guest receives what its TAP sends.
fn network(then: &GuestUsage, now: &GuestUsage, passed: Duration) -> Option<Throughput> {
    let (then, now) = (then.tap?, now.tap?);
    Some(Throughput {
        into: per_second(then.sent_bytes, now.sent_bytes, passed)?,
        out: per_second(then.received_bytes, now.received_bytes, passed)?,
    })
}

fn disk(then: &GuestUsage, now: &GuestUsage, passed: Duration) -> Option<Throughput> {
    let (then, now) = (then.cgroup.io?, now.cgroup.io?);
    Some(Throughput {
        into: per_second(then.read, now.read, passed)?,
        out: per_second(then.written, now.written, passed)?,
    })
}

/// `None` where the counter began anew.
fn per_second(then: u64, now: u64, passed: Duration) -> Option<f64> {
    Some(now.checked_sub(then)? as f64 / passed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::status::GuestPhase;
    use crate::sys::cgroup::{IoUsage, Usage};
    use crate::sys::traffic::InterfaceTraffic;

    fn sample(pid: u32, cpu: u64, sent: u64) -> GuestSample {
        let tap = InterfaceTraffic { sent_bytes: sent, received_bytes: 2 * sent, ..Default::default() };
        let io = Some(IoUsage { read: sent, written: 0 });
        let cgroup = Usage { cpu: Some(Duration::from_secs(cpu)), memory: None, io };
        GuestSample {
            status: GuestStatus {
                name: "alice".parse().expect("a name"),
                state: GuestPhase::Ready,
                pid: Some(pid),
                uid: None,
                ip: None,
                uptime: None,
                memory: None,
                oom_kills: 0,
                note: None,
                session: None,
                quarantined: None,
                machine: None,
                published: Vec::new(),
            },
            usage: GuestUsage { cgroup, tap: Some(tap), disk: None },
            memory_limit: None,
        }
    }

    #[test]
    fn a_load_is_what_was_used_between_two_looks_at_one_vmm() {
        let mut meter = Meter::default();
        let start = Instant::now();
        let mut at =
            |seconds, sample| meter.compare(vec![sample], start + Duration::from_secs(seconds)).remove(0);
        let first = at(0, sample(7, 10, 100));
        assert_eq!((first.cpu, first.network), (None, None));
        let second = at(2, sample(7, 13, 300));
        assert_eq!(second.cpu, Some(1.5));
        assert_eq!(second.network, Some(Throughput { into: 100.0, out: 200.0 }));
        assert_eq!(second.disk, Some(Throughput { into: 100.0, out: 0.0 }));
        assert_eq!(second.history, History { cpu: [1.5].into(), network: [300.0].into() });
        let other = at(4, sample(8, 1, 0));
        assert_eq!((other.cpu, other.history), (None, History::default()), "another VMM");
        let back = at(5, sample(8, 0, 1));
        assert_eq!(back.cpu, None, "a counter that began anew");
    }

    #[test]
    fn a_history_keeps_the_newest() {
        let mut values = VecDeque::new();
        (0..=History::LENGTH).for_each(|value| History::push(&mut values, value as f64));
        assert_eq!((values.len(), values[0]), (History::LENGTH, 1.0));
    }
}
