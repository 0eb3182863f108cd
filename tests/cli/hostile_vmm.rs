//! A VMM that its guest has taken over: whatever it does with what its uid may reach, the host reads and writes nothing of
//! anybody else's for it, waits for it no longer than it says, and no other guest notices.
//!
//! `hostile_vmm/vmm.pl` stands in for QEMU. One fleet has a guest for each trick, and honest neighbours.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use sisforge::base::FileDigest;
use sisforge::sys::digest::verity_digest;
use sisforge::sys::process::inspect;
use sisforge::sys::remove::remove_tree;

use crate::common::namespaces::{missing, skip};
use crate::common::sandbox::{Run, SISFORGE, Sandbox, open_to_all, until};
use crate::common::schema::violations;

/// How long a command may take on a machine under load, beside what it is told to wait.
const LIMIT: Duration = Duration::from_secs(25);
/// What `down` is told to wait, in seconds.
pub const PATIENCE: &str = "1";

/// What becomes of `snapshot create` of a guest.
pub enum Frozen {
    /// It is not asked for.
    Unasked,
    /// It is made, of the guest's own disk.
    Done,
    /// It fails, in these words, and leaves nothing.
    Refused(&'static str),
}
use Frozen::{Done, Refused, Unasked};

/// A trick: what it is called, whether the whole jail is the uid's as Firecracker's jailer leaves it, what
/// is done in Perl, and
/// what becomes of a snapshot. `HOST` is the fleet's place in the store, `BOB` a neighbour.
pub struct Trick(pub &'static str, pub Given, pub &'static str, pub Frozen);

#[derive(Clone, Copy, PartialEq)]
pub enum Given {
    /// The jail as it is once its guest is ready.
    Nothing,
    /// All of it.
    Jail,
}
use Given::{Jail, Nothing};

const STANDS_STILL: &str = "a VMM that stands still";
pub const LINK: &str = "it is a symbolic link";

/// Tricks with a disk that lives in the jail alone.
const IN_JAIL: &[Trick] = &[
    Trick(
        "a link to a neighbour's disk",
        Jail,
        "unlink 'data/disk.ext4'; symlink 'HOST/disks/BOB.ext4', 'data/disk.ext4' or die",
        Refused(LINK),
    ),
    Trick(
        "a link to the fleet's ssh key",
        Jail,
        "unlink 'data/disk.ext4'; symlink 'HOST/key', 'data/disk.ext4' or die",
        Refused(LINK),
    ),
    Trick(
        "a link to the host's passwords",
        Jail,
        "unlink 'data/disk.ext4'; symlink '/etc/shadow', 'data/disk.ext4' or die",
        Refused(LINK),
    ),
    Trick(
        "a link to a neighbour's directory",
        Jail,
        "rename 'data', 'mine'; symlink 'HOST/jails/qemu/BOB--1/root/data', 'data' or die",
        Refused(LINK),
    ),
    Trick(
        "a pipe for a disk",
        Jail,
        "unlink 'data/disk.ext4'; POSIX::mkfifo('data/disk.ext4', 0600) or die",
        Refused("it is not a regular file"),
    ),
    Trick(
        "a directory for a disk",
        Jail,
        "unlink 'data/disk.ext4'; mkdir 'data/disk.ext4' or die",
        Refused("it is not a regular file"),
    ),
    Trick("no disk at all", Jail, "unlink 'data/disk.ext4' or die", Refused("No such file")),
];

/// Tricks with a disk that the store keeps.
const KEPT: &[Trick] = &[
    Trick(
        "nothing of its jail is its own but `run`",
        Nothing,
        "die if unlink('data/disk.ext4') or rename('data', 'x') or symlink('/etc', 'x') or mkdir('data/x')",
        Done,
    ),
    Trick(
        "a link in place of a kept disk",
        Jail,
        "unlink 'data/disk.ext4'; symlink 'HOST/disks/BOB.ext4', 'data/disk.ext4' or die",
        Done,
    ),
    Trick(
        "a pipe in place of a kept disk",
        Jail,
        "unlink 'data/disk.ext4'; POSIX::mkfifo('data/disk.ext4', 0600) or die",
        Done,
    ),
    Trick(
        "a socket that is a link to a neighbour's",
        Nothing,
        "unlink 'run/qmp.sock'; symlink 'HOST/jails/qemu/BOB--1/root/run/qmp.sock', 'run/qmp.sock' or die",
        Refused(LINK),
    ),
    Trick(
        "a directory of sockets that is a link to a neighbour's",
        Jail,
        "rename 'run', 'mine'; symlink 'HOST/jails/qemu/BOB--1/root/run', 'run' or die",
        Refused(LINK),
    ),
    Trick(
        "another process at its socket",
        Nothing,
        "unless (fork) { listen_again(8); while (accept($c, $listener)) { serve($c) } } \
         close $listener; select undef, undef, undef, 0.3; print $ready; sleep 1000",
        Refused("listens there instead of process"),
    ),
    Trick(
        "a pipe for a socket",
        Nothing,
        "unlink 'run/qmp.sock'; POSIX::mkfifo('run/qmp.sock', 0600) or die",
        Refused("it is not a socket"),
    ),
    Trick(
        "a full queue",
        Nothing,
        "listen_again(0); for (1 .. 3) { socket(my $s, PF_UNIX, SOCK_STREAM | 2048, 0); \
         connect $s, sockaddr_un('run/qmp.sock'); push @held, $s } print $ready; sleep 1000",
        Refused("timed out"),
    ),
    Trick(
        "an answer without end",
        Nothing,
        "$serve = sub { flood($_[0], 'x' x 65536) }",
        Refused("does not speak QMP"),
    ),
    Trick(
        "lines without end",
        Nothing,
        "$serve = sub { syswrite $_[0], $greeting; flood($_[0], qq({\"event\": \"STOP\"}\\n)) }",
        Unasked,
    ),
    Trick(
        "a greeting of a gigabyte",
        Nothing,
        "$serve = sub { syswrite $_[0], '{\"QMP\": \"'; syswrite $_[0], 'x' x 65536 for 1 .. 16384; \
         syswrite $_[0], \"\\\"}\\n\" }",
        Refused("does not speak QMP"),
    ),
    Trick(
        "a trickle",
        Nothing,
        "$serve = sub { while (defined syswrite $_[0], ' ') { select undef, undef, undef, 0.05 } }",
        Refused("did not answer the connection"),
    ),
    Trick("silence", Nothing, "$serve = sub { receive($_[0]); sleep 1000 }", Unasked),
    Trick("hanging up", Nothing, "$serve = sub {}", Refused("hung up")),
    Trick("no JSON", Nothing, "$greeting = \"{{{{ \\e[2J\\n\"", Refused("does not speak QMP")),
    Trick(
        "JSON of 100,000 levels",
        Nothing,
        "$greeting = ('[' x 100000) . \"\\n\"",
        Refused("does not speak QMP"),
    ),
    Trick(
        "a refusal that looks like another message",
        Nothing,
        r#"$answer{stop} = qq({"error": {"class": "\\u001b[31m", "desc": "no\\nerror: BOB: gone\\r\\u202e"}, "id": 2}\n)"#,
        Refused(r"refused stop: no\nerror: BOB: gone"),
    ),
    Trick(
        "a snapshot of nothing",
        Nothing,
        "$answer{migrate} = qq({\"return\": {}, \"id\": 5}\\n); *receive = sub { sysread $_[0], my $b, 4096 \
         or return; $b }",
        Refused("but it did not"),
    ),
    Trick(
        "a disk that is 4 KiB longer",
        Nothing,
        "truncate 'data/disk.ext4', 4096 + -s 'data/disk.ext4' or die",
        Done,
    ),
    Trick("a disk of 100 MiB", Nothing, "truncate 'data/disk.ext4', 100 << 20 or die", Unasked),
    Trick("a disk that is cut off", Nothing, "truncate 'data/disk.ext4', 4096 or die", Done),
    Trick(
        "a tree of 30,000 levels",
        Nothing,
        "chdir 'run'; for (1 .. 30000) { mkdir 'd' or die $!; chdir 'd' or die $! } chdir '/'",
        Unasked,
    ),
    Trick("30,000 files", Nothing, "for (1 .. 30000) { open my $f, '>', \"run/$_\" or die $! }", Unasked),
    Trick(
        "names that a terminal obeys",
        Nothing,
        "for (\"\\e[2J\", \"a\\nerror: x\", \"\\x9b31m\", \"-rf\", ' ', 'x' x 255) { mkdir \"run/$_\" or \
         die $! }",
        Unasked,
    ),
    Trick(
        "directories that nobody may enter",
        Jail,
        "mkdir 'run/a'; chmod 0, 'run/a', 'run', 'data', '.'",
        Unasked,
    ),
    Trick(
        "links beside its sockets",
        Nothing,
        "symlink '/', 'run/root'; symlink 'HOST', 'run/store'; symlink '..', 'run/up'",
        Unasked,
    ),
    Trick(
        "second names of its own files",
        Jail,
        "link 'data/disk.ext4', 'run/disk' or die; link 'run/qmp.sock', 'run/other' or die",
        Done,
    ),
    Trick(
        "a power button without effect",
        Nothing,
        "$answer{system_powerdown} = qq({\"return\": {}, \"id\": 2}\\n)",
        Unasked,
    ),
    Trick(
        "children that hear no signal",
        Nothing,
        "for (1 .. 20) { fork or do { $SIG{$_} = 'IGNORE' for qw(TERM INT HUP); sleep 1000; exit } }",
        Unasked,
    ),
    Trick(STANDS_STILL, Nothing, "print $ready; kill 'STOP', $$", Unasked),
    Trick(
        "a second line of readiness",
        Nothing,
        "$ready = \"sisforge: ready ssh-ed25519 AAAAfirst\\nsisforge: ready ssh-ed25519 AAAAsecond\\n\"",
        Unasked,
    ),
    Trick(
        "a key that is none",
        Nothing,
        "$ready = \"sisforge: ready -oProxyCommand=id \\e[31m\\x00\\n\"",
        Done,
    ),
    Trick(
        "a line of 10 MB",
        Nothing,
        "for (1 .. 160) { syswrite STDOUT, 'x' x 65536; select undef, undef, undef, 0.02 } print \"\\n\"",
        Unasked,
    ),
];

/// What passes for a kernel that QEMU can start: it is not started. An ELF file of one note, the PVH entry
/// point.
fn kernel() -> Vec<u8> {
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [0_u64, 64, 0] {
        elf.extend(word.to_le_bytes()); // e_entry, e_phoff, e_shoff
    }
    elf.extend([0; 4]);
    for half in [64_u16, 56, 1, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend([4, 0, 0, 0, 4, 0, 0, 0]); // PT_NOTE, readable
    for word in [120_u64, 0, 0, 20, 20, 4] {
        elf.extend(word.to_le_bytes());
    }
    for word in [4_u32, 4, 18] {
        elf.extend(word.to_le_bytes()); // n_namesz, n_descsz, n_type
    }
    elf.extend(b"Xen\0\0\0\0\x01");
    elf
}

/// The fleet, with the program that stands in for another first on its search path.
pub struct Site {
    pub sandbox: Sandbox,
    path: String,
}

impl Site {
    pub fn new() -> Self {
        let site = Self::standing_in("qemu-system-x86_64", include_str!("hostile_vmm/vmm.pl"));
        site.sandbox.write("tiny.elf", kernel());
        site
    }

    /// Where nothing stands in for anything.
    pub fn real() -> Self {
        Self { sandbox: Sandbox::new(), path: std::env::var("PATH").unwrap() }
    }

    pub fn standing_in(program: &str, script: &str) -> Self {
        let sandbox = Sandbox::in_memory();
        let bin = sandbox.path("bin");
        fs::create_dir_all(bin.join("tricks")).unwrap();
        open_to_all(&bin);
        let program = bin.join(program);
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        Self { sandbox, path }
    }

    /// Runs the program, which must come back in time; arguments are separated by spaces.
    #[track_caller]
    pub fn run(&self, args: &str) -> Run {
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", &LIMIT.as_secs().to_string(), SISFORGE]).args(args.split(' '));
        self.sandbox.surround(&mut command);
        let began = Instant::now();
        let run = Run::of(command.env("PATH", &self.path));
        assert!(began.elapsed() < LIMIT, "sisforge {args} took {:?}\n{run}", began.elapsed());
        for (stream, text) in [("stdout", &run.out), ("stderr", &run.err)] {
            let obeyed = text.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
            assert_eq!(obeyed, None, "sisforge {args}: {stream}\n{run}");
        }
        run
    }

    /// The program with these surroundings.
    pub fn command(&self) -> Command {
        let mut command = self.sandbox.command();
        command.env("PATH", &self.path);
        command
    }

    /// The one document that the program prints with `--json`, which must fit this published schema.
    #[track_caller]
    pub fn document(&self, args: &str, schema: &str) -> serde_json::Value {
        let run = self.run(&format!("{args} --json"));
        assert_eq!(run.code, 0, "sisforge {args}\n{run}");
        let document = serde_json::from_str(&run.out).unwrap();
        let schema = serde_json::from_str(&self.run(&format!("schema {schema}")).out).unwrap();
        assert_eq!(violations(&document, &schema), [""; 0], "{run}");
        document
    }

    pub fn trick(&self, guest: &str, given: Given, code: &str) {
        let given = if given == Jail { "# given\n" } else { "" };
        let host = self.host().display().to_string();
        let code = code.replace("HOST", &host).replace("BOB", &self.sandbox.guest('b'));
        self.sandbox.write(&format!("bin/tricks/{guest}"), format!("{given}{code}"));
    }

    /// The fleet's place in the store.
    fn host(&self) -> PathBuf {
        self.sandbox.path(&format!("store/{}", self.sandbox.name))
    }

    /// All of a neighbour that nobody but itself may change: its process, its disk, and what it was told.
    pub fn neighbour(&self, letter: char) -> (u32, (FileDigest, u64), Vec<String>) {
        let guest = self.sandbox.guest(letter);
        let serial = fs::read_to_string(self.sandbox.record(&guest, "serial.log")).unwrap();
        let is_told = |line: &&str| ["qmp: ", "api: "].iter().any(|told| line.starts_with(told));
        let told = serial.lines().filter(is_told).map(str::to_owned).collect();
        let ready: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(self.sandbox.record(&guest, "ready.json")).unwrap())
                .unwrap();
        let pid = u32::try_from(ready["pid"].as_u64().unwrap()).unwrap();
        let vmm = inspect(pid).expect("it runs");
        assert_eq!(ready["start_time"], vmm.id.start_time);
        (pid, verity_digest(&self.sandbox.disk(&guest)).unwrap(), told)
    }

    fn snapshot(&self, guest: &str) -> PathBuf {
        self.host().join(format!("snapshots/ready/{guest}"))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // After a test that failed, what is left may be deeper than the stack of whoever removes it by recursion.
        let mut down = Command::new("timeout");
        down.args(["--signal=KILL", "60", SISFORGE, "down", "--timeout", "0"]);
        self.sandbox.surround(&mut down);
        let _ = down.output();
        let _ = remove_tree(&self.sandbox.path("store"));
    }
}

/// Every trick with the guest that does it, and that fleet, up.
fn up(site: &Site) -> Vec<(String, &'static Trick)> {
    let sandbox = &site.sandbox;
    let pool = sandbox.guest('p');
    let kept = (0..).zip(KEPT).map(|(number, trick)| (format!("{}-{number}", sandbox.name), trick));
    let in_jail = (0..).zip(IN_JAIL).map(|(number, trick)| (format!("{pool}-{number}"), trick));
    let tricks: Vec<_> = kept.chain(in_jail).collect();
    for (guest, Trick(_, given, code, _)) in &tricks {
        site.trick(guest, *given, code);
    }
    let users: String = tricks[..KEPT.len()].iter().map(|(guest, _)| format!("[user.{guest}]\n")).collect();
    let more = format!("{users}[pool.{pool}]\nreplicas = {}\n", IN_JAIL.len());
    let text = sandbox.fleet_text("abc", &more).replace("[kernel]", "vmm = \"qemu\"\n[kernel]");
    sandbox.write("fleet.toml", text);
    site.run("build").fails(0, &[]);
    site.run("up").fails(0, &[]);
    for (guest, Trick(what, ..)) in &tricks {
        let serial = fs::read(sandbox.record(guest, "serial.log")).unwrap();
        assert!(
            !String::from_utf8_lossy(&serial).contains("the trick failed"),
            "{what}: {}",
            String::from_utf8_lossy(&serial)
        );
    }
    tricks
}

/// Asks for a snapshot of a guest that does a trick, and holds what becomes of it against what is to.
pub fn freeze(site: &Site, guest: &str, Trick(what, _, _, frozen): &Trick) {
    let asked = || site.run(&format!("snapshot create {guest} --name {guest}"));
    match frozen {
        Unasked => {}
        Done => {
            let run = asked();
            assert_eq!(run.code, 0, "{what}\n{run}");
            let copied = verity_digest(&site.snapshot(guest).join("disk.ext4")).unwrap();
            assert_eq!(copied, verity_digest(&site.sandbox.disk(guest)).unwrap(), "{what}");
        }
        Refused(words) => {
            let run = asked();
            assert_eq!(run.code, 1, "{what}\n{run}");
            let words = words.replace("BOB", &site.sandbox.guest('b'));
            assert!(run.err.contains(&words), "{what}: not said: {words}\n{run}");
            let forged = format!("error: {}", site.sandbox.guest('b'));
            assert!(!run.err.lines().any(|line| line.starts_with(&forged)), "{what}\n{run}");
            assert!(!site.snapshot(guest).exists(), "{what}");
        }
    }
}

#[test]
fn whatever_a_guests_uid_does_no_other_guest_notices() {
    let test = "whatever_a_guests_uid_does_no_other_guest_notices";
    if let Some(reason) = missing(&["perl", "nft", "ip", "ssh-keygen", "timeout"]) {
        return skip(test, &reason);
    }
    let site = Site::new();
    let sandbox = &site.sandbox;
    let tricks = up(&site);
    let [a, c] = ['a', 'c'].map(|letter| sandbox.guest(letter));
    let neighbours = || ['a', 'b'].map(|letter| site.neighbour(letter));
    let before = neighbours();

    // What looks at all guests, and what is done with another one, beside all of them at once.
    let still = tricks.iter().find(|(_, trick)| trick.0 == STANDS_STILL).map(|(guest, _)| guest).unwrap();
    let plan = site.run("plan --detailed-exitcode");
    assert_eq!(
        (plan.code, plan.out),
        (2, format!("change {still}: its vmm is stopped\n  let the stopped vmm run\n1 to change in place\n"))
    );
    let ps = site.run("ps");
    assert!(ps.code == 0 && tricks.iter().all(|(guest, _)| ps.out.contains(guest.as_str())), "{ps}");
    let disks = site.run("disk ls");
    assert!(disks.code == 0 && disks.out.contains(&a), "{disks}");
    site.run("up").fails(0, &["1 changed in place"]);
    site.run("up").fails(0, &["nothing to do"]);
    site.run(&format!("down {c} --timeout {PATIENCE}")).fails(0, &["1 stopped"]);
    site.run(&format!("disk export {c} exported.ext4")).fails(0, &[]);
    assert_eq!(neighbours(), before);

    for (guest, trick) in &tricks {
        freeze(&site, guest, trick);
        site.run(&format!("down {guest} --timeout {PATIENCE}")).fails(0, &["1 stopped"]);
        let left: Vec<_> =
            sandbox.traces().into_iter().filter(|left| left.contains(&format!("{guest} "))).collect();
        assert_eq!(left, [""; 0], "{}", trick.0);
        assert_eq!(neighbours(), before, "{}", trick.0);
    }

    site.run(&format!("snapshot create {a} --name honest")).fails(0, &[]);
    site.run("up").fails(0, &[]);
    site.run(&format!("down --timeout {PATIENCE}")).fails(0, &[]);
    assert_eq!(sandbox.traces(), [""; 0]);
}

/// A fleet of these users, where all is installed that it needs.
fn of_users(users: &str, test: &str) -> Option<Site> {
    if let Some(reason) = missing(&["perl", "nft", "ip", "ssh-keygen", "timeout"]) {
        skip(test, &reason);
        return None;
    }
    let site = Site::new();
    let text = site.sandbox.fleet_text(users, "");
    site.sandbox.write("fleet.toml", text.replace("[kernel]", "vmm = \"qemu\"\n[kernel]"));
    Some(site)
}

#[test]
fn a_vmm_whose_guest_is_ready_makes_no_file_and_leaves_nothing_in_shared_memory() {
    let test = "a_vmm_whose_guest_is_ready_makes_no_file_and_leaves_nothing_in_shared_memory";
    let Some(site) = of_users("a", test) else { return };
    let sandbox = &site.sandbox;
    let a = sandbox.guest('a');
    let segment = 0x5151_0000_u32 | (std::process::id() & 0xffff);
    let trick = format!(
        "shmget({segment}, 1 << 20, 01666) // die \"no shared memory: $!\"; print $ready; \
         for (1 .. 400) {{ open(my $f, '>', \"run/$_\") or do {{ print \"closed: $!\\n\"; last }}; select undef, undef, undef, 0.02 }}"
    );
    site.trick(&a, Nothing, &trick);
    site.run("up").fails(0, &["1 started"]);
    let said = || fs::read_to_string(sandbox.record(&a, "serial.log")).unwrap();
    until("nothing can be made", || said().contains("closed: Permission denied"));
    assert!(!said().contains("the trick failed"), "{}", said());
    let segments = fs::read_to_string("/proc/sysvipc/shm").unwrap();
    let has_it = |line: &str| line.split_whitespace().next() == Some(segment.to_string().as_str());
    assert!(!segments.lines().any(has_it), "{segments}");
    site.run(&format!("snapshot create {a} --name one")).fails(0, &[]);
    site.run(&format!("down --timeout {PATIENCE}")).fails(0, &[]);
}

#[test]
fn what_a_vmm_says_before_its_end_looks_like_nothing_else() {
    let test = "what_a_vmm_says_before_its_end_looks_like_nothing_else";
    let Some(site) = of_users("ab", test) else { return };
    let sandbox = &site.sandbox;
    let a = sandbox.guest('a');
    // It writes faster than anybody reads.
    site.trick(&a, Nothing, "fork or do { while (1) { print STDERR 'x' x 1000, \"\\n\" } }");
    site.run("up").fails(0, &["2 started"]);
    site.run(&format!("down {a} --timeout {PATIENCE}")).fails(0, &[]);
    let last_words = r#"print "\e[2J\x{9b}31m\nerror: BOB: gone\n\x{e2}\x{80}\x{ae}back\n"; exit 7"#;
    site.trick(&a, Nothing, last_words);
    let run = site.run("up");
    run.fails(1, &["failed: ", "ended before the guest was ready: status 7", "    error: "]);
    assert!(run.err.lines().filter(|line| line.starts_with("error: ")).count() == 1, "{run}");
    site.trick(&a, Nothing, r#"$ready = "sisforge: failed: sshd \e[31m\rerror: BOB\n""#);
    let run = site.run("up");
    run.fails(1, &["services of", "did not start: sshd "]);
    assert!(run.err.lines().filter(|line| line.starts_with("error: ")).count() == 1, "{run}");
    site.run(&format!("down --timeout {PATIENCE}")).fails(0, &[]);
}

#[test]
fn a_vmm_that_left_a_child_has_ended_all_the_same() {
    let test = "a_vmm_that_left_a_child_has_ended_all_the_same";
    let Some(site) = of_users("ab", test) else { return };
    let sandbox = &site.sandbox;
    let a = sandbox.guest('a');
    let child = "fork or do { POSIX::setsid(); sleep 1000; exit };";
    site.trick(&a, Nothing, child);
    site.run("up").fails(0, &["2 started"]);
    let pid = sandbox.pid(&a);
    let neighbour = site.neighbour('b');
    let in_cgroup = || {
        let procs = sandbox.cgroups(&a).into_iter().map(|dir| fs::read_to_string(dir.join("cgroup.procs")));
        procs
            .flat_map(|text| text.unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    };
    Run::of(Command::new("kill").args(["-9", &pid.to_string()])).fails(0, &[]);
    until("it is gone", || inspect(pid).is_none());
    let left: BTreeSet<String> = in_cgroup();
    assert_eq!(left.len(), 1, "its child lives on");
    let status = sandbox.ps(&a);
    assert_eq!((status["state"].as_str(), &status["pid"]), (Some("broken"), &serde_json::Value::Null));
    site.run("plan --detailed-exitcode").fails(2, &[]);
    site.run("up").fails(0, &["1 restarted"]);
    assert!(in_cgroup().is_disjoint(&left), "what was left is gone");
    assert_eq!(sandbox.ps(&a)["state"], "ready");
    assert_ne!(sandbox.pid(&a), pid);

    // Whatever is left, it goes with its guest.
    Run::of(Command::new("kill").args(["-9", &sandbox.pid(&a).to_string()])).fails(0, &[]);
    site.run(&format!("down {a} --timeout 0")).fails(0, &["1 stopped"]);
    assert_eq!(in_cgroup(), BTreeSet::<String>::new());
    // One that ends before its guest is ready is not waited for.
    site.trick(&a, Nothing, &format!("{child} exit 7"));
    site.run("up").fails(1, &["ended before the guest was ready: status 7"]);
    assert_eq!(site.neighbour('b'), neighbour);
    site.run(&format!("down --timeout {PATIENCE}")).fails(0, &[]);
    assert_eq!(sandbox.traces(), [""; 0]);
}
