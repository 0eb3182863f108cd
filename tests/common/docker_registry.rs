//! Debian's `docker-registry`, for a test's own use.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sisforge::sys::tool::find;

use super::sandbox::{own_network, until};

/// Of the login `ann` with the password `secret`, as `htpasswd -B` writes it.
const PASSWORDS: &str = "ann:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// `ann:secret`, as auth files have it.
pub const AUTH: &str = "YW5uOnNlY3JldA==";

/// How a registry is asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// Whether it wants the login `ann` with the password `secret`.
    pub wants_login: bool,
    /// Certificate and key; plain HTTP without.
    pub tls: Option<(&'a Path, &'a Path)>,
}

/// A registry that runs until this is dropped.
pub struct DockerRegistry {
    dir: tempfile::TempDir,
    process: Option<Child>,
    /// Address and port.
    pub address: SocketAddr,
}

impl DockerRegistry {
    /// Starts one in the network of this thread; `None`, said aloud, where it is not installed.
    pub fn start(test: &str, ip: &str, options: Options<'_>) -> Option<Self> {
        if find("docker-registry").is_none() {
            super::namespaces::skip(test, "docker-registry is not installed");
            return None;
        }
        own_network(&format!("registry-{}-{test}", std::process::id()));
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("passwords"), PASSWORDS).unwrap();
        let address = TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap();
        let mut registry = Self { dir, process: None, address };
        let at = |name: &str| registry.dir.path().join(name).display().to_string();
        let tls = options.tls.map(|(certificate, key)| {
            format!("  tls: {{certificate: {}, key: {}}}\n", certificate.display(), key.display())
        });
        let auth = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", at("passwords"));
        let config = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: {address}\n{}{}",
            at("data"),
            tls.unwrap_or_default(),
            if options.wants_login { auth.as_str() } else { "" },
        );
        fs::write(at("config.yml"), config).unwrap();
        registry.resume();
        Some(registry)
    }

    /// Starts it again with what it holds.
    pub fn resume(&mut self) {
        let program = find("docker-registry").unwrap();
        let mut command = Command::new(program);
        command.arg("serve").arg(self.dir.path().join("config.yml"));
        let log = fs::File::create(self.dir.path().join("log")).unwrap();
        command.env_clear().stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().unwrap());
        until("the registry answers", || TcpStream::connect(self.address).is_ok());
    }

    /// `oci://ADDRESS/NAME`.
    pub fn place(&self, name: &str) -> String {
        format!("oci://{}/{name}", self.address)
    }

    /// The files of all blobs and manifests that it holds, by digest.
    pub fn blobs(&self) -> BTreeMap<String, PathBuf> {
        let root = self.dir.path().join("data/docker/registry/v2/blobs/sha256");
        let below = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let blobs = below(&root).flat_map(|dir| below(&dir).collect::<Vec<_>>());
        blobs.map(|dir| (dir.file_name().unwrap().to_str().unwrap().to_owned(), dir.join("data"))).collect()
    }

    /// Ends it, so that whoever asks finds nobody.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        self.stop();
    }
}
