//! Peers of the outside, and how guests talk with them: name servers, a web by TLS and without, and servers that tell who asks.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use sisforge::sys::tool::Tool;

use super::world::{OUTSIDE, ip, serve, within};

/// A name server of the outside, and another.
pub const DNS: &str = "9.9.9.9";
pub const OTHER_DNS: &str = "149.112.112.112";
/// Names below it are answered after a while.
pub const SLOW: &str = "slow.test";
const SLOWNESS: Duration = Duration::from_millis(700);
/// Where all names lead that no test names.
const WEB: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 20);
const ADDRESSES: [&str; 6] = [DNS, OTHER_DNS, "8.8.8.8", "1.1.1.1", "198.51.100.20", "198.51.100.21"];

const PATIENCE: Duration = Duration::from_secs(10);
/// What must not come is waited for this long.
const SHORT: Duration = Duration::from_millis(400);

/// What a query is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Addresses(Vec<Ipv4Addr>),
    NoSuchName,
    Other(u8),
}

/// Server and name of each query.
type Asked = Arc<Mutex<Vec<(String, String)>>>;

/// The peers, until this is dropped.
#[must_use]
pub struct Peers {
    asked: Asked,
    tls: Vec<Child>,
}

impl Drop for Peers {
    fn drop(&mut self) {
        for server in &mut self.tls {
            let _ = server.kill().and_then(|()| server.wait());
        }
    }
}

impl Peers {
    pub fn forget(&self) {
        self.asked.lock().unwrap().clear();
    }

    pub fn names_asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(_, name)| name.clone()).collect()
    }

    pub fn servers_asked(&self) -> Vec<String> {
        let mut servers: Vec<_> =
            self.asked.lock().unwrap().iter().map(|(server, _)| server.clone()).collect();
        servers.sort();
        servers.dedup();
        servers
    }
}

/// Opens all of them. Every name exists, and leads to one address of the web unless it is named here.
pub fn open_peers(names: &[(String, Ipv4Addr)]) -> Peers {
    let asked = Asked::default();
    let names: Arc<BTreeMap<String, Ipv4Addr>> = Arc::new(names.iter().cloned().collect());
    for address in ADDRESSES {
        ip(&format!("-n {OUTSIDE} addr add {address}/32 dev lo"));
    }
    let tls = within(OUTSIDE, || {
        for server in [DNS, OTHER_DNS, "8.8.8.8"] {
            let answer = {
                let (names, asked) = (names.clone(), asked.clone());
                move |query: &[u8]| {
                    let (name, answer) = answer(query, &names);
                    asked.lock().unwrap().push((server.to_owned(), name));
                    answer
                }
            };
            name_server(server, answer);
        }
        for (at, port) in [("1.1.1.1", 443), ("198.51.100.20", 853), ("198.51.100.20", 8080)] {
            serve(at, port);
        }
        web_server();
        let socket = UdpSocket::bind("198.51.100.20:443").unwrap();
        thread::spawn(move || {
            while let Ok((_, peer)) = socket.recv_from(&mut [0; 64]) {
                let _ = socket.send_to(b"!", peer);
            }
        });
        tls_servers()
    });
    Peers { asked, tls }
}

fn name_server(at: &str, answer: impl Fn(&[u8]) -> Vec<u8> + Clone + Send + 'static) {
    let (socket, listener) = (UdpSocket::bind((at, 53)).unwrap(), TcpListener::bind((at, 53)).unwrap());
    let by_tcp = answer.clone();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let (query, answer, socket) =
                (buffer[..length].to_vec(), answer.clone(), socket.try_clone().unwrap());
            thread::spawn(move || {
                wait_for(&query);
                let _ = socket.send_to(&answer(&query), peer);
            });
        }
    });
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let answer = by_tcp.clone();
            thread::spawn(move || {
                while let Some(query) = read_message(&mut stream) {
                    wait_for(&query);
                    let _ = stream.write_all(&framed(&answer(&query)));
                }
            });
        }
    });
}

fn wait_for(query: &[u8]) {
    if question(query).0.ends_with(SLOW) {
        thread::sleep(SLOWNESS);
    }
}

