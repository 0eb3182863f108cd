//! `ps` and `status`.

use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::Serialize;

use super::session::since;
use super::{HandedOutJson, PublishedJson};
use crate::apply::containers::{ContainerState, ContainerStatus};
use crate::apply::status::{GuestPhase, GuestStatus};
use crate::base::diagnostic::one_line;
use crate::fleet::VmmKind;
use crate::host::state::{self, MachineDisk};
use crate::plan::Step;
use crate::run::status as run;
use crate::run::usage::GuestLoad;

/// A guest.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Guest {
    pub name: String,
    pub state: Phase,
    /// The VMM's process, where one runs.
    pub pid: Option<u32>,
    /// User of the VMM on the host, where one runs.
    pub uid: Option<u32>,
    pub ip: Option<Ipv4Addr>,
    /// Seconds since the VMM started.
    pub uptime: Option<u64>,
    /// Resident memory of the VMM, in bytes.
    pub memory: Option<u64>,
    /// Times that the kernel killed something in the guest's cgroup for want of memory.
    pub oom_kills: u64,
    /// What the kernel did for want of memory, in words.
    pub note: Option<String>,
    /// Since when the guest is cut off from every network (RFC 3339; empty where that is not known); `null` where it is not.
    pub quarantined: Option<String>,
    /// Whose it is, of a guest of a pool that was handed out; `null` for any other.
    pub session: Option<HandedOutJson>,
    /// Ports of the host that lead to it.
    pub published: Vec<PublishedJson>,
    /// What the VMM was started with; these keys are missing where none runs, or no record says.
    #[serde(flatten)]
    pub machine: Option<MachineJson>,
}

/// How a guest is.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Its VMM runs and it said that it is ready.
    Ready,
    /// It is booted, and waits until `session start` hands it out.
    Spare,
    /// Its VMM runs.
    Starting,
    /// Parts of it are there, but no VMM.
    Broken,
    /// Nothing of it is there but perhaps its data disk.
    Down,
}

/// What a VMM was started with.
#[derive(Debug, Serialize, JsonSchema)]
pub struct MachineJson {
    pub vmm: Vmm,
    /// The network interface on the host.
    pub tap: String,
    /// Hardware address of the guest's network device.
    pub mac: String,
    pub vcpus: u8,
    pub memory_mib: u64,
    /// Digest of the kernel.
    pub kernel: String,
    /// Digest of the root image.
    pub image: String,
    pub disk: DataDisk,
    /// Digest of the container images that it shares with other guests.
    pub images: Option<String>,
    /// What the kernel is told.
    pub command_line: String,
    /// What the VMM is told beside that: the guest's `machine` in fleet.toml, its files by their digests.
    pub spec: serde_json::Map<String, serde_json::Value>,
    /// The snapshot that it goes on from; `null` for one that booted.
    pub restored_from: Option<String>,
}

/// A virtual machine monitor.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Vmm {
    Firecracker,
    Qemu,
}

/// Where a machine's data disk comes from.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum DataDisk {
    /// The guest's own file, which is kept when the guest goes.
    Kept,
    /// A copy that goes with the guest.
    Ephemeral {
        /// Digest of what it is a copy of.
        base: String,
        /// In bytes.
        size: u64,
        /// Whether it lives in RAM.
        in_memory: bool,
    },
}

/// A container that was started in a guest, and what became of it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ContainerJson {
    pub guest: String,
    pub name: String,
    /// `null` where a `kube` file says what runs.
    pub image: Option<String>,
    /// `running`, `exited`, `removed` (by somebody inside), `unknown` (the guest did not say), or what else Podman calls it.
    pub state: String,
    /// What its program ended with, where it did.
    pub exit_status: Option<i64>,
    /// `starting`, `healthy`, `unhealthy`, or `unknown` (the guest did not say); `null` for one without a health check.
    pub health: Option<String>,
    /// Why the guest did not say, where it did not.
    pub note: Option<String>,
}

impl From<&ContainerStatus> for ContainerJson {
    fn from(container: &ContainerStatus) -> Self {
        let ContainerStatus { guest, name, image, state, health } = container;
        let exit_status = match state {
            ContainerState::Exited(status) => Some(*status),
            _ => None,
        };
        let note = match state {
            ContainerState::Unknown(why) => Some(why.clone()),
            _ => None,
        };
        Self {
            guest: guest.to_string(),
            name: name.to_string(),
            image: image.clone(),
            state: state.word().to_owned(),
            exit_status,
            health: health.clone(),
            note,
        }
    }
}

/// Every guest, and how the host differs from what fleet.toml wants.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StatusJson {
    pub guests: Vec<Drifting>,
    /// What became of containers that were started in guests.
    pub containers: Vec<ContainerJson>,
    /// Whether `up` would do nothing; `null` where that is not known, as before everything is built.
    pub in_step: Option<bool>,
    /// What `up` would do to the host itself, one sentence for each step.
    pub host: Vec<String>,
    /// What is worth knowing, one sentence each: why drift is not known, for one.
    pub notes: Vec<String>,
}

/// A guest, and why `up` would touch it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Drifting {
    pub guest: Guest,
    /// `null` where `up` would not touch it, or that is not known.
    pub drift: Option<String>,
}

impl From<GuestPhase> for Phase {
    fn from(phase: GuestPhase) -> Self {
        match phase {
            GuestPhase::Ready => Self::Ready,
            GuestPhase::Spare => Self::Spare,
            GuestPhase::Starting => Self::Starting,
            GuestPhase::Broken => Self::Broken,
            GuestPhase::Down => Self::Down,
        }
    }
}

