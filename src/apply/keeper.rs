//! The keeper of a guest's logs: a process beside the VMM that copies what it writes into files of bounded size
//! (`sys/log`). It ends by itself once the VMM has, and where it is killed the VMM goes on.

use crate::apply::VmmError;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::pipe::PipeFlags;

use crate::fleet::VmmKind;
use crate::host::logs::{LogKind, LogStream};
use crate::host::vmm;
use crate::sys::cgroup::Limits;
use crate::sys::fs::{self as files, FileError, FileLock};
use crate::sys::process::{self, ChrootedProcess, DirId, Signal};
use crate::sys::tool::Tool;
use crate::sys::{launch, log};

use super::ApplyError;
use super::linux::GuestHandle;

/// How often is looked whether a keeper has ended.
const POLL: Duration = Duration::from_millis(2);
/// How long one may take to begin; after its VMM's end, to copy what is left in the pipes.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often one is started whose cgroup somebody took away.
const ATTEMPTS: usize = 3;

/// The ends of the pipes that a VMM is started with. They never wait: what does not fit is lost, and the guest goes on.
pub struct Ends {
    /// The VMM's stdout, which is the guest's serial port.
    pub serial: File,
    /// The VMM's stderr, and that of the jailer.
    pub said: File,
}

/// What a keeper is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeeperReason {
    /// A VMM that is about to be started.
    NewVmm,
    /// A VMM that runs, and whose keeper is gone.
    RunningVmm,
}

/// A file that is on no disk, and another descriptor of it.
fn in_memory() -> io::Result<(File, OwnedFd)> {
    let file = rustix::fs::memfd_create("said", MemfdFlags::CLOEXEC)?;
    let other = file.as_fd().try_clone_to_owned()?;
    Ok((file.into(), other))
}

