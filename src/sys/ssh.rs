//! Commands on another machine through the OpenSSH client, and the keys for that.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::base::text::excerpt;
use crate::base::{Class, Diagnosis, Diagnostic};

use super::fs::{self, FileError, create_private_dir, read, read_text, write};
use super::netns::{Netns, NetnsError, within};
use super::process::{self, ProcessId, ProcessInfo, Signal};
use super::tool::{self, Tool, ToolError};

pub use super::tool::OUT_OF_TIME;

/// Why a command was not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    #[error(transparent)]
    Tool(#[from] ToolError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// No session came about, so the command did not run.
    #[error("cannot open an SSH session as {user} on {address}: {message}{}", hint(.message))]
    Connect { user: String, address: Ipv4Addr, message: String },
    /// The session ended before the command did; whether that has done its work is not known.
    #[error("the SSH session as {user} on {address} ended before the command did: {message}")]
    Lost { user: String, address: Ipv4Addr, message: String },
    /// The machine itself ended.
    #[error("the VMM of the machine at {address} ended before the command did")]
    MachineGone { address: Ipv4Addr },
    #[error("{} is not an OpenSSH public key", path.display())]
    NoKey { path: PathBuf },
}

impl Diagnostic for SshError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Tool(error) => error.diagnosis(),
            Self::File(error) => error.diagnosis().of(Class::Failed),
            Self::Netns(error) => error.diagnosis(),
            Self::Connect { .. } => Class::Failed.hint("`sisforge logs GUEST` shows what the guest said"),
            Self::Lost { .. } => Class::Failed.hint("check whether it did its work before you run it again"),
            Self::MachineGone { .. } => {
                Class::Failed.hint("`sisforge ps` tells what became of it; `sisforge up` starts it again")
            }
            Self::NoKey { .. } => Class::Failed
                .hint("remove that file and the key without .pub beside it: `sisforge up` makes new ones"),
        }
    }
}

fn hint(message: &str) -> &'static str {
    if message.contains("Host key verification failed") {
        " (its host key is not the expected one: another machine has its address, or its key was renewed)"
    } else if message.contains("Permission denied") {
        " (it does not accept the key: its user or its authorized keys come from another build)"
    } else if message.contains("refused") || message.contains("timed out") || message.contains("No route") {
        " (it may still be booting, or its SSH server is not running)"
    } else {
        ""
    }
}

/// Who to be, where, and what proves either side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub address: Ipv4Addr,
    pub user: String,
    /// File of the private key.
    pub identity: PathBuf,
    /// The only host key to accept, such as `ssh-ed25519 AAAA…`.
    pub host_key: String,
    /// The network namespace in which it has that address; `None` for this one.
    pub netns: Option<Netns>,
    /// The process that runs the machine, on this one. Without it nobody answers any more, which
    /// TCP would find out in minutes.
    pub machine: Option<ProcessId>,
}

/// What the command's input and output are.
#[derive(Debug)]
pub enum Io {
    /// This process's own; with a terminal on the other side too if `tty`.
    Inherit { tty: bool },
    /// No input; output is kept, of very much the beginning and the end.
    Capture,
    /// This input; output is kept, of very much the beginning and the end.
    Feed(File),
    /// These; what it says of errors is kept.
    Streams { stdin: Stdio, stdout: Stdio },
}

/// A command that ran to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Its exit status, 0 to 255; 128 and the signal's number where a signal ended it.
    pub code: i32,
    /// Empty where it was inherited.
    pub stdout: Vec<u8>,
    /// Empty where it was inherited.
    pub stderr: Vec<u8>,
}

/// Seconds until a machine that does not answer is given up.
const CONNECT_TIMEOUT: u32 = 10;

/// Runs a command, or the user's login shell where `argv` is empty. The other side's shell sees each argument as it is.
///
/// `ssh` itself exits with 255 where there was no session, as a command may too. Its own log tells them apart: with
/// `-v` it ends with the exit status that the other side sent, or -1 where none came. A command that failed is no
/// error.
pub fn run(target: &Target, argv: &[String], io: Io) -> Result<Finished, SshError> {
    run_as(target, &command_line(argv), io, None)
}

