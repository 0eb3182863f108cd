//! The host's own tools, used for real: as root, in namespaces of their own, so that nothing of the host is touched.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use sisforge::sys::cgroup::{self, Hierarchy, Limits};
use sisforge::sys::process::{self, Signal};
use sisforge::sys::qemu::{self, Qmp};
use sisforge::sys::ssh::{self, Io, SshError};
use sisforge::sys::tool::{self, Tool};
use sisforge::sys::{ip, launch, mount, nft};

/// Set in the copy of a test that runs inside its namespaces.
const INSIDE: &str = "SISFORGE_TEST_INSIDE";

/// Runs a test again in network and mount namespaces of its own; `true` in that copy, whose body is to be run.
fn inside_namespaces(test: &str, tools: &[&str]) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if let Some(reason) = missing(tools) {
        skip(test, &reason);
        return false;
    }
    let call = Tool::new("unshare").args(["--net", "--mount", "--propagation", "private", "--"]);
    let call =
        call.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    if let Err(error) = call.run() {
        panic!("{error}");
    }
    false
}

fn missing(tools: &[&str]) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    tools.iter().find(|name| tool::find(name).is_none()).map(|name| format!("{name} is not installed"))
}

/// Says aloud that a test was not run; fails where the machine is meant to have all that tests need.
fn skip(test: &str, reason: &str) {
    let required = std::env::var_os("SISFORGE_REQUIRE_ORACLES").is_some_and(|value| value == "1");
    assert!(!required, "{test} could not run: {reason}");
    eprintln!("skipped {test}: {reason}");
}

fn null() -> File {
    File::options().read(true).write(true).open("/dev/null").unwrap()
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Ends with its test, also where that fails.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        Self(Command::new("sleep").arg("60").spawn().unwrap())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 107, 0, 1);

#[test]
fn a_tap_is_made_repaired_and_removed() {
    if !inside_namespaces("sys::a_tap_is_made_repaired_and_removed", &["unshare", "ip"]) {
        return;
    }
    if !Path::new("/dev/net/tun").exists() {
        return skip("a_tap_is_made_repaired_and_removed", "/dev/net/tun is missing");
    }
    let wanted =
        ip::Tap { name: "sis-a".to_owned(), owner: Some(200_001), address: Some((ADDRESS, 30)), up: true };
    ip::create_tap("sis-a", 200_001, ADDRESS, 30).unwrap();
    assert_eq!(ip::taps().unwrap(), std::slice::from_ref(&wanted));
    assert!(ip::addresses().unwrap().contains(&(ADDRESS.into(), 30)));
    let rp_filter = ip::get_sysctl("net.ipv4.conf.sis-a.rp_filter").unwrap();
    assert_eq!(rp_filter.as_deref(), Some("1"));
    let no_ipv6 = ip::get_sysctl("net.ipv6.conf.sis-a.disable_ipv6").unwrap();
    assert!(no_ipv6.is_none_or(|value| value == "1"));

    // Right already: the very device stays.
    let index = || {
        let line = Tool::new("ip").args(["-o", "link", "show", "dev", "sis-a"]).text().unwrap();
        line.split(':').next().map(str::to_owned)
    };
    let before = index();
    ip::create_tap("sis-a", 200_001, ADDRESS, 30).unwrap();
    assert_eq!(index(), before);

    // Of another owner, of anyone, or with another address: made right.
    for args in ["sis-a mode tap user 200002", "sis-a mode tap", "sis-a mode tap user 200001 group 0"] {
        ip::delete_link("sis-a").unwrap();
        Tool::new("ip").args(["tuntap", "add", "dev"]).args(args.split(' ')).run().unwrap();
        ip::create_tap("sis-a", 200_001, ADDRESS, 30).unwrap();
        assert_eq!(ip::taps().unwrap(), std::slice::from_ref(&wanted), "{args}");
    }
    ip::create_tap("sis-a", 200_001, Ipv4Addr::new(10, 107, 0, 5), 30).unwrap();
    assert_eq!(ip::taps().unwrap()[0].address, Some((Ipv4Addr::new(10, 107, 0, 5), 30)));

    ip::delete_link("sis-a").unwrap();
    ip::delete_link("sis-a").unwrap();
    assert!(!ip::link_exists("sis-a").unwrap());
}

