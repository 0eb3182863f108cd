//! QEMU: its version, and a running one through its machine protocol (`docs/interop/qmp-spec.rst`).

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::base::{Class, Diagnosis, Diagnostic};

use super::fs::io_diagnosis;
use super::socket;
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
    Protocol { path: PathBuf, line: String },
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
pub enum VersionError {
    #[error(transparent)]
    Tool(#[from] ToolError),
    #[error("cannot read a version from {text:?}, the answer of {PROGRAM} --version")]
    Unknown { text: String },
}

impl Diagnostic for VersionError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Tool(error) => error.diagnosis(),
            Self::Unknown { .. } => Class::Failed.no_hint(),
        }
    }
}

/// Major and minor version of the QEMU that is installed.
pub fn version() -> Result<(u32, u32), VersionError> {
    let text = Tool::new(PROGRAM).arg("--version").text()?;
    let first = text.lines().next().unwrap_or_default();
    parse_version(first).ok_or_else(|| VersionError::Unknown { text: first.to_owned() })
}

/// Reads `QEMU emulator version 7.2.22 (Debian …)`.
pub fn parse_version(line: &str) -> Option<(u32, u32)> {
    let mut numbers = line.strip_prefix("QEMU emulator version ")?.split(['.', ' ', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// How long QEMU may take to answer. Most answers take milliseconds; emulation on a busy host may hold them up.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to one QEMU, which serves one at a time. After an error, connect again.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
    path: PathBuf,
    timeout: Duration,
    last_id: u64,
}

impl Qmp {
    /// Connects to QEMU's socket and makes it take commands. It must greet within ten seconds.
    pub fn connect(path: &Path) -> Result<Self, QmpError> {
        Self::connect_within(path, TIMEOUT)
    }

    /// The same with another time limit, for connecting and for each command.
    pub fn connect_within(path: &Path, timeout: Duration) -> Result<Self, QmpError> {
        let stream =
            socket::connect(path).map_err(|source| QmpError::Connect { path: path.to_owned(), source })?;
        let mut qmp = Self { stream: BufReader::new(stream), path: path.to_owned(), timeout, last_id: 0 };
        let greeting = qmp.read_message("the connection", Instant::now() + timeout)?;
        if greeting.get("QMP").is_none() {
            return Err(QmpError::Protocol { path: path.to_owned(), line: greeting.to_string() });
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs one command and gives what it returns. Events that come meanwhile are passed over.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.exchange(command, arguments, None)
    }

    /// The same with a file's descriptor beside the command.
    fn exchange(
        &mut self,
        command: &str,
        arguments: Value,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<Value, QmpError> {
        self.last_id += 1;
        let mut line = json!({ "execute": command, "arguments": arguments, "id": self.last_id }).to_string();
        line.push('\n');
        let end = Instant::now() + self.timeout;
        let stream = self.stream.get_ref();
        let sent = stream.set_write_timeout(Some(self.timeout)).and_then(|()| {
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
                return Err(QmpError::Protocol { path: self.path.clone(), line: message.to_string() });
            };
            let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
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

    /// The state of the machine, such as `running`, `paused` or `shutdown`.
    pub fn query_status(&mut self) -> Result<String, QmpError> {
        let answer = self.execute("query-status", json!({}))?;
        let status = answer.get("status").and_then(Value::as_str).map(str::to_owned);
        status.ok_or_else(|| QmpError::Protocol { path: self.path.clone(), line: answer.to_string() })
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
        while line.last() != Some(&b'\n') {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.failed(command, ErrorKind::TimedOut.into()));
            }
            let set = self.stream.get_ref().set_read_timeout(Some(left));
            match set.and_then(|()| self.stream.read_until(b'\n', &mut line)) {
                Ok(0) => {
                    return Err(QmpError::Closed { path: self.path.clone(), command: command.to_owned() });
                }
                Ok(_) => {}
                Err(error) => return Err(self.failed(command, error)),
            }
        }
        serde_json::from_slice(&line).map_err(|_| QmpError::Protocol {
            path: self.path.clone(),
            line: String::from_utf8_lossy(&line).trim_end().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
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
}
