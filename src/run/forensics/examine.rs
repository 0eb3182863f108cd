//! Archives of evidence, read: by an ordinary user as well, and without mounting what a guest wrote.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use crate::host::evidence::{DISK, EvidenceManifest, MANIFEST, PRISTINE, SIGNATURE};
use crate::image::difference::Difference;
use crate::image::inspect::InspectedImage;
use crate::image::read::{Flaw, InodeKind, Inventory, ReadError, System, Volume};
use crate::sys::e2fsck;
use crate::sys::fs::FileError;
use crate::sys::sparse::{self, StreamError};

use super::archive::{self, ReadArchive};
use super::error::EvidenceError;

/// Reads a whole archive and holds it against its manifest.
pub fn verify(path: &Path) -> Result<ReadArchive, EvidenceError> {
    archive::read(path, |_, _, _| Ok(()))
}

/// What a guest changed on its data disk.
#[derive(Debug)]
pub struct ChangedFiles {
    pub archive: ReadArchive,
    pub difference: Difference,
    /// What of the disk cannot be read, one sentence each.
    pub unreadable: Vec<String>,
}

/// Compares the data disk with the one that it was made from.
pub fn changed_files(path: &Path, times: bool) -> Result<ChangedFiles, EvidenceError> {
    let (dir, archive) = extracted(path, &[DISK, PRISTINE])?;
    for (name, what) in [(DISK, DATA_DISK), (PRISTINE, PRISTINE_DISK)] {
        require(path, &archive.manifest, name, what)?;
    }
    let (disk, mut flaws) = open_disk(dir.path(), path)?;
    let pristine = open_pristine(&dir.path().join(PRISTINE)).map_err(of_disk(path, PRISTINE))?;
    let (mut difference, of_files) =
        Difference::salvaged(&pristine, &disk, times).map_err(of_disk(path, PRISTINE))?;
    flaws.extend(of_files);
    // What cannot be read is not gone.
    let places: Vec<_> = flaws.iter().filter_map(Flaw::place).collect();
    let is_unread = |path: &str| places.iter().any(|place| is_at_or_below(path, place));
    difference.files.retain(|change| change.to.is_some() || !is_unread(&change.path));
    let unreadable = flaws.iter().map(ToString::to_string).collect();
    Ok(ChangedFiles { archive, difference, unreadable })
}