impl GuestHandle<'_> {
    /// Starts the keeper of a guest whose jail is laid out below `root`, unless it has one. Once this is done, nothing that
    /// is written into the ends is lost.
    pub fn start_keeper(self, vmm: VmmKind, root: &Path, why: KeeperReason) -> Result<Ends, ApplyError> {
        let (host, guest) = (self.host, self.name);
        let layout = &host.layout;
        host.cache.forget_end(guest);
        let mut streams = vmm::of(vmm).log_streams(layout, guest, root);
        let is_there = |pipe: &Path| pipe.symlink_metadata().is_ok_and(|meta| meta.file_type().is_fifo());
        streams.retain(|stream| stream.kind != LogKind::Metrics || is_there(&stream.pipe));
        files::create_private_dir(&self.dir())?;
        if why == KeeperReason::NewVmm {
            for kind in [LogKind::Serial, LogKind::Vmm] {
                files::make_pipe(&self.dir().pipe(kind))?;
            }
        }
        // Held here until the keeper has them: a pipe that nobody writes to has ended.
        let end = |kind| {
            let path = streams.iter().find(|stream| stream.kind == kind).map(|stream| &stream.pipe);
            let path = path.cloned().unwrap_or_else(|| self.dir().pipe(kind));
            log::open_pipe_to_write(&path).map_err(FileError::when("open the pipe", path))
        };
        let ends = Ends { serial: end(LogKind::Serial)?, said: end(LogKind::Vmm)? };
        let mut last_words = String::new();
        for _ in 0..ATTEMPTS {
            if self.has_keeper() {
                return Ok(ends);
            }
            last_words = self.spawn_keeper(&streams, why)?;
        }
        if self.has_keeper() {
            return Ok(ends);
        }
        Err(VmmError::NoKeeper { guest: guest.clone(), said: last_words.trim().to_owned() }.into())
    }

    /// Starts a keeper and waits until it has begun, or has ended; what it said then.
    fn spawn_keeper(self, streams: &[LogStream], why: KeeperReason) -> Result<String, ApplyError> {
        let host = self.host;
        let (layout, limits) = (&host.layout, &host.logs);
        let cgroup = layout.keepers_cgroup();
        host.hierarchy.create(&cgroup, &Limits::NONE)?;
        let mut tool = Tool::new(&host.launcher).arg("keep-logs").arg("--lock").arg(self.dir().keeper());
        tool = tool.args(["--size", &limits.size.bytes().to_string(), "--keep", &limits.keep.to_string()]);
        for file in host.hierarchy.join_files(&cgroup) {
            tool = tool.arg("--cgroup").arg(file);
        }
        if why == KeeperReason::NewVmm {
            tool = tool.arg("--begin");
        }
        for stream in streams {
            tool = tool.arg(stream.kind.word()).arg(&stream.pipe);
        }
        let null = File::open("/dev/null").map_err(FileError::when("open", "/dev/null"))?;
        let (mut said, stderr) = in_memory().map_err(FileError::when("create a file in", "memory"))?;
        let pipe = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from);
        let (begun, stdout) = pipe.map_err(FileError::when("create", "a pipe"))?;
        launch::spawn(&tool, null, stdout.into(), stderr.into())?;
        // It says that it has begun, or its end of the pipe is closed with it.
        let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        let _ = poll(&mut [PollFd::new(&begun, PollFlags::IN)], Some(&patience));
        let mut text = String::new();
        // What cannot be read is only the reason's wording.
        let _ = said.rewind().and_then(|()| said.read_to_string(&mut text));
        Ok(text)
    }

    /// Whether a guest's logs are being kept.
    pub fn has_keeper(self) -> bool {
        FileLock::is_held(&self.dir().keeper())
    }

    /// The same keeper, where it was found stopped: nothing is copied.
    pub(super) fn halted_keeper(self) -> Option<ChrootedProcess> {
        let (layout, host) = (self.layout(), self.host);
        let none_can_be = host.hierarchy.procs_files(&layout.keepers_cgroup()).is_empty();
        let dir = (!none_can_be).then(|| DirId::of(&self.dir()))??;
        host.cache.halted_keeper(&host.hierarchy, layout, dir)
    }

    /// Lets a keeper go on that was found stopped.
    pub(super) fn wake_keeper(self) {
        if let Some(keeper) = self.halted_keeper() {
            // One that ended meanwhile is what is wanted, or started again.
            let _ = process::send_signal(keeper.id, Signal::CONT);
        }
    }

    /// Waits until the keeper of a guest whose VMM is gone has copied all that is left, and ends one that hangs.
    pub fn end_keeper(self) -> Result<(), ApplyError> {
        let guest = self.name;
        if self.host.cache.keeper_has_ended(guest) {
            return Ok(());
        }
        self.wake_keeper();
        self.wait_for_keeper();
        if self.keeper_ends_within(PATIENCE) {
            self.host.cache.set_keeper_ended(guest);
            return Ok(());
        }
        // It lives in the guest's directory, and nothing else does.
        for pid in process::rooted_in(&self.dir()) {
            if let Some(info) = process::inspect(pid) {
                let _ = process::send_signal(info.id, Signal::KILL);
            }
        }
        if self.keeper_ends_within(PATIENCE) {
            Ok(())
        } else {
            Err(VmmError::KeeperDoesNotEnd(guest.clone()).into())
        }
    }

    /// Waits for the end of the process that was the guest's keeper at the time of the look, which needs no asking again and again.
    /// Who else keeps its logs is asked for by its lock.
    fn wait_for_keeper(self) {
        let (layout, host) = (self.layout(), self.host);
        let Some(dir) = DirId::of(&self.dir()).filter(|_| self.has_keeper()) else { return };
        let seen = host.cache.keeper(&host.hierarchy, layout, dir).and_then(process::Handle::open);
        // Looked up after the process is held, so it is the one that is waited for.
        if let Some(keeper) = seen.filter(|keeper| process::root(keeper.pid()) == Some(dir)) {
            keeper.wait(PATIENCE);
        }
    }

    fn keeper_ends_within(self, patience: Duration) -> bool {
        let begun = Instant::now();
        while self.has_keeper() {
            if begun.elapsed() > patience {
                return false;
            }
            std::thread::sleep(POLL);
        }
        true
    }
}
