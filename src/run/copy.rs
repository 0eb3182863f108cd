//! Copy: files and directories into a guest, and out of it. The stream is a tar: every guest has a program for it (busybox), while the
//! SFTP that `scp` speaks is a package of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;

use crate::base::ByteSize;
use crate::base::diagnostic::{Class, Diagnosis, Diagnostic};
use crate::base::text::excerpt;
use crate::sys::fs::FileError;
use crate::sys::ssh::{self, Io, SshError, Target};
use crate::sys::unpack::{UnpackError, Unpacked, unpack};

/// Why something was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("{0:?} names no file or directory of a guest")]
    NoName(String),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Ssh(#[from] SshError),
    #[error("the guest has no file or directory {0:?}")]
    NoFile(String),
    #[error("the guest says: {0}")]
    Guest(String),
    #[error(transparent)]
    Unpack(#[from] UnpackError),
}

impl Diagnostic for CopyError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::NoName(_) => Class::Invalid.hint(
                "name one, as in alice:notes.txt; a path that is not absolute begins at the user's home",
            ),
            Self::NoFile(_) => Class::Invalid
                .hint("a path that is not absolute begins at the user's home; `sisforge exec` lists it"),
            Self::File(error) => error.diagnosis(),
            Self::Ssh(error) => error.diagnosis(),
            Self::Guest(_) => Class::Failed.no_hint(),
            Self::Unpack(UnpackError::File(error)) => error.diagnosis().of(Class::Failed),
            Self::Unpack(UnpackError::TooMuch { .. }) => Class::Failed.hint("--max-size allows more"),
            Self::Unpack(UnpackError::Damaged(_) | UnpackError::Stray(_)) => {
                Class::Failed.hint("what a guest sends is its own; look into it with `sisforge exec`")
            }
        }
    }
}

/// Copies a file or a directory out of a guest, below `local` where that is a directory. Of what the guest sends, nothing is written
/// elsewhere, and no more than `most`.
pub fn from_guest(guest: &Target, remote: &str, local: &Path, most: ByteSize) -> Result<Unpacked, CopyError> {
    let (dir, name) = split(remote).ok_or_else(|| CopyError::NoName(remote.to_owned()))?;
    let to = if local.is_dir() { local.join(name) } else { local.to_owned() };
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    parent.metadata().map_err(FileError::when("write into", parent))?;
    let (reader, writer) = io::pipe().map_err(FileError::when("make", "pipe"))?;
    let argv = ["tar", "-cf", "-", "-C", dir, &format!("./{name}")].map(str::to_owned);
    let (said, unpacked) = thread::scope(|scope| {
        let unpacking = scope.spawn(|| unpack(io::BufReader::new(reader), name, &to, most.bytes()));
        let said = send(guest, &argv, Stdio::null(), writer.into());
        (said, unpacking.join())
    });
    match (said?, unpacked) {
        // A stream that came to no good end here ends the guest's side as well.
        (
            _,
            Ok(Err(error @ (UnpackError::TooMuch { .. } | UnpackError::File(_) | UnpackError::Stray(_)))),
        ) => Err(error.into()),
        (Some(said), _) => Err(match is_there(guest, remote)? {
            true => CopyError::Guest(said),
            false => CopyError::NoFile(remote.to_owned()),
        }),
        (None, Ok(done)) => Ok(done?),
        (None, Err(panic)) => std::panic::resume_unwind(panic),
    }
}

/// Whether a guest has a file, a directory or a link of this path.
fn is_there(guest: &Target, remote: &str) -> Result<bool, SshError> {
    let argv = ["test", "-e", remote, "-o", "-L", remote].map(str::to_owned);
    Ok(ssh::run(guest, &argv, Io::Capture)?.code != 1)
}

/// Copies a file or a directory into a guest, below `remote` where that is a directory. It belongs to the guest's user.
pub fn to_guest(local: &Path, guest: &Target, remote: &str) -> Result<(), CopyError> {
    let source = local.canonicalize().map_err(FileError::when("read", local))?;
    let home = if remote.is_empty() { "." } else { remote };
    let is_dir = ssh::run(guest, &["test", "-d", home].map(str::to_owned), Io::Capture)?.code == 0;
    let own = source.file_name().and_then(|name| name.to_str());
    let place = if is_dir { own.map(|own| (home, own)) } else { split(remote) };
    let (dir, name) = place.ok_or_else(|| CopyError::NoName(remote.to_owned()))?;
    let (reader, writer) = io::pipe().map_err(FileError::when("make", "pipe"))?;
    let argv = ["tar", "-xf", "-", "-C", dir].map(str::to_owned);
    let (said, packed) = thread::scope(|scope| {
        let packing = scope.spawn(|| pack(&source, name, writer));
        let said = send(guest, &argv, reader.into(), Stdio::null());
        (said, packing.join())
    });
    match (said?, packed) {
        // What could not be read here made the guest's side fail, and not the other way round.
        (_, Ok(Err(error))) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(FileError::when("read", source)(error).into())
        }
        (Some(said), _) => Err(CopyError::Guest(said)),
        (None, Ok(packed)) => Ok(packed.map_err(FileError::when("send", source))?),
        (None, Err(panic)) => std::panic::resume_unwind(panic),
    }
}

/// Runs a command between two streams; gives what it said where it failed.
fn send(target: &Target, argv: &[String], stdin: Stdio, stdout: Stdio) -> Result<Option<String>, CopyError> {
    let finished = ssh::run(target, argv, Io::Streams { stdin, stdout })?;
    let said = String::from_utf8_lossy(&finished.stderr);
    let said =
        excerpt(&said.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; "));
    Ok((finished.code != 0).then(|| if said.is_empty() { format!("status {}", finished.code) } else { said }))
}

fn pack(source: &PathBuf, name: &str, to: io::PipeWriter) -> io::Result<()> {
    let mut builder = tar::Builder::new(io::BufWriter::new(to));
    builder.follow_symlinks(false);
    if source.is_dir() {
        builder.append_dir_all(name, source)?;
    } else {
        builder.append_path_with_name(source, name)?;
    }
    builder.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error).map(drop)
}

/// The directory of a path in a guest, and its name there.
fn split(remote: &str) -> Option<(&str, &str)> {
    let path = remote.trim_end_matches('/');
    let (dir, name) = match path.rsplit_once('/') {
        None => (".", path),
        Some(("", name)) => ("/", name),
        Some(parts) => parts,
    };
    (!matches!(name, "" | "." | "..")).then_some((dir, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_a_guest_is_a_directory_and_a_name() {
        assert_eq!(split("notes.txt"), Some((".", "notes.txt")));
        assert_eq!(split("/etc/motd"), Some(("/etc", "motd")));
        assert_eq!(split("/motd/"), Some(("/", "motd")));
        for path in ["", "/", ".", "a/..", "//"] {
            assert_eq!(split(path), None, "{path:?}");
        }
    }
}
