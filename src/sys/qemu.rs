//! QEMU: its version, and a running one through its machine protocol (`docs/interop/qmp-spec.rst`).

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::base::text::excerpt;
use crate::base::{Class, Diagnosis, Diagnostic};

use super::fs::io_diagnosis;
use super::socket::Socket;
use super::tool::{Tool, ToolError};

mod migration;

/// The emulator of 64-bit x86 machines.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// Why QEMU did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    #[error("cannot connect to QEMU at {}{}", path.display(), match .source.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => " (it does not run)",
        _ => "",
    })]
    Connect { path: PathBuf, source: io::Error },
    /// It hung up, as it does when it ends.
    #[error("QEMU at {} hung up on {command}", path.display())]
    Closed { path: PathBuf, command: String },
    /// It hangs, or another program holds its only connection.
    #[error("QEMU at {} did not answer {command} within {} s", path.display(), timeout.as_secs())]
    Timeout { path: PathBuf, command: String, timeout: Duration },
    #[error("QEMU at {} does not speak QMP: {line:?}", path.display())]
    Protocol {
        path: PathBuf,
        /// The beginning of what it said.
        line: String,
    },
    /// It understood and said no.
    #[error("QEMU at {} refused {command}: {description} ({class})", path.display())]
    Refused { path: PathBuf, command: String, class: String, description: String },
    #[error("cannot talk to QEMU at {}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl Diagnostic for QmpError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Connect { source, .. } | Self::Io { source, .. } => io_diagnosis(source),
            Self::Closed { .. } | Self::Timeout { .. } | Self::Protocol { .. } | Self::Refused { .. } => {
                Class::Failed.hint("`sisforge logs GUEST --vmm` shows what it said")
            }
        }
    }
}

/// QEMU's version, or why it is not known.
#[derive(Debug, thiserror::Error)]
pub enum QemuVersionError {
    #[error(transparent)]
    Tool(#[from] ToolError),
    #[error("cannot read a version from {text:?}, the answer of {PROGRAM} --version")]
    Unknown { text: String },
}

impl Diagnostic for QemuVersionError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Tool(error) => error.diagnosis(),
            Self::Unknown { .. } => Class::Failed.no_hint(),
        }
    }
}

/// Major and minor version of the QEMU that is installed.
pub fn version() -> Result<(u32, u32), QemuVersionError> {
    let text = Tool::new(PROGRAM).arg("--version").text()?;
    let first = text.lines().next().unwrap_or_default();
    parse_version(first).ok_or_else(|| QemuVersionError::Unknown { text: first.to_owned() })
}

