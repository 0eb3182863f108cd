//! The drill: one machine builds, signs and pushes; two hosts that can build nothing pull, verify and run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::common::docker_registry::{DockerRegistry, Options};
use crate::common::namespaces::missing;
use crate::common::sandbox::{Run, SISFORGE, Sandbox, until};
use crate::needs_firecracker;

use super::super::reach::certify;
use super::{built, signer};

/// Where the registry is.
const REGISTRY: &str = "10.98.0.1";

/// A machine: network, mounts, store and cache of its own, and no more of the fleet than is committed.
struct DrillHost {
    dir: tempfile::TempDir,
    holder: Child,
}

impl DrillHost {
    /// The `number`th, which reaches the registry.
    fn new(builder: &Sandbox, number: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--mount", "--propagation", "private", "sleep", "infinity"]);
        let holder = unshare.stdin(Stdio::null()).spawn().unwrap();
        let host = Self { dir, holder };
        let ours = fs::read_link("/proc/thread-self/ns/net").unwrap();
        let theirs = format!("/proc/{}/ns/net", host.holder.id());
        until("it has a network of its own", || fs::read_link(&theirs).is_ok_and(|net| net != ours));
        let ip = |words: &str| Run::of(Command::new("ip").args(words.split(' '))).fails(0, &[]).code;
        ip(&format!("link add drill{number} type veth peer name eth0 netns {}", host.holder.id()));
        ip(&format!("addr add 10.98.{number}.1/24 dev drill{number}"));
        ip(&format!("link set drill{number} up"));
        for name in ["fleet.toml", "fleet.lock", "signers", "ca.pem"] {
            fs::copy(builder.path(name), host.path(name)).unwrap();
        }
        fs::create_dir(host.path("keys")).unwrap();
        fs::copy(builder.path("keys/me.rsa.pub"), host.path("keys/me.rsa.pub")).unwrap();
        fs::create_dir_all(host.path("store")).unwrap();
        fs::create_dir_all(builder.path("store")).unwrap();
        let compilers = ["gcc", "cc", "make"].map(|name| format!("/usr/bin/{name}"));
        let hidden = compilers.iter().filter(|path| Path::new(path).exists());
        let hide: String = hidden.map(|path| format!("mount --bind /dev/null {path}\n")).collect();
        let script = format!(
            "set -e\nip link set lo up\nip addr add 10.98.{number}.2/24 dev eth0\nip link set eth0 up\n\
             ip route add default via 10.98.{number}.1\nmount -t tmpfs tmpfs /run\n\
             mount --bind {} {}\n{hide}",
            host.path("store").display(),
            builder.path("store").display(),
        );
        Run::of(host.within("sh").args(["-c", &script])).fails(0, &[]);
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Whoever owns the machine says whose signatures it demands.
    fn demand_signatures(&self) {
        let script = "set -e\nmkdir /run/upper /run/work\n\
             mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work /etc\n\
             mkdir -p /etc/sisforge\ncp signers /etc/sisforge/signers\n";
        Run::of(self.within("sh").args(["-c", script])).fails(0, &[]);
    }

    fn within(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let directory = format!("--wd={}", self.dir.path().display());
        command.args(["--net", "--mount", &directory, "-t", &self.holder.id().to_string(), "--", program]);
        command
    }

    fn run(&self, args: &str) -> Run {
        let mut command = self.within(SISFORGE);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy().to_ascii_lowercase();
            if text.starts_with("sisforge_") || text.ends_with("_proxy") {
                command.env_remove(name);
            }
        }
        command.args(["--file", &self.path("fleet.toml").display().to_string()]).args(args.split(' '));
        command.env("SISFORGE_CACHE_DIR", self.path("cache")).env("SSL_CERT_FILE", self.path("ca.pem"));
        Run::of(&mut command)
    }
}

