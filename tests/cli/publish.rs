//! Ports of the host that lead to guests: what fleet.toml may say, what fleet.lock keeps, and what proxies are told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process;

use crate::common::namespaces::inside_namespaces;
use crate::common::sandbox::{Run, Sandbox};
use crate::needs_firecracker;

const SCREEN: &str = "publish = [{ name = \"screen\", guest = 6080, host = \"20000-20003\", from = [\"10.1.0.0/16\", \"10.1.2.0/24\"] }]";

fn publishing(letters: &str, publish: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    let text = sandbox.fleet_text(letters, "");
    sandbox
        .write("fleet.toml", text.replace("default = \"deny\"", &format!("default = \"deny\"\n{publish}")));
    sandbox
}

/// The port that fleet.lock gives to a guest's screen.
fn port(sandbox: &Sandbox, letter: char) -> i64 {
    let lock: toml::Table = sandbox.read("fleet.lock").parse().unwrap();
    lock["guest"][&sandbox.guest(letter)]["ports"]["screen"].as_integer().unwrap()
}

#[test]
fn each_guest_has_its_port_and_keeps_it() {
    let sandbox = publishing("bd", SCREEN);
    sandbox.done("lock");
    assert_eq!((port(&sandbox, 'b'), port(&sandbox, 'd')), (20_000, 20_001));
    let text = sandbox.read("fleet.toml");
    let [a, b] = ['a', 'b'].map(|letter| format!("[user.{}]\n", sandbox.guest(letter)));
    sandbox.write("fleet.toml", text.replace(&b, &a));
    sandbox.run("lock --locked").fails(2, &[]);
    sandbox.done("lock");
    assert_eq!((port(&sandbox, 'a'), port(&sandbox, 'd')), (20_000, 20_001));
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("20000-20003", "20001-20004"));
    let stale = sandbox.run("build image i --locked");
    stale.fails(2, &["the port 20000 for screen, but `publish` gives 20002"]);
    sandbox.done("lock");
    assert_eq!((port(&sandbox, 'a'), port(&sandbox, 'd')), (20_002, 20_001), "who can stays");
    let listed = sandbox.done("publish");
    assert!(listed.contains("20001/tcp  6080        10.1.0.0/16\n"), "{listed}");
}

#[test]
fn an_up_that_is_refused_leaves_the_lock_as_it_was() {
    needs_firecracker!();
    let sandbox = publishing("a", SCREEN);
    let taken = TcpListener::bind("0.0.0.0:20000").unwrap();
    let refused = sandbox.run("up");
    assert!(refused.code != 0 && refused.err.contains("20000"), "{refused}");
    assert!(!sandbox.path("fleet.lock").exists() && !sandbox.path("out").exists(), "nothing was changed");
    drop(taken);
    sandbox.done("up");
    assert!(sandbox.path("fleet.lock").exists());
}

#[test]
fn what_cannot_be_published_is_told_with_its_place() {
    for (publish, words) in [
        (SCREEN.replace("20000-20003", "20000-20001"), "2 ports for 3 guests with the network n"),
        (SCREEN.replace("[\"10.1.0.0/16\", \"10.1.2.0/24\"]", "[]"), "`from` names who may come in"),
        (SCREEN.replace("10.1.0.0/16", "2001:db8::/32"), "guests have no other"),
        (SCREEN.replace("guest = 6080", "guest = 0"), "from 1 to 65535"),
        (SCREEN.replace("20000-20003", "20003-20000"), "the range is empty"),
        (SCREEN.replace(", from = [\"10.1.0.0/16\", \"10.1.2.0/24\"]", ""), "`from`"),
        (
            SCREEN.replace("}]", "}, { name = \"screen\", guest = 1, host = 1, from = [\"10.0.0.0/8\"] }]"),
            "two ways in",
        ),
    ] {
        publishing("abc", &publish).run("check").fails(2, &[words, "fleet.toml"]);
    }
}