#[test]
fn a_link_of_another_kind_is_not_replaced() {
    if !inside_namespaces("sys::a_link_of_another_kind_is_not_replaced", &["unshare", "ip"]) {
        return;
    }
    let error = ip::create_tap("lo", 200_001, ADDRESS, 30).unwrap_err();
    assert_eq!(error.to_string(), "cannot make the TAP lo: a loopback link of that name is there already");
    Tool::new("ip").args(["tuntap", "add", "dev", "tun-a", "mode", "tun"]).run().unwrap();
    ip::create_tap("tun-a", 200_001, ADDRESS, 30).unwrap_err();
    assert!(ip::link_exists("tun-a").unwrap());
    assert_eq!(ip::taps().unwrap(), []);
}

#[test]
fn the_uplink_is_the_default_route_of_least_metric() {
    if !inside_namespaces("sys::the_uplink_is_the_default_route_of_least_metric", &["unshare", "ip"]) {
        return;
    }
    assert_eq!(ip::default_uplink().unwrap(), None);
    for (name, network, metric) in [("far", 1, "200"), ("near", 2, "100")] {
        ip::create_tap(name, 0, Ipv4Addr::new(10, 1, network, 1), 30).unwrap();
        let gateway = format!("10.1.{network}.2");
        let route = ["route", "add", "default", "via", &gateway, "dev", name, "metric", metric];
        Tool::new("ip").args(route).run().unwrap();
    }
    assert_eq!(ip::default_uplink().unwrap().as_deref(), Some("near"));
}

#[test]
fn a_sysctl_is_set_and_an_unknown_one_is_told_from_it() {
    if !inside_namespaces("sys::a_sysctl_is_set_and_an_unknown_one_is_told_from_it", &["unshare"]) {
        return;
    }
    ip::set_sysctl("net.ipv4.ip_forward", "0").unwrap();
    ip::set_sysctl("net.ipv4.ip_forward", "1").unwrap();
    assert_eq!(ip::get_sysctl("net.ipv4.ip_forward").unwrap().as_deref(), Some("1"));
    assert_eq!(ip::get_sysctl("net.ipv4.no_such_key").unwrap(), None);
    assert!(ip::set_sysctl("net.ipv4.no_such_key", "1").unwrap_err().to_string().contains("no_such_key"));
}

const RULESET: &str = "\
table inet sis-test
delete table inet sis-test
table inet sis-test {
    counter denied { packets 3 bytes 252; }
    chain forward {
        type filter hook forward priority filter; policy accept;
        counter name denied drop
    }
}
";

#[test]
fn a_ruleset_is_loaded_whole_or_not_at_all() {
    if !inside_namespaces("sys::a_ruleset_is_loaded_whole_or_not_at_all", &["unshare", "nft"]) {
        return;
    }
    assert_eq!(nft::list_table("inet", "sis-test").unwrap(), None);
    nft::check(RULESET).unwrap();
    assert_eq!(nft::tables().unwrap(), []);

    nft::load(RULESET).unwrap();
    nft::load(RULESET).unwrap();
    assert_eq!(nft::tables().unwrap(), [("inet".to_owned(), "sis-test".to_owned())]);
    let listed = nft::list_table("inet", "sis-test").unwrap().unwrap();
    assert!(listed.contains("counter name \"denied\" drop") && !listed.contains("252"), "{listed}");
    let denied = nft::counters("inet", "sis-test").unwrap()["denied"];
    assert_eq!(denied, nft::Counter { packets: 3, bytes: 252 });

    let error =
        nft::load("table inet other { }\ntable inet sis-test { chain forward { nonsense } }\n").unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("nonsense"), "{error}");
    assert_eq!(nft::tables().unwrap().len(), 1);
    nft::check("table inet x { chain y { nonsense } }").unwrap_err();

    nft::delete_table("inet", "sis-test").unwrap();
    nft::delete_table("inet", "sis-test").unwrap();
    assert_eq!(nft::counters("inet", "sis-test").unwrap().len(), 0);
}

