//! How a repository is reached: by https with an authority of one's own, and through proxies.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::common::namespaces::skip;
use crate::common::sandbox::{Run, Sandbox};
use crate::common::server::Server;

/// Runs the program with variables set.
fn run(sandbox: &Sandbox, args: &str, variables: &[(&str, &str)]) -> Run {
    Run::of(sandbox.command().args(args.split(' ')).envs(variables.iter().copied()))
}

fn fleet_at(sandbox: &Sandbox, url: &str) {
    let text = sandbox.fleet_text("a", "").replace("url = \"repository\"", &format!("url = \"{url}\""));
    sandbox.write("fleet.toml", text);
}

/// A proxy that knows one host, `repository.invalid`, wherever it is said to be.
struct Proxy {
    url: String,
    /// The first line of each request.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                thread::spawn(move || pass_on(stream, port, &seen));
            }
        });
        Self { url, asked }
    }
}

fn pass_on(mut client: TcpStream, port: u16, seen: &Mutex<Vec<String>>) -> Option<()> {
    let mut lines = BufReader::new(client.try_clone().ok()?).lines();
    let first = lines.next()?.ok()?;
    lines.map_while(Result::ok).find(String::is_empty)?;
    let is_known = first.starts_with("CONNECT repository.invalid:");
    seen.lock().unwrap().push(first);
    if !is_known {
        return client.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").ok();
    }
    let mut server = TcpStream::connect(("127.0.0.1", port)).ok()?;
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").ok()?;
    let (mut from, mut to) = (client.try_clone().ok()?, server.try_clone().ok()?);
    thread::spawn(move || std::io::copy(&mut from, &mut to));
    std::io::copy(&mut server, &mut client).ok().map(drop)
}

#[test]
fn proxies_are_used_for_their_scheme_and_not_for_what_is_excepted() {
    let sandbox = Sandbox::new();
    let server = Server::of(&sandbox.path(""));
    let port = server.url("").rsplit(':').next().unwrap().trim_matches('/').parse().unwrap();
    let proxy = Proxy::to(port);
    fleet_at(&sandbox, "http://repository.invalid/repository");
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy"] {
        let before = proxy.asked.lock().unwrap().len();
        let _ = fs::remove_file(sandbox.path("fleet.lock"));
        run(&sandbox, "lock", &[(name, &proxy.url)]).fails(0, &[]);
        assert!(
            proxy.asked.lock().unwrap()[before..].contains(&"CONNECT repository.invalid:80 HTTP/1.1".into()),
            "{name}"
        );
    }
    // Of a server on this machine nothing can be asked without the proxy but that it is asked at all.
    fleet_at(&sandbox, &server.url("repository"));
    let before = proxy.asked.lock().unwrap().len();
    for variables in [
        &[("https_proxy", proxy.url.as_str())][..],
        &[("http_proxy", &proxy.url), ("no_proxy", "example.org, 127.0.0.1")],
        &[("ALL_PROXY", &proxy.url), ("NO_PROXY", "*")],
    ] {
        run(&sandbox, "lock --update", variables).fails(0, &[]);
    }
    assert_eq!(proxy.asked.lock().unwrap().len(), before, "a proxy was asked that was not to be");
    run(&sandbox, "lock --update", &[("http_proxy", "socks5://127.0.0.1:1")])
        .fails(2, &["\"socks5://127.0.0.1:1\" is not a proxy address such as http://proxy:3128", "help: "]);
}

/// Writes `server.pem` and `server.key` for an address, vouched for by `ca.pem`.
pub(super) fn certify(sandbox: &Sandbox, ip: &str) {
    let openssl = |args: &str| {
        let mut command = Command::new("openssl");
        Run::of(command.args(args.split(' ')).current_dir(sandbox.path(""))).fails(0, &[]);
    };
    let days = "-days 2 -newkey rsa:2048 -nodes";
    openssl(&format!("req -x509 {days} -subj /CN=an-authority -keyout ca.key -out ca.pem"));
    openssl("req -new -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr");
    sandbox.write("names", format!("subjectAltName=DNS:localhost,IP:{ip}\n"));
    openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out \
         server.pem",
    );
}

/// `openssl s_server`, which serves its directory over https.
struct HttpsServer {
    child: Child,
    url: String,
}

impl HttpsServer {
    fn of(sandbox: &Sandbox) -> Self {
        certify(sandbox, "127.0.0.1");
        let mut child = Command::new("openssl")
            .args("s_server -accept 127.0.0.1:0 -cert server.pem -key server.key -WWW".split(' '))
            .current_dir(sandbox.path(""))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let address = lines.find_map(|line| line.strip_prefix("ACCEPT ").map(str::to_owned)).unwrap();
        // It stops where nobody hears it.
        thread::spawn(move || lines.for_each(drop));
        Self { child, url: format!("https://{address}") }
    }
}

impl Drop for HttpsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_server_is_believed_by_the_authorities_that_are_trusted_alone() {
    if sisforge::sys::tool::find("openssl").is_none() {
        return skip("a_server_is_believed_by_the_authorities_that_are_trusted_alone", "openssl is missing");
    }
    let sandbox = Sandbox::new();
    let server = HttpsServer::of(&sandbox);
    fleet_at(&sandbox, &format!("{}/repository", server.url));
    sandbox
        .run("lock")
        .fails(1, &["cannot reach the server of https://127.0.0.1:", "because: ", "UnknownIssuer"]);
    let trusting = |file: &str| run(&sandbox, "lock", &[("SSL_CERT_FILE", file)]);
    trusting("gone.pem").fails(2, &["cannot read gone.pem", "No such file", "SSL_CERT_FILE"]);
    trusting("names").fails(2, &["cannot read names", "it contains no certificate"]);
    assert!(!sandbox.path("fleet.lock").exists());
    trusting("ca.pem").fails(0, &[]);
    assert!(sandbox.read("fleet.lock").contains(&server.url));
}