/// The same with a line that the other side's shell reads, as `ssh` itself sends it.
pub fn run_line(target: &Target, line: &str, io: Io) -> Result<Finished, SshError> {
    run_as(target, line, io, None)
}

/// The same with this input, for a command that must not take longer than `limit`: it then ends as [`OUT_OF_TIME`]. What it is fed
/// is in memory alone, and in nobody's arguments.
pub fn run_within(
    target: &Target,
    argv: &[String],
    input: &[u8],
    limit: Duration,
) -> Result<Finished, SshError> {
    let mut file = nameless_file(input).map_err(not_started)?;
    file.rewind().map_err(not_started)?;
    run_as(target, &command_line(argv), Io::Feed(file), Some(limit))
}

/// How much is kept of what a command writes to each of its streams, in bytes; of more, the beginning and the end.
const KEPT: usize = 64 << 10;
/// How much is kept of what `ssh -v` logs, in bytes; the other side adds to it what it likes.
const LOG_KEPT: usize = 256 << 10;

fn run_as(target: &Target, line: &str, io: Io, limit: Option<Duration>) -> Result<Finished, SshError> {
    if tool::find("ssh").is_none() {
        return Err(ToolError::Missing { tool: "ssh".to_owned() }.into());
    }
    // Files and pipes without a name, so that nothing is left of them wherever this is killed.
    let known_hosts =
        nameless_file(format!("{} {}\n", target.address, target.host_key).as_bytes()).map_err(not_started)?;
    let (mut reader, writer) = io::pipe().map_err(not_started)?;

    let mut call = call(target, line, &io, &path_of(&known_hosts), &path_of(&writer));
    if let Some(limit) = limit {
        call = call.within(limit);
    }
    let call_it = move || run_call(&call, io, target.machine);
    let ran = std::thread::scope(|scope| {
        let logged = scope.spawn(move || bounded(&mut reader, LOG_KEPT));
        let ran = match &target.netns {
            None => Ok(call_it()),
            Some(netns) => within(netns, call_it),
        };
        drop(writer);
        let log = logged.join().unwrap_or_default();
        Ok::<_, SshError>((ran?.map_err(not_started)?, log))
    });
    let (ran, log) = ran?;
    told_by(target, ran, &String::from_utf8_lossy(&log))
}

/// What a call and its log tell.
fn told_by(target: &Target, ran: CallOutput, log: &str) -> Result<Finished, SshError> {
    let (user, address) = (target.user.clone(), target.address);
    match (ran.status.code(), parse_log(log)) {
        _ if ran.outlived => Err(SshError::MachineGone { address }),
        (Some(255) | None, End::NoSession { message }) => Err(SshError::Connect { user, address, message }),
        (Some(255), End::Lost { message }) => Err(SshError::Lost { user, address, message }),
        (Some(code), _) => Ok(Finished { code, stdout: ran.stdout, stderr: ran.stderr }),
        (None, _) => {
            let message = format!("ssh was killed by signal {}", ran.status.signal().unwrap_or_default());
            Err(SshError::Lost { user, address, message })
        }
    }
}

fn not_started(source: io::Error) -> ToolError {
    ToolError::Start { tool: "ssh".to_owned(), source }
}

fn nameless_file(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("sisforge", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file)
}

/// By which a program that this one starts can open what this one holds.
fn path_of(held: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), held.as_raw_fd()))
}

/// A call that ended.
struct CallOutput {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// Whether it had to be ended, since its machine was gone.
    outlived: bool,
}