/// What a guest uses of its host. Rates are of the time between two looks.
#[derive(Debug, Serialize, JsonSchema)]
pub struct GuestLoadJson {
    pub name: String,
    pub state: Phase,
    /// Processors in use: 1.5 is one and a half.
    pub cpu: Option<f64>,
    /// Bytes in use by the guest and its VMM, page cache included.
    pub memory: Option<u64>,
    /// Bytes that the guest and its VMM may have.
    pub memory_limit: Option<u64>,
    /// Bytes in a second.
    pub received: Option<f64>,
    /// Bytes in a second, before the guest's policy.
    pub sent: Option<f64>,
    /// Bytes in a second, from the host's disks.
    pub disk_read: Option<f64>,
    /// Bytes in a second, to the host's disks.
    pub disk_written: Option<f64>,
    /// Seconds since the VMM started.
    pub uptime: Option<u64>,
}

impl From<&GuestLoad> for GuestLoadJson {
    fn from(load: &GuestLoad) -> Self {
        let GuestLoad { sample, cpu, network, disk, history: _ } = load;
        Self {
            name: sample.status.name.to_string(),
            state: sample.status.state.into(),
            cpu: *cpu,
            memory: sample.usage.cgroup.memory,
            memory_limit: sample.memory_limit,
            received: network.map(|rate| rate.into),
            sent: network.map(|rate| rate.out),
            disk_read: disk.map(|rate| rate.into),
            disk_written: disk.map(|rate| rate.out),
            uptime: sample.status.uptime.map(|uptime| uptime.as_secs()),
        }
    }
}

impl From<&GuestStatus> for Guest {
    fn from(guest: &GuestStatus) -> Self {
        Self {
            name: guest.name.to_string(),
            state: guest.state.into(),
            pid: guest.pid,
            uid: guest.uid,
            ip: guest.ip,
            uptime: guest.uptime.map(|uptime| uptime.as_secs()),
            memory: guest.memory,
            oom_kills: guest.oom_kills,
            note: guest.note.clone(),
            quarantined: since(guest.quarantined.as_ref()),
            session: guest.session.as_ref().map(HandedOutJson::from),
            published: guest.published.iter().map(PublishedJson::from).collect(),
            machine: guest.machine.as_ref().map(MachineJson::from),
        }
    }
}

impl From<&state::Machine> for MachineJson {
    fn from(machine: &state::Machine) -> Self {
        let Ok(serde_json::Value::Object(spec)) = serde_json::to_value(&machine.spec) else {
            unreachable!("a struct without paths is an object of JSON")
        };
        Self {
            vmm: machine.vmm.into(),
            tap: machine.tap.to_string(),
            mac: machine.mac.to_string(),
            vcpus: machine.vcpus,
            memory_mib: machine.memory_mib,
            kernel: machine.kernel.to_string(),
            image: machine.image.to_string(),
            disk: machine.disk.into(),
            images: machine.images.map(|digest| digest.to_string()),
            command_line: machine.command_line.clone(),
            spec,
            restored_from: machine.restored_from.as_ref().map(ToString::to_string),
        }
    }
}

impl From<VmmKind> for Vmm {
    fn from(vmm: VmmKind) -> Self {
        match vmm {
            VmmKind::Firecracker => Self::Firecracker,
            VmmKind::Qemu => Self::Qemu,
        }
    }
}

impl From<MachineDisk> for DataDisk {
    fn from(disk: MachineDisk) -> Self {
        match disk {
            MachineDisk::Kept => Self::Kept,
            MachineDisk::Ephemeral { base, size, in_memory } => {
                Self::Ephemeral { base: base.to_string(), size, in_memory }
            }
        }
    }
}

impl StatusJson {
    /// In words of this contract, with the notes that were told on the way.
    pub fn new(status: &run::Status, mut notes: Vec<String>) -> Self {
        let one = |guest: &GuestStatus| {
            let drift = status.drift_of(&guest.name);
            Drifting { guest: Guest::from(guest), drift }
        };
        if let Err(error) = &status.drift {
            notes.push(format!("drift is not known: {}", one_line(error)));
        }
        Self {
            guests: status.guests.iter().map(one).collect(),
            containers: status.containers.iter().map(ContainerJson::from).collect(),
            in_step: status.drift.as_ref().ok().map(|plan| plan.is_empty()),
            host: status.host_steps().map(Step::to_string).collect(),
            notes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_a_guest_has_each_key_once() {
        let machine = crate::host::snapshot::tests::manifest(crate::fleet::VmmKind::Qemu).machine;
        let status = GuestStatus {
            name: "alice".parse().unwrap(),
            session: None,
            state: GuestPhase::Ready,
            pid: Some(7),
            uid: Some(machine.uid),
            ip: Some(machine.ip),
            uptime: None,
            memory: None,
            oom_kills: 0,
            quarantined: None,
            note: None,
            published: Vec::new(),
            machine: Some(machine),
        };
        for status in [GuestStatus { machine: None, ..status.clone() }, status] {
            let text = serde_json::to_string(&Guest::from(&status)).unwrap();
            for key in ["\"uid\":200001", "\"ip\":\"10.107.0.2\""] {
                assert_eq!(text.matches(key).count(), 1, "{text}");
            }
            assert_eq!(text.contains("\"vcpus\":1"), status.machine.is_some(), "{text}");
        }
    }
}
