//! Forensics: what a guest is and did becomes one signed archive, and such archives are read. As root nothing is made sense of that
//! a guest or its VMM wrote: their files are copied, and whoever reads them later does it as an ordinary user.

mod archive;
mod collect;
mod error;
mod examine;
mod timeline;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::apply::linux::LinuxHost;
use crate::apply::snapshot::{self, Captured, CapturedFile};
use crate::base::time::{now, rfc3339_millis};
use crate::base::{GuestName, Sha256};
use crate::host::evidence::{EvidenceManifest, FORMAT, memory_map};
use crate::host::layout::Layout;
use crate::host::snapshot::{DISK, MEMORY, SESSION_DISK};
use crate::host::state::Machine;
use crate::sys::fs::{self as files, FileError};
use crate::sys::{interrupt, ssh_signature};

use archive::ArchiveWriter;
use collect::{Collector, Findings};
use timeline::{Moment, TimeLine};

use super::events::{self, FleetEvent};
use super::fleet_host::FleetHost;
use super::session::refuse_spare;
use super::{RunError, Workspace, quarantine, reach, snapshots};

pub use archive::ReadArchive;
pub use error::EvidenceError;
pub use examine::{ChangedFiles, changed_files, print, verify};

/// Whose evidence is taken.
#[derive(Clone, Copy, Debug)]
pub struct EvidenceRequest<'a> {
    pub guest: &'a str,
    /// Where the archive goes; named after the guest and the time where that is not said.
    pub out: Option<&'a Path>,
    /// A private SSH key to sign with; that of the fleet on this host where none is named.
    pub key: Option<&'a Path>,
}

/// Evidence that was taken.
#[derive(Clone, Debug)]
pub struct TakenEvidence {
    pub path: PathBuf,
    pub manifest: EvidenceManifest,
    /// Of the manifest's text.
    pub sha256: Sha256,
    /// Bytes of the archive.
    pub size: u64,
}

/// Cuts a guest off, captures it and writes its archive. The guest goes on, cut off as it is, until somebody releases or ends it.
/// What cannot be had is named in the manifest, and does not keep the rest from being taken.
pub fn take(workspace: &Workspace<'_>, request: EvidenceRequest<'_>) -> Result<TakenEvidence, EvidenceError> {
    let (host, guest) = reach::guest(workspace, request.guest)?;
    refuse_spare(&host, &guest)?;
    let begun = SystemTime::now();
    let path = place_of(request.out, &guest, &now())?;
    let key = request.key.map_or_else(|| host.layout.key(), Path::to_owned);
    // What can be wrong with where it goes and what signs it is wrong before anything is done to the guest.
    ssh_signature::sign(&key, "")?;
    let seconds = begun.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let writer = ArchiveWriter::create(&path, seconds, workspace.settings.jobs)?;

    let mut found = Findings::default();
    let machine: Option<Machine> = host.guest(&guest).machine().ok().flatten();
    // They end when the guest is cut off.
    found.connections(&host, &guest, machine.as_ref());
    quarantine::quarantine(workspace, guest.as_str())?;
    let cut_off =
        CutOffGuest { workspace, host: &host, guest: &guest, machine, begun, key: &key, path: &path };
    cut_off.written(writer, found).map_err(|error| EvidenceError::NotTaken { guest, source: error.into() })
}

/// A guest whose evidence is taken from now on.
struct CutOffGuest<'a> {
    workspace: &'a Workspace<'a>,
    host: &'a LinuxHost,
    guest: &'a GuestName,
    machine: Option<Machine>,
    begun: SystemTime,
    key: &'a Path,
    path: &'a Path,
}

impl CutOffGuest<'_> {
    /// Captures it, and writes its archive.
    fn written(self, mut writer: ArchiveWriter, mut found: Findings) -> Result<TakenEvidence, EvidenceError> {
        let Self { workspace, host, guest, machine, begun, key, path } = self;
        let mut line = TimeLine::default();
        line.add(Moment::of_forensics("cut off from every network"));
        let (captured, machine) = capture(workspace, host, guest, machine, &mut found, &mut line)?;

        let mut collector = Collector { workspace, host, guest, writer: &mut writer, found };
        collector.documents(machine.as_ref(), &mut line)?;
        collector.captured(&captured.files)?;
        let missing = collector.found.missing;

        let stood_still = captured.taken.as_ref().map(|taken| taken.still);
        let manifest = EvidenceManifest {
            format: FORMAT,
            fleet: host.layout.fleet().clone(),
            guest: guest.clone(),
            captured: rfc3339_millis(begun),
            made_by: concat!("sisforge ", env!("CARGO_PKG_VERSION")).to_owned(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            stood_still_ms: stood_still.map(|still| u64::try_from(still.as_millis()).unwrap_or(u64::MAX)),
            memory_map: match (&machine, writer.members.contains_key(MEMORY)) {
                (Some(machine), true) => memory_map(machine.memory_mib),
                _ => Vec::new(),
            },
            members: writer.members.clone(),
            missing,
            signer: public_half(key)?,
        };
        sign_and_finish(writer, &host.layout, key, path, manifest)
    }
}

