//! Snapshots that go from one host to another: as a tar file, compressed by zstd, encrypted by age for the key of one host. Nobody
//! else can read it, so that this host's ledger alone counts how often it is restored.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::apply::ApplyError;
use crate::apply::error::FORMAT;
use crate::apply::record;
use crate::base::time::now;
use crate::base::{FleetName, SnapshotName};
use crate::host::layout::Layout;
use crate::host::ledger::{LedgerEvent, SnapshotId};
use crate::host::snapshot::{
    DISK, EXPORTED, FileRecord, HandedOver, MANIFEST, MEMORY, STATE, SnapshotManifest,
};
use crate::sys::age::{self, AgeIdentity, AgeRecipient};
use crate::sys::digest::digest_like;
use crate::sys::fs::{self as files, FileError, NewFile};
use crate::sys::interrupt;
use crate::sys::report::{Report, Task, Unit};
use crate::sys::sparse::{self, StreamError};

use super::create::put_away;
use super::ledger::HeldLedger;
use super::restore::check_unused;
use super::seal::seal;
use super::{SnapshotError, TransferError, check_files, shelf};

/// The first member: an [`ExportHead`].
const HEAD: &str = "export.json";
/// Level of zstd: memory and disks are mostly zeros, and time counts.
const LEVEL: i32 = 3;
/// Largest text that a file is read into memory for.
const MAX_TEXT: u64 = 1 << 20;

/// What is in the file.
#[derive(Debug, Serialize, Deserialize)]
struct ExportHead {
    format: u32,
    fleet: FleetName,
    snapshot: SnapshotName,
}

/// What goes where.
#[derive(Clone, Copy, Debug)]
pub struct ExportRequest<'a> {
    pub name: &'a SnapshotName,
    pub recipient: &'a AgeRecipient,
    /// That of this host: a snapshot that is exported to it stays what it is.
    pub own: &'a AgeRecipient,
    pub out: &'a Path,
    /// How many threads compress.
    pub threads: usize,
}

/// Writes a snapshot to a file for one host. Where that is another, the snapshot is no longer this one's: it is so in the ledger
/// before the file has its name.
pub fn export(
    layout: &Layout,
    request: &ExportRequest<'_>,
    report: &dyn Report,
) -> Result<SnapshotManifest, ApplyError> {
    let ExportRequest { name, recipient, own, out, .. } = *request;
    refuse_existing(out)?;
    files::require_dir_of(out).map_err(TransferError::from)?;
    let manifest = shelf::ready_manifest(layout, name)?;
    let mut ledger = HeldLedger::open(layout)?;
    let is_other = recipient != own;
    let to = recipient.to_string();
    let fate = ledger.fate(manifest.id());
    // Whoever exported it to the same host was killed before the file had its name.
    let again = fate.is_some_and(
        |fate| matches!(&fate.line.event, LedgerEvent::Exported { recipient, .. } if *recipient == to),
    );
    if !again {
        check_unused(name, fate)?;
    }
    if let Some(obstacle) = check_files(layout, name, &manifest)?.into_iter().next() {
        return Err(TransferError::Unsound { name: name.clone(), obstacle }.into());
    }
    let id = if is_other { manifest.id().handed_to(&to) } else { manifest.id() };
    let exported = SnapshotManifest { id: Some(id), ..manifest.clone() };
    let task = report.begin(&format!("export {name}"), None, Unit::Steps);
    let file = write_file(layout, request, &exported, &*task)?;
    refuse_existing(out)?;
    if is_other && !again {
        let (id, snapshot) = (manifest.id(), name.clone());
        ledger.add(LedgerEvent::Exported { id, snapshot, recipient: to.clone() })?;
    }
    file.persist(0o600)?;
    if is_other {
        hand_over(layout, name, to)?;
    }
    task.finish("exported");
    Ok(manifest)
}

fn refuse_existing(path: &Path) -> Result<(), TransferError> {
    match path.symlink_metadata() {
        Ok(_) => Err(TransferError::FileExists(path.to_owned())),
        Err(_) => Ok(()),
    }
}

/// Writes all of the file, which has no name yet.
fn write_file(
    layout: &Layout,
    request: &ExportRequest<'_>,
    manifest: &SnapshotManifest,
    task: &dyn Task,
) -> Result<NewFile, ApplyError> {
    let (name, out) = (request.name, request.out);
    let mut file = NewFile::create(out)?;
    let head = ExportHead { format: FORMAT, fleet: layout.fleet().clone(), snapshot: name.clone() };
    let head = crate::base::text::json(&head) + "\n";
    let text = record::text(out, manifest)?;
    let mut write = || -> io::Result<()> {
        let encrypted = age::encrypt(request.recipient, file.file().try_clone()?)?;
        let mut encoder = zstd::Encoder::new(encrypted, LEVEL)?;
        encoder.multithread(u32::try_from(request.threads).unwrap_or(1))?;
        let mut tar = tar::Builder::new(encoder);
        append(&mut tar, HEAD, head.len() as u64, head.as_bytes())?;
        append(&mut tar, MANIFEST, text.len() as u64, text.as_slice())?;
        for (part, FileRecord { size, .. }) in &manifest.files {
            task.detail(part);
            append(&mut tar, part, *size, File::open(layout.ready_snapshot(name).join(part))?)?;
        }
        tar.into_inner()?.finish()?.finish()?;
        Ok(())
    };
    write().map_err(FileError::when("write", out))?;
    Ok(file)
}