fn run_call(call: &Tool, io: Io, machine: Option<ProcessId>) -> io::Result<CallOutput> {
    let mut command = call.command();
    match io {
        Io::Inherit { .. } => &mut command,
        Io::Capture => command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()),
        Io::Feed(input) => command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()),
        Io::Streams { stdin, stdout } => command.stdin(stdin).stdout(stdout).stderr(Stdio::piped()),
    };
    let mut child = command.spawn()?;
    // Its ends of pipes: who reads the other ones waits until nobody has these.
    drop(command);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        let errors = scope.spawn(|| stderr.map(|mut from| bounded(&mut from, KEPT)).unwrap_or_default());
        let output = scope.spawn(|| stdout.map(|mut from| bounded(&mut from, KEPT)).unwrap_or_default());
        let (done, ended) = mpsc::channel();
        let session = process::inspect(child.id());
        let watch = scope.spawn(move || ends_without(&session?, machine?, &ended).then_some(()));
        let status = child.wait();
        drop::<mpsc::Sender<()>>(done);
        let outlived = watch.join().is_ok_and(|outlived| outlived.is_some());
        let (stdout, stderr) = (output.join().unwrap_or_default(), errors.join().unwrap_or_default());
        Ok(CallOutput { status: status?, stdout, stderr, outlived })
    })
}

/// How often it is looked whether a machine is still there.
const LOOK: Duration = Duration::from_millis(200);
/// How long a session whose machine is gone has to end by itself: the last of its answers may still be on the way.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Ends a session whose machine is gone, by a signal at which `ssh` sets the terminal right. Returns when the other end of
/// `ended` is gone, with whether that was so.
fn ends_without(session: &ProcessInfo, machine: ProcessId, ended: &mpsc::Receiver<()>) -> bool {
    let goes_on = |limit| ended.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout);
    while goes_on(LOOK) {
        if process::wait_gone(machine, Duration::ZERO) {
            return goes_on(LAST_WORDS) && process::send_signal(session.id, Signal::TERM).unwrap_or(false);
        }
    }
    false
}

/// Reads to the end; of more than `most` bytes the first and the last half are kept.
fn bounded(from: &mut dyn Read, most: usize) -> Vec<u8> {
    const CUT: &[u8] = b"\n[...]\n";
    let (mut head, mut tail, mut is_cut) = (Vec::new(), Vec::new(), false);
    let mut buffer = vec![0; most / 2];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let (first, rest) = buffer[..count].split_at(count.min(most / 2 - head.len()));
        head.extend_from_slice(first);
        tail.extend_from_slice(rest);
        if tail.len() > most / 2 {
            tail.drain(..tail.len() - most / 2);
            is_cut = true;
        }
    }
    if is_cut { [&head, CUT, &tail].concat() } else { [head, tail].concat() }
}

fn call(target: &Target, line: &str, io: &Io, known_hosts: &Path, log: &Path) -> Tool {
    let algorithm = target.host_key.split_whitespace().next().unwrap_or_default();
    let options = [
        "BatchMode=yes".to_owned(),
        "StrictHostKeyChecking=yes".to_owned(),
        format!("UserKnownHostsFile={}", known_hosts.display()),
        "GlobalKnownHostsFile=/dev/null".to_owned(),
        format!("HostKeyAlgorithms={algorithm}"),
        "UpdateHostKeys=no".to_owned(),
        "IdentitiesOnly=yes".to_owned(),
        "IdentityAgent=none".to_owned(),
        format!("ConnectTimeout={CONNECT_TIMEOUT}"),
        "ServerAliveInterval=15".to_owned(),
        "ServerAliveCountMax=4".to_owned(),
    ];
    let mut tool = Tool::new("ssh").args(["-F", "none", "-v", "-E"]).arg(log);
    for option in &options {
        tool = tool.args(["-o", option]);
    }
    tool = match io {
        Io::Inherit { tty: true } => tool.arg("-tt").pass("TERM"),
        Io::Inherit { tty: false } | Io::Capture | Io::Feed(_) | Io::Streams { .. } => tool.arg("-T"),
    };
    tool = tool.arg("-i").arg(&target.identity).args(["-l", &target.user, "--", &target.address.to_string()]);
    if line.is_empty() { tool } else { tool.arg(told(line)) }
}

