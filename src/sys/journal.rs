//! systemd's journal, by its native protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Where journald listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// How much an entry matters (syslog(3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    Error = 3,
    Notice = 5,
}

/// Sends one entry with more fields, whose names are of `A-Z0-9_`. It never waits.
///
/// # Errors
/// Where nobody listens, or whoever does is busy.
pub fn send(socket: &Path, priority: Priority, message: &str, fields: &[(&str, &str)]) -> io::Result<()> {
    let number = (priority as u8).to_string();
    let own = [("MESSAGE", message), ("PRIORITY", &number), ("SYSLOG_IDENTIFIER", "sisforge")];
    let mut entry = Vec::new();
    for (name, value) in own.iter().chain(fields) {
        push(&mut entry, name, value);
    }
    let datagram = UnixDatagram::unbound()?;
    datagram.set_nonblocking(true)?;
    datagram.send_to(&entry, socket).map(drop)
}

/// A value that has lines is told with its length.
fn push(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend((value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend(value.as_bytes());
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_what_the_protocol_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        assert!(send(&path, Priority::Notice, "a", &[]).is_err(), "nobody listens");
        let journald = UnixDatagram::bind(&path).unwrap();
        send(&path, Priority::Error, "two\nlines", &[("SISFORGE_GUEST", "alice")]).unwrap();
        let mut bytes = [0; 256];
        let length = journald.recv(&mut bytes).unwrap();
        let expected = b"MESSAGE\n\x09\0\0\0\0\0\0\0two\nlines\nPRIORITY=3\nSYSLOG_IDENTIFIER=sisforge\nSISFORGE_GUEST=alice\n";
        assert_eq!(String::from_utf8_lossy(&bytes[..length]), String::from_utf8_lossy(expected));
    }
}
