//! A fleet in a directory of its own: repository, keys, recipe, kernel, container image.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sisforge::apk::{Contents, PackageInfo, SigningKey, pack, sign_directory};
use sisforge::build::{BuildError, Builder, Built, Project, ProjectError, Selection, artifacts::OutDir};
use sisforge::lock::model::Lock;
use sisforge::lock::request::Update;
use sisforge::sys::fetch::Cache;
use sisforge::sys::report::Silent;

/// Making a key takes seconds; all tests sign with one.
fn key() -> &'static (tempfile::TempDir, SigningKey) {
    static KEY: OnceLock<(tempfile::TempDir, SigningKey)> = OnceLock::new();
    KEY.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::generate(&dir.path().join("maker.rsa")).unwrap();
        (dir, key)
    })
}

pub const FLEET: &str = r#"
[fleet]
name = "test"

[kernel]
image = "vmlinux"

[[repository]]
url = "repo"
keys = "keys"

[image.small]
recipes = ["plain"]
packages = ["hello"]
files = { "/etc/motd" = { content = "welcome\n" } }

[disk.home]
size = "16MiB"
backing = "file"

[network.none]
default = "deny"

[defaults]
image = "small"
network = "none"
disk = "home"
vcpus = 1
memory = "64MiB"

[user.alice]
[user.bob]

[host]
subnet = "10.0.0.0/24"
uids = "2000-3000"
store = "/var/lib/sisforge"
"#;

const RECIPE: &str = r#"
description = "nothing but a file"
packages = ["base"]

[[file]]
path = "/etc/plain"
content = "plain\n"
"#;

/// The least that passes for a kernel: the header of an x86-64 ELF executable.
fn tiny_elf() -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    (bytes[16], bytes[18], bytes[20], bytes[52]) = (2, 0x3e, 1, 64);
    bytes
}

pub struct Site {
    pub dir: tempfile::TempDir,
}

impl Site {
    /// The fleet above, with packages `base` and `hello` that it needs.
    pub fn new() -> Self {
        let site = Self { dir: tempfile::tempdir().unwrap() };
        let (key_dir, key) = key();
        let public = fs::read(key_dir.path().join(key.public_name())).unwrap();
        site.write(&format!("keys/{}", key.public_name()), &public);
        site.write("fleet.toml", FLEET.as_bytes());
        site.write("recipes/plain/recipe.toml", RECIPE.as_bytes());
        site.write("vmlinux", &tiny_elf());
        site.package("base", "1.0-r0", &[("etc/base", "base")], &[]);
        site.package("hello", "1.0-r0", &[("usr/bin/hello", "hello 1.0")], &["base"]);
        site.index();
        site
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    pub fn write(&self, relative: &str, bytes: &[u8]) {
        sisforge::sys::fs::write(&self.path(relative), bytes, 0o644).unwrap();
    }

    /// Replaces a part of a text file; it must be there.
    pub fn edit(&self, relative: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(relative)).unwrap();
        assert!(text.contains(from), "{relative} has no {from:?}");
        self.write(relative, text.replacen(from, to, 1).as_bytes());
    }

    pub fn package(&self, name: &str, version: &str, files: &[(&str, &str)], depends: &[&str]) {
        let tree = tempfile::tempdir().unwrap();
        for (path, text) in files {
            sisforge::sys::fs::write(&tree.path().join(path), text.as_bytes(), 0o644).unwrap();
        }
        let mut info = PackageInfo::new(name, version.parse().unwrap(), "x86_64").unwrap();
        let depends: Vec<String> = depends.iter().map(|&depend| depend.to_owned()).collect();
        info.extend(&[], &depends).unwrap();
        let packed = pack(info, Contents::from_directory(tree.path()).unwrap(), None).unwrap();
        self.write(&format!("repo/x86_64/{name}-{version}.apk"), &packed.bytes);
    }

    /// Signs the index of all packages there are.
    pub fn index(&self) {
        let directory = self.path("repo/x86_64");
        self.write("repo/x86_64/APKINDEX.tar.gz", &sign_directory(&directory, &key().1).unwrap());
    }

    pub fn project(&self) -> Project {
        self.try_project().unwrap()
    }

    pub fn try_project(&self) -> Result<Project, ProjectError> {
        Project::open(sisforge::fleet::load(&self.path("fleet.toml")).unwrap(), &self.path("cache"))
    }

    pub fn cache(&self) -> Cache {
        Cache::new(self.path("cache"))
    }

    pub fn lock(&self, old: Option<&Lock>) -> Lock {
        self.update(old, &Update::None).unwrap()
    }

    pub fn update(&self, old: Option<&Lock>, update: &Update) -> Result<Lock, ProjectError> {
        let project = self.project();
        let lock = project.choose(old, update, &self.cache(), false, &Silent)?;
        project.check_scripts(&lock)?;
        assert_eq!(project.stale(&lock), [""; 0], "a new lock fits");
        Ok(lock)
    }

    pub fn build(&self, lock: &Lock) -> Result<Vec<Built>, BuildError> {
        self.with_builder(lock, |builder| builder.build(&Selection::All))
    }

    pub fn with_builder<T>(&self, lock: &Lock, run: impl FnOnce(&Builder<'_>) -> T) -> T {
        let (project, cache) = (self.project(), self.cache());
        let out = OutDir::open(&self.path("out")).unwrap();
        let builder = Builder {
            project: &project,
            lock,
            out: &out,
            cache: &cache,
            jobs: 2,
            offline: true,
            missing: sisforge::build::MissingArtifact::Build,
            registry: None,
            report: &Silent,
        };
        run(&builder)
    }

    /// Builds one artifact of the lock as it is now.
    pub fn build_one(&self, what: &Selection) -> Built {
        let lock = self.lock(None);
        self.with_builder(&lock, |builder| builder.build(what)).unwrap().remove(0)
    }
}

/// An error and all its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// Serves a directory over HTTP, for as long as the process lives; gives the address.
pub fn serve(root: &Path) -> String {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, root) = (format!("http://{}", listener.local_addr().unwrap()), root.to_owned());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let request = lines.next().unwrap().unwrap();
            lines.map_while(Result::ok).find(String::is_empty);
            let path = request.split(' ').nth(1).unwrap().trim_start_matches('/').to_owned();
            let (status, body) = match fs::read(root.join(path)) {
                Ok(body) => ("200 OK", body),
                Err(_) => ("404 Not Found", Vec::new()),
            };
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    address
}
