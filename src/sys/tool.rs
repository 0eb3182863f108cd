//! The only place that starts a process to run a tool: no shell, a clean environment, a fixed
//! locale, stdin closed or given, stderr kept for the error.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::base::{Class, Diagnosis, Diagnostic};

use super::fs::io_diagnosis;
use super::interrupt;

mod lines;

/// A tool that was run and did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is not on the search path.
    #[error("{tool} is not installed")]
    Missing { tool: String },
    /// It could not be started for another reason.
    #[error("cannot start {tool}")]
    Start { tool: String, source: io::Error },
    /// It ran and said no.
    #[error("{command} failed ({status}){}", indented(.stderr))]
    Failed { command: String, status: String, stderr: String, code: Option<i32> },
    /// It was ended, since it took more than it may.
    #[error("{command} was ended: {bound}")]
    Exceeded { command: String, bound: String },
}

impl Diagnostic for ToolError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Missing { tool } => Class::Failed.hint(match package_of(tool) {
                Some(package) => format!("install it: on Debian, `apt-get install {package}`"),
                None => format!("install {tool}, or put it on PATH"),
            }),
            Self::Start { source, .. } => io_diagnosis(source),
            // It says itself what it lacks.
            Self::Failed { .. } | Self::Exceeded { .. } => Class::Failed.no_hint(),
        }
    }
}

/// The Debian package that brings a tool.
pub fn package_of(tool: &str) -> Option<&'static str> {
    Some(match tool {
        "ip" | "tc" => "iproute2",
        "nft" => "nftables",
        "qemu-system-x86_64" => "qemu-system-x86",
        "ssh" | "ssh-keygen" => "openssh-client",
        "git" => "git",
        "gpg" => "gpg",
        "make" => "make",
        "objcopy" => "binutils",
        "gcc" => "gcc",
        "patch" => "patch",
        "bwrap" => "bubblewrap",
        "setpriv" | "prlimit" => "util-linux",
        "dnsmasq" => "dnsmasq-base",
        "haproxy" => "haproxy",
        _ => return None,
    })
}

impl ToolError {
    /// What the tool printed on stderr before it failed; empty where it never ran.
    pub fn stderr(&self) -> &str {
        match self {
            Self::Failed { stderr, .. } => stderr,
            _ => "",
        }
    }
}

fn indented(stderr: &str) -> String {
    let kept: Vec<&str> = stderr.trim_end().lines().collect();
    kept.iter().skip(kept.len().saturating_sub(20)).map(|line| format!("\n    {line}")).collect()
}

/// One call of a tool, built up and then run.
#[derive(Clone, Debug)]
pub struct Tool {
    /// A program and its arguments that start this one in their turn; messages leave them out.
    before: Vec<OsString>,
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    input: Option<Vec<u8>>,
}

/// Status of a call that took longer than its limit ([`Tool::within`]).
pub const OUT_OF_TIME: i32 = 124;

/// Bytes that a pipe takes whoever reads them and when (`PIPE_BUF` of pipe(7)).
const ALWAYS_TAKEN: usize = 4096;

/// Directories searched for tools, whatever the caller's own PATH leaves out.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The search path that tools are looked up on and given: the caller's, then the system's.
pub fn search_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    if !path.is_empty() {
        path.push(":");
    }
    path.push(SYSTEM_PATH);
    path
}

/// Where a tool is, if it is installed.
pub fn find(program: &str) -> Option<PathBuf> {
    find_on(&search_path(), program)
}

/// The same on another search path.
pub fn find_on(path: &OsStr, program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Path::new(program).is_file().then(|| PathBuf::from(program));
    }
    std::env::split_paths(path)
        .map(|dir| dir.join(program))
        .find(|path| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file())
}

/// What stands before a call that ends, by a signal, with the thread that starts it: setpriv has the kernel send it, and a shell looks
/// whether this process was there until then. One that went before would have left a call for which nobody waits.
pub fn ending_with_this(signal: &str) -> [OsString; 7] {
    const IF_STILL_WANTED: &str = r#"[ "$PPID" = "$0" ] && exec "$@""#;
    let own = std::process::id().to_string();
    ["setpriv", "--pdeathsig", signal, "sh", "-c", IF_STILL_WANTED, &own].map(OsString::from)
}