/// One line that a POSIX shell splits into exactly these words.
pub fn command_line(argv: &[String]) -> String {
    let quoted = |word: &String| format!("'{}'", word.replace('\'', r"'\''"));
    argv.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// A line whose shell tells how its command ended, be it by a signal: 128 and the signal's number. SSH would tell the name
/// of the signal, and `ssh` keeps it to itself. The shell must outlive a Ctrl-C that ends its command.
fn told(line: &str) -> String {
    format!("trap : INT QUIT; {line}\nexit $?")
}

/// How a session ended, by the log of `ssh -v`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// The other side said how the command ended.
    Reported,
    /// There was no session.
    NoSession { message: String },
    /// There was one, and it went away.
    Lost { message: String },
}

fn parse_log(log: &str) -> End {
    let told =
        |line: &&str| line.contains(": client_input_channel_req: channel ") && line.contains(" rtype exit-");
    if log.lines().any(|line| told(&line)) {
        return End::Reported;
    }
    let own =
        |line: &&str| !line.starts_with("debug") && !line.starts_with("OpenSSH_") && !line.trim().is_empty();
    let last = log.lines().rfind(own).unwrap_or("it gave no reason");
    let message = excerpt(last.trim().trim_end_matches('.'));
    if log.lines().any(|line| line.starts_with("debug1: Entering interactive session")) {
        // Statistics of the transfer come last and tell nothing.
        let broken =
            log.lines().filter(own).find(|line| !line.starts_with("Transferred") && !is_chatter(line));
        let message = excerpt(broken.unwrap_or("connection closed").trim().trim_end_matches('.'));
        End::Lost { message }
    } else {
        End::NoSession { message }
    }
}

/// Lines of `ssh -v` that tell of success or of statistics.
fn is_chatter(line: &str) -> bool {
    line.starts_with("Authenticated to ") || line.starts_with("Bytes per second")
}

/// Makes an ed25519 key pair at `path` and `path.pub`. A private key that is there stays, and its public half is
/// made again where that is missing. It may be killed at any moment, and leaves `scratch` then; whoever calls it sees to it
/// that nobody else does.
pub fn keygen(path: &Path, scratch: &Path) -> Result<(), SshError> {
    let public = public_path(path);
    if !path.exists() {
        fs::remove(scratch)?;
        create_private_dir(scratch)?;
        let new = scratch.join("key");
        Tool::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(&new).run()?;
        write(path, &read(&new)?, 0o600)?;
        fs::remove(scratch)?;
    }
    if !public.exists() {
        let text = Tool::new("ssh-keygen").args(["-y", "-f"]).arg(path).run()?;
        write(&public, &text, 0o644)?;
    }
    Ok(())
}

fn public_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    PathBuf::from(name)
}

