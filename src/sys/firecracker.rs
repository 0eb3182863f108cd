//! Firecracker's API: HTTP/1.1 with JSON bodies over a unix socket
//! (`src/firecracker/swagger/firecracker.yaml` in its sources), one blocking connection per request.
//!
//! The process at the other end has a guest inside it and is not trusted: each request has a deadline
//! and each reply a bound on its size.

mod binary;
pub mod snapshot;
mod version;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::base::text::excerpt;
use crate::base::{Class, Diagnosis, Diagnostic};

use super::fs::io_diagnosis;
use super::socket::Socket;

pub use binary::{BinaryError, check_static};
pub use version::{FirecrackerVersion, UnknownVersion, installed, version_of};

/// Largest reply that is read, in bytes; the largest real one, `GET /vm/config`, is far below.
const REPLY_MAX: usize = 1 << 20;
/// Longest head of a reply; a real one has about hundred bytes.
const HEAD_MAX: usize = 16 << 10;

/// How long a request may take unless [`Api::with_timeout`] says otherwise. The API thread answers in
/// milliseconds, but waits up to 30 s for a vCPU to pause, and a snapshot takes as long as its disk does.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A request that was not answered, or not with yes.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Nobody listens there: Firecracker has not started or has ended.
    #[error("cannot reach Firecracker at {}", socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    /// The connection broke or the deadline passed.
    #[error("no answer from Firecracker at {} to {request}", socket.display())]
    NoAnswer { socket: PathBuf, request: String, source: io::Error },
    /// The answer is not one Firecracker gives.
    #[error("Firecracker at {} gave a malformed answer to {request}: {reason}", socket.display())]
    Malformed { socket: PathBuf, request: String, reason: String },
    /// Firecracker said no; `fault` is its `fault_message`.
    #[error("Firecracker refused {request} (status {status}): {fault}")]
    Refused { request: String, status: u16, fault: String },
}

impl Diagnostic for ApiError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Connect { source, .. } | Self::NoAnswer { source, .. } => {
                io_diagnosis(source).or_hint("`sisforge logs GUEST --vmm` shows what it said")
            }
            Self::Malformed { .. } | Self::Refused { .. } => {
                Class::Failed.hint("`sisforge logs GUEST --vmm` shows more of it")
            }
        }
    }
}

impl ApiError {
    /// Whether nobody listens on the socket: Firecracker has not come up yet, or is gone.
    pub fn is_absent(&self) -> bool {
        use io::ErrorKind::{ConnectionRefused, NotFound};
        matches!(self, Self::Connect { source, .. } if matches!(source.kind(), NotFound | ConnectionRefused))
    }
}

/// Whether a microVM runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum VmState {
    #[serde(rename = "Not started")]
    NotStarted,
    Running,
    Paused,
}

/// What a Firecracker process says of itself (`GET /`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct InstanceInfo {
    /// The `--id` it was started with.
    pub id: String,
    pub state: VmState,
    /// Such as `1.16.1`.
    pub vmm_version: String,
}

/// The API of one Firecracker process.
#[derive(Clone, Debug)]
pub struct Api {
    socket: Socket,
    timeout: Duration,
}

impl Api {
    /// The API at a socket, once somebody listens there. The path may be longer than a socket address.
    pub fn connect(socket: impl Into<Socket>) -> Result<Self, ApiError> {
        Self::connect_within(socket, TIMEOUT)
    }

    /// The same with another time limit, for connecting and for each request.
    pub fn connect_within(socket: impl Into<Socket>, timeout: Duration) -> Result<Self, ApiError> {
        let api = Self { socket: socket.into(), timeout };
        api.open(timeout)?;
        Ok(api)
    }

    /// The same with another limit on how long one request may take.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// What runs there, and in which state.
    pub fn instance_info(&self) -> Result<InstanceInfo, ApiError> {
        let value = self.get("/")?;
        serde_json::from_value(value).map_err(|error| self.malformed("GET /", &error.to_string()))
    }