#[test]
fn a_tmpfs_is_bounded_owned_and_removed() {
    if !inside_namespaces("sys::a_tmpfs_is_bounded_owned_and_removed", &["unshare"]) {
        return;
    }
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("a jail/disk");
    mount::tmpfs(&disk, 1 << 20, 200_001, 200_001, 0o700).unwrap();
    let meta = fs::metadata(&disk).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (200_001, 200_001, 0o700));
    fs::write(disk.join("kept"), "x").unwrap();
    mount::tmpfs(&disk, 1 << 20, 200_001, 200_001, 0o700).unwrap();
    assert_eq!(fs::read_to_string(disk.join("kept")).unwrap(), "x");
    let error = fs::write(disk.join("large"), vec![1; 2 << 20]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);

    mount::tmpfs(&disk.join("inner"), 1 << 16, 0, 0, 0o700).unwrap();
    assert_eq!(mount::mounts_below(dir.path()).unwrap(), [disk.join("inner"), disk.clone()]);
    let open = File::open(disk.join("inner")).unwrap();
    assert!(mount::unmount(&disk.join("inner")).unwrap_err().to_string().contains("still uses it"));
    drop(open);
    for place in mount::mounts_below(dir.path()).unwrap() {
        mount::unmount(&place).unwrap();
    }
    assert_eq!(mount::mounts_below(dir.path()).unwrap(), Vec::<PathBuf>::new());
    assert!(!disk.join("kept").exists());
}

/// A cgroup of this test alone, removed with it.
struct Group {
    hierarchy: Hierarchy,
    parent: String,
    path: String,
}

impl Group {
    fn create(test: &str) -> Option<Self> {
        if let Some(reason) = missing(&[]) {
            skip(test, &reason);
            return None;
        }
        let hierarchy = match cgroup::detect() {
            Ok(hierarchy) => hierarchy,
            Err(error) => {
                skip(test, &error.to_string());
                return None;
            }
        };
        let parent = format!("sisforge-test-{}-{test}", std::process::id());
        let path = format!("{parent}/alice");
        Some(Self { hierarchy, parent, path })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for path in [&self.path, &self.parent] {
            let _ = self.hierarchy.kill(path);
            let _ = self.hierarchy.remove(path);
        }
    }
}

const LIMITS: Limits = Limits { memory: 32 << 20, pids: 16, cpu_quota: Some((50_000, 100_000)) };

#[test]
fn a_cgroup_holds_the_limits_it_was_given() {
    let Some(group) = Group::create("limits") else { return };
    let Group { hierarchy, parent, path } = &group;
    assert_eq!(hierarchy.limits(path), None);
    hierarchy.create(path, &LIMITS).unwrap();
    assert_eq!(hierarchy.limits(path), Some(LIMITS));
    let other = Limits { memory: 64 << 20, pids: u64::MAX, cpu_quota: None };
    hierarchy.create(path, &other).unwrap();
    assert_eq!(hierarchy.limits(path), Some(other));
    let other = Limits { memory: u64::MAX, pids: 5, cpu_quota: Some((1_500_000, 1_000_000)) };
    hierarchy.create(path, &other).unwrap();
    assert_eq!(hierarchy.limits(path), Some(other));
    assert_eq!(hierarchy.children(parent).into_iter().collect::<Vec<_>>(), ["alice"]);
    hierarchy.remove(path).unwrap();
    hierarchy.remove(path).unwrap();
    hierarchy.remove(parent).unwrap();
    assert_eq!(hierarchy.limits(path), None);
}

