//! Unix sockets whose paths may be longer than an address of one.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// Longest path that fits a socket address (unix(7): 108 bytes with the closing zero).
const PATH_MAX: usize = 107;

/// Connects to a socket; where its path is too long for an address, by way of its directory, which has a short name in
/// `/proc/self/fd` while it is open.
pub fn connect(socket: &Path) -> io::Result<UnixStream> {
    if socket.as_os_str().len() <= PATH_MAX {
        return UnixStream::connect(socket);
    }
    let (Some(dir), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let dir = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    UnixStream::connect(Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name))
}