    /// Presses Ctrl+Alt+Del on the guest's keyboard. A Linux guest with i8042 and atkbd drivers then
    /// reboots, which ends Firecracker with status 0; any other guest ignores it. It says nothing of
    /// success: wait for the process to end, and kill it if it does not. Firecracker has it on x86-64 only.
    pub fn send_ctrl_alt_del(&self) -> Result<(), ApiError> {
        self.put("/actions", &json!({ "action_type": "SendCtrlAltDel" }))
    }

    /// Stops the vCPUs. Until [`Api::resume`], the devices and the metrics stand still as well.
    pub fn pause(&self) -> Result<(), ApiError> {
        self.patch("/vm", &json!({ "state": "Paused" }))
    }

    /// Lets the vCPUs run again.
    pub fn resume(&self) -> Result<(), ApiError> {
        self.patch("/vm", &json!({ "state": "Resumed" }))
    }

    /// Reads a resource; `Null` where the answer has no body.
    pub fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.request("GET", path, None)
    }

    /// Sets a resource or starts an action.
    pub fn put(&self, path: &str, body: &Value) -> Result<(), ApiError> {
        self.request("PUT", path, Some(body)).map(drop)
    }

    /// Changes a part of a resource.
    pub fn patch(&self, path: &str, body: &Value) -> Result<(), ApiError> {
        self.request("PATCH", path, Some(body)).map(drop)
    }

    fn open(&self, limit: Duration) -> Result<UnixStream, ApiError> {
        let named = |source| ApiError::Connect { socket: self.socket.path().to_owned(), source };
        self.socket.connect(limit).map_err(named)
    }

    fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, ApiError> {
        let name = format!("{method} {path}");
        let deadline = Instant::now() + self.timeout;
        let mut stream = self.open(self.timeout)?;
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let answer = stream
            .set_write_timeout(Some(left))
            .and_then(|()| stream.write_all(&render(method, path, body)))
            .and_then(|()| read_reply(&mut stream, deadline));
        let reply = match answer {
            Ok(reply) => reply,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(self.malformed(&name, &error.to_string()));
            }
            Err(source) => {
                let socket = self.socket.path().to_owned();
                return Err(ApiError::NoAnswer { socket, request: name, source });
            }
        };
        let value = match reply.body.as_slice() {
            [] => Value::Null,
            bytes => {
                serde_json::from_slice(bytes).map_err(|error| self.malformed(&name, &error.to_string()))?
            }
        };
        if (200..300).contains(&reply.status) {
            return Ok(value);
        }
        let fault = excerpt(value["fault_message"].as_str().unwrap_or("no reason given"));
        Err(ApiError::Refused { request: name, status: reply.status, fault })
    }

    fn malformed(&self, request: &str, reason: &str) -> ApiError {
        ApiError::Malformed {
            socket: self.socket.path().to_owned(),
            request: request.to_owned(),
            reason: excerpt(reason),
        }
    }
}

fn render(method: &str, path: &str, body: Option<&Value>) -> Vec<u8> {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n");
    match body {
        None => format!("{head}\r\n"),
        Some(body) => {
            let body = body.to_string();
            let length = body.len();
            format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
        }
    }
    .into_bytes()
}

#[derive(Debug, PartialEq, Eq)]
struct Reply {
    status: u16,
    body: Vec<u8>,
}

/// Reads one reply. Errors of kind `InvalidData` mean that the bytes are no HTTP reply.
fn read_reply(stream: &mut UnixStream, deadline: Instant) -> io::Result<Reply> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(reply) = parse_reply(&bytes)? {
            return Ok(reply);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        }
    }
}

/// The reply that `bytes` begin with; `None` while it is not whole. Firecracker gives a length with each
/// body and never sends chunks, so a reply without a length has no body.
fn parse_reply(bytes: &[u8]) -> io::Result<Option<Reply>> {
    let bad = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(bytes).map_err(|error| bad(error.to_string()))?;
    let httparse::Status::Complete(head) = parsed else {
        return if bytes.len() > HEAD_MAX { Err(bad("headers without end".to_owned())) } else { Ok(None) };
    };
    let status = response.code.ok_or_else(|| bad("no status".to_owned()))?;
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length: usize = match length {
        None => 0,
        Some(header) => std::str::from_utf8(header.value)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .ok_or_else(|| bad("a length that is not a number".to_owned()))?,
    };
    if length > REPLY_MAX {
        return Err(bad(format!("a body of {length} bytes")));
    }
    Ok(bytes.get(head..head + length).map(|body| Reply { status, body: body.to_vec() }))
}