impl Drop for DrillHost {
    fn drop(&mut self) {
        let _ = self.run("down --purge --yes --timeout 0");
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[test]
fn two_hosts_without_a_compiler_run_what_one_machine_built_and_signed() {
    let test = "two_hosts_without_a_compiler_run_what_one_machine_built_and_signed";
    needs_firecracker!();
    if let Some(reason) = missing(&["docker-registry", "openssl", "nsenter", "unshare", "ssh-keygen"]) {
        return crate::common::namespaces::skip(test, &reason);
    }
    let builder = Sandbox::new();
    Run::of(Command::new("ip").args(["addr", "add", &format!("{REGISTRY}/32"), "dev", "lo"])).fails(0, &[]);
    certify(&builder, REGISTRY);
    let (certificate, key) = (builder.path("server.pem"), builder.path("server.key"));
    let options = Options { tls: Some((&certificate, &key)), ..Options::default() };
    let mut registry = DockerRegistry::start(test, REGISTRY, options).unwrap();
    let text = builder.fleet_text("ab", "").replace("uplink = \"lo\"", "uplink = \"eth0\"");
    let key = format!("[fleet]\nartifacts = \"{}\"\n", registry.place("team/fleet"));
    builder.write("fleet.toml", text.replacen("[fleet]\n", &key, 1));
    builder.write("signers", signer(&builder, "team"));
    let done = |args: &str| {
        let run =
            Run::of(builder.command().env("SSL_CERT_FILE", builder.path("ca.pem")).args(args.split(' ')));
        assert_eq!(run.code, 0, "{args}\n{run}");
    };
    done("build");
    done("sign --key team");
    done("push");

    let guests = ['a', 'b'].map(|letter| builder.guest(letter));
    let hosts = [1, 2].map(|number| DrillHost::new(&builder, number));
    for (host, guest) in hosts.iter().zip(&guests) {
        // Nothing is there to build of.
        assert!(!host.path("tiny.elf").exists() && !host.path("repository").exists());
        host.run("check").fails(0, &[]);
        let up = host.run(&format!("up --no-build --verify signers {guest}"));
        assert_eq!(up.code, 0, "{up}");
        assert_eq!(built(&host.path("out")), built(&builder.path("out")));
        let ps = host.run("ps");
        assert!(ps.out.lines().any(|line| line.contains(guest) && line.contains("ready")), "{ps}");
    }

    // The registry is away: what is there runs on, is looked after, and comes back.
    registry.stop();
    for (host, guest) in hosts.iter().zip(&guests) {
        let again = host.run(&format!("up --no-build --verify signers {guest}"));
        assert_eq!(again.code, 0, "{again}");
        let restart = host.run(&format!("restart --no-build --verify signers {guest}"));
        assert_eq!(restart.code, 0, "{restart}");
    }
    // `watch` as well, which wants all guests of the fleet.
    let [first, second] = &hosts;
    assert_eq!(second.run("down --timeout 0").code, 0);
    let watch = first.run("watch --once --no-build --verify-artifacts signers");
    assert_eq!(watch.code, 0, "{watch}");
    let ps = first.run("ps");
    assert!(guests.iter().all(|guest| ps.out.contains(guest.as_str())), "{ps}");

    registry.resume();
    // One digit of the lock, and nothing is started; what runs stays.
    let lock = fs::read_to_string(first.path("fleet.lock")).unwrap();
    let at = lock.find("size = ").unwrap() + "size = ".len();
    fs::write(first.path("fleet.lock"), super::with_another_digit(&lock, at + 1)).unwrap();
    first.run("up --no-build --verify signers").fails(2, &["no key of signers has signed the digests"]);
    let watch = first.run("watch --once --no-build --verify-artifacts signers");
    watch.fails(2, &["no key of ", "has signed the digests"]);
    let ps = first.run("ps");
    assert!(guests.iter().all(|guest| ps.out.contains(guest.as_str())), "{ps}");
    // A host that demands it needs no flag for that, and nothing in the repository takes it back.
    let [a, b] = &guests;
    first.run(&format!("snapshot create {a} --stop --name one")).fails(0, &[]);
    first.demand_signatures();
    let restart = format!("restart {b}");
    let starts =
        ["up --no-build", "up", &restart, "watch --once --no-build", "plan", "snapshot restore one --yes"];
    for command in starts {
        first.run(command).fails(2, &["no key of /etc/sisforge/signers has signed the digests"]);
    }
    first.run("ps").fails(0, &[]);
    fs::write(first.path("fleet.lock"), &lock).unwrap();
    for command in starts.into_iter().rev() {
        let run = first.run(command);
        assert_eq!(run.code, 0, "{command}\n{run}");
    }
    // Without what is to be run, there is nowhere to take it from.
    fs::remove_dir_all(first.path("out")).unwrap();
    registry.stop();
    first.run("up --no-build").fails(1, &["cannot ask 10.98.0.1"]);
}