#[test]
fn killing_a_cgroup_leaves_no_process_however_fast_they_fork() {
    let Some(group) = Group::create("kill") else { return };
    let Group { hierarchy, path, .. } = &group;
    hierarchy.create(path, &Limits { memory: 512 << 20, pids: 4000, cpu_quota: None }).unwrap();
    assert!(hierarchy.kill("sisforge-test-absent").is_ok());
    // Joins, then starts processes without end.
    let join: String =
        hierarchy.procs_files(path).iter().map(|file| format!("echo 0 > {} && ", file.display())).collect();
    let script = format!("{join} while :; do sleep 0.2 & done");
    let mut shell = Sleeper(Command::new("sh").args(["-c", &script]).stderr(null()).spawn().unwrap());
    eventually("processes join", || hierarchy.procs(path).len() > 20);
    assert!(hierarchy.memory_current(path).unwrap() > 0);
    assert!(hierarchy.procs(path).contains(&shell.0.id()));
    hierarchy.kill(path).unwrap();
    shell.0.wait().unwrap();
    assert!(hierarchy.procs(path).is_empty());
    hierarchy.remove(path).unwrap();
}

#[test]
fn a_cgroup_in_use_is_not_removed_by_mistake() {
    let Some(group) = Group::create("busy") else { return };
    let Group { hierarchy, parent, path } = &group;
    hierarchy.create(path, &LIMITS).unwrap();
    // Its children keep it, at once.
    let started = Instant::now();
    hierarchy.remove(parent).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(hierarchy.limits(path), Some(LIMITS));
}

#[test]
fn a_process_that_takes_too_much_memory_is_killed_and_counted() {
    let Some(group) = Group::create("oom") else { return };
    let Group { hierarchy, path, .. } = &group;
    hierarchy.create(path, &LIMITS).unwrap();
    let join: String =
        hierarchy.procs_files(path).iter().map(|file| format!("echo 0 > {} && ", file.display())).collect();
    let script = format!("{join} exec tail /dev/zero");
    let mut shell = Sleeper(Command::new("sh").args(["-c", &script]).stderr(null()).spawn().unwrap());
    assert!(!shell.0.wait().unwrap().success());
    assert_eq!(hierarchy.oom_kills(path), 1);
}

#[test]
fn a_launched_program_is_in_its_cgroup_and_gains_no_privileges() {
    const LAUNCHED: &str = "SISFORGE_TEST_LAUNCHED";
    if let Some(files) = std::env::var_os(LAUNCHED) {
        let files: Vec<PathBuf> = std::env::split_paths(&files).collect();
        panic!("{}", launch::exec_in_cgroup(&files, &["sleep".into(), "60".into()]));
    }
    let Some(group) = Group::create("launch") else { return };
    let Group { hierarchy, path, .. } = &group;
    hierarchy.create(path, &LIMITS).unwrap();
    let files = std::env::join_paths(hierarchy.procs_files(path)).unwrap();
    let own = std::env::current_exe().unwrap();
    let test = "sys::a_launched_program_is_in_its_cgroup_and_gains_no_privileges";
    let call = Tool::new(own).args(["--exact", test]).env(LAUNCHED, files);
    let pid = launch::spawn(&call, null(), null(), null()).unwrap();
    eventually("it becomes sleep", || {
        process::inspect(pid).is_some_and(|info| info.command == ["sleep", "60"])
    });
    assert_eq!(hierarchy.procs(path), [pid]);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    hierarchy.kill(path).unwrap();
    assert_eq!(process::inspect(pid), None);
}

