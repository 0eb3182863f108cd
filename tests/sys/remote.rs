//! What is spoken to over a socket: an SSH server, a running QEMU.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

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

#[test]
fn a_command_over_ssh_keeps_its_words_its_output_and_its_status() {
    let test = "sys::remote::a_command_over_ssh_keeps_its_words_its_output_and_its_status";
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
        netns: None,
        machine: None,
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