/// Reads `QEMU emulator version 7.2.22 (Debian …)`.
pub fn parse_version(line: &str) -> Option<(u32, u32)> {
    let mut numbers = line.strip_prefix("QEMU emulator version ")?.split(['.', ' ', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// How long QEMU may take to answer. Most answers take milliseconds; emulation on a busy host may hold them up.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Longest line that is read, in bytes; QEMU's own have a few hundred.
const LINE_MAX: usize = 1 << 20;
/// How much of a line an error shows, in characters.
const SHOWN: usize = 200;

/// A connection to one QEMU, which serves one at a time. After an error, connect again.
///
/// The process at the other end has a guest inside it and is not trusted: each command has a deadline, and each line a
/// bound.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
    path: PathBuf,
    timeout: Duration,
    last_id: u64,
}

impl Qmp {
    /// Connects to QEMU's socket and makes it take commands. It must greet within ten seconds.
    pub fn connect(socket: impl Into<Socket>) -> Result<Self, QmpError> {
        Self::connect_within(socket, TIMEOUT)
    }

    /// The same with another time limit, for connecting as a whole and for each command.
    pub fn connect_within(socket: impl Into<Socket>, timeout: Duration) -> Result<Self, QmpError> {
        let (socket, end): (Socket, _) = (socket.into(), Instant::now() + timeout);
        let path = socket.path().to_owned();
        let stream =
            socket.connect(timeout).map_err(|source| QmpError::Connect { path: path.clone(), source })?;
        let mut qmp = Self { stream: BufReader::new(stream), path, timeout, last_id: 0 };
        let greeting = qmp.read_message("the connection", end)?;
        if greeting.get("QMP").is_none() {
            return Err(qmp.protocol(&greeting.to_string()));
        }
        qmp.exchange("qmp_capabilities", json!({}), None, end)?;
        Ok(qmp)
    }

    /// The same connection with another time limit for each command.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Runs one command and gives what it returns. Events that come meanwhile are passed over.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.exchange(command, arguments, None, Instant::now() + self.timeout)
    }

    /// The same with a file's descriptor beside the command, until `end` at the latest.
    fn exchange(
        &mut self,
        command: &str,
        arguments: Value,
        descriptor: Option<BorrowedFd<'_>>,
        end: Instant,
    ) -> Result<Value, QmpError> {
        self.last_id += 1;
        let mut line = json!({ "execute": command, "arguments": arguments, "id": self.last_id }).to_string();
        line.push('\n');
        let stream = self.stream.get_ref();
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let sent = stream.set_write_timeout(Some(left)).and_then(|()| {
            let mut stream = stream;
            match descriptor {
                Some(descriptor) => migration::send_with(stream.as_fd(), line.as_bytes(), descriptor),
                None => stream.write_all(line.as_bytes()),
            }
        });
        sent.map_err(|source| self.failed(command, source))?;
        loop {
            let mut message = self.read_message(command, end)?;
            // An error before the id was read carries none; events never do.
            if message.get("id").is_some_and(|id| *id != self.last_id) || message.get("event").is_some() {
                continue;
            }
            if let Some(value) = message.get_mut("return") {
                return Ok(value.take());
            }
            let Some(error) = message.get("error") else {
                return Err(self.protocol(&message.to_string()));
            };
            let text = |key: &str| excerpt(error.get(key).and_then(Value::as_str).unwrap_or_default());
            return Err(QmpError::Refused {
                path: self.path.clone(),
                command: command.to_owned(),
                class: text("class"),
                description: text("desc"),
            });
        }
    }

    /// Presses the guest's power button.
    pub fn system_powerdown(&mut self) -> Result<(), QmpError> {
        self.execute("system_powerdown", json!({})).map(drop)
    }

    /// Sets how much memory the balloon leaves to the guest, in bytes; the guest's driver does it in its own time.
    pub fn balloon(&mut self, target: u64) -> Result<(), QmpError> {
        self.execute("balloon", json!({ "value": target })).map(drop)
    }

    /// Opens the node of a raw disk upon another file, and tells the guest's driver of its size, in bytes; the file has that size
    /// already. QEMU 6.1 and later can do it.
    pub fn change_file(
        &mut self,
        node: &str,
        file_node: &str,
        path: &str,
        size: u64,
    ) -> Result<(), QmpError> {
        let file = json!({ "driver": "file", "node-name": file_node, "filename": path, "discard": "unmap" });
        self.execute("blockdev-add", file)?;
        let disk = json!({ "driver": "raw", "node-name": node, "file": file_node, "discard": "unmap" });
        self.execute("blockdev-reopen", json!({ "options": [disk] }))?;
        self.execute("block_resize", json!({ "node-name": node, "size": size })).map(drop)
    }

    /// The state of the machine, such as `running`, `paused` or `shutdown`.
    pub fn query_status(&mut self) -> Result<String, QmpError> {
        let answer = self.execute("query-status", json!({}))?;
        let status = answer.get("status").and_then(Value::as_str).map(str::to_owned);
        status.ok_or_else(|| self.protocol(&answer.to_string()))
    }

    fn protocol(&self, line: &str) -> QmpError {
        QmpError::Protocol { path: self.path.clone(), line: line.trim_end().chars().take(SHOWN).collect() }
    }

    fn failed(&self, command: &str, source: io::Error) -> QmpError {
        let (path, command) = (self.path.clone(), command.to_owned());
        match source.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                QmpError::Timeout { path, command, timeout: self.timeout }
            }
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => QmpError::Closed { path, command },
            _ => QmpError::Io { path, source },
        }
    }

    /// Reads one line, which is one JSON object, until `end` at the latest.
    fn read_message(&mut self, command: &str, end: Instant) -> Result<Value, QmpError> {
        let mut line = Vec::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.failed(command, ErrorKind::TimedOut.into()));
            }
            // One piece at a time, so that the deadline holds however the pieces come.
            let set = self.stream.get_ref().set_read_timeout(Some(left));
            let piece = match set.and_then(|()| self.stream.fill_buf()) {
                Ok([]) => {
                    return Err(QmpError::Closed { path: self.path.clone(), command: command.to_owned() });
                }
                Ok(piece) => piece,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failed(command, error)),
            };
            let end_of_line = piece.iter().position(|byte| *byte == b'\n');
            let taken = end_of_line.map_or(piece.len(), |at| at + 1);
            line.extend_from_slice(&piece[..taken]);
            self.stream.consume(taken);
            if end_of_line.is_some() {
                break;
            }
            if line.len() > LINE_MAX {
                return Err(self.protocol(&String::from_utf8_lossy(&line[..SHOWN])));
            }
        }
        serde_json::from_slice(&line).map_err(|_| self.protocol(&String::from_utf8_lossy(&line)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::thread;

    use super::*;

    const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n";

    /// Something that greets and then gives each of `answers` to one command; the last one, and it hangs up.
    fn serve(answers: &'static [&'static str]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(GREETING.as_bytes()).unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            for answer in answers {
                lines.read_line(&mut String::new()).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
            lines.read_line(&mut String::new()).unwrap();
        });
        (dir, path)
    }

    const READY: &str = "{\"return\": {}, \"id\": 1}\r\n";

    #[test]
    fn the_version_is_read() {
        let line = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)";
        assert_eq!(parse_version(line), Some((7, 2)));
        assert_eq!(parse_version("QEMU emulator version 10.0"), Some((10, 0)));
        assert_eq!(parse_version("qemu: command not found"), None);
    }

    #[test]
    fn events_before_an_answer_are_passed_over() {
        let answer = "{\"event\": \"STOP\", \"timestamp\": {}}\r\n\
            {\"return\": {\"status\": \"paused\", \"running\": false}, \"id\": 2}\r\n";
        let (_dir, path) = serve(Box::leak(Box::new([READY, answer])));
        assert_eq!(Qmp::connect(&path).unwrap().query_status().unwrap(), "paused");
    }

    #[test]
    fn a_refusal_says_what_qemu_said() {
        let answer =
            "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no such command\"}, \"id\": 2}\r\n";
        let (_dir, path) = serve(Box::leak(Box::new([READY, answer])));
        let error = Qmp::connect(&path).unwrap().execute("fly", json!({})).unwrap_err();
        assert!(error.to_string().ends_with("refused fly: no such command (CommandNotFound)"), "{error}");
    }

    #[test]
    fn a_hung_qemu_is_given_up_however_much_it_talks() {
        let (_dir, path) = serve(&[READY, "{\"event\": \"RTC_CHANGE\"}\r\n{\"half"]);
        let mut qmp = Qmp::connect_within(&path, Duration::from_millis(200)).unwrap();
        assert!(matches!(qmp.query_status().unwrap_err(), QmpError::Timeout { .. }));
    }

    #[test]
    fn hanging_up_is_the_answer_to_quit_alone() {
        let (_dir, path) = serve(&[READY]);
        let mut qmp = Qmp::connect(&path).unwrap();
        assert!(matches!(qmp.query_status().unwrap_err(), QmpError::Closed { .. }));
        let (_dir, path) = serve(&[READY]);
        let quit = Qmp::connect(&path).unwrap().execute("quit", json!({}));
        assert!(matches!(quit, Err(QmpError::Closed { .. })), "{quit:?}");
    }

    #[test]
    fn nobody_there_is_told_plainly() {
        let error = Qmp::connect(Path::new("/nonexistent/qmp")).unwrap_err();
        assert_eq!(error.to_string(), "cannot connect to QEMU at /nonexistent/qmp (it does not run)");
    }

    #[test]
    fn neither_a_trickle_nor_a_flood_nor_a_puzzle_is_read_to_its_end() {
        let speak = |greeting: Vec<u8>, pause: Duration| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("qmp");
            let listener = UnixListener::bind(&path).unwrap();
            thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                while greeting.chunks(64 << 10).all(|piece| stream.write_all(piece).is_ok()) {
                    thread::sleep(pause);
                }
            });
            let began = Instant::now();
            let error = Qmp::connect_within(&path, Duration::from_millis(300)).unwrap_err();
            assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
            error
        };
        let trickle = speak(b" ".to_vec(), Duration::from_millis(20));
        assert!(matches!(trickle, QmpError::Timeout { .. }), "{trickle}");
        let flood = speak(vec![b'x'; 1 << 20], Duration::ZERO);
        assert!(matches!(flood, QmpError::Protocol { .. }) && flood.to_string().len() < 1000, "{flood}");
        let puzzle = speak([vec![b'['; 100_000], b"\n".to_vec()].concat(), Duration::ZERO);
        assert!(matches!(puzzle, QmpError::Protocol { .. }) && puzzle.to_string().len() < 1000, "{puzzle}");
        let events = speak(b"{\"event\": \"STOP\"}\n".to_vec(), Duration::ZERO);
        assert!(matches!(events, QmpError::Protocol { .. }), "{events}");
    }
}