/// A message over TCP (RFC 1035, 4.2.2).
fn read_message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).ok()?;
    Some(message)
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

/// The name of a message's question, and where that ends.
fn question(message: &[u8]) -> (String, usize) {
    let (mut at, mut labels) = (12, Vec::new());
    while message[at] != 0 {
        let end = at + 1 + usize::from(message[at]);
        labels.push(String::from_utf8_lossy(&message[at + 1..end]).to_lowercase());
        at = end;
    }
    (labels.join("."), at + 5)
}

fn answer(query: &[u8], names: &BTreeMap<String, Ipv4Addr>) -> (String, Vec<u8>) {
    let (name, end) = question(query);
    let is_address = query[end - 4..end] == [0, 1, 0, 1];
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
    answer.extend(&query[12..end]);
    if is_address {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(names.get(&name).copied().unwrap_or(WEB).octets());
    }
    (name, answer)
}

fn query_of(name: &str) -> Vec<u8> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len().try_into().unwrap());
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

fn understood(message: &[u8]) -> Answer {
    let (_, end) = question(message);
    match message[3] & 15 {
        0 => {
            let count = usize::from(message[7]);
            // All records are addresses of one name, which is told by a pointer.
            let octets =
                message[end..].chunks(16).take(count).map(|record| record[12..16].try_into().unwrap());
            Answer::Addresses(octets.map(|octets: [u8; 4]| octets.into()).collect())
        }
        3 => Answer::NoSuchName,
        code => Answer::Other(code),
    }
}

/// Asks a server for the address of a name; `None` where nobody answers.
pub fn query(from: &str, server: &str, name: &str) -> Option<Answer> {
    Asking::new(from, server).ask(name)
}

/// Who asks a server from one port.
pub struct Asking {
    socket: UdpSocket,
    server: String,
}

impl Asking {
    pub fn new(from: &str, server: &str) -> Self {
        let socket = within(from, || UdpSocket::bind("0.0.0.0:0")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, server: server.to_owned() }
    }

    pub fn ask(&self, name: &str) -> Option<Answer> {
        self.socket.send_to(&query_of(name), (self.server.as_str(), 53)).ok()?;
        let mut buffer = [0; 512];
        let (length, peer) = self.socket.recv_from(&mut buffer).ok()?;
        assert_eq!(peer.ip().to_string(), self.server, "the answer comes from who was asked");
        Some(understood(&buffer[..length]))
    }
}

/// The same by TCP.
pub fn query_tcp(from: &str, server: &str, name: &str) -> Option<Answer> {
    let to = SocketAddr::new(server.parse().unwrap(), 53);
    let mut stream = within(from, || TcpStream::connect_timeout(&to, PATIENCE)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&framed(&query_of(name))).ok()?;
    read_message(&mut stream).map(|message| understood(&message))
}

/// Sends bytes over a connection, and gives what is answered until it ends or nothing more comes.
pub fn say(from: &str, to: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = within(from, || TcpStream::connect_timeout(&to.parse().unwrap(), PATIENCE)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        answer.extend(&buffer[..length]);
        stream.set_read_timeout(Some(SHORT)).unwrap();
    }
    answer
}

/// The first message of TLS (RFC 8446, 4.1.2), in records of at most so many bytes, with these names and another extension.
pub fn client_hello(names: &[&str], record: usize, extension: Option<u16>) -> Vec<u8> {
    let long = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let entry = |name: &&str| [&[0][..], &long(name.as_bytes())].concat();
    let names: Vec<u8> = names.iter().flat_map(entry).collect();
    let extensions = [
        if names.is_empty() { Vec::new() } else { [&[0, 0][..], &long(&long(&names))].concat() },
        vec![0, 43, 0, 3, 2, 3, 4],
        extension.map(|kind| [&kind.to_be_bytes()[..], &long(&[0; 32])].concat()).unwrap_or_default(),
    ];
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0], &long(&extensions.concat())].concat();
    let message = [&[1, 0][..], &long(&body)].concat();
    message.chunks(record).flat_map(|part| [&[22, 3, 1][..], &long(part)].concat()).collect()
}

