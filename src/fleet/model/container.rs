//! Containers that are started in guests, in the words of podman-run(1).

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Protocol;
use crate::base::Label;

/// A container that is started in a guest, or what a file of `podman kube play` describes. `File` is how a file is named: by its
/// path in a fleet, by a digest on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(serialize = "File: Serialize", deserialize = "File: Deserialize<'de>"))]
pub struct ContainerSpec<File = PathBuf> {
    pub name: Label,
    #[serde(flatten)]
    pub source: ContainerSource<File>,
    /// In place of the image's own; empty is that.
    #[serde(default)]
    pub command: Vec<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    #[serde(default)]
    pub ports: Vec<PortMapping>,
    #[serde(default)]
    pub volumes: Vec<VolumeMount>,
    /// Each `PATH`, or `PATH:OPTIONS` as Podman takes it.
    #[serde(default)]
    pub tmpfs: Vec<String>,
    /// At the most, in MiB.
    #[serde(default)]
    pub memory_mib: Option<u64>,
    /// At the most, in thousandths of a processor.
    #[serde(default)]
    pub milli_cpus: Option<u32>,
    /// Whether its root file system is.
    #[serde(default)]
    pub read_only: bool,
    /// `USER` or `USER:GROUP`, each by name or number; the image's own unless given.
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub restart: RestartPolicy,
    #[serde(default)]
    pub health: Option<HealthCheck>,
    #[serde(default = "Vec::new")]
    pub secrets: Vec<SecretSpec<File>>,
}

/// What is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerSource<File = PathBuf> {
    /// Such as `localhost/browser:latest`.
    Image(String),
    /// A file of Kubernetes' YAML, for `podman kube play`.
    Kube(File),
}

/// A port of the guest that leads to one of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortMapping {
    pub guest: u16,
    pub container: u16,
    pub protocol: Protocol,
}

/// A directory of a container that outlives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// Name of a volume of Podman's, or a directory of the home as `./DIR`.
    pub source: String,
    /// Absolute, in the container.
    pub target: String,
    pub read_only: bool,
}

/// Where a guest has the disk that its session brings, in the home.
pub const KEPT_DISK: &str = "./kept";

impl VolumeMount {
    /// Whether it is the kept disk that a session brings, or would be.
    pub fn is_kept_disk(&self) -> bool {
        self.source == KEPT_DISK
    }

    /// The directory of the home, if it is one.
    pub fn directory(&self) -> Option<&str> {
        self.source.starts_with("./").then_some(&self.source)
    }
}

/// What becomes of a container whose program ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    #[default]
    No,
    /// Started again where its exit status is not 0; so often at the most.
    OnFailure(Option<u32>),
    Always,
}

/// How it is found out whether a container does its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// Run in the container: 0 is healthy.
    pub command: Vec<String>,
    /// In seconds, like all that follows.
    pub interval: u32,
    pub timeout: u32,
    /// Failures in a row after which it is unhealthy.
    pub retries: u32,
    /// For as long after the start, failures do not count.
    pub start_period: u32,
}

impl HealthCheck {
    /// Seconds after which it is known whether a container is healthy, at the latest.
    pub fn known_after(&self) -> u64 {
        u64::from(self.start_period)
            + u64::from(self.retries) * (u64::from(self.interval) + u64::from(self.timeout))
    }
}

/// A secret that a container gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretSpec<File = PathBuf> {
    /// Its name in the guest's Podman.
    pub name: Label,
    /// Read on the host whenever the container is started.
    pub file: File,
    pub place: SecretPlace,
}

/// Where a container finds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretPlace {
    /// An environment variable.
    Env(String),
    /// A file: a name below `/run/secrets`, or a whole path.
    Target(String),
}

impl<File> ContainerSpec<File> {
    /// The files that are named.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        let kube = match &self.source {
            ContainerSource::Kube(file) => Some(file),
            ContainerSource::Image(_) => None,
        };
        kube.into_iter().chain(self.secrets.iter().map(|secret| &secret.file))
    }

    /// The same container with its files named in another way.
    ///
    /// # Errors
    /// The first that `kube` or `secret` gives.
    pub fn with_files<Other, E>(
        &self,
        kube: impl Fn(&File) -> Result<Other, E>,
        secret: impl Fn(&SecretSpec<File>) -> Result<Other, E>,
    ) -> Result<ContainerSpec<Other>, E> {
        let source = match &self.source {
            ContainerSource::Image(image) => ContainerSource::Image(image.clone()),
            ContainerSource::Kube(file) => ContainerSource::Kube(kube(file)?),
        };
        let secrets = self.secrets.iter().map(|one| {
            Ok(SecretSpec { name: one.name.clone(), file: secret(one)?, place: one.place.clone() })
        });
        Ok(ContainerSpec {
            name: self.name.clone(),
            source,
            command: self.command.clone(),
            env: self.env.clone(),
            ports: self.ports.clone(),
            volumes: self.volumes.clone(),
            tmpfs: self.tmpfs.clone(),
            memory_mib: self.memory_mib,
            milli_cpus: self.milli_cpus,
            read_only: self.read_only,
            user: self.user.clone(),
            restart: self.restart,
            health: self.health.clone(),
            secrets: secrets.collect::<Result<_, E>>()?,
        })
    }

    /// A container of an image, with nothing else said of it.
    pub fn of_image(name: Label, image: impl Into<String>) -> Self {
        Self {
            name,
            source: ContainerSource::Image(image.into()),
            command: Vec::new(),
            env: BTreeMap::new(),
            ports: Vec::new(),
            volumes: Vec::new(),
            tmpfs: Vec::new(),
            memory_mib: None,
            milli_cpus: None,
            read_only: false,
            user: None,
            restart: RestartPolicy::No,
            health: None,
            secrets: Vec::new(),
        }
    }

    /// The image that it runs; what a file of Kubernetes' runs is for the guest's Podman to find out.
    pub fn image(&self) -> Option<&str> {
        match &self.source {
            ContainerSource::Image(image) => Some(image),
            ContainerSource::Kube(_) => None,
        }
    }
}

/// As Podman takes it, and `fleet.toml` has it.
impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.guest, self.container, self.protocol)
    }
}

impl fmt::Display for VolumeMount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.read_only { ":ro" } else { "" };
        write!(f, "{}:{}{mode}", self.source, self.target)
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::OnFailure(None) => f.write_str("on-failure"),
            Self::OnFailure(Some(most)) => write!(f, "on-failure:{most}"),
            Self::Always => f.write_str("always"),
        }
    }
}
