//! What is spoken to over a socket: an SSH server, a running QEMU.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sisforge::base::ByteSize;
use sisforge::run::copy;
use sisforge::sys::mount;
use sisforge::sys::qemu::{self, Qmp};
use sisforge::sys::ssh::{self, Io, SshError};
use sisforge::sys::tool::{self, Tool};

use super::{Sleeper, eventually, inside_namespaces, null, skip};

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
    for name in ["host", "id"] {
        ssh::keygen(&dir.join(name), &dir.join("new")).unwrap();
    }
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

/// That server.
fn target(dir: &Path) -> ssh::Target {
    ssh::Target {
        address: Ipv4Addr::LOCALHOST,
        user: "root".to_owned(),
        identity: dir.join("id"),
        host_key: format!("ssh-ed25519 {}", ssh::public_key(&dir.join("host")).unwrap()),
        netns: None,
        machine: None,
    }
}

#[test]
fn a_command_over_ssh_keeps_its_words_its_output_and_its_status() {
    let test = "sys::remote::a_command_over_ssh_keeps_its_words_its_output_and_its_status";
    if !inside_namespaces(test, &["unshare", "ip", "mount", "ssh", "ssh-keygen", "sshd"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let key = |name: &str| ssh::public_key(&dir.path().join(name)).unwrap();
    let server = ssh_server(dir.path());
    let target = target(dir.path());
    let run = |target: &ssh::Target, argv: &[&str]| {
        let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
        ssh::run(target, &argv, Io::Capture)
    };

    let finished = run(&target, &["printf", "%s|", "two words", "it's $HOME", "*", ""]).unwrap();
    assert_eq!((finished.code, finished.stdout), (0, b"two words|it's $HOME|*||".to_vec()));
    let finished = run(&target, &["sh", "-c", "echo no >&2; exit 3"]).unwrap();
    assert_eq!((finished.code, finished.stderr), (3, b"no\n".to_vec()));
    // As `ssh` itself does it: a line for the other side's shell, whatever it ends with.
    for (line, said) in [("cd /; pwd", "/\n"), ("echo a # b", "a\n"), ("true & echo c &", "c\n")] {
        let finished = ssh::run_line(&target, line, Io::Capture).unwrap();
        assert_eq!((finished.code, String::from_utf8_lossy(&finished.stdout).as_ref()), (0, said), "{line}");
    }
    // Streams go through whole, in both directions at once.
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at >> 3) as u8).collect();
    fs::write(dir.path().join("sent"), &bytes).unwrap();
    let stdin = fs::File::open(dir.path().join("sent")).unwrap().into();
    let stdout = fs::File::create(dir.path().join("came")).unwrap().into();
    let finished = ssh::run(&target, &["cat".to_owned()], Io::Streams { stdin, stdout }).unwrap();
    assert_eq!((finished.code, fs::read(dir.path().join("came")).unwrap() == bytes), (0, true));
    // The number that ssh itself uses, and a signal, are the command's all the same.
    assert_eq!(run(&target, &["sh", "-c", "exit 255"]).unwrap().code, 255);
    assert_eq!(run(&target, &["sh", "-c", "kill -9 $$"]).unwrap().code, 128 + 9);

    let wrong_host = ssh::Target { host_key: format!("ssh-ed25519 {}", key("id")), ..target.clone() };
    let error = run(&wrong_host, &["true"]).unwrap_err();
    assert!(error.to_string().contains("another machine has its address"), "{error}");
    let wrong_key = ssh::Target { identity: dir.path().join("host"), ..target.clone() };
    let error = run(&wrong_key, &["true"]).unwrap_err();
    assert!(error.to_string().contains("does not accept the key"), "{error}");

    // Above the command is the user's shell, and above that the session's own server process, and the one that began it.
    let parent = "parent() { echo $(ps -o ppid= -p $1); }; server=$(parent $PPID)";
    let kill = format!("{parent}; kill -9 $(parent $server) $server; sleep 60");
    let error = run(&target, &["sh", "-c", &kill]).unwrap_err();
    assert!(matches!(error, SshError::Lost { .. }), "{error}");
    drop(server);
    let error = run(&target, &["true"]).unwrap_err();
    assert!(error.to_string().contains("it may still be booting"), "{error}");
}