fn sign_and_finish(
    writer: ArchiveWriter,
    layout: &Layout,
    key: &Path,
    path: &Path,
    manifest: EvidenceManifest,
) -> Result<TakenEvidence, EvidenceError> {
    let text = serde_json::to_string_pretty(&manifest).map_err(RunError::Manifest)? + "\n";
    let signature = ssh_signature::sign(key, &text)?;
    refuse_existing(path)?;
    writer.finish(&text, &signature)?;
    let sha256 = Sha256::of(&text);
    let (guest, size) = (manifest.guest.to_string(), std::fs::metadata(path).map_or(0, |meta| meta.len()));
    events::record(layout, [FleetEvent::EvidenceTaken { guest, sha256: sha256.to_string() }]);
    Ok(TakenEvidence { path: path.to_owned(), manifest, sha256, size })
}

/// What of a guest was captured.
struct CapturedGuest {
    taken: Option<Captured>,
    files: Vec<CapturedFile>,
}

/// Captures a guest that runs; of any other, the disks that are left.
fn capture(
    workspace: &Workspace<'_>,
    host: &LinuxHost,
    guest: &GuestName,
    machine: Option<Machine>,
    found: &mut Findings,
    line: &mut TimeLine,
) -> Result<(CapturedGuest, Option<Machine>), EvidenceError> {
    // Nobody starts, stops or restores it meanwhile.
    let held = FleetHost::hold(workspace)?;
    let _deferral = interrupt::defer();
    found.figures(host, guest, machine.as_ref());
    let name = snapshots::default_name(guest, &now()).map_err(RunError::SnapshotName)?;
    match snapshot::capture(&held.host, guest, &name, workspace.report) {
        Ok(mut captured) => {
            line.add(Moment::of_forensics(&format!(
                "captured: it stood still for {} ms and goes on, cut off",
                captured.still.as_millis()
            )));
            let (files, machine) = (std::mem::take(&mut captured.files), captured.machine.clone());
            found.add("origin.json", crate::base::text::json(&captured.origin));
            Ok((CapturedGuest { taken: Some(captured), files }, Some(machine)))
        }
        Err(error) => {
            found.miss("memory and state", &error);
            found.miss("origin.json", &error);
            let files = disks_left(host, guest, machine.as_ref(), found);
            Ok((CapturedGuest { taken: None, files }, machine))
        }
    }
}

/// The disks that a guest has which could not be captured: each where it is there, and named where not.
fn disks_left(
    host: &LinuxHost,
    guest: &GuestName,
    machine: Option<&Machine>,
    found: &mut Findings,
) -> Vec<CapturedFile> {
    let guest = host.guest(guest);
    let mut files = Vec::new();
    for (what, name, opened) in [
        ("data disk", DISK, guest.open_disk_left(machine).map(Some)),
        ("session disk", SESSION_DISK, guest.open_session_disk()),
    ] {
        match opened {
            Ok(file) => files.extend(file.map(|file| CapturedFile { name, file })),
            Err(error) => found.miss(what, &error),
        }
    }
    files
}

/// Where an archive goes. Nothing that is there is replaced.
fn place_of(out: Option<&Path>, guest: &GuestName, time: &str) -> Result<PathBuf, EvidenceError> {
    let path = match out {
        Some(out) => out.to_owned(),
        None => {
            let name = snapshots::default_name(guest, time).map_err(RunError::SnapshotName)?;
            PathBuf::from(format!("{name}.evidence.tar.zst"))
        }
    };
    refuse_existing(&path)?;
    files::require_dir_of(&path)?;
    Ok(path)
}

fn refuse_existing(path: &Path) -> Result<(), EvidenceError> {
    match path.symlink_metadata() {
        Ok(_) => Err(EvidenceError::Exists(path.to_owned())),
        Err(_) => Ok(()),
    }
}

/// What stands beside a private key, or the key itself where it is a public half.
fn public_half(key: &Path) -> Result<String, FileError> {
    let mut name = key.as_os_str().to_owned();
    name.push(".pub");
    let beside = files::read_text_if_present(Path::new(&name))?;
    let text = match beside {
        Some(text) => text,
        None => files::read_text(key).ok().filter(|text| text.starts_with("ssh-")).unwrap_or_default(),
    };
    Ok(text.trim().to_owned())
}