fn append(tar: &mut tar::Builder<impl io::Write>, name: &str, size: u64, bytes: impl Read) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o600);
    tar.append_data(&mut header, name, StoppableReader(bytes))
}

/// Reads until somebody asks this process to end.
struct StoppableReader<R>(R);

impl<R: Read> Read for StoppableReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        interrupt::check()?;
        self.0.read(buffer)
    }
}

/// Puts a snapshot that is another host's among those that cannot be restored. Its disk stays until somebody removes it.
fn hand_over(layout: &Layout, name: &SnapshotName, recipient: String) -> Result<(), ApplyError> {
    let (ready, consumed) = (layout.ready_snapshot(name), layout.consumed_snapshot(name));
    files::create_private_dir(&layout.consumed_snapshots())?;
    record::write(&ready.join(EXPORTED), &HandedOver { recipient, at: now() })?;
    fs::rename(&ready, &consumed).map_err(FileError::when("put away", &ready))?;
    files::sync_dir(&layout.consumed_snapshots())?;
    files::sync_dir(&layout.ready_snapshots())?;
    shelf::clear(layout)
}

/// A snapshot that was imported.
#[derive(Clone, Debug)]
pub struct Imported {
    pub name: SnapshotName,
    pub manifest: SnapshotManifest,
}

/// Brings a snapshot in from a file, under its own name or another. Where anything is wrong with it, nothing of it is left.
pub fn import(
    layout: &Layout,
    identity: &AgeIdentity,
    path: &Path,
    name: Option<&SnapshotName>,
    report: &dyn Report,
) -> Result<Imported, ApplyError> {
    let source = ExportFile { path };
    let decrypted = identity.decrypt(path).map_err(TransferError::from)?;
    let task = report.begin(&format!("import {}", path.display()), None, Unit::Steps);
    shelf::clear(layout)?;
    let mut ledger = HeldLedger::open(layout)?;
    let decoder = zstd::Decoder::new(decrypted).map_err(|error| source.broken(error))?;
    let mut archive = tar::Archive::new(decoder);
    // As they stand there: extensions of tar would have this program hold whatever is said to be a name.
    let mut members = archive.entries().map_err(|error| source.broken(error))?.raw(true);
    let head = source.head(&mut members, layout.fleet())?;
    let name = name.unwrap_or(&head.snapshot).clone();
    let manifest = source.manifest(&mut members)?;
    check_acceptable(layout, &ledger, &source, &name, &manifest)?;

    let dir = layout.new_snapshot(&name);
    let made = extract(&source, &mut members, &manifest, &dir, &*task).and_then(|()| {
        // Its end tells whether that is all of it.
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(|error| source.broken(error))?;
        finish(&source, &manifest, &dir, &*task)?;
        let (id, snapshot, guest) = (manifest.id(), name.clone(), manifest.guest.clone());
        // Of one that the ledger knows, too: what was brought back is the newest of its guest to whoever keeps so many.
        ledger.add(LedgerEvent::Imported { id, snapshot, guest })?;
        put_away(layout, &name, &dir)
    });
    if let Err(error) = made {
        let _ = files::remove(&dir);
        return Err(error);
    }
    task.finish("imported");
    Ok(Imported { name, manifest })
}

/// Checks whether a snapshot may come in under this name.
fn check_acceptable(
    layout: &Layout,
    ledger: &HeldLedger<'_>,
    source: &ExportFile<'_>,
    name: &SnapshotName,
    manifest: &SnapshotManifest,
) -> Result<(), ApplyError> {
    let id: SnapshotId = manifest.id();
    let fate = ledger.fate(id);
    if fate.is_some() {
        check_unused(name, fate)?;
    }
    let there = shelf::list(layout)?;
    if let Some(same) = there.iter().find(|one| one.manifest.as_ref().is_some_and(|other| other.id() == id)) {
        return Err(TransferError::Here { path: source.path.to_owned(), name: same.name.clone() }.into());
    }
    match there.iter().any(|one| one.name == *name) {
        true => Err(SnapshotError::Exists(name.clone()).into()),
        false => Ok(()),
    }
}

