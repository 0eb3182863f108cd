//! Unix sockets: their paths may be longer than an address of one, and whoever listens may not be who should.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::untrusted::{FileKind, UntrustedDir};

/// Longest path that fits a socket address (unix(7): 108 bytes with the closing zero).
const PATH_MAX: usize = 107;

/// Who is to listen at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub pid: u32,
    /// What it runs as now. It may have begun to listen before it gave up being root.
    pub uid: u32,
}

/// Who is at the other end of a connection.
pub fn peer_of(connection: impl AsFd) -> io::Result<Peer> {
    let peer = sockopt::socket_peercred(connection)?;
    // Two ends of one pair have no peer but themselves; anything else that the kernel does not know is nobody.
    Ok(Peer { pid: peer.pid.as_raw_nonzero().get().unsigned_abs(), uid: peer.uid.as_raw() })
}

/// Whether nobody can read any more what is written there: the other end of a connection or of a pipe is closed. One that is closed
/// for writing alone still reads.
pub fn is_hung_up(end: impl AsFd) -> bool {
    let mut asked = [PollFd::new(&end, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut asked, Some(&at_once)).is_ok() && asked[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

/// Where somebody listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    path: PathBuf,
    within: Option<UntrustedSocket>,
}

/// A socket in a directory that its listener may change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct UntrustedSocket {
    dir: PathBuf,
    name: String,
    peer: Peer,
}

impl Socket {
    /// A socket in a directory that is not to be trusted: it is reached over no link, and nobody but the peer is talked to.
    pub fn within(dir: &Path, name: &str, peer: Peer) -> Self {
        let within = UntrustedSocket { dir: dir.to_owned(), name: name.to_owned(), peer };
        Self { path: dir.join(name), within: Some(within) }
    }

    /// For words.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Connects within a time limit: a listener that takes no connections is not waited for longer.
    ///
    /// # Errors
    /// Where nobody listens, the socket may not be opened, or somebody else than the peer listens there.
    pub fn connect(&self, limit: Duration) -> io::Result<UnixStream> {
        let Some(UntrustedSocket { dir, name, peer }) = &self.within else {
            return by_path(&self.path, limit);
        };
        let dir = UntrustedDir::open(dir, peer.uid).map_err(|error| error.source)?;
        let node = dir.node(name, FileKind::Socket).map_err(|error| error.source)?;
        let stream = connect_to(&node.path(), limit)?;
        let there = sockopt::socket_peercred(&stream)?;
        let (pid, uid) = (there.pid.as_raw_nonzero().get().unsigned_abs(), there.uid.as_raw());
        if pid == peer.pid && (uid == peer.uid || uid == 0) {
            return Ok(stream);
        }
        Err(io::Error::other(format!(
            "process {pid} of uid {uid} listens there instead of process {} of uid {}",
            peer.pid, peer.uid
        )))
    }
}

impl From<&Path> for Socket {
    /// A socket that nobody else can put another in the place of.
    fn from(path: &Path) -> Self {
        Self { path: path.to_owned(), within: None }
    }
}

impl From<&PathBuf> for Socket {
    fn from(path: &PathBuf) -> Self {
        Self::from(path.as_path())
    }
}

/// Where a path is too long for an address, by way of its directory, which has a short name in `/proc/self/fd` while it is
/// open.
fn by_path(socket: &Path, limit: Duration) -> io::Result<UnixStream> {
    if socket.as_os_str().len() <= PATH_MAX {
        return connect_to(socket, limit);
    }
    let (Some(dir), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let dir = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    connect_to(&Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name), limit)
}

/// The kernel waits for room in the listener's queue as long as a send may take (unix(7), `SO_SNDTIMEO`).
fn connect_to(path: &Path, limit: Duration) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_timeout(&socket, Timeout::Send, Some(limit.max(Duration::from_millis(1))))?;
    let address = SocketAddrUnix::new(path)?;
    rustix::io::retry_on_intr(|| rustix::net::connect(&socket, &address)).map_err(|error| match error {
        rustix::io::Errno::AGAIN => io::ErrorKind::TimedOut.into(),
        error => io::Error::from(error),
    })?;
    Ok(UnixStream::from(socket))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::time::Instant;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(300);

    fn this_process() -> Peer {
        Peer { pid: std::process::id(), uid: rustix::process::geteuid().as_raw() }
    }

    #[test]
    fn nobody_but_the_peer_is_talked_to() {
        let dir = tempfile::tempdir().unwrap();
        let _listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let to = |peer| Socket::within(dir.path(), "s", peer).connect(LIMIT);
        to(this_process()).unwrap();
        let error = to(Peer { pid: 1, ..this_process() }).unwrap_err();
        assert!(error.to_string().contains("instead of process 1 of uid"), "{error}");
    }

    #[test]
    fn a_link_to_a_neighbours_socket_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let [own, neighbours] = ["own", "neighbours"].map(|name| dir.path().join(name));
        for path in [&own, &neighbours] {
            std::fs::create_dir(path).unwrap();
        }
        let _listener = UnixListener::bind(neighbours.join("s")).unwrap();
        std::os::unix::fs::symlink(neighbours.join("s"), own.join("s")).unwrap();
        std::os::unix::fs::symlink(&neighbours, own.join("run")).unwrap();
        for name in ["s", "run/s"] {
            let error = Socket::within(&own, name, this_process()).connect(LIMIT).unwrap_err();
            assert_eq!(error.to_string(), "it is a symbolic link", "{name}");
        }
    }

    #[test]
    fn a_full_queue_is_not_waited_for_beyond_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&socket, 0).unwrap();
        let began = Instant::now();
        let mut held = Vec::new();
        let error = loop {
            match Socket::from(&path).connect(LIMIT) {
                Ok(stream) => held.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(held.len() < 10 && began.elapsed() < Duration::from_secs(5));
    }
}