#[test]
fn proxies_take_what_is_printed() {
    let sandbox = publishing("ab", SCREEN);
    sandbox.run("publish").fails(2, &["there is no ", "fleet.lock"]);
    sandbox.done("lock");
    sandbox.run("publish --format nginx").fails(2, &["--domain"]);
    sandbox.run("publish --format nginx --domain a;b").fails(2, &["must be a domain"]);
    let name = format!("screen.{}.example.org", sandbox.guest('a'));
    for (format, program) in [("caddy", "caddy"), ("nginx", "nginx"), ("haproxy", "haproxy")] {
        let text = sandbox.done(&format!("publish --format {format} --domain example.org"));
        assert!(text.contains(&name) && text.contains(".2:6080") && text.contains("10.1.0.0/16"), "{text}");
        let elsewhere =
            sandbox.done(&format!("publish --format {format} --domain example.org --host 192.0.2.1"));
        assert!(elsewhere.contains("192.0.2.1:20000") && !elsewhere.contains(":6080"), "{elsewhere}");
        // To install one would start it, so none is asked for.
        let Some(program) = sisforge::sys::tool::find(program) else {
            eprintln!("SKIPPED: {program} is not installed");
            continue;
        };
        let check: &[&str] = match format {
            "caddy" => &["validate"],
            "nginx" => &["-t"],
            _ => &["-c"],
        };
        let run = Run::of(Command::new(program).args(check).args(arguments(&sandbox, format, &text)));
        assert_eq!(run.code, 0, "{format}: {run}\n{text}");
    }
}

/// Writes a configuration as its proxy takes it; gives the words that name it.
fn arguments(sandbox: &Sandbox, format: &str, text: &str) -> Vec<String> {
    // A user that comes with the package.
    let has_user = std::fs::read_to_string("/etc/passwd").unwrap().contains("haproxy:");
    let user = if has_user { "" } else { "\tuser haproxy\n\tgroup haproxy\n" };
    sandbox.write("proxy", text.replace(user, ""));
    let path = sandbox.path("proxy").display().to_string();
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = kinds.map(|kind| format!("{kind}_temp_path {path}.{kind};")).concat();
    let whole = format!(
        "error_log stderr;\ndaemon off;\npid {path}.pid;\nevents {{}}\nhttp {{ access_log off; {temporary} include {path}; }}\n"
    );
    sandbox.write("nginx.conf", whole);
    let words = match format {
        "caddy" => vec!["--adapter", "caddyfile", "--config", &path],
        "nginx" => vec!["-c"],
        _ => vec!["-f", &path],
    };
    let mut words: Vec<_> = words.into_iter().map(str::to_owned).collect();
    words.extend((format == "nginx").then(|| sandbox.path("nginx.conf").display().to_string()));
    words
}

/// A server that switches protocols for whoever asks, and then echoes, as a websocket does.
fn serve(address: (&str, u16)) {
    let listener = TcpListener::bind(address).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read_exact(&mut byte).is_err() {
                    break;
                }
                head.push(byte[0]);
            }
            let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
            // The answer to the key of RFC 6455, section 1.3, which is asked with.
            let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
            let _ = stream.write_all([answer, accept].concat().as_bytes());
            let mut buffer = [0; 64];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                let _ = stream.write_all(&buffer[..length]);
            }
        }
    });
}

/// What a proxy on this machine answers to who asks for a websocket of that name, and what then comes back.
fn ask(name: &str) -> Option<String> {
    let began = Instant::now();
    let mut stream = loop {
        match TcpStream::connect(("127.0.0.1", 80)) {
            Ok(stream) => break stream,
            Err(_) if began.elapsed() < Duration::from_secs(20) => thread::sleep(Duration::from_millis(50)),
            Err(error) => panic!("no proxy: {error}"),
        }
    };
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: {name}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut status = String::new();
    reader.read_line(&mut status).ok()?;
    if !status.contains(" 101 ") {
        return Some(status);
    }
    let mut line = String::new();
    while reader.read_line(&mut line).ok()? > 2 {
        line.clear();
    }
    stream.write_all(b"echo\n").unwrap();
    let mut echo = String::new();
    reader.read_line(&mut echo).ok()?;
    Some(status + &echo)
}

