//! What is told of a guest's packets, and what becomes of its connections when it is cut off.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use sisforge::sys::conntrack;

use crate::common::sandbox::{Sandbox, until};
use crate::needs_firecracker;

use super::world::{OUTSIDE, SERVER, UPLINK_ADDRESS, attach, in_a_world, ip, nft, reaches, within};

/// A command that goes on, and what it prints.
struct Following {
    child: Child,
    lines: Receiver<Value>,
}

impl Following {
    fn of(sandbox: &Sandbox, args: &str) -> Self {
        let mut command = sandbox.command();
        let command = command.args(args.split(' ')).args(["--json", "-q"]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        Self { child, lines }
    }

    /// What is told while something is done again and again, first of all that is asked for.
    fn told(&self, mut work: impl FnMut(), wanted: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..50 {
            work();
            while let Ok(line) = self.lines.recv_timeout(Duration::from_millis(200)) {
                if wanted(&line) {
                    return line;
                }
            }
        }
        panic!("nothing was told");
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn knock(from: &str, to: &str) {
    reaches(from, to);
}

fn denying(users: &str) -> Sandbox {
    let sandbox = super::open_fleet(users);
    let deny = "deny = [{ to = [\"198.51.100.10\"], tcp = [25] }]\ndefault = \"allow\"";
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("default = \"allow\"", deny));
    sandbox
}

#[test]
fn what_is_dropped_is_told_with_the_line_that_says_so() {
    if !in_a_world("flows::what_is_dropped_is_told_with_the_line_that_says_so") {
        return;
    }
    needs_firecracker!();
    let sandbox = denying("ab");
    let [a, b] = ['a', 'b'].map(|letter| sandbox.guest(letter));
    sandbox.run(&format!("policy log {a} -f")).fails(1, &["is not running"]);
    sandbox.done("up");
    sandbox.run("policy log nobody").fails(2, &["there is no guest"]);
    for letter in ['a', 'b'] {
        attach(&sandbox, letter);
    }
    let log = Following::of(&sandbox, &format!("policy log {a} -f"));
    let refused = log.told(
        || {
            reaches("b", &format!("{SERVER}:25"));
            reaches("a", &format!("{SERVER}:25"));
        },
        |_| true,
    );
    let text = sandbox.read("fleet.toml");
    let line = text.lines().position(|line| line.starts_with("deny")).unwrap() + 1;
    assert_eq!(
        (&refused["verdict"], &refused["place"]["line"]),
        (&"refused".into(), &line.into()),
        "{refused}"
    );
    assert_eq!((&refused["to"], &refused["to_port"]), (&SERVER.into(), &25.into()), "{refused}");
    assert_eq!(refused["from"], sandbox.ps(&a)["ip"], "no neighbour's: {refused}");
    sandbox
        .run(&format!("policy log {b} -f"))
        .fails(1, &["another process reads the packet log of the fleet"]);
    let host = log.told(|| knock("a", &format!("{UPLINK_ADDRESS}:22")), |line| line["to_port"] == 22);
    assert_eq!(host["verdict"], "refused", "{host}");
    // With the host's own rules gone, somebody outside comes this far.
    nft("flush ruleset");
    let guest = sandbox.ps(&a)["ip"].as_str().unwrap().to_owned();
    let unasked = log.told(|| knock(OUTSIDE, &format!("{guest}:22")), |line| line["to"] == guest);
    assert_eq!(unasked["why"], "the guest did not ask for it, and publishes nothing there");
    // Of a flood, so much is told that others are told too.
    drop(log);
    let log = Following::of(&sandbox, &format!("policy log {a} -f -n 1"));
    within("a", || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        (0..5000).for_each(|_| drop(socket.send_to(b"?", "169.254.169.254:80")));
    });
    let first = log.told(|| knock("a", &format!("{SERVER}:25")), |_| true);
    assert_eq!(first["guest"], a);
    sandbox.run(&format!("quarantine {a}")).fails(0, &[]);
    let log = Following::of(&sandbox, &format!("policy log {a} -f"));
    let cut =
        log.told(|| knock("a", &format!("{SERVER}:80")), |line| line["why"] == "the guest is quarantined");
    assert_eq!(cut["to_port"], 80);
}

#[test]
fn connections_are_told_with_their_bytes() {
    if !in_a_world("flows::connections_are_told_with_their_bytes") {
        return;
    }
    needs_firecracker!();
    let sandbox = super::open_fleet("ab");
    sandbox.done("up");
    let a = sandbox.guest('a');
    for letter in ['a', 'b'] {
        attach(&sandbox, letter);
    }
    let flows = Following::of(&sandbox, &format!("policy flows {a} --follow"));
    let web = || {
        reaches("b", &format!("{SERVER}:80"));
        reaches("a", &format!("{SERVER}:80"));
    };
    let began = flows.told(web, |line| line["state"] == "began");
    assert_eq!(
        (&began["to"], &began["to_port"], &began["from"]),
        (&SERVER.into(), &80.into(), &sandbox.ps(&a)["ip"])
    );
    let open = sandbox.run(&format!("policy flows {a} --json"));
    let open: Vec<Value> = open.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let one = open.iter().find(|flow| flow["to_port"] == 80).expect("it is remembered");
    assert!(one["sent"].as_u64() > Some(100) && one["answered"].as_u64() > Some(100), "{one}");
    assert_eq!(one["state"], "open");
    // What ends is told too: a connection that is forgotten.
    let netns = sandbox.netns();
    let address: Ipv4Addr = began["from"].as_str().unwrap().parse().unwrap();
    within(&netns, || conntrack::end_of(address)).unwrap();
    let ended = flows.told(|| {}, |line| line["state"] == "ended");
    assert!(ended["sent"].as_u64() > Some(100), "{ended}");
}

#[test]
fn what_is_open_ends_with_a_quarantine_which_outlives_the_hosts_tables() {
    if !in_a_world("flows::what_is_open_ends_with_a_quarantine_which_outlives_the_hosts_tables") {
        return;
    }
    needs_firecracker!();
    let sandbox = super::open_fleet("ab");
    sandbox.done("up");
    let [a, b] = ['a', 'b'].map(|letter| sandbox.guest(letter));
    for letter in ['a', 'b'] {
        attach(&sandbox, letter);
    }
    let to = format!("{SERVER}:80").parse().unwrap();
    let connect = |from| within(from, || TcpStream::connect_timeout(&to, Duration::from_secs(5))).unwrap();
    let _open = [connect("a"), connect("b")];
    let netns = sandbox.netns();
    let of = |guest: &str| {
        let address: Ipv4Addr = sandbox.ps(guest)["ip"].as_str().unwrap().parse().unwrap();
        within(&netns, || conntrack::list(|found| found.from == address)).unwrap().len()
    };
    assert!(of(&a) > 0);
    sandbox.done(&format!("quarantine {a}"));
    assert_eq!(of(&a), 0);
    assert!(of(&b) > 0, "its neighbour's stay");

    // As after a reboot: processes, namespace and tables are gone, and the store is there.
    for guest in [&a, &b] {
        let pid = rustix::process::Pid::from_raw(sandbox.pid(guest) as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        until("the VMM is gone", || {
            !std::path::Path::new(&format!("/proc/{}", pid.as_raw_nonzero())).exists()
        });
    }
    ip(&format!("netns delete {netns}"));
    for letter in ["a", "b"] {
        ip(&format!("netns delete {letter}"));
    }
    nft("flush ruleset");
    sandbox.done("up");
    assert!(sandbox.ps(&a)["quarantined"].is_string());
    for letter in ['a', 'b'] {
        attach(&sandbox, letter);
    }
    assert!(!reaches("a", &format!("{SERVER}:80")) && reaches("b", &format!("{SERVER}:80")));
    sandbox.done(&format!("release {a}"));
    assert!(reaches("a", &format!("{SERVER}:80")));

    // What somebody was killed over is done by the next command, whomever that is about.
    assert!(of(&b) > 0);
    let ending = std::path::PathBuf::from(format!("/run/sisforge/{}.ending", sandbox.name));
    std::fs::write(&ending, format!("{}\n", sandbox.ps(&b)["ip"].as_str().unwrap())).unwrap();
    sandbox.done(&format!("down {a} --timeout 0"));
    assert_eq!((of(&b), ending.exists()), (0, false));
}
