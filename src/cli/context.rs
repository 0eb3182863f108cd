//! What most commands begin with: the fleet, its lock, what is built of it, and the host.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::apply::Host;
use crate::apply::linux::{LinuxHost, READY_TIMEOUT, STOP_TIMEOUT, Scope};
use crate::apply::record::Ready;
use crate::apply::{disk, observe, preflight, vmm};
use crate::base::{Diagnostic, GuestName, InterfaceName};
use crate::fleet::{Fleet, LogLimits, suggest};
use crate::host::desired::{Artifacts, HostFacts, desired};
use crate::host::layout::Layout;
use crate::host::observed::ObservedHost;
use crate::host::wanted::WantedHost;
use crate::lock::model::Lock;
use crate::plan::{GuestScope, Plan, diff, shrinking};
use crate::sys::fetch::Cache;
use crate::sys::fs::{self, FileLock};
use crate::sys::http::Client;
use crate::sys::report::Report;
use crate::sys::ssh::{self, Target};
use crate::sys::{cgroup, ip};

use super::build::{Inputs, locked_artifacts};
use super::error::CliError;
use super::machines::machine_files;
use super::settings::Settings;
use super::{progress, render};

/// The settings of this run, and how it reports.
pub struct Context {
    pub settings: Settings,
    pub report: Box<dyn Report>,
}

impl Context {
    /// For these settings.
    pub fn new(settings: Settings) -> Self {
        let report = progress::reporter(&settings);
        Self { settings, report }
    }

    /// Says what a command did, unless it is to be quiet.
    pub fn say(&self, text: &str) {
        if !self.settings.quiet && !self.settings.json {
            eprintln!("{text}");
        }
    }

    /// Says that a file was written, and more about it.
    pub fn wrote(&self, path: &Path, more: &str) {
        if self.settings.json {
            render::json(&serde_json::json!({ "wrote": path }));
        }
        self.say(&format!("wrote {}{more}", path.display()));
    }

    /// The fleet, validated.
    pub fn fleet(&self) -> Result<Fleet, CliError> {
        Ok(crate::fleet::load(&self.settings.file)?)
    }

    /// The same run on another fleet file; artifacts stay where they are.
    pub fn at(&self, file: PathBuf) -> Self {
        Self::new(Settings { file, ..self.settings.clone() })
    }

    /// How many guests are stopped or started at a time: most of their time is waiting.
    pub fn guests_at_once(&self) -> usize {
        self.settings.jobs * 4
    }

    /// `fleet.lock`, beside the fleet.
    pub fn lock_path(&self) -> PathBuf {
        self.settings.file.with_extension("lock")
    }

    /// The cache of downloads, and how it reaches the network.
    pub fn cache(&self) -> Result<Cache, CliError> {
        let Settings { cache, vendor, network, .. } = &self.settings;
        let client = Client::new(network.clone())?;
        let vendor = vendor.is_dir().then(|| vendor.clone());
        Ok(Cache::new(cache).vendored(vendor).with_client(client))
    }

    /// The host of a fleet, to look at and to take down.
    pub fn host(&self, fleet: &Fleet) -> Result<LinuxHost, CliError> {
        require_root()?;
        let layout = Layout::new(&fleet.host, &fleet.name);
        preflight::place(&layout)?;
        self.host_at(layout, fleet.host.logs, Scope::WholeHost)
    }

    /// A host whose store is somewhere.
    pub fn host_at(&self, layout: Layout, logs: LogLimits, scope: Scope) -> Result<LinuxHost, CliError> {
        let launcher = std::env::current_exe()
            .map_err(|error| CliError::failed(format!("cannot find this program itself: {error}")))?;
        Ok(LinuxHost {
            layout,
            scope,
            hierarchy: cgroup::detect()?,
            artifacts: BTreeMap::new(),
            launcher,
            logs,
            launched: std::sync::Arc::default(),
            ready_timeout: READY_TIMEOUT,
            stop_timeout: STOP_TIMEOUT,
        })
    }