impl Tool {
    /// A call of `program`, looked up on the search path.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            before: Vec::new(),
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            dir: None,
            input: None,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable beyond the clean environment (`PATH`, `LC_ALL=C`, `TZ=UTC`, and as `HOME` a path that
    /// not even root can make: tools would else leave their settings there).
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Passes a variable on from this process's own environment, where it is set.
    #[must_use]
    pub fn pass(self, name: &str) -> Self {
        match std::env::var_os(name) {
            Some(value) => self.env(name, value),
            None => self,
        }
    }

    /// Runs in this directory.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Gives these bytes on stdin instead of nothing.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// The same call within a limit of whole seconds: `timeout` of coreutils then ends it and all that it started, and the
    /// status is [`OUT_OF_TIME`]. However this process ends, so does the call: nobody would wait for it any more, and what it still
    /// changes would be in the way of whoever comes next.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        let program = std::mem::replace(&mut self.program, "timeout".into());
        let seconds = limit.as_secs().max(1).to_string();
        self.args.splice(0..0, ["-k".into(), "10".into(), seconds.into(), program]);
        self.before.splice(0..0, ending_with_this("TERM"));
        self
    }

    /// Has another program start this one: that, with its arguments, stands before it.
    #[must_use]
    pub fn behind(mut self, before: impl IntoIterator<Item = OsString>) -> Self {
        self.before.extend(before);
        self
    }

    /// The program and its arguments.
    pub fn argv(&self) -> impl Iterator<Item = &OsString> {
        std::iter::once(&self.program).chain(&self.args)
    }

    /// The call as one would type it, for messages.
    pub fn command_line(&self) -> String {
        typed(&self.argv().map(|word| word.to_string_lossy()).collect::<Vec<_>>())
    }

    fn name(&self) -> String {
        Path::new(&self.program).file_name().unwrap_or(&self.program).to_string_lossy().into_owned()
    }

    fn expression(&self) -> duct::Expression {
        let fixed = [
            ("PATH", search_path()),
            ("LC_ALL", "C".into()),
            ("TZ", "UTC".into()),
            ("HOME", "/proc/nonexistent".into()),
        ];
        let fixed = fixed.into_iter().map(|(name, value)| (OsString::from(name), value));
        let (first, path, words) = self.located();
        let first = first.clone();
        let named = move |command: &mut std::process::Command| {
            command.arg0(&first);
            keep_from_terminal(command);
            Ok(())
        };
        let command = duct::cmd(path, words).before_spawn(named);
        let mut command = command.full_env(fixed.chain(self.env.iter().cloned()));
        if let Some(dir) = &self.dir {
            command = command.dir(dir);
        }
        match &self.input {
            Some(bytes) => command.stdin_bytes(bytes.clone()),
            None => command.stdin_null(),
        }
    }

    /// What is started: its name, its path, and its arguments. By its path, so that std does not look for it on PATH by itself:
    /// it would then fork, and copy the page tables of the whole process for each call (posix_spawn copies none).
    fn located(&self) -> (&OsString, OsString, impl Iterator<Item = &OsString>) {
        let mut words = self.before.iter().chain(self.argv());
        let first = words.next().unwrap_or(&self.program);
        (first, find(&first.to_string_lossy()).map_or_else(|| first.clone(), PathBuf::into_os_string), words)
    }

    fn start_error(&self, source: io::Error) -> ToolError {
        match source.kind() {
            io::ErrorKind::NotFound => ToolError::Missing { tool: self.name() },
            _ => ToolError::Start { tool: self.name(), source },
        }
    }

    /// Runs to the end, whatever the exit status.
    pub fn output(&self) -> Result<Output, ToolError> {
        if self.input.as_ref().is_none_or(|input| input.len() <= ALWAYS_TAKEN) {
            return self.output_of_one_thread().map_err(|source| self.start_error(source));
        }
        self.expression()
            .stdout_capture()
            .stderr_capture()
            .unchecked()
            .run()
            .map_err(|source| self.start_error(source))
    }

    /// The same without the threads that wait beside it for each of its streams.
    fn output_of_one_thread(&self) -> io::Result<Output> {
        let (first, path, words) = self.located();
        let mut command = std::process::Command::new(path);
        command.arg0(first).args(words);
        self.surround(&mut command);
        keep_from_terminal(&mut command);
        let stdin = if self.input.is_some() { Stdio::piped() } else { Stdio::null() };
        let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let Some((mut stdin, input)) = child.stdin.take().zip(self.input.as_ref()) {
            // One that ends without reading it says why.
            let _ = stdin.write_all(input);
        }
        child.wait_with_output()
    }