#[test]
fn processes_in_a_jail_are_found_by_their_root() {
    let test = "sys::processes_in_a_jail_are_found_by_their_root";
    if !inside_namespaces(test, &["unshare", "pivot_root", "chroot"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let jails = dir.path().join("jails");
    let _outside = Sleeper::start();
    let mut inside = Vec::new();
    for (name, script) in [
        ("chrooted", "exec chroot . /sleep"),
        ("pivoted", "mount --bind . . && cd . && pivot_root . old && exec /sleep"),
    ] {
        let jail = jails.join(name);
        fs::create_dir_all(jail.join("old")).unwrap();
        static_sleep(&jail.join("sleep"));
        // `cd .` enters the new mount; the shell is still the host's until it becomes the program.
        let script = script.replace("cd .", &format!("cd {}", jail.display()));
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]).current_dir(&jail);
        let child = Sleeper(command.spawn().unwrap());
        let pid = child.0.id();
        eventually(name, || process::inspect(pid).is_some_and(|info| info.command == ["/sleep"]));
        assert_eq!(process::inspect(pid).unwrap().root, jail, "{name}");
        inside.push(child);
    }
    let mut pids: Vec<u32> = inside.iter().map(|child| child.0.id()).collect();
    pids.sort_unstable();
    assert_eq!(process::rooted_in(&jails), pids);
    assert_eq!(process::rooted_in(&jails.join("chrooted")), [inside[0].0.id()]);
    assert_eq!(process::rooted_in(&dir.path().join("jai")), Vec::<u32>::new());
    // A jail that was removed under its process is still told.
    fs::remove_dir_all(jails.join("chrooted")).unwrap();
    assert_eq!(process::rooted_in(&jails.join("chrooted")), [inside[0].0.id()]);
    let info = process::inspect(inside[1].0.id()).unwrap();
    assert!(process::terminate(info.pid, info.start_time, Signal::KILL).unwrap());
    assert!(process::wait_gone(info.pid, info.start_time, Duration::from_secs(5)));
}

/// An SSH server on port 22 of this namespace's loopback that lets root in with the key `dir/id`.
fn ssh_server(dir: &Path) -> Sleeper {
    Tool::new("ip").args(["link", "set", "dev", "lo", "up"]).run().unwrap();
    mount::tmpfs(Path::new("/run"), 1 << 20, 0, 0, 0o755).unwrap();
    fs::create_dir("/run/sshd").unwrap();
    // The server gives up its privileges to a user of this name, which not every machine has.
    let users = dir.join("passwd");
    let mut text = fs::read_to_string("/etc/passwd").unwrap();
    text.push_str("sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n");
    fs::write(&users, text).unwrap();
    Tool::new("mount").args(["--bind"]).arg(&users).arg("/etc/passwd").run().unwrap();
    ssh::keygen(&dir.join("host")).unwrap();
    ssh::keygen(&dir.join("id")).unwrap();
    fs::copy(dir.join("id.pub"), dir.join("authorized")).unwrap();
    let sshd = tool::find("sshd").unwrap();
    let options = [
        format!("HostKey={}", dir.join("host").display()),
        format!("AuthorizedKeysFile={}", dir.join("authorized").display()),
        "ListenAddress=127.0.0.1".to_owned(),
        "PermitRootLogin=yes".to_owned(),
        "StrictModes=no".to_owned(),
        "PidFile=none".to_owned(),
    ];
    let mut command = Command::new(sshd);
    command.args(["-D", "-e", "-f", "/dev/null"]).stderr(null());
    command.args(options.iter().flat_map(|option| ["-o", option]));
    let server = Sleeper(command.spawn().unwrap());
    eventually("the server listens", || std::net::TcpStream::connect(("127.0.0.1", 22)).is_ok());
    server
}