    /// Holds the fleet's host for this process alone, waiting for another that does.
    pub fn hold(&self, layout: &Layout) -> Result<FileLock, CliError> {
        fs::create_private_dir(&layout.dir())?;
        let lock = match FileLock::attempt(&layout.lock())? {
            Some(lock) => lock,
            None => {
                self.say("another sisforge is changing this fleet's host; waiting for it");
                FileLock::wait(&layout.lock())?
            }
        };
        // Looked at again: whoever held it may have used another place.
        preflight::place(layout)?;
        preflight::keep_place(layout)?;
        Ok(lock)
    }

    /// What the fleet wants of its host, from its lock and what is built of it; the host then knows its artifacts. What goes
    /// on from a snapshot there is wanted as it is.
    pub fn desired(
        &self,
        fleet: &Fleet,
        inputs: Inputs,
        host: &mut LinuxHost,
        observed: &ObservedHost,
    ) -> Result<WantedHost, CliError> {
        self.wishes(fleet, inputs, host, observed)?.state(fleet)
    }

    /// What such a state is made of.
    pub fn wishes(
        &self,
        fleet: &Fleet,
        inputs: Inputs,
        host: &mut LinuxHost,
        observed: &ObservedHost,
    ) -> Result<Wishes, CliError> {
        let (lock, artifacts) = locked_artifacts(self, fleet, inputs)?;
        let facts = HostFacts {
            uplink: uplink(fleet)?,
            ssh_key: host.layout.key().exists().then(|| ssh::public_key(&host.layout.key())).transpose()?,
            lists: lists(fleet)?,
            files: machine_files(fleet)?,
            firecracker: self.firecracker(fleet)?,
            restored: HostFacts::restored(observed),
        };
        let files = artifacts.by_digest();
        host.artifacts =
            files.into_iter().map(|(digest, (artifact, _))| (digest, artifact.path.clone())).collect();
        host.artifacts.extend(facts.files.iter().map(|(path, digest)| (*digest, path.clone())));
        Ok(Wishes { lock, artifacts, facts })
    }

    /// A guest that is ready, and how to reach it.
    pub fn reachable(&self, host: &LinuxHost, guest: &GuestName) -> Result<Target, CliError> {
        let vmm = observe::vmm_process(&host.layout, &host.hierarchy, guest);
        let ready: Option<Ready> = observe::ready(&host.layout, guest, vmm.as_ref())?;
        let Some(ready) = ready else {
            let state = if vmm.is_some() { "is not ready yet" } else { "does not run" };
            return Err(CliError::failed(format!("{guest} {state}")).hint(format!(
                "`sisforge up {guest}` brings it up, `sisforge logs {guest}` shows what it said"
            )));
        };
        vmm::target(&host.layout, guest, &ready)?.ok_or_else(|| {
            CliError::failed(format!("{guest} runs no sshd, so nothing can be run in it"))
                .hint("its image needs a recipe that brings one, such as rootless-podman")
        })
    }
}

/// All that decides what a fleet wants of its host.
pub struct Wishes {
    lock: Lock,
    artifacts: Artifacts,
    pub facts: HostFacts,
}

impl Wishes {
    /// What it wants.
    pub fn state(&self, fleet: &Fleet) -> Result<WantedHost, CliError> {
        Ok(desired(fleet, &self.lock, &self.artifacts, &self.facts)?)
    }
}

/// What changes or looks into a host needs root; building does not.
fn require_root() -> Result<(), CliError> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(CliError::failed("this command needs root: jails, TAPs, cgroups and nft rules are root's")
        .hint("run it with sudo; `check`, `lock`, `build` and `tree` need no root"))
}