/// So many connections that a guest opens to a port and leaves idle; how many came about, and they themselves.
pub fn idle_connections(from: &str, to: &str, count: usize) -> Vec<TcpStream> {
    let to = to.parse().unwrap();
    let connect = |_| within(from, || TcpStream::connect_timeout(&to, SHORT)).ok();
    (0..count).filter_map(connect).collect()
}

/// Sends queries as fast as it can; how many are answered.
pub fn flood(from: &str, server: &str, name: &str, count: usize) -> usize {
    let socket = within(from, || UdpSocket::bind("0.0.0.0:0")).unwrap();
    socket.set_read_timeout(Some(SHORT)).unwrap();
    for _ in 0..count {
        let _ = socket.send_to(&query_of(name), (server, 53));
    }
    let mut answered = 0;
    while socket.recv_from(&mut [0; 512]).is_ok() {
        answered += 1;
    }
    answered
}

/// Whether a datagram is answered.
pub fn echo_udp(from: &str, to: &str) -> bool {
    let socket = within(from, || UdpSocket::bind("0.0.0.0:0")).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(SHORT)).unwrap();
    socket.send(b"?").is_ok() && socket.recv(&mut [0; 8]).is_ok()
}

/// Answers each request of a connection with 200.
fn web_server() {
    for at in ["198.51.100.20:80", "198.51.100.21:80"] {
        let listener = TcpListener::bind(at).unwrap();
        thread::spawn(move || {
            while let Ok((stream, peer)) = listener.accept() {
                thread::spawn(move || serve_web(stream, peer));
            }
        });
    }
}

fn serve_web(mut stream: TcpStream, peer: SocketAddr) -> Option<()> {
    // Whoever only listens is told as by other servers.
    stream.set_read_timeout(Some(SHORT)).ok()?;
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    loop {
        match lines.next() {
            Some(Ok(line)) if line.is_empty() => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").ok()?;
            }
            Some(Ok(_)) => {}
            Some(Err(_)) => return writeln!(stream, "{peer}").ok(),
            None => return None,
        }
    }
}

/// Sends requests over one connection; the status of each answer.
pub fn http(from: &str, to: &str, requests: &str) -> Vec<u16> {
    let to = SocketAddr::new(to.parse().unwrap(), 80);
    let mut stream = within(from, || TcpStream::connect_timeout(&to, PATIENCE)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(requests.as_bytes()).unwrap();
    let statuses = |text: &str| -> Vec<u16> {
        text.lines().filter_map(|line| line.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()).collect()
    };
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while statuses(&text).len() < requests.matches(" HTTP/").count() {
        let Ok(length @ 1..) = stream.read(&mut buffer) else { break };
        text += std::str::from_utf8(&buffer[..length]).unwrap();
    }
    statuses(&text)
}

fn tls_servers() -> Vec<Child> {
    let dir = std::env::temp_dir().join(format!("names-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (key, cert) = (dir.join("key"), dir.join("cert"));
    Tool::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-subj", "/CN=peer", "-days", "2", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .run()
        .unwrap();
    let servers = ["198.51.100.20", "198.51.100.21"].map(|address| {
        let mut server = Command::new("openssl");
        server.args(["s_server", "-quiet", "-www", "-accept", &format!("{address}:443"), "-key"]);
        server.arg(&key).arg("-cert").arg(&cert);
        let null = || Stdio::from(File::options().read(true).write(true).open("/dev/null").unwrap());
        let server = server.stdin(null()).stdout(null()).stderr(null()).spawn().unwrap();
        let at = SocketAddr::new(address.parse().unwrap(), 443);
        while TcpStream::connect_timeout(&at, PATIENCE).is_err() {
            thread::sleep(Duration::from_millis(20));
        }
        server
    });
    std::fs::remove_dir_all(&dir).unwrap();
    servers.into()
}

/// Whether a TLS session comes about with whoever says that it has this name.
pub fn tls(from: &str, to: &str, name: Option<&str>) -> bool {
    let client = Tool::new("timeout").args(["10", "openssl", "s_client", "-brief", "-connect"]);
    let client = client.arg(format!("{to}:443"));
    let client = match name {
        Some(name) => client.args(["-servername", name]),
        None => client.arg("-noservername"),
    };
    within(from, || client.output().unwrap().status.success())
}
