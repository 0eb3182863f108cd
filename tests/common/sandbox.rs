//! A project in a temporary directory: a fleet of tiny guests, a signed package repository, a ready kernel.
//!
//! Names of fleets and guests are another for each sandbox and each test process, because TAPs and nft tables are
//! the whole machine's.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use sisforge::sys::netns::{self, Netns};
use sisforge::sys::tiny_guest::{AfterText, elf};

use super::namespaces::{is_inside, missing as missing_for_namespaces};

/// What a tiny guest says when it is up.
pub const READY: &str = "sisforge: ready\n";

/// The program under test.
pub const SISFORGE: &str = env!("CARGO_BIN_EXE_sisforge");

/// Long enough for a machine under load.
const PATIENCE: Duration = Duration::from_secs(30);

/// A project; its guests are taken down when it is dropped.
pub struct Sandbox {
    dir: tempfile::TempDir,
    /// Unique on this machine: the fleet's name, and what guests' names begin with.
    pub name: String,
    number: u32,
}

impl Sandbox {
    /// A project whose guests say that they are ready and reset on Ctrl+Alt+Del; it has no `fleet.toml` yet.
    pub fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap())
    }

    /// A project of these users, each by its letter, whose guests are up.
    pub fn running(letters: &str) -> Self {
        let sandbox = Self::new();
        sandbox.fleet(letters);
        sandbox.done("up");
        sandbox
    }

    /// The same as [`Self::new`] in memory, for what makes very many files.
    pub fn in_memory() -> Self {
        Self::at(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap())
    }

    fn at(dir: tempfile::TempDir) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Others than root pass through, in tests that build as nobody.
        open_to_all(dir.path());
        let name = format!("z{}", letters(std::process::id() * 64 + number % 64));
        own_network(&name);
        forget(&name);
        let sandbox = Self { dir, name, number };
        sandbox.kernel(READY, AfterText::ResetOnKey);
        sandbox.repository();
        sandbox
    }

    /// A path in the project.
    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Writes a file of the project, and the directories above it.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    /// The kernel of every guest.
    pub fn kernel(&self, text: &str, then: AfterText) {
        self.write("tiny.elf", elf(text, then));
    }

    /// A guest's name, unique on this machine.
    pub fn guest(&self, letter: char) -> String {
        format!("{}{letter}", self.name)
    }

    /// What tells the uids of this project's guests from those of others.
    fn net(&self) -> u32 {
        (std::process::id() * 64 + self.number % 64) % 1_000_000
    }

    /// The addresses of this project's guests. No other test that runs has them, or the fleet would be refused.
    pub fn subnet(&self) -> String {
        let number = std::process::id() * 64 + self.number % 64;
        format!("10.{}.{}.0/24", 109 + number / 256 % 100, number % 256)
    }

    /// The uids of this project's guests.
    pub fn uids(&self) -> String {
        let first = 300_000 + 64 * self.net();
        format!("{first}-{}", first + 63)
    }

    /// `fleet.toml` with these users, each by its letter.
    pub fn fleet(&self, letters: &str) {
        self.fleet_with(letters, "");
    }

    /// `fleet.toml` with these users and more text behind it.
    pub fn fleet_with(&self, letters: &str, more: &str) {
        self.write("fleet.toml", self.fleet_text(letters, more));
    }

    pub fn fleet_text(&self, letters: &str, more: &str) -> String {
        let users: String =
            letters.chars().map(|letter| format!("[user.{}]\n", self.guest(letter))).collect();
        format!(
            r#"[fleet]
name = "{name}"

[kernel]
image = "tiny.elf"

[[repository]]
url = "repository"

[image.i]
packages = ["tiny"]

[disk.home]
size = "16MiB"

[network.n]
default = "deny"

[defaults]
image = "i"
network = "n"
disk = "home"
memory = "64MiB"

[host]
uplink = "lo"
subnet = "{subnet}"
uids = "{uids}"
store = "{store}"

{users}{more}"#,
            name = self.name,
            subnet = self.subnet(),
            uids = self.uids(),
            store = self.path("store").display(),
        )
    }

    /// The signed repository of one package, `tiny`, that holds one file, and the key that signed it.
    fn repository(&self) {
        // A key takes a second; one is enough for all sandboxes.
        static KEY: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
        let (private, public) = KEY.get_or_init(|| {
            self.done("apk key me.rsa");
            ["me.rsa", "me.rsa.pub"].map(|name| fs::read(self.path(name)).unwrap()).into()
        });
        self.write("me.rsa", private);
        self.write("keys/me.rsa.pub", public);
        self.write("files/etc/tiny", "tiny\n");
        self.pack("tiny", "1.0-r0");
        self.index();
    }

    /// Adds a package of `files/` to the repository.
    pub fn pack(&self, name: &str, version: &str) {
        fs::create_dir_all(self.path("repository/x86_64")).unwrap();
        let to = "--to repository/x86_64 --arch x86_64 --key me.rsa";
        self.done(&format!("apk pack files --name {name} --pkgver {version} {to}"));
    }

    /// Signs the repository anew.
    pub fn index(&self) {
        self.done("apk index repository/x86_64 --key me.rsa");
    }

    /// The program in the project's directory, with a cache of its own and no `SISFORGE_*` and no proxy of the outside.
    pub fn command(&self) -> Command {
        let mut command = Command::new(SISFORGE);
        self.surround(&mut command);
        command
    }

    /// Gives another program the same surroundings.
    pub fn surround(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy().to_ascii_lowercase();
            if text.starts_with("sisforge_") || text.ends_with("_proxy") || text == "ssl_cert_file" {
                command.env_remove(name);
            }
        }
        command.current_dir(self.dir.path()).env("SISFORGE_CACHE_DIR", self.path("cache"));
    }

    /// Runs the program; arguments are separated by spaces.
    pub fn run(&self, args: &str) -> Run {
        Run::of(self.command().args(args.split_whitespace()))
    }

    /// Runs the program, which must succeed; gives what it printed on stdout.
    pub fn done(&self, args: &str) -> String {
        let run = self.run(args);
        assert_eq!(run.code, 0, "sisforge {args}\n{run}");
        run.out
    }

    /// Runs the program with `--json`, which must print documents that fit this published schema, one on each line, and
    /// nothing else.
    #[track_caller]
    pub fn documents(&self, args: &str, schema: &str) -> (i32, Vec<Value>) {
        let run = self.run(&format!("{args} --json"));
        assert_eq!(run.err, "", "{run}");
        let schema = serde_json::from_str(&self.done(&format!("schema {schema}"))).unwrap();
        let documents: Vec<Value> = run.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for document in &documents {
            assert_eq!(super::schema::violations(document, &schema), [""; 0], "{document}\n{run}");
        }
        (run.code, documents)
    }

    /// The one document that the program prints with `--json`.
    #[track_caller]
    pub fn document(&self, args: &str, schema: &str) -> Value {
        let (_, mut documents) = self.documents(args, schema);
        assert_eq!(documents.len(), 1, "sisforge {args}");
        documents.remove(0)
    }

    /// The guest's part of the store.
    pub fn record(&self, guest: &str, file: &str) -> PathBuf {
        self.path(&format!("store/{}/guests/{guest}/{file}", self.name))
    }

    /// The root of a guest's newest jail; that of its first where it has none.
    pub fn jail(&self, guest: &str) -> PathBuf {
        let dir = self.path(&format!("store/{}/jails/firecracker", self.name));
        let attempt = (1..100).rev().find(|attempt| dir.join(format!("{guest}--{attempt}")).exists());
        dir.join(format!("{guest}--{}/root", attempt.unwrap_or(1)))
    }

    /// The root of a running guest's jail as its VMM sees it: a disk in memory is mounted there alone.
    pub fn jail_within(&self, guest: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.pid(guest)))
    }

    pub fn disk(&self, guest: &str) -> PathBuf {
        self.path(&format!("store/{}/disks/{guest}.ext4", self.name))
    }

    /// One guest as `ps --all --json` shows it.
    pub fn ps(&self, guest: &str) -> serde_json::Value {
        let all: serde_json::Value = serde_json::from_str(&self.done("ps --all --json")).unwrap();
        let found = all.as_array().unwrap().iter().find(|one| one["name"] == guest);
        found.unwrap_or_else(|| panic!("no {guest} in {all}")).clone()
    }

    /// The VMM's process number.
    pub fn pid(&self, guest: &str) -> u32 {
        u32::try_from(self.ps(guest)["pid"].as_u64().expect("it runs")).unwrap()
    }

    /// The same without the fleet's network, which is no guest's.
    pub fn traces_of_guests(&self) -> Vec<String> {
        let network = ["nft:", "netns:", "forwarding:", "link: pair:"];
        let mut traces = self.traces();
        traces.retain(|trace| !network.iter().any(|begin| trace.starts_with(begin)));
        traces
    }

    /// Everything that the machine has of this fleet beside its store: processes, TAPs, rules, cgroups, mounts and
    /// jails, each in words.
    pub fn traces(&self) -> Vec<String> {
        let mut traces = Vec::new();
        let links = Run::of(Command::new("ip").args(["-o", "link"])).out;
        let ours = links.lines().filter(|line| line.contains(&self.name));
        traces.extend(ours.map(|line| match line.contains(": sis-_") {
            true => format!("link: pair: {line}"),
            false => format!("link: {line}"),
        }));
        let netns = Path::new("/run/netns").join(self.netns());
        traces.extend(netns.exists().then(|| format!("netns: {}", netns.display())));
        let forwarding = fs::read_to_string("/run/sisforge/forwarding.json").unwrap_or_default();
        traces.extend(forwarding.contains(&self.name).then(|| format!("forwarding: {forwarding}")));
        let tables = Run::of(Command::new("nft").args(["list", "tables"])).out;
        traces.extend(tables.lines().filter(|l| l.contains(&self.name)).map(|line| format!("nft: {line}")));
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let inside = mounts.lines().filter(|l| l.contains(&self.name) && !l.contains("/netns/"));
        traces.extend(inside.map(|line| format!("mount: {line}")));
        traces.extend(self.cgroups("").iter().map(|path| format!("cgroup: {}", path.display())));
        traces.extend(self.processes());
        let jails = self.path(&format!("store/{}/jails", self.name));
        traces.extend(jails.exists().then(|| format!("jails: {}", jails.display())));
        traces
    }

    /// Processes of the fleet's guests, and of the program in this project.
    fn processes(&self) -> Vec<String> {
        let all = fs::read_dir("/proc").unwrap().flatten();
        let mine = all.filter_map(|entry| {
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let root = fs::read_link(entry.path().join("root")).ok()?;
            let is_mine = line.contains(&self.name) || root.starts_with(self.dir.path());
            is_mine.then(|| format!("process: {} {line}", entry.path().display()))
        });
        mine.collect()
    }

    /// Name of the fleet's network namespace, and of its nft tables.
    pub fn netns(&self) -> String {
        format!("sisforge-{}", self.name)
    }

    /// The cgroup directories of a guest in every hierarchy; those of the fleet for an empty name.
    pub fn cgroups(&self, guest: &str) -> Vec<PathBuf> {
        let root = Path::new("/sys/fs/cgroup");
        let controllers = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
        std::iter::once(root.to_owned())
            .chain(controllers)
            .map(|hierarchy| hierarchy.join("sisforge").join(&self.name).join(guest))
            .filter(|path| path.exists())
            .collect()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if self.path("store").join(&self.name).exists() && self.path("fleet.toml").exists() {
            let _ = self.command().args(["down", "--timeout", "0"]).output();
        }
        forget(&self.name);
    }
}