    /// Runs to the end and gives stdout.
    pub fn run(&self) -> Result<Vec<u8>, ToolError> {
        let output = self.output()?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(self.failed(&output.status, &output.stderr))
    }

    /// The same as text.
    pub fn text(&self) -> Result<String, ToolError> {
        self.run().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Starts it to run beside this process, with stdout and stderr as one stream of lines.
    pub fn follow(&self) -> Result<Follow, ToolError> {
        use std::io::BufRead;
        let expression = self.expression().stderr_to_stdout().unchecked();
        let reader = Arc::new(expression.reader().map_err(|source| self.start_error(source))?);
        let (sender, lines) = mpsc::channel();
        let from = reader.clone();
        std::thread::spawn(move || {
            for line in io::BufReader::new(&*from).lines() {
                let Ok(line) = line else { break };
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Follow { reader, lines })
    }

    fn failed(&self, status: &std::process::ExitStatus, stderr: &[u8]) -> ToolError {
        ToolError::Failed {
            command: self.command_line(),
            status: status.to_string(),
            stderr: String::from_utf8_lossy(stderr).into_owned(),
            code: status.code(),
        }
    }

    /// The call as a [`std::process::Command`] in the same clean environment, for a process that is
    /// to outlive this one or to take over the terminal. stdin, stdout and stderr are left to the caller.
    pub fn command(&self) -> std::process::Command {
        let mut words = self.before.iter().chain(self.argv());
        let mut command = std::process::Command::new(words.next().unwrap_or(&self.program));
        self.surround(command.args(words));
        command
    }

    fn surround(&self, command: &mut std::process::Command) {
        command.env_clear().env("PATH", search_path());
        command.env("LC_ALL", "C").env("TZ", "UTC").env("HOME", "/proc/nonexistent");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
    }
}

/// Has a tool end what it does where this process will: a terminal sends its signals to all of a process group.
fn keep_from_terminal(command: &mut std::process::Command) {
    if interrupt::is_deferred() {
        command.process_group(0);
    }
}

/// A tool that runs beside this process for what it prints, and is ended when this is dropped.
#[derive(Debug)]
pub struct Follow {
    reader: Arc<duct::ReaderHandle>,
    lines: mpsc::Receiver<String>,
}

impl Follow {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.reader.pids().first().copied().unwrap_or_default()
    }

    /// The next line that it prints.
    pub fn next(&self, patience: Duration) -> Result<String, mpsc::RecvTimeoutError> {
        self.lines.recv_timeout(patience)
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        let _ = self.reader.kill();
    }
}

/// Words as one would type them.
pub fn typed<W: AsRef<str>>(words: &[W]) -> String {
    words.iter().map(|word| quoted(word.as_ref())).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./=:,@%+".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_named() {
        let error = Tool::new("no-such-tool-here").run().unwrap_err();
        assert_eq!(error.to_string(), "no-such-tool-here is not installed");
    }

    #[test]
    fn a_failure_shows_the_command_and_its_last_words() {
        let error = Tool::new("ls").arg("/no such place").run().unwrap_err();
        assert!(
            error.to_string().starts_with("ls '/no such place' failed (exit status: 2)\n    ls: "),
            "{error}"
        );
    }

    #[test]
    fn the_environment_is_clean() {
        let text = Tool::new("env").env("EXTRA", "1").text().unwrap();
        let mut names: Vec<_> = text.lines().filter_map(|line| line.split('=').next()).collect();
        names.sort_unstable();
        assert_eq!(names, ["EXTRA", "HOME", "LC_ALL", "PATH", "TZ"]);
    }

    #[test]
    fn a_call_is_not_begun_where_whoever_wanted_it_is_gone() {
        let tool = Tool::new("echo").arg("begun").within(Duration::from_secs(5));
        assert_eq!(tool.text().unwrap(), "begun\n");
        // The shell has another number than this process, as has whoever a process is left to.
        let left =
            Tool::new("sh").args(["-c", "\"$@\"; true", "sh"]).args(tool.before.iter().chain(tool.argv()));
        assert_eq!(left.text().unwrap(), "");
    }

    #[test]
    fn lines_arrive_as_they_come_and_failures_are_seen() {
        let mut seen = Vec::new();
        let tool = Tool::new("sh").args(["-c", "echo one; echo two >&2; exit 3"]);
        let error = tool.lines(|line| seen.push(line.to_owned())).unwrap_err();
        assert_eq!(seen, ["one", "two"]);
        assert!(matches!(error, ToolError::Failed { code: Some(3), .. }), "{error}");
    }
}
