//! What is known of a guest beside its memory and its disk.

use std::error::Error;
use std::fs::File;
use std::io::Read as _;

use crate::apply::ApplyError;
use crate::apply::linux::LinuxHost;
use crate::apply::snapshot::CapturedFile;
use crate::base::GuestName;
use crate::base::diagnostic::one_line;
use crate::base::text::json;
use crate::host::evidence::{DISK, MissingEvidence, PRISTINE};
use crate::host::state::Machine;
use crate::image::inspect::InspectedImage;
use crate::image::read;
use crate::image::sbom::{Format, Sources, document};
use crate::lock::model::Lock;
use crate::run::error::GuestError;
use crate::run::{RunError, Workspace};
use crate::sys::digest::sha256_of_file;
use crate::sys::fs::{self as files, FileError};
use crate::sys::process::{self, ProcessInfo};
use crate::sys::{conntrack, ip, netns, nft};

use super::archive::ArchiveWriter;
use super::timeline::TimeLine;

/// Files of `/proc/PID` that tell of a VMM.
const PROCESS: [&str; 7] = ["status", "cmdline", "limits", "maps", "mountinfo", "cgroup", "sched"];
/// Most bytes of one of them.
const MAX_PROCESS: u64 = 8 << 20;

/// What was found, and what was not.
#[derive(Debug, Default)]
pub struct Findings {
    texts: Vec<(String, String)>,
    pub missing: Vec<MissingEvidence>,
}

impl Findings {
    /// A member of the archive.
    pub fn add(&mut self, name: &str, text: String) {
        self.texts.push((name.to_owned(), text));
    }

    /// That something could not be had.
    pub fn miss(&mut self, what: &str, error: &dyn Error) {
        self.missing.push(MissingEvidence { what: what.to_owned(), why: one_line(error) });
    }

    /// The same in words.
    pub fn miss_since(&mut self, what: &str, why: String) {
        self.missing.push(MissingEvidence { what: what.to_owned(), why });
    }

    fn add_or_miss<E: Error>(&mut self, name: &str, text: Result<Option<String>, E>) {
        match text {
            Ok(Some(text)) => self.add(name, text),
            Ok(None) => {}
            Err(error) => self.miss(name, &error),
        }
    }

    /// What conntrack has of the guest: its connections, and who reached it.
    pub fn connections(&mut self, host: &LinuxHost, guest: &GuestName, machine: Option<&Machine>) {
        let Some(ip) = machine.map(|machine| machine.ip) else {
            return self.miss("connections.json", &GuestError::NotRunning(guest.clone()));
        };
        let list = || conntrack::list(|connection| connection.from == ip || connection.to == ip);
        let listed = netns::within(&host.layout.netns(), list).map_err(ApplyError::from);
        let listed = listed.and_then(|listed| listed.map_err(ApplyError::from));
        self.add_or_miss("connections.json", listed.map(|all| Some(json(&all))));
    }

    /// What the kernel counted of the guest until now: of its cgroup, of the fleet's rules, of its TAP, of its VMM.
    pub fn figures(&mut self, host: &LinuxHost, guest: &GuestName, machine: Option<&Machine>) {
        let layout = &host.layout;
        let figures = host.hierarchy.figures(&layout.cgroup(guest));
        match figures.is_empty() {
            true => self.miss_since("cgroup.json", "its cgroup is not there".to_owned()),
            false => self.add("cgroup.json", json(&figures)),
        }
        let told = netns::within(&layout.netns(), || (nft::ruleset_json(), ip::statistics_json()));
        match told.map_err(ApplyError::from) {
            Ok((rules, interfaces)) => {
                self.add_or_miss("nft.json", rules.map(Some));
                self.add_or_miss("interfaces.json", interfaces.map(Some));
            }
            Err(error) => ["nft.json", "interfaces.json"].iter().for_each(|name| self.miss(name, &error)),
        }
        let vmm = host.guest(guest).vmm();
        match vmm.filter(|_| machine.is_some()) {
            Some(vmm) => self.process(&vmm),
            None => self.miss("process", &GuestError::NotRunning(guest.clone())),
        }
    }