/// Writes the files of a snapshot, and nothing else that is in there.
fn extract<'a, R: Read + 'a>(
    source: &ExportFile<'_>,
    members: &mut impl Iterator<Item = io::Result<tar::Entry<'a, R>>>,
    manifest: &SnapshotManifest,
    dir: &Path,
    task: &dyn Task,
) -> Result<(), ApplyError> {
    files::create_private_dir(dir)?;
    let mut awaited: BTreeMap<&str, u64> =
        manifest.files.iter().map(|(name, file)| (name.as_str(), file.size)).collect();
    for member in members {
        let mut member = member.map_err(|error| source.broken(error))?;
        let name = String::from_utf8_lossy(&member.path_bytes()).into_owned();
        let size = awaited.remove(name.as_str()).filter(|size| *size == member.size());
        let Some(size) = size.filter(|_| member.header().entry_type().is_file()) else {
            return Err(source.no_snapshot(format!("{name:?} should not be in it")).into());
        };
        task.detail(&name);
        let path = dir.join(&name);
        let file = File::create_new(&path).map_err(FileError::when("create", &path))?;
        sparse::write_stream(&mut member, size, &file).map_err(|error| match error {
            StreamError::Read(error) => ApplyError::from(source.broken(error)),
            StreamError::Write(error) => FileError::when("write", &path)(error).into(),
        })?;
    }
    match awaited.keys().next() {
        Some(name) => Err(source.no_snapshot(format!("its {name} is missing")).into()),
        None => Ok(()),
    }
}

/// Makes what was written what a snapshot is, and holds it against its manifest.
fn finish(
    source: &ExportFile<'_>,
    manifest: &SnapshotManifest,
    dir: &Path,
    task: &dyn Task,
) -> Result<(), ApplyError> {
    let sealed = seal(dir, task)?;
    for (name, record) in &manifest.files {
        let is_same = match sealed.get(name) {
            Some(found) if record.digest.is_verity() => found == record,
            Some(found) => {
                found.size == record.size && digest_like(&record.digest, &dir.join(name))?.0 == record.digest
            }
            None => false,
        };
        if !is_same {
            return Err(source.no_snapshot(format!("its {name} is not what its manifest says")).into());
        }
    }
    Ok(record::write_synced(&dir.join(MANIFEST), manifest)?)
}

/// The file that is read.
struct ExportFile<'a> {
    path: &'a Path,
}

impl ExportFile<'_> {
    /// What cannot be read of a file was damaged; where this process was asked to end, nothing was.
    fn broken(&self, error: io::Error) -> TransferError {
        match error.kind() {
            io::ErrorKind::Interrupted => FileError::when("read", self.path)(error).into(),
            _ => TransferError::Damaged { path: self.path.to_owned(), why: error.to_string() },
        }
    }

    fn no_snapshot(&self, why: String) -> TransferError {
        TransferError::NoSnapshot { path: self.path.to_owned(), why }
    }

    /// The next member, which must be a text of this name.
    fn text<'a, R: Read + 'a>(
        &self,
        members: &mut impl Iterator<Item = io::Result<tar::Entry<'a, R>>>,
        name: &str,
    ) -> Result<Vec<u8>, TransferError> {
        let member = members.next().ok_or_else(|| self.no_snapshot(format!("it has no {name}")))?;
        let member = member.map_err(|error| self.broken(error))?;
        if member.path_bytes() != name.as_bytes() || !member.header().entry_type().is_file() {
            return Err(self.no_snapshot(format!("{name} is not where it should be")));
        }
        let mut text = Vec::new();
        member.take(MAX_TEXT).read_to_end(&mut text).map_err(|error| self.broken(error))?;
        Ok(text)
    }

    fn head<'a, R: Read + 'a>(
        &self,
        members: &mut impl Iterator<Item = io::Result<tar::Entry<'a, R>>>,
        here: &FleetName,
    ) -> Result<ExportHead, TransferError> {
        let text = self.text(members, HEAD)?;
        let path = || self.path.to_owned();
        let value: serde_json::Value =
            serde_json::from_slice(&text).map_err(|error| self.no_snapshot(format!("{HEAD}: {error}")))?;
        let format = value["format"].as_u64().and_then(|format| u32::try_from(format).ok());
        if let Some(format) = format.filter(|format| *format > FORMAT) {
            return Err(TransferError::Newer { path: path(), format });
        }
        let head: ExportHead =
            serde_json::from_value(value).map_err(|error| self.no_snapshot(format!("{HEAD}: {error}")))?;
        if head.fleet != *here {
            return Err(TransferError::OtherFleet { path: path(), fleet: head.fleet, here: here.clone() });
        }
        Ok(head)
    }

    fn manifest<'a, R: Read + 'a>(
        &self,
        members: &mut impl Iterator<Item = io::Result<tar::Entry<'a, R>>>,
    ) -> Result<SnapshotManifest, ApplyError> {
        let text = self.text(members, MANIFEST)?;
        let manifest: SnapshotManifest = record::parse(&self.path.join(MANIFEST), &text)?;
        let is_part = |name: &String| [MEMORY, STATE, DISK].contains(&name.as_str());
        if let Some(other) = manifest.files.keys().find(|name| !is_part(name)) {
            return Err(self.no_snapshot(format!("a snapshot has no {other:?}")).into());
        }
        match manifest.files.contains_key(STATE) && manifest.has_own_id() {
            true => Ok(manifest),
            false => Err(self.no_snapshot("its manifest is not whole".to_owned()).into()),
        }
    }
}