#[test]
fn a_command_over_ssh_keeps_its_words_its_output_and_its_status() {
    let test = "sys::a_command_over_ssh_keeps_its_words_its_output_and_its_status";
    if !inside_namespaces(test, &["unshare", "ip", "mount", "ssh", "ssh-keygen", "sshd"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let key = |name: &str| ssh::public_key(&dir.path().join(name)).unwrap();
    let server = ssh_server(dir.path());
    let target = ssh::Target {
        address: Ipv4Addr::LOCALHOST,
        user: "root".to_owned(),
        identity: dir.path().join("id"),
        host_key: format!("ssh-ed25519 {}", key("host")),
    };
    let run = |target: &ssh::Target, argv: &[&str]| {
        let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
        ssh::run(target, &argv, Io::Capture)
    };

    let finished = run(&target, &["printf", "%s|", "two words", "it's $HOME", "*", ""]).unwrap();
    assert_eq!((finished.code, finished.stdout), (0, b"two words|it's $HOME|*||".to_vec()));
    let finished = run(&target, &["sh", "-c", "echo no >&2; exit 3"]).unwrap();
    assert_eq!((finished.code, finished.stderr), (3, b"no\n".to_vec()));
    // The number that ssh itself uses, and a signal, are the command's all the same.
    assert_eq!(run(&target, &["sh", "-c", "exit 255"]).unwrap().code, 255);
    assert_eq!(run(&target, &["sh", "-c", "kill -9 $$"]).unwrap().code, 255);

    let wrong_host = ssh::Target { host_key: format!("ssh-ed25519 {}", key("id")), ..target.clone() };
    let error = run(&wrong_host, &["true"]).unwrap_err();
    assert!(error.to_string().contains("another machine has its address"), "{error}");
    let wrong_key = ssh::Target { identity: dir.path().join("host"), ..target.clone() };
    let error = run(&wrong_key, &["true"]).unwrap_err();
    assert!(error.to_string().contains("does not accept the key"), "{error}");

    // The session's own server process is the shell's parent.
    let error = run(&target, &["sh", "-c", "kill -9 $(ps -o ppid= -p $PPID) $PPID; sleep 60"]).unwrap_err();
    assert!(matches!(error, SshError::Lost { .. }), "{error}");
    drop(server);
    let error = run(&target, &["true"]).unwrap_err();
    assert!(error.to_string().contains("it may still be booting"), "{error}");
}

#[test]
fn a_running_qemu_obeys_and_ends() {
    let test = "a_running_qemu_obeys_and_ends";
    if tool::find(qemu::PROGRAM).is_none() {
        return skip(test, "qemu-system-x86_64 is not installed");
    }
    assert!(qemu::version().unwrap() >= (5, 0));
    let dir = tempfile::tempdir().unwrap();
    // Longer than an address of a Unix socket holds.
    let deep = dir.path().join("d".repeat(120));
    fs::create_dir(&deep).unwrap();
    let mut command = Command::new(qemu::PROGRAM);
    command.args(["-M", "none", "-S", "-display", "none", "-qmp", "unix:qmp,server=on,wait=off"]);
    let mut machine = Sleeper(command.current_dir(&deep).stdin(null()).spawn().unwrap());
    let socket = deep.join("qmp");
    eventually("QEMU listens", || socket.exists());
    let mut qmp = Qmp::connect(&socket).unwrap();
    assert_eq!(qmp.query_status().unwrap(), "prelaunch");
    qmp.execute("no-such-command", serde_json::json!({})).unwrap_err();
    let more = qmp.execute("query-version", serde_json::json!({})).unwrap();
    assert_eq!(more["qemu"]["major"], qemu::version().unwrap().0);
    // It serves one at a time: the second is not greeted.
    Qmp::connect_within(&socket, Duration::from_millis(200)).unwrap_err();
    qmp.quit().unwrap();
    assert!(machine.0.wait().unwrap().success());
}

/// A static program that sleeps, the smallest there is: an ELF file of one call of pause(2).
fn static_sleep(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mut elf = Vec::new();
    elf.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    elf.extend_from_slice(&[2, 0, 62, 0, 1, 0, 0, 0]);
    elf.extend_from_slice(&0x40_0078_u64.to_le_bytes());
    elf.extend_from_slice(&64_u64.to_le_bytes());
    elf.extend_from_slice(&[0; 12]);
    elf.extend_from_slice(&[64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    elf.extend_from_slice(&[1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [0_u64, 0x40_0000, 0x40_0000, 0x100, 0x100, 0x1000] {
        elf.extend_from_slice(&word.to_le_bytes());
    }
    // mov eax, 34 (pause); syscall; jmp back
    elf.extend_from_slice(&[0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7]);
    elf.resize(0x100, 0);
    fs::write(path, elf).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
