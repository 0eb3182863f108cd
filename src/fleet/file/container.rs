//! `containers` of users and pools.

use toml::Spanned;

use super::super::model::{PortMapping, RestartPolicy, VolumeMount};
use super::super::reader::{
    FieldSchema, FromToml, List, Named, Section, Value, key, section, section_schema,
};
use super::super::scalar::{
    CommandWord, ContainerUser, Count, ImageName, Lifetime, LocalPath, MilliCpus, SecretTarget, TmpfsMount,
    VariableName, VariableValue,
};
use crate::base::problem::{Problems, Read};
use crate::base::{ByteSize, Label};

section! {
    /// A container that starts with its guest. Its keys are options of podman-run(1).
    pub struct ContainerSection {
        /// Name of the container.
        name: Spanned<Label>,
        /// The image that it runs.
        image: Option<Spanned<ImageName>>,
        /// In place of an image: a file of Kubernetes' YAML, which `podman kube play` starts; what it says stands there, so no other
        /// key goes with it.
        kube: Option<Spanned<LocalPath>>,
        /// Program and arguments, in place of the image's command.
        command: Option<List<CommandWord>>,
        /// Environment variables.
        env: Named<VariableName, VariableValue>,
        /// Ports of the guest that lead to the container: a number, or "HOST:CONTAINER", with "/udp" behind it for UDP. Who may come
        /// in is a matter of `publish` of the network.
        ports: Option<List<PortMapping>>,
        /// Directories that outlive the container: "NAME:/PATH", a volume of Podman's, or "./DIR:/PATH", a directory of the guest's
        /// home that is made where it is missing; with ":ro" behind it read-only.
        volumes: Option<List<VolumeMount>>,
        /// Directories of the container in RAM: "/PATH", or "/PATH:size=16m,mode=1777".
        tmpfs: Option<List<TmpfsMount>>,
        /// Memory at the most, such as "256MiB".
        memory: Option<Spanned<ByteSize>>,
        /// Processors at the most, such as 0.5.
        cpus: Option<Spanned<MilliCpus>>,
        /// Whether its root file system is read-only; false unless given.
        read_only as "read-only": Option<bool>,
        /// User in the container, or "USER:GROUP"; the image's own unless given.
        user: Option<ContainerUser>,
        /// What becomes of it when its program ends: "no" (the default), "on-failure", "on-failure:N" or "always". Podman starts it
        /// again at once. A guest that boots starts it in any case.
        restart: Option<RestartPolicy>,
        /// How it is found out whether it does its work; `up` waits until it does.
        health: Option<HealthSection>,
        /// Secrets that it gets by Podman's secrets.
        secrets: Option<Vec<Read<SecretSection>>>,
    }

    /// How it is found out whether a container does its work. The healthcheck of an image is not run.
    pub struct HealthSection {
        /// Program and arguments that are run in the container; exit status 0 says that it is healthy.
        command: Spanned<List<CommandWord>>,
        /// Time between two checks; "30s" unless given.
        interval: Option<Spanned<Lifetime>>,
        /// Time that a check may take; "30s" unless given.
        timeout: Option<Spanned<Lifetime>>,
        /// Failures in a row after which it is unhealthy; 3 unless given.
        retries: Option<Count<1, 1000>>,
        /// For as long after the start, failures do not count, and it is checked every other second; nothing unless given.
        start_period as "start-period": Option<Spanned<Lifetime>>,
    }

    /// A secret that a container gets. It is read on the host when the container is started, and is in no image and no lock.
    pub struct SecretSection {
        /// Its name in the guest's Podman.
        name: Spanned<Label>,
        /// File on the host that holds it: beside fleet.toml or anywhere; from a commit that `watch` follows, only where `--allow` has
        /// its directory.
        file: Spanned<LocalPath>,
        /// Environment variable that holds it; unless given, it is a file.
        env: Option<Spanned<VariableName>>,
        /// File that holds it, below /run/secrets or by its whole path; /run/secrets/NAME unless given.
        target: Option<Spanned<SecretTarget>>,
    }
}