/// Removes what a fleet has on its host outside of its store: process numbers come again, and with them names.
fn forget(fleet: &str) {
    for name in ["ledger", "lock"] {
        let _ = fs::remove_file(format!("/var/lib/sisforge-host/{fleet}.{name}"));
    }
}

/// Gives this thread, and all that it starts, a network of its own, unless it has one: what others on this machine do to
/// theirs is then no drift.
pub(super) fn own_network(name: &str) {
    thread_local!(static HAS_ONE: Cell<bool> = const { Cell::new(false) });
    if missing_for_namespaces(&["ip"]).is_some() || is_inside() || HAS_ONE.replace(true) {
        return;
    }
    let netns = Netns::named(&format!("test-{name}"));
    netns::create(&netns).unwrap();
    netns::enter(netns.path()).unwrap();
    // It lives on in whoever is in it.
    netns::remove(&netns).unwrap();
}

/// A number in letters, so that it may stand in any name.
fn letters(mut number: u32) -> String {
    let mut text = String::new();
    while number > 0 {
        text.insert(0, char::from(b'a' + u8::try_from(number % 26).unwrap()));
        number /= 26;
    }
    text
}

/// Lets every user pass through a directory.
pub fn open_to_all(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A program that ended.
#[derive(Debug)]
pub struct Run {
    /// -1 where a signal ended it.
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Run {
    pub fn of(command: &mut Command) -> Self {
        let output = command.stdin(std::process::Stdio::null()).output();
        Self::from(output.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// Asserts that it ended with a status and that stderr says all of `words`, in any order.
    #[track_caller]
    pub fn fails(&self, code: i32, words: &[&str]) -> &Self {
        assert_eq!(self.code, code, "{self}");
        for word in words {
            assert!(self.err.contains(word), "not said: {word:?}\n{self}");
        }
        self
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "status {}\n--- stdout\n{}--- stderr\n{}", self.code, self.out, self.err)
    }
}

/// Asks again and again until it is so.
///
/// # Panics
/// Where patience ends first.
#[track_caller]
pub fn until(what: &str, mut ask: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !ask() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a run of Firecracker needs and this machine lacks.
pub fn missing() -> Option<&'static str> {
    let on_path = |program: &str| sisforge::sys::tool::find(program).is_some();
    match () {
        () if !on_path("firecracker") => Some("firecracker is not on PATH"),
        () if !on_path("jailer") => Some("jailer is not on PATH"),
        () if !on_path("nft") => Some("nft is not on PATH"),
        () if !rustix::process::geteuid().is_root() => Some("jails need root"),
        () if fs::File::open("/dev/kvm").is_err() => Some("/dev/kvm cannot be opened"),
        () if !Path::new("/dev/net/tun").exists() => Some("there is no /dev/net/tun"),
        () => None,
    }
}

/// Ends a test, saying so, where it cannot be run here.
#[macro_export]
macro_rules! needs_firecracker {
    () => {
        if let Some(reason) = $crate::common::sandbox::missing() {
            return eprintln!("SKIPPED: {reason}");
        }
    };
}