/// GuestScope that were named on the command line, each of which must be declared or be there.
pub fn named(names: &[String], known: &[&GuestName]) -> Result<Vec<GuestName>, CliError> {
    let find = |name: &String| {
        let found = known.iter().find(|guest| guest.as_str() == name);
        found.map(|guest| (*guest).clone()).ok_or_else(|| {
            let hint = suggest("guests", name, known.iter().map(|guest| guest.as_str()));
            CliError::invalid(format!("there is no guest {name:?}")).hint(hint)
        })
    };
    names.iter().map(find).collect()
}

/// The interface that faces the network: the declared one, or that of the default route.
fn uplink(fleet: &Fleet) -> Result<InterfaceName, CliError> {
    match &fleet.host.uplink {
        Some(name) if ip::link_exists(name.as_str())? => Ok(name.clone()),
        Some(name) => Err(CliError::invalid(format!(
            "[host] uplink {name:?}: this host has no such interface",
            name = name.as_str()
        ))
        .hint("`ip link` lists them; \"auto\" takes that of the default route")),
        None => {
            let found = ip::default_uplink()?.and_then(|name| name.parse().ok());
            found.ok_or_else(|| {
                CliError::failed("[host] uplink is \"auto\", and this host has no default route")
                    .hint("name the interface that faces the network, as in `uplink = \"eth0\"`")
            })
        }
    }
}

/// Every list that a policy names, read.
pub fn lists(fleet: &Fleet) -> Result<BTreeMap<PathBuf, Vec<IpNet>>, CliError> {
    let rules = fleet.networks.values().flat_map(|policy| policy.allow.iter().chain(&policy.deny));
    let mut lists = BTreeMap::new();
    for path in rules.filter_map(|rule| rule.list.as_ref()) {
        let text = fs::read_text(path)?;
        let mut nets = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let entry = line.split('#').next().unwrap_or_default().trim();
            if entry.is_empty() {
                continue;
            }
            let net = entry.parse::<IpNet>().or_else(|_| entry.parse::<IpAddr>().map(IpNet::from));
            nets.push(net.map_err(|_| {
                let place = format!("{}:{}", path.display(), index + 1);
                CliError::invalid(format!("{place}: `{entry}` is neither an address nor a prefix"))
            })?);
        }
        lists.insert(path.clone(), nets);
    }
    Ok(lists)
}

/// A guest that the fleet declares, or that the host still has something of.
pub fn declared_or_there(name: &str, fleet: &Fleet, host: &LinuxHost) -> Result<GuestName, CliError> {
    let there = name.parse::<GuestName>().ok().filter(|guest| host.layout.guest(guest).exists());
    match there {
        Some(guest) => Ok(guest),
        None => named(&[name.to_owned()], &fleet.guests.keys().collect::<Vec<_>>())
            .map(|mut names| names.remove(0)),
    }
}

/// What brings these guests to what is wanted, with what a user is to know of it.
///
/// # Errors
/// Where a data disk would have to be made smaller: nothing is changed then.
pub fn planned(
    host: &LinuxHost,
    observed: &ObservedHost,
    wanted: &WantedHost,
    guests: GuestScope<'_>,
) -> Result<Plan, CliError> {
    let shrinking = shrinking(observed, wanted, guests);
    if let [first, ..] = shrinking.as_slice() {
        let told: Vec<_> = shrinking.iter().map(ToString::to_string).collect();
        return Err(CliError::invalid(told.join("; ")).hint(first.hint().unwrap_or_default()));
    }
    let mut plan = diff(observed, wanted, guests);
    plan.notes.extend(disk::promises(host, observed, wanted, guests));
    Ok(plan)
}

/// What the host has of the fleet.
pub fn observed(host: &LinuxHost) -> Result<ObservedHost, CliError> {
    Ok(host.observe()?)
}

/// Forgets what was recorded of a guest that is gone for good.
pub fn forget(host: &LinuxHost, guest: &GuestName) -> Result<(), CliError> {
    fs::remove(&host.layout.disk(guest))?;
    Ok(fs::remove(&host.layout.guest(guest))?)
}
