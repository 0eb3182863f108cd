//! A machine's memory and state written to a file and read from it: QEMU's migration, with a file in the place of
//! the other machine (`docs/devel/migration.rst`). The file is opened here and its descriptor passed (`getfd`), because
//! QEMU sees nothing but its jail, and 7.2 takes no file by its name.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde_json::{Value, json};

use crate::base::text::excerpt;

use super::{Qmp, QmpError};

/// What the passed descriptor is called.
const FD_NAME: &str = "snapshot";
/// Bytes per second that are no limit; QEMU's own is 1 Gbit/s.
const NO_LIMIT: u64 = 1 << 40;
const POLL: Duration = Duration::from_millis(10);

impl Qmp {
    /// Stops the virtual CPUs.
    pub fn stop(&mut self) -> Result<(), QmpError> {
        self.execute("stop", json!({})).map(drop)
    }

    /// Lets the virtual CPUs run again, after a stop or a migration.
    pub fn cont(&mut self) -> Result<(), QmpError> {
        self.execute("cont", json!({})).map(drop)
    }

    /// Writes memory and state of a machine that is stopped into a file, from where the descriptor stands. Where it
    /// takes longer than `limit`, or fails, what was written is worth nothing.
    pub fn save(&mut self, file: &File, limit: Duration) -> Result<(), QmpError> {
        self.execute("migrate-set-parameters", json!({ "max-bandwidth": NO_LIMIT }))?;
        self.pass(file)?;
        self.execute("migrate", json!({ "uri": format!("fd:{FD_NAME}") }))?;
        let done = self.await_migration("migrate", limit);
        if matches!(done, Err(QmpError::Timeout { .. })) {
            // It holds up nothing any more; the time limit is the error to tell.
            let _ = self.execute("migrate_cancel", json!({}));
        }
        done
    }

    /// Reads memory and state into a QEMU that was started with `-incoming defer`. Its CPUs stand still afterwards.
    pub fn load(&mut self, file: &File, limit: Duration) -> Result<(), QmpError> {
        self.pass(file)?;
        self.execute("migrate-incoming", json!({ "uri": format!("fd:{FD_NAME}") }))?;
        self.await_migration("migrate-incoming", limit)
    }

    /// Writes the memory of a machine that is stopped into a file as an ELF core: a segment for each range of it, at its physical
    /// address.
    pub fn write_core(&mut self, file: &File, limit: Duration) -> Result<(), QmpError> {
        self.pass(file)?;
        let arguments = json!({ "paging": false, "protocol": format!("fd:{FD_NAME}") });
        self.exchange("dump-guest-memory", arguments, None, Instant::now() + limit).map(drop)
    }

    fn await_migration(&mut self, command: &str, limit: Duration) -> Result<(), QmpError> {
        let end = Instant::now() + limit;
        loop {
            let answer = self.execute("query-migrate", json!({}))?;
            match outcome(&answer) {
                Some(Ok(())) => return Ok(()),
                Some(Err(description)) => {
                    let (path, command) = (self.path.clone(), command.to_owned());
                    return Err(QmpError::Refused { path, command, class: "failed".to_owned(), description });
                }
                None if Instant::now() > end => {
                    let (path, command) = (self.path.clone(), command.to_owned());
                    return Err(QmpError::Timeout { path, command, timeout: limit });
                }
                None => std::thread::sleep(POLL),
            }
        }
    }

    /// Gives QEMU a descriptor of an open file.
    fn pass(&mut self, file: &File) -> Result<(), QmpError> {
        let end = Instant::now() + self.timeout;
        self.exchange("getfd", json!({ "fdname": FD_NAME }), Some(file.as_fd()), end).map(drop)
    }
}

/// How a migration ended, from what `query-migrate` returns; `None` while it goes on.
fn outcome(answer: &Value) -> Option<Result<(), String>> {
    match answer.get("status").and_then(Value::as_str)? {
        "completed" => Some(Ok(())),
        "failed" | "cancelled" => {
            let reason = answer.get("error-desc").and_then(Value::as_str);
            Some(Err(excerpt(reason.unwrap_or("it gave no reason"))))
        }
        _ => None,
    }
}

/// Writes bytes to a socket with a descriptor beside the first of them.
pub(super) fn send_with(
    socket: BorrowedFd<'_>,
    mut bytes: &[u8],
    descriptor: BorrowedFd<'_>,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut first = Some(descriptor);
    while !bytes.is_empty() {
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<_> = first.take().into_iter().collect();
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(ErrorKind::InvalidInput.into());
        }
        let sent = rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_goes_on_until_qemu_says_how_it_ended() {
        assert_eq!(outcome(&json!({})), None);
        assert_eq!(outcome(&json!({ "status": "active" })), None);
        assert_eq!(outcome(&json!({ "status": "completed", "downtime": 4 })), Some(Ok(())));
        let failed = json!({ "status": "failed", "error-desc": "Unable to write to file" });
        assert_eq!(outcome(&failed), Some(Err("Unable to write to file".to_owned())));
    }

    #[test]
    fn a_descriptor_goes_with_the_bytes() {
        use std::io::Read;
        use std::os::unix::net::UnixStream;
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        send_with(ours.as_fd(), b"a line\n", std::io::stdout().as_fd()).unwrap();
        drop(ours);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = rustix::net::RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 4];
        let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
        rustix::net::recvmsg(&theirs, &mut parts, &mut ancillary, rustix::net::RecvFlags::empty()).unwrap();
        assert_eq!(ancillary.drain().count(), 1);
        let mut rest = String::new();
        theirs.read_to_string(&mut rest).unwrap();
        assert_eq!((&bytes, rest.as_str()), (b"a li", "ne\n"));
    }
}