    fn process(&mut self, vmm: &ProcessInfo) {
        for name in PROCESS {
            let path = format!("/proc/{}/{name}", vmm.id.pid);
            let mut bytes = Vec::new();
            let read = File::open(&path).and_then(|file| file.take(MAX_PROCESS).read_to_end(&mut bytes));
            let read = read.map_err(FileError::when("read", &path));
            self.add_or_miss(
                &format!("process/{name}"),
                read.map(|_| Some(String::from_utf8_lossy(&bytes).into_owned())),
            );
        }
        if !process::lives(vmm.id) {
            self.texts.retain(|(name, _)| !name.starts_with("process/"));
        }
    }
}

/// Brings everything into an archive.
pub struct Collector<'a> {
    pub workspace: &'a Workspace<'a>,
    pub host: &'a LinuxHost,
    pub guest: &'a GuestName,
    pub writer: &'a mut ArchiveWriter,
    pub found: Findings,
}

impl Collector<'_> {
    /// All but what was captured.
    pub fn documents(&mut self, machine: Option<&Machine>, line: &mut TimeLine) -> Result<(), FileError> {
        let settings = &self.workspace.settings;
        for (name, path) in
            [("fleet.toml", settings.file.clone()), ("fleet.lock", self.workspace.lock_path())]
        {
            self.found.add_or_miss(name, files::read_text_if_present(&path));
        }
        match machine {
            Some(machine) => self.found.add_or_miss("sbom.spdx.json", self.bill(machine).map(Some)),
            None => {
                let why = "nobody recorded which image it was started from last".to_owned();
                self.found.miss_since("sbom.spdx.json", why);
            }
        }
        self.found.missing.extend(line.of_guest(self.workspace, self.host, self.guest));
        self.found.add("timeline.json", line.json());
        self.found.add("timeline.html", line.html(self.host.layout.fleet(), self.guest));
        for (name, text) in std::mem::take(&mut self.found.texts) {
            self.writer.add_text(&name, &text)?;
        }
        self.records()
    }

    /// The host's own files of the guest: what it was started as, and its logs with what was kept of earlier ones.
    fn records(&mut self) -> Result<(), FileError> {
        let dir = self.host.layout.guest(self.guest);
        for name in files::names_in(&dir)? {
            let path = dir.join(&name);
            // Pipes and locks say nothing.
            let is_file = path.symlink_metadata().is_ok_and(|meta| meta.is_file());
            if is_file && !name.ends_with(".lock") {
                let name = format!("guest/{name}");
                // A guest that says much has the oldest part of its log removed between two looks.
                match File::open(&path).map_err(FileError::when("open", &path)) {
                    Ok(file) => self.file(&name, &file)?,
                    Err(error) => self.found.miss(&name, &error),
                }
            }
        }
        Ok(())
    }

    fn file(&mut self, name: &str, file: &File) -> Result<(), FileError> {
        let size = file.metadata().map_err(FileError::when("look at", name))?.len();
        let gone = self.writer.add(name, size, file)?;
        if gone > 0 {
            let why = format!("it was cut while it was read: its last {gone} bytes are zeros here");
            self.found.missing.push(MissingEvidence { what: name.to_owned(), why });
        }
        Ok(())
    }

    /// Memory, state and disk, and what the disk was made from.
    pub fn captured(&mut self, captured: &[CapturedFile]) -> Result<(), FileError> {
        for CapturedFile { name, file } in captured {
            self.file(name, file)?;
            if *name == DISK {
                self.pristine(file)?;
            }
        }
        Ok(())
    }

    /// A kept disk no longer tells what it was copied from, but its file system still has the same UUID.
    fn pristine(&mut self, disk: &File) -> Result<(), FileError> {
        let Some(uuid) = read::uuid(disk) else { return Ok(()) };
        let store = self.host.layout.files();
        for name in files::names_in(&store)? {
            let path = store.join(&name);
            let Ok(file) = File::open(&path) else { continue };
            if read::uuid(&file) == Some(uuid) {
                return self.file(PRISTINE, &file);
            }
        }
        let why = format!("no file of {} is the one that the data disk was made from", store.display());
        self.found.missing.push(MissingEvidence { what: PRISTINE.to_owned(), why });
        Ok(())
    }

    /// The bill of materials of the guest's image, which is the store's own.
    fn bill(&self, machine: &Machine) -> Result<String, RunError> {
        let path = self.host.layout.file(&machine.image);
        let image = InspectedImage::read(&path)?;
        let lock = Lock::read(&self.workspace.lock_path()).ok().flatten();
        let sources = Sources { sha256: sha256_of_file(&path)?.0, lock: lock.as_ref(), created: None };
        Ok(format!("{:#}\n", document(&image, &sources, Format::Spdx)))
    }
}