/// Why a Firecracker process ended, from its exit status (`FcExitCode` in `src/vmm/src/lib.rs`);
/// `None` for a status that Firecracker does not give. The jailer ends with 1 on any error of its own.
pub fn exit_reason(status: i32) -> Option<&'static str> {
    Some(match status {
        0 => "the guest shut down",
        1 => "an error that its log names",
        2 => "an unexpected error",
        134 => "a panic: a missing configuration file or an invalid id",
        148 => "a system call that its seccomp filter forbids",
        149 => "a bus error: its memory could not be backed, such as with huge pages",
        150 => "a segmentation fault",
        151 => "its limit on file sizes",
        152 => "a bad configuration",
        153 => "bad arguments",
        154 => "its limit on CPU time",
        155 => "a broken pipe",
        156 => "a hang-up of its terminal",
        157 => "an illegal instruction",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    /// Answers one request with a status and a JSON body, and gives the request.
    fn serve(socket: &Path, status: &str, body: &str) -> std::thread::JoinHandle<String> {
        let listener = UnixListener::bind(socket).unwrap();
        let reply = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let count = stream.read(&mut request).unwrap();
            stream.write_all(reply.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..count]).into_owned()
        })
    }

    fn api(socket: &Path) -> Api {
        Api { socket: socket.into(), timeout: Duration::from_secs(5) }
    }

    #[test]
    fn a_refusal_carries_the_fault_message() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let server = serve(&socket, "400 Bad Request", r#"{"fault_message":"No such VM."}"#);
        let error = api(&socket).pause().unwrap_err();
        assert_eq!(error.to_string(), "Firecracker refused PATCH /vm (status 400): No such VM.");
        let request = server.join().unwrap();
        assert!(request.starts_with("PATCH /vm HTTP/1.1\r\n"), "{request}");
        assert!(request.ends_with("Content-Length: 18\r\n\r\n{\"state\":\"Paused\"}"), "{request}");
    }

    #[test]
    fn an_answer_that_comes_in_pieces_is_put_together() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        for cut in 0..whole.len() {
            assert_eq!(parse_reply(&whole[..cut]).unwrap(), None, "{cut} bytes");
        }
        assert_eq!(parse_reply(whole).unwrap(), Some(Reply { status: 200, body: b"{}".to_vec() }));
    }

    #[test]
    fn an_answer_beyond_the_bound_is_not_read() {
        let error = parse_reply(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_vmm_that_hangs_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let _silent = UnixListener::bind(&socket).unwrap();
        let error = api(&socket).with_timeout(Duration::from_millis(20)).instance_info().unwrap_err();
        assert!(
            matches!(&error, ApiError::NoAnswer { source, .. } if source.kind() == io::ErrorKind::TimedOut)
        );
        assert!(!error.is_absent());
    }

    #[test]
    fn a_socket_nobody_listens_on_is_absent() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        assert!(Api::connect(&socket).unwrap_err().is_absent());
        drop(UnixListener::bind(&socket).unwrap());
        assert!(Api::connect(&socket).unwrap_err().is_absent());
    }

    #[test]
    fn a_socket_path_may_be_longer_than_an_address() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let short = dir.path().join("s");
        let body = r#"{"id":"a","state":"Not started","vmm_version":"1.16.1","app_name":"Firecracker"}"#;
        let server = serve(&short, "200 OK", body);
        std::fs::rename(&short, deep.join("s")).unwrap();
        let info = api(&deep.join("s")).instance_info().unwrap();
        assert_eq!(info.state, VmState::NotStarted);
        assert_eq!(info.vmm_version, "1.16.1");
        server.join().unwrap();
    }
}
