//! The keeper of a guest's logs: it copies bytes from pipes to logs until whoever wrote is gone, and understands none.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::{LogBounds, Writer};
use crate::sys::fs::{FileError, FileLock};
use crate::sys::untrusted::HeldNode;

/// What a keeper is to do.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// Held once every pipe is open, for as long as the keeper lives. The logs stand beside it.
    pub lock: &'a Path,
    /// Names of logs, without their ending, and the pipe of each. The end of the first is the end of all.
    pub streams: &'a [(&'a Path, &'a Path)],
    pub limits: LogBounds,
    /// Whether whoever writes is being started.
    pub begin: bool,
}

/// A pipe and the log that it becomes.
#[derive(Debug)]
struct Stream {
    pipe: File,
    log: Writer,
}

/// What a pipe holds while nobody reads it: the most that the kernel gives without being asked for more
/// (`/proc/sys/fs/pipe-max-size`).
const PIPE_SIZE: usize = 1 << 20;
/// Time for bytes to gather: a serial port writes them one by one.
const GATHER: Duration = Duration::from_millis(10);
/// How much is read of one pipe before another has its turn.
const TURN: usize = 4 << 20;

/// What a keeper says on stdout once its logs are kept.
const BEGUN: &[u8] = b"begun\n";

/// Opens a pipe that has a name, to read from it. It is never waited for: neither for somebody at its other end, nor for room or
/// bytes in it.
///
/// The name may stand where somebody else can put another thing in its place, so that must be a pipe too.
pub fn open_pipe_to_read(path: &Path) -> io::Result<File> {
    open_pipe(path, HeldNode::open_to_read)
}

/// Opens a pipe as [`open_pipe_to_read`] does, to write to it.
pub fn open_pipe_to_write(path: &Path) -> io::Result<File> {
    open_pipe(path, HeldNode::open_to_write)
}

fn open_pipe(path: &Path, open: fn(&HeldNode) -> io::Result<File>) -> io::Result<File> {
    let node = HeldNode::at(path)?;
    if !node.metadata().file_type().is_fifo() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a pipe"));
    }
    let file = open(&node)?;
    // A smaller one does as well, but for whoever writes much at once.
    let _ = rustix::pipe::fcntl_setpipe_size(&file, PIPE_SIZE);
    Ok(file)
}

/// Keeps logs until the first of the streams has ended, or does nothing where somebody else keeps them.
///
/// The process keeps no privilege: it sees the directory of the logs alone.
pub fn keep(work: &Work<'_>) -> Result<(), FileError> {
    let open =
        |(_, pipe): &(&Path, &Path)| open_pipe_to_read(pipe).map_err(FileError::when("open the pipe", *pipe));
    let pipes = work.streams.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let (dir, lock) = match (work.lock.parent(), work.lock.file_name()) {
        (Some(dir), Some(name)) => (dir, Path::new(name)),
        _ => return Err(FileError::when("lock", work.lock)(ErrorKind::InvalidInput.into())),
    };
    confine(dir).map_err(FileError::when("give up all privileges but those on", dir))?;
    let mut streams = Vec::new();
    for ((name, _), pipe) in work.streams.iter().zip(pipes) {
        let path = name.with_extension("log");
        let log = Writer::open(&path, work.limits).map_err(FileError::when("open", path))?;
        streams.push(Stream { pipe, log });
    }
    let Some(_held) = FileLock::attempt(lock)? else { return Ok(()) };
    if work.begin {
        streams.iter_mut().for_each(|stream| stream.log.begin(SystemTime::now()));
    }
    // Whoever started this waits for it, or is gone.
    let _ = io::stdout().write_all(BEGUN).and_then(|()| io::stdout().flush());
    copy_all(streams).map_err(FileError::when("wait for the pipes of", dir))
}

/// Makes a directory all that this process sees of the file system, and gives up its capabilities. Who is not root has none,
/// and is only moved there.
fn confine(dir: &Path) -> io::Result<()> {
    std::env::set_current_dir(dir)?;
    rustix::thread::set_no_new_privs(true)?;
    if rustix::process::geteuid().is_root() {
        rustix::process::chroot(".")?;
        std::env::set_current_dir("/")?;
        let none = CapabilitySet::empty();
        let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
        rustix::thread::set_capabilities(None, none)?;
    }
    Ok(())
}

/// Copies until the first of the streams has ended; whatever is in the others then is copied as well.
fn copy_all(mut streams: Vec<Stream>) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        // Before anything is waited for: of a pipe that nobody wrote to since it was opened here, no end is ever told, and
        // whoever was to write may be gone already.
        let mut ended = false;
        for (place, stream) in streams.iter_mut().enumerate() {
            let at_end = copy(stream, &mut buffer);
            // Another may be opened by its writer only later, or not at all.
            ended |= at_end && place == 0;
        }
        if ended {
            return Ok(());
        }
        let mut waiting: Vec<_> =
            streams.iter().map(|stream| PollFd::new(&stream.pipe, PollFlags::IN)).collect();
        match poll(&mut waiting, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        thread::sleep(GATHER);
    }
}

/// Copies what is there; whether nobody writes any more.
fn copy(stream: &mut Stream, buffer: &mut [u8]) -> bool {
    let mut copied = 0;
    while copied < TURN {
        match stream.pipe.read(buffer) {
            Ok(0) => return true,
            Ok(count) => {
                stream.log.append(&buffer[..count], SystemTime::now());
                copied += count;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    false
}
