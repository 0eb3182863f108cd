//! What a snapshot's files hold, and the seal that tells that nobody wrote to them since.
//!
//! The seal is that of the store (`apply/store.rs`): a time of the last change that no write leaves as it is. A VMM may have what it
//! wrote open still, or mapped, so the order counts. The time is set, and then all is written back, which takes the right to write
//! from each mapped page: whoever writes after that changes the time first. Only then the bytes are read, for the digest. So a file
//! with its seal holds what its digest says, and a restore need not read it.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::fstatfs;

use crate::apply::ApplyError;
use crate::apply::store;
use crate::host::snapshot::{DISK, FileRecord, MEMORY, STATE};
use crate::sys::fs::FileError;
use crate::sys::report::Task;
use crate::sys::{sparse, verity};

/// File systems that change a file's time also where it is written through a mapping: ext4, XFS and Btrfs (`linux/magic.h`). A tmpfs,
/// for one, does not.
const TELL_OF_WRITES: [i64; 3] = [0xEF53, 0x5846_5342, 0x9123_683E];

/// Makes the files of a snapshot root's and final: no VMM may write them any more, and all are on the disk. Gives what each holds.
pub(super) fn seal(dir: &Path, task: &dyn Task) -> Result<BTreeMap<String, FileRecord>, ApplyError> {
    let mut sealed = BTreeMap::new();
    for name in [MEMORY, STATE, DISK] {
        let path = dir.join(name);
        if !path.exists() {
            continue;
        }
        task.detail(&format!("digest of {name}"));
        // The VMM of a guest reads memory and state as its own user; nobody else comes that far.
        let mode = if name == DISK { 0o600 } else { 0o444 };
        let record = seal_file(&path, mode).map_err(FileError::when("write", &path))?;
        sealed.insert(name.to_owned(), record);
    }
    Ok(sealed)
}

fn seal_file(path: &Path, mode: u32) -> io::Result<FileRecord> {
    std::os::unix::fs::chown(path, Some(0), Some(0))?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    let file = File::options().read(true).write(true).open(path)?;
    sparse::dig_holes(&file)?;
    store::seal(&file)?;
    file.sync_all()?;
    let (digest, size) = verity::digest_of(&file, None)?;
    Ok(FileRecord { size, digest })
}

/// Whether nobody wrote to a file of a snapshot since it was sealed, as far as its file system tells; it has the bytes then that it
/// had.
pub(super) fn is_unwritten(path: &Path, record: &FileRecord) -> bool {
    let look = || -> io::Result<bool> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        let tells = TELL_OF_WRITES.contains(&fstatfs(&file)?.f_type);
        Ok(tells && meta.len() == record.size && store::is_sealed(&meta))
    };
    look().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::process::{Command, Stdio};

    use super::*;

    /// Maps a file, writes to it, and does so again when it is told to.
    const MAPPED: &str = "import mmap, sys\nfile = open(sys.argv[1], 'r+b')\npage = mmap.mmap(file.fileno(), 0)\n\
                          for byte in b'ab':\n page[0] = byte\n print(flush=True)\n sys.stdin.readline()";

    /// A sealed file, and whoever has it open since before.
    fn sealed(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf, File, FileRecord) {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = dir.path().join("memory");
        fs::write(&path, bytes).unwrap();
        let open = File::options().read(true).write(true).open(&path).unwrap();
        let record = seal_file(&path, 0o444).unwrap();
        (dir, path, open, record)
    }

    #[test]
    fn who_writes_to_a_sealed_file_breaks_the_seal_also_through_a_mapping() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("SKIPPED: files are given to root");
        }
        let (_dir, path, mut open, record) = sealed(&[7; 8192]);
        if !TELL_OF_WRITES.contains(&fstatfs(&open).unwrap().f_type) {
            assert!(!is_unwritten(&path, &record), "it does not tell of writes");
            return eprintln!("SKIPPED: /var/tmp is on no file system that tells of every write");
        }
        assert!(is_unwritten(&path, &record));
        let shorter = FileRecord { size: 4096, ..record };
        assert!(!is_unwritten(&path, &shorter));
        open.write_all(b"x").unwrap();
        assert!(!is_unwritten(&path, &record));

        // One page is dirty, and may be written, when the file is sealed.
        let (_dir, path, _, _) = sealed(&[7; 8192]);
        let mut mapped = Command::new("python3");
        mapped.args(["-c", MAPPED]).arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let Ok(mut mapped) = mapped.spawn() else { return eprintln!("SKIPPED: there is no python3") };
        let (mut to, mut from) =
            (mapped.stdin.take().unwrap(), BufReader::new(mapped.stdout.take().unwrap()));
        let mut done = || from.read_line(&mut String::new()).unwrap();
        done();
        let record = seal_file(&path, 0o444).unwrap();
        assert!(is_unwritten(&path, &record), "what was written before is part of it");
        to.write_all(b"\n").unwrap();
        done();
        assert!(!is_unwritten(&path, &record));
        drop(to);
        mapped.wait().unwrap();
    }
}