#[test]
fn files_and_directories_go_into_a_machine_and_out_of_it() {
    let test = "sys::remote::files_and_directories_go_into_a_machine_and_out_of_it";
    if !inside_namespaces(test, &["unshare", "ip", "mount", "ssh", "ssh-keygen", "sshd", "tar"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = ssh_server(dir.path());
    let there = target(dir.path());
    let here = |name: &str| dir.path().join(name);
    let remote = |name: &str| here("machine").join(name).to_str().unwrap().to_owned();
    fs::create_dir_all(here("machine")).unwrap();
    fs::create_dir_all(here("own/below")).unwrap();
    fs::write(here("own/below/one"), "1").unwrap();
    fs::write(here("own/two"), vec![2; 300_000]).unwrap();
    let most = ByteSize::from_mib(1);
    let from = |name: &str, to: &Path, most| copy::from_guest(&there, &remote(name), to, most);

    // Below a directory that is there; else under the name that was given.
    copy::to_guest(&here("own"), &there, &remote("")).unwrap();
    copy::to_guest(&here("own"), &there, &remote("renamed")).unwrap();
    copy::to_guest(&here("own/two"), &there, &remote("renamed/2")).unwrap();
    assert_eq!(fs::read(here("machine/own/below/one")).unwrap(), b"1");
    assert_eq!(fs::read(here("machine/renamed/2")).unwrap(), vec![2; 300_000]);
    fs::create_dir(here("back")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", here("machine/own/link")).unwrap();
    let done = from("own", &here("back"), most).unwrap();
    assert_eq!((done.files, done.bytes, done.left_out), (2, 300_001, vec!["./own/link".to_owned()]));
    assert_eq!(fs::read(here("back/own/below/one")).unwrap(), b"1");
    from("own/two", &here("as-this"), most).unwrap();
    assert_eq!(fs::read(here("as-this")).unwrap(), vec![2; 300_000]);

    // What fails says why, and an endless file ends.
    let error = from("absent", &here("back"), most).unwrap_err().to_string();
    assert_eq!(error, format!("the guest has no file or directory {:?}", remote("absent")));
    let error = copy::to_guest(&here("own"), &there, &remote("no/such/place")).unwrap_err().to_string();
    assert!(error.contains("such"), "{error}");
    let error = copy::to_guest(&here("absent"), &there, &remote("")).unwrap_err().to_string();
    assert!(error.contains("cannot read"), "{error}");
    let error = from("own", &here("no/such/place"), most).unwrap_err().to_string();
    assert!(error.contains("such"), "{error}");
    fs::File::create(here("machine/endless")).unwrap().set_len(8 << 40).unwrap();
    let error = from("endless", &here("back"), most).unwrap_err().to_string();
    assert!(error.contains("more than 1048576 bytes"), "{error}");
    drop(server);
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
    // The socket is there a moment before QEMU listens on it.
    let mut connected = None;
    eventually("QEMU listens", || {
        connected = Qmp::connect(&socket).ok();
        connected.is_some()
    });
    let mut qmp = connected.unwrap();
    assert_eq!(qmp.query_status().unwrap(), "prelaunch");
    qmp.execute("no-such-command", serde_json::json!({})).unwrap_err();
    let more = qmp.execute("query-version", serde_json::json!({})).unwrap();
    assert_eq!(more["qemu"]["major"], qemu::version().unwrap().0);
    // It serves one at a time: the second is not greeted.
    Qmp::connect_within(&socket, Duration::from_millis(200)).unwrap_err();
    // That it hangs up is its answer.
    assert!(matches!(qmp.execute("quit", serde_json::json!({})), Ok(_) | Err(qemu::QmpError::Closed { .. })));
    assert!(machine.0.wait().unwrap().success());
}