fn is_at_or_below(path: &str, place: &str) -> bool {
    let place = place.trim_end_matches('/');
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn open_pristine(path: &Path) -> Result<InspectedImage, ReadError> {
    let volume = Volume::open(path)?;
    let inventory = Inventory::of(&volume)?;
    Ok(InspectedImage { volume, inventory, system: System::default() })
}

/// What is wrong with a disk of an archive, without the place that it was extracted to.
fn of_disk(path: &Path, member: &'static str) -> impl Fn(ReadError) -> EvidenceError {
    let disk = if member == DISK { DATA_DISK } else { PRISTINE_DISK };
    move |error| EvidenceError::Disk { path: path.to_owned(), disk, member, flaw: error.flaw }
}

/// What disks are called.
const DATA_DISK: &str = "data disk";
const PRISTINE_DISK: &str = "disk that the data disk was made from";

/// Writes a file of an archive: of its data disk where the name is an absolute path, else a member. Nothing is written before all of
/// the archive was read and held.
pub fn print(path: &Path, name: &str, to: &mut impl Write) -> Result<(), EvidenceError> {
    let failed = || FileError::when("write", "standard output");
    if !name.starts_with('/') {
        let (dir, archive) = extracted(path, &[name])?;
        let own = match name {
            MANIFEST => Some(&archive.text),
            SIGNATURE => Some(&archive.signatures),
            _ => None,
        };
        if let Some(text) = own {
            return to.write_all(text.as_bytes()).map_err(|error| failed()(error).into());
        }
        require(path, &archive.manifest, name, name)?;
        let mut member = open(&dir.path().join(file_name(&[name], name)))?;
        return io::copy(&mut member, to).map(drop).map_err(|error| failed()(error).into());
    }
    let (dir, archive) = extracted(path, &[DISK])?;
    require(path, &archive.manifest, DISK, DATA_DISK)?;
    let (disk, _) = open_disk(dir.path(), path)?;
    let real = disk.inventory.real_path(name);
    let entry = real.as_ref().and_then(|real| disk.inventory.get(real));
    let without = |what| EvidenceError::Without { path: path.to_owned(), what, why: None };
    match entry {
        Some(entry) if matches!(entry.kind, InodeKind::File { .. }) => {
            let unread = of_disk(path, DISK);
            let named = |error: ReadError| ReadError { flaw: Flaw::at(name, error.flaw), ..error };
            let mut bytes = disk.volume.bytes_of(entry.inode).map_err(named).map_err(&unread)?;
            let mut block = vec![0; 1 << 16];
            loop {
                let flaw = |error| ReadError { image: path.to_owned(), flaw: Flaw::at(name, error) };
                match bytes.read(&mut block).map_err(flaw).map_err(&unread)? {
                    0 => return Ok(()),
                    count => to.write_all(&block[..count]).map_err(failed())?,
                }
            }
        }
        Some(entry) => Err(without(format!("file {name} on its data disk, but a {}", entry.kind.name()))),
        None => Err(without(format!("file {name} on its data disk"))),
    }
}

fn require(path: &Path, manifest: &EvidenceManifest, name: &str, what: &str) -> Result<(), EvidenceError> {
    if manifest.members.contains_key(name) {
        return Ok(());
    }
    let missing = manifest.missing.iter().find(|missing| missing.what == what || missing.what == name);
    let (what, why) = (what.to_owned(), missing.map(|missing| missing.why.clone()));
    Err(EvidenceError::Without { path: path.to_owned(), what, why })
}

/// What a member is called where it is extracted: names of members are the archive's, and nobody's paths.
fn file_name(names: &[&str], name: &str) -> String {
    match names.iter().position(|wanted| *wanted == name) {
        Some(_) if [DISK, PRISTINE].contains(&name) => name.to_owned(),
        place => format!("member-{}", place.unwrap_or_default()),
    }
}

/// Members of an archive as files of a temporary directory, once the archive was held against its manifest.
fn extracted(path: &Path, names: &[&str]) -> Result<(tempfile::TempDir, ReadArchive), EvidenceError> {
    let dir =
        tempfile::tempdir().map_err(FileError::when("create a directory in", "the temporary directory"))?;
    let archive = archive::read(path, |name, size, bytes| {
        if names.contains(&name) {
            extract(&dir.path().join(file_name(names, name)), size, bytes)?;
        }
        Ok(())
    })?;
    Ok((dir, archive))
}

/// Writes a member with holes where it is zeros.
fn extract(path: &Path, size: u64, bytes: &mut dyn Read) -> Result<(), EvidenceError> {
    let file = File::create_new(path).map_err(FileError::when("create", path))?;
    Ok(sparse::write_stream(bytes, size, &file).map_err(|error| match error {
        StreamError::Read(error) => FileError::when("read a member for", path)(error),
        StreamError::Write(error) => FileError::when("write", path)(error),
    })?)
}

fn open(path: &Path) -> Result<File, FileError> {
    File::open(path).map_err(FileError::when("open", path))
}

/// The data disk. It was not unmounted, so that the last of it is in its journal; e2fsck replays that, shut in where this is root.
fn open_disk(dir: &Path, archive: &Path) -> Result<(InspectedImage, Vec<Flaw>), EvidenceError> {
    e2fsck::replay_journal(dir, DISK)?;
    let volume = Volume::open(&dir.join(DISK)).map_err(of_disk(archive, DISK))?;
    let (inventory, unreadable) = Inventory::salvage(&volume).map_err(of_disk(archive, DISK))?;
    Ok((InspectedImage { volume, inventory, system: System::default() }, unreadable))
}