#[test]
fn proxies_lead_websockets_to_guests() {
    if !inside_namespaces("cli::publish::proxies_lead_websockets_to_guests", &["unshare", "ip"]) {
        return;
    }
    let ip = |words: &str| sisforge::sys::tool::Tool::new("ip").args(words.split(' ')).run().unwrap();
    ip("link set lo up");
    let screen = SCREEN.replace("10.1.0.0/16", "127.0.0.0/8");
    let sandbox = publishing("ab", &screen);
    sandbox.done("lock");
    let lock: toml::Table = sandbox.read("fleet.lock").parse().unwrap();
    let address = lock["guest"][&sandbox.guest('b')]["ip"].as_str().unwrap().to_owned();
    ip(&format!("addr add {address}/32 dev lo"));
    serve((&address, 6080));
    let name = format!("screen.{}.example.org", sandbox.guest('b'));
    for format in ["caddy", "nginx", "haproxy"] {
        let Some(program) = sisforge::sys::tool::find(format) else {
            eprintln!("SKIPPED: {format} is not installed");
            continue;
        };
        let text = sandbox.done(&format!("publish --format {format} --domain example.org"));
        // Certificates are nobody's here.
        let text = text.replace("\nscreen.", "\nhttp://screen.");
        let words: &[&str] = if format == "caddy" { &["run"] } else { &[] };
        let mut command = Command::new(program);
        let command = command.args(words).args(arguments(&sandbox, format, &text)).stderr(Stdio::null());
        let mut proxy = command.stdout(Stdio::null()).spawn().unwrap();
        let asked = ask(&name);
        let other = ask("screen.nobody.example.org").unwrap_or_default();
        let _ = process::kill_process(process::Pid::from_child(&proxy), process::Signal::TERM);
        proxy.wait().unwrap();
        assert!(asked.as_ref().is_some_and(|all| all.ends_with("echo\n")), "{format}: {asked:?}");
        assert!(!other.contains(" 101 "), "{format}: {other}");
    }
}

#[test]
fn ranges_that_overlap_suffice_where_they_can() {
    let narrow = "{ name = \"narrow\", guest = 1, host = \"20000-20001\", from = [\"10.0.0.0/8\"] }";
    let wide = "{ name = \"wide\", guest = 2, host = \"20000-20003\", from = [\"10.0.0.0/8\"] }";
    let sandbox = publishing("ab", &format!("publish = [{wide}, {narrow}]"));
    sandbox.done("lock");
    let listed = sandbox.done("publish");
    for port in 20_000..=20_003 {
        assert!(listed.contains(&format!("{port}/tcp")), "{listed}");
    }
    let sandbox = publishing("ab", &format!("publish = [{narrow}, {}]", narrow.replace("narrow", "more")));
    sandbox.run("lock").fails(2, &["no port of the host is left for", "widen `host` in `publish`"]);
    assert!(!sandbox.path("fleet.lock").exists());
}

#[test]
fn policies_tell_what_they_publish() {
    let sandbox = publishing("a", SCREEN);
    let a = sandbox.guest('a');
    let shown = sandbox.done("policy show");
    let words = "publish screen: 6080/tcp, by 20000-20003 of the host, from 10.1.0.0/16, 10.1.2.0/24";
    assert!(shown.contains(words), "{shown}");
    let explain = |question: &str| sandbox.run(&format!("policy explain {a} {question}"));
    let explained = explain("10.1.7.7");
    assert!(
        explained.out.contains(&format!("10.1.7.7 -> {a}: comes in by a port of the host, to 6080/tcp")),
        "{explained}"
    );
    sandbox.done("lock");
    assert!(explain("10.1.7.7").out.contains("comes in by port 20000 of the host"));
    assert!(!explain("10.2.7.7").out.contains("comes in"));
    let json = sandbox.document(&format!("policy explain {a} 10.1.7.7"), "policy-explain");
    assert_eq!(json["ways_in"][0]["host"]["first"], 20_000, "{json}");
}
