//! A `fleet.toml` and what stands beside it: its lock, its artifacts, the cache, and how work on it reports.

use std::path::PathBuf;

use crate::apply::linux::LinuxHost;
use crate::build::artifacts::OutDir;
use crate::build::needs::Need;
use crate::build::remote::FleetRegistry;
use crate::build::{Configuration, Project, ProjectError};
use crate::fleet::{self, ArtifactPlace, Confinement, Fleet, FleetHead, LoadError};
use crate::lock::model::Lock;
use crate::sys::fetch::Cache;
use crate::sys::http::{Client, Network};
use crate::sys::report::Report;

use super::{RunError, host};

/// What every use case needs to know.
#[derive(Clone, Debug)]
pub struct WorkspaceSettings {
    /// The fleet to work on; its lock stands beside it.
    pub file: PathBuf,
    /// Which files the fleet may name, where others commit to it.
    pub confinement: Option<Confinement>,
    /// Directory of artifacts.
    pub out: PathBuf,
    /// Downloads by digest.
    pub cache: PathBuf,
    /// Files of the network, for builds without one; it need not be there.
    pub vendor: PathBuf,
    /// Proxies, and certificate authorities to trust instead of the host's.
    pub network: Network,
    /// Work to do at the same time.
    pub jobs: usize,
    /// Whether the network must not be used.
    pub offline: bool,
    /// How artifacts are had.
    pub artifacts: ArtifactSettings,
}

/// How artifacts are had.
#[derive(Clone, Debug, Default)]
pub struct ArtifactSettings {
    /// In place of what `fleet.toml` names.
    pub place: Option<ArtifactPlace>,
    /// Whether nothing is built: what is missing is taken from the registry, or is an error, and fleet.lock must fit.
    pub no_build: bool,
    /// A file of SSH keys (ssh-keygen(1), ALLOWED SIGNERS): artifacts whose digests none of them signed are not run.
    pub signers: Option<PathBuf>,
}

/// Where a revision of a fleet is.
#[derive(Clone, Debug)]
pub struct Revision {
    /// Its `fleet.toml`.
    pub file: PathBuf,
    /// Which files it may name; `None` of a file that only whoever runs this can write.
    pub confinement: Option<Confinement>,
}

/// [`WorkspaceSettings`], and who is told of long work.
#[derive(Clone)]
pub struct Workspace<'a> {
    pub settings: WorkspaceSettings,
    pub report: &'a dyn Report,
}

impl Workspace<'_> {
    /// The same on the fleet file of a revision; artifacts stay where they are.
    #[must_use]
    pub fn at(&self, Revision { file, confinement }: &Revision) -> Self {
        let (file, confinement) = (file.clone(), confinement.clone());
        Self {
            settings: WorkspaceSettings { file, confinement, ..self.settings.clone() },
            report: self.report,
        }
    }

    /// The fleet, validated. Its artifacts are had from where the settings say.
    pub fn fleet(&self) -> Result<Fleet, LoadError> {
        let WorkspaceSettings { file, confinement, .. } = &self.settings;
        fleet::load_as(file, confinement.as_ref(), self.settings.artifacts.place.as_ref())
    }

    /// Which fleet it is, and where it is on its host, whatever else is wrong in the file.
    pub fn head(&self) -> Result<FleetHead, LoadError> {
        fleet::head(&self.settings.file)
    }

    /// The fleet's host, to be looked at, whatever else is wrong in the file.
    pub(super) fn head_host(&self) -> Result<LinuxHost, RunError> {
        host::open(&self.head()?)
    }

    /// Where `fleet.lock` is.
    pub fn lock_path(&self) -> PathBuf {
        self.settings.file.with_extension("lock")
    }

    /// The cache of downloads, and how it reaches the network.
    pub fn cache(&self) -> Result<Cache, RunError> {
        let WorkspaceSettings { cache, vendor, network, .. } = &self.settings;
        let client = Client::new(network.clone())?;
        let vendor = vendor.is_dir().then(|| vendor.clone());
        Ok(Cache::new(cache).vendored(vendor).with_client(client))
    }

    /// Where the manifest of digests is that signatures are over.
    pub fn digests_path(&self) -> PathBuf {
        self.settings.file.with_extension("digests")
    }

    /// The registry of a fleet's artifacts, where it has one.
    pub(super) fn registry(&self, place: Option<&ArtifactPlace>) -> Result<Option<FleetRegistry>, RunError> {
        let Some(place) = place else { return Ok(None) };
        let client = self.cache()?.client().clone();
        Ok(Some(FleetRegistry::new(place.clone(), client, self.settings.offline)))
    }

    /// A fleet with everything that it mentions.
    pub fn project(&self, fleet: Fleet) -> Result<Project, ProjectError> {
        Project::open(fleet, &self.settings.cache)
    }

    /// What is asked of the fleet's kernel, and what Kconfig makes of it.
    pub fn kernel_configuration(&self) -> Result<Configuration, RunError> {
        let project = self.project(self.fleet()?)?;
        let lock = Lock::read(&self.lock_path())?;
        let out = OutDir::open(&self.settings.out)?;
        let (cache, offline) = (self.cache()?, self.settings.offline);
        Ok(Configuration::of(&project, lock.as_ref(), &out, &cache, offline, self.report)?)
    }

    /// Kernel options that recipes and machines of the fleet need, and which of them does.
    pub fn kernel_needs(&self) -> Result<Vec<Need>, RunError> {
        Ok(self.project(self.fleet()?)?.kernel_needs())
    }

    /// How many guests are stopped or started at a time: most of their time is waiting.
    pub(super) fn guests_at_once(&self) -> usize {
        self.settings.jobs * 4
    }
}