/// The base64 part of the public key that belongs to the private key at `path`.
pub fn public_key(path: &Path) -> Result<String, SshError> {
    let path = public_path(path);
    let text = read_text(&path)?;
    let key = text.split_whitespace().nth(1).filter(|key| key.starts_with("AAAA"));
    key.map(str::to_owned).ok_or(SshError::NoKey { path })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn of_an_endless_output_the_beginning_and_the_end_are_kept() {
        let read = |text: String, most| String::from_utf8(bounded(&mut text.as_bytes(), most)).unwrap();
        assert_eq!(read("0123456789".into(), 10), "0123456789");
        assert_eq!(read("0123456789ab".into(), 10), "01234\n[...]\n789ab");
        let endless = std::io::repeat(b'x').take(100 << 20);
        assert!(bounded(&mut { endless }, KEPT).len() < KEPT + 100);
    }

    #[test]
    fn the_other_shell_sees_each_argument_as_it_is() {
        let argv =
            ["printf", "%s|", "", "two words", "it's", "$HOME `id` \"x\" \\ *", "a\nb"].map(str::to_owned);
        let output = Tool::new("sh").arg("-c").arg(command_line(&argv)).text().unwrap();
        assert_eq!(output, "|two words|it's|$HOME `id` \"x\" \\ *|a\nb|");
    }

    #[test]
    fn a_signal_that_ends_the_command_is_told_by_its_number() {
        let status = |script: &str| {
            let line = command_line(&["sh", "-c", script].map(str::to_owned));
            // A job in the background of a script has SIGINT ignored, which no shell below it may change.
            let shell = Tool::new("env").args(["--default-signal=INT", "sh", "-c"]);
            shell.arg(told(&line)).output().unwrap().status.code()
        };
        assert_eq!(status("exit 7"), Some(7));
        assert_eq!(status("kill -TERM $$"), Some(143));
        // As Ctrl-C does it: to the shell as well.
        assert_eq!(status("kill -INT $PPID; kill -INT $$"), Some(130));
    }

    #[test]
    fn a_status_that_was_sent_is_the_commands_own() {
        let log = "OpenSSH_9.2p1\ndebug1: Connecting to 10.107.0.2 [10.107.0.2] port 22.\n\
            Authenticated to 10.107.0.2 ([10.107.0.2]:22) using \"publickey\".\n\
            debug1: Entering interactive session.\n\
            debug1: client_input_channel_req: channel 0 rtype exit-status reply 0\n\
            Transferred: sent 3000, received 2800 bytes, in 0.1 seconds\n\
            Bytes per second: sent 30000.0, received 28000.0\ndebug1: Exit status 255\n";
        assert_eq!(parse_log(log), End::Reported);
    }

    #[test]
    fn no_session_is_told_from_one_that_broke() {
        let refused = "OpenSSH_9.2p1\ndebug1: Connecting to 10.107.0.2 [10.107.0.2] port 22.\n\
            debug1: connect to address 10.107.0.2 port 22: Connection refused\n\
            ssh: connect to host 10.107.0.2 port 22: Connection refused\r\n";
        let message = "ssh: connect to host 10.107.0.2 port 22: Connection refused".to_owned();
        assert_eq!(parse_log(refused), End::NoSession { message });
        let broken = "Authenticated to 10.107.0.2 ([10.107.0.2]:22) using \"publickey\".\n\
            debug1: Entering interactive session.\nTimeout, server 10.107.0.2 not responding.\r\n";
        let message = "Timeout, server 10.107.0.2 not responding".to_owned();
        assert_eq!(parse_log(broken), End::Lost { message });
    }

    #[test]
    fn a_session_ends_soon_after_its_machine() {
        let sleeper = |seconds: &str| std::process::Command::new("sleep").arg(seconds).spawn().unwrap();
        let named = |child: &std::process::Child| process::inspect(child.id()).unwrap().id;
        let (mut machine, mut other) = (sleeper("0.5"), sleeper("60"));
        // In place of `ssh`: whatever waits for an answer that never comes.
        let begun = std::time::Instant::now();
        let waits = Tool::new("sleep").arg("60");
        let reaper = std::thread::spawn({
            let machine_named = named(&machine);
            move || run_call(&waits, Io::Capture, Some(machine_named)).unwrap()
        });
        machine.wait().unwrap();
        assert!(reaper.join().unwrap().outlived);
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        let ran = run_call(&Tool::new("true"), Io::Capture, Some(named(&other))).unwrap();
        assert!(ran.status.success() && !ran.outlived);
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn a_key_is_made_once_and_its_public_half_again() {
        if tool::find("ssh-keygen").is_none() {
            eprintln!("skipped: ssh-keygen is not installed");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/id");
        let keygen = |path: &Path| super::keygen(path, &dir.path().join("new")).unwrap();
        keygen(&path);
        let (private, public) = (fs::read(&path).unwrap(), public_key(&path).unwrap());
        assert!(public.starts_with("AAAAC3NzaC1lZDI1NTE5"), "{public}");
        fs::remove_file(dir.path().join("keys/id.pub")).unwrap();
        keygen(&path);
        assert_eq!(fs::read(&path).unwrap(), private);
        assert_eq!(public_key(&path).unwrap(), public);
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path().join("keys")).unwrap().count(), 2);
    }
}
