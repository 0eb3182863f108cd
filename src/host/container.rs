//! Containers of a guest, as its Podman is told of them and as they were started.

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};

use crate::base::Sha256;
use crate::fleet::{ContainerSource, ContainerSpec, SecretPlace, SecretSpec, VolumeMount};

/// A container as a guest should have it. A `kube` file goes by its SHA-256; a secret by [`secret_digest`], so that nothing that is
/// kept tells what it is.
pub type GuestContainer = ContainerSpec<Sha256>;

/// A container that was started in a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartedContainer {
    #[serde(flatten)]
    pub container: GuestContainer,
    /// Whether it has been healthy once since, of one that has a health check.
    #[serde(default)]
    pub healthy: bool,
    /// Ids of the pods that a `kube` file made.
    #[serde(default)]
    pub pods: Vec<String>,
}

impl StartedContainer {
    /// One that has just been started.
    pub fn new(container: GuestContainer) -> Self {
        Self { container, healthy: false, pods: Vec::new() }
    }

    /// Whether it is waited for.
    pub fn is_awaited(&self) -> bool {
        self.container.health.is_some() && !self.healthy
    }
}

/// The digest that a secret is compared by: HMAC-SHA-256 (RFC 2104). A plain digest of a short secret would tell it to whoever tries
/// all there are.
pub fn secret_digest(key: &[u8], secret: &[u8]) -> Sha256 {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key)
        .unwrap_or_else(|_| unreachable!("a key of HMAC may have any length"));
    mac.update(secret);
    Sha256(mac.finalize().into_bytes().into())
}

/// What podman(1) is told to start a container; a file of `kube`, and nothing else, is read from stdin. Each value stands in one word
/// with its option, so that none is taken for an option.
pub fn start_words(container: &GuestContainer) -> Vec<String> {
    let ContainerSource::Image(image) = &container.source else {
        return ["kube", "play", "--replace", "-"].map(str::to_owned).to_vec();
    };
    let mut words = ["run", "--detach", "--replace"].map(str::to_owned).to_vec();
    let mut option = |name: &str, value: &str| words.push(format!("--{name}={value}"));
    option("name", container.name.as_str());
    for (name, value) in &container.env {
        option("env", &format!("{name}={value}"));
    }
    for port in &container.ports {
        option("publish", &port.to_string());
    }
    for volume in &container.volumes {
        option("volume", &volume_option(volume));
    }
    for tmpfs in &container.tmpfs {
        option("tmpfs", tmpfs);
    }
    if let Some(memory) = container.memory_mib {
        option("memory", &format!("{memory}m"));
    }
    if let Some(milli) = container.milli_cpus {
        option("cpus", &format!("{}.{:03}", milli / 1000, milli % 1000));
    }
    if container.read_only {
        option("read-only", "true");
    }
    if let Some(user) = &container.user {
        option("user", user);
    }
    option("restart", &container.restart.to_string());
    for secret in &container.secrets {
        option("secret", &secret_option(secret));
    }
    // Podman's own checks need systemd.
    option("no-healthcheck", "true");
    words.push(image.clone());
    words.extend(container.command.iter().cloned());
    words
}

/// The disk of a session is mounted while the container runs, which by default would not see that (podman-run(1)).
fn volume_option(volume: &VolumeMount) -> String {
    match (volume.is_kept_disk(), volume.read_only) {
        (false, _) => volume.to_string(),
        (true, false) => format!("{volume}:rslave"),
        (true, true) => format!("{volume},rslave"),
    }
}

fn secret_option<File>(secret: &SecretSpec<File>) -> String {
    match &secret.place {
        SecretPlace::Env(variable) => format!("{},type=env,target={variable}", secret.name),
        SecretPlace::Target(target) => format!("{},target={target}", secret.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{PortMapping, Protocol, RestartPolicy};

    fn secret(name: &str, place: SecretPlace) -> SecretSpec<Sha256> {
        SecretSpec { name: name.parse().unwrap(), file: Sha256::of(name), place }
    }

    #[test]
    fn each_key_is_one_word_of_podman() {
        let port = PortMapping { guest: 8080, container: 80, protocol: Protocol::Tcp };
        let volume = VolumeMount { source: "./d".into(), target: "/d".into(), read_only: true };
        let kept = |read_only| VolumeMount { source: "./kept".into(), target: "/k".into(), read_only };
        let container = GuestContainer {
            command: ["--flag", "a b", ""].map(str::to_owned).to_vec(),
            env: [("A".to_owned(), "-x \n'\"$(id)".to_owned())].into(),
            ports: vec![port],
            volumes: vec![volume, kept(true), kept(false)],
            tmpfs: vec!["/t:size=1m".into()],
            memory_mib: Some(64),
            milli_cpus: Some(1_500),
            read_only: true,
            user: Some("1:2".into()),
            restart: RestartPolicy::OnFailure(Some(3)),
            secrets: vec![
                secret("t", SecretPlace::Env("T".into())),
                secret("f", SecretPlace::Target("/etc/f".into())),
            ],
            ..GuestContainer::of_image("web".parse().unwrap(), "localhost/web")
        };
        let expected = [
            "run",
            "--detach",
            "--replace",
            "--name=web",
            "--env=A=-x \n'\"$(id)",
            "--publish=8080:80/tcp",
            "--volume=./d:/d:ro",
            "--volume=./kept:/k:ro,rslave",
            "--volume=./kept:/k:rslave",
            "--tmpfs=/t:size=1m",
            "--memory=64m",
            "--cpus=1.500",
            "--read-only=true",
            "--user=1:2",
            "--restart=on-failure:3",
            "--secret=t,type=env,target=T",
            "--secret=f,target=/etc/f",
            "--no-healthcheck=true",
            "localhost/web",
            "--flag",
            "a b",
            "",
        ];
        assert_eq!(start_words(&container), expected);
    }

    #[test]
    fn a_secret_is_compared_by_a_key_of_the_fleet() {
        assert_eq!(secret_digest(b"a", b"1234"), secret_digest(b"a", b"1234"));
        assert_ne!(secret_digest(b"a", b"1234"), secret_digest(b"b", b"1234"));
        assert_ne!(secret_digest(b"a", b"1234"), Sha256::of("1234"));
        // RFC 4231, test case 2.
        assert_eq!(
            secret_digest(b"Jefe", b"what do ya want for nothing?").to_string(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn what_an_earlier_sisforge_started_is_the_same_container() {
        let earlier = r#"{"name":"web","image":"localhost/web"}"#;
        let started: StartedContainer = serde_json::from_str(earlier).unwrap();
        assert_eq!(
            started,
            StartedContainer::new(GuestContainer::of_image("web".parse().unwrap(), "localhost/web"))
        );
        let full = serde_json::to_string(&started).unwrap();
        assert_eq!(serde_json::from_str::<StartedContainer>(&full).unwrap(), started);
    }
}
