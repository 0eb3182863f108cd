//! The ledger of snapshots and its witness, as files: read together, only ever added to, and made whole again.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::apply::ApplyError;
use crate::base::SnapshotName;
use crate::base::time::now;
use crate::host::layout::Layout;
use crate::host::ledger::{Agreement, Fate, Ledger, LedgerEvent, LedgerFault, SnapshotId, VERSION, compare};
use crate::sys::fs::{self as files, FileError, FileLock};

use super::LedgerError;
use super::shelf::{self, SnapshotState};

/// Both places, as they were found.
struct BothLedgers {
    store: Result<Option<Ledger>, LedgerFault>,
    witness: Result<Option<Ledger>, LedgerFault>,
}

impl BothLedgers {
    fn read(layout: &Layout) -> Result<Self, FileError> {
        let [store, witness] =
            [layout.ledger(), layout.witness()].map(|path| files::read_text_if_present(&path));
        // One without a line is as good as none.
        let parse = |text: Option<String>| {
            let ledger = text.map(|text| Ledger::parse(&text)).transpose()?;
            Ok(ledger.filter(|ledger| !ledger.lines.is_empty()))
        };
        Ok(Self { store: parse(store?), witness: parse(witness?) })
    }

    /// The ledger, where both places agree; `None` where there is none yet.
    fn agreed(self, layout: &Layout) -> Result<Option<Ledger>, LedgerError> {
        let fault = |path: PathBuf| move |source| LedgerError::Fault { path, source };
        let (store, witness) =
            (self.store.map_err(fault(layout.ledger()))?, self.witness.map_err(fault(layout.witness()))?);
        let fleet = || layout.fleet().clone();
        match compare(store.as_ref(), witness.as_ref()) {
            Agreement::None => Ok(None),
            Agreement::Whole { .. } => Ok(store),
            Agreement::WentBack(lacks) => {
                let there = witness.map_or(0, |witness| witness.lines.len());
                Err(LedgerError::WentBack { fleet: fleet(), path: layout.ledger(), lacks, there })
            }
            Agreement::Forked(line) => {
                Err(LedgerError::Forked { fleet: fleet(), path: layout.witness(), line })
            }
            Agreement::NoWitness => Err(LedgerError::NoWitness { fleet: fleet(), path: layout.witness() }),
        }
    }
}

/// The ledger as it is, without changing anything; empty where there is none yet.
pub fn look(layout: &Layout) -> Result<Ledger, ApplyError> {
    let found = BothLedgers::read(layout).map_err(LedgerError::from)?;
    match found.agreed(layout)? {
        Some(ledger) => Ok(ledger),
        None => Ok(converted(layout)?),
    }
}

/// The ledger, which nobody else reads or writes meanwhile.
pub struct HeldLedger<'a> {
    layout: &'a Layout,
    ledger: Ledger,
    _lock: FileLock,
}

impl<'a> HeldLedger<'a> {
    /// Holds it. What a kill or a loss of power left is made whole, and one is begun where there is none: with all snapshots of an
    /// earlier sisforge.
    pub fn open(layout: &'a Layout) -> Result<Self, ApplyError> {
        let lock = hold(layout)?;
        let found = BothLedgers::read(layout).map_err(LedgerError::from)?;
        let is_empty = shelf::list(layout)?.is_empty();
        let ledger = match found {
            // The store was made anew, and nothing is in it that could be restored; or whoever began the ledger was killed over it.
            BothLedgers { store: Ok(None), witness: Ok(Some(witness)) }
                if is_empty || witness.is_begun_only() =>
            {
                witness
            }
            found => match found.agreed(layout)? {
                Some(ledger) => ledger,
                None => converted(layout)?,
            },
        };
        // The witness first, where both are made: a ledger without one is that of another host.
        for path in [layout.witness(), layout.ledger()] {
            bring_up(&path, ledger.text())?;
        }
        Ok(Self { layout, ledger, _lock: lock })
    }

    /// What became of a snapshot; `None` where it never was here.
    pub fn fate(&self, id: SnapshotId) -> Option<&Fate> {
        self.ledger.fate(id)
    }

    /// Adds a line, to the store first: what is in the witness alone would be as if the store had gone back. Nothing may be done that
    /// the line tells of before both have it.
    pub fn add(&mut self, event: LedgerEvent) -> Result<(), ApplyError> {
        let before = self.ledger.clone();
        let line = self.ledger.add(now(), event);
        let both = [self.layout.ledger(), self.layout.witness()];
        let added = both.iter().try_for_each(|path| append(path, &line));
        if let Err(error) = added {
            // Otherwise it would count, though nothing came of it.
            both.iter().for_each(|path| {
                let _ = cut(path, before.text().len() as u64);
            });
            self.ledger = before;
            return Err(LedgerError::from(error).into());
        }
        Ok(())
    }
}

fn hold(layout: &Layout) -> Result<FileLock, FileError> {
    let lock = layout.ledger_lock();
    files::create_private_dir(lock.parent().unwrap_or(Path::new("/")))?;
    FileLock::wait(&lock)
}

/// Adds what a file lacks of a text whose beginning it has; what it has of a last line that is not whole goes.
fn bring_up(path: &Path, text: &str) -> Result<(), ApplyError> {
    let has = files::read_text_if_present(path).map_err(LedgerError::from)?;
    let Some(has) = has else {
        return Ok(files::write(path, text.as_bytes(), 0o600).map_err(LedgerError::from)?);
    };
    if has == text {
        return Ok(());
    }
    let same = has.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
    let whole = text[..same].rfind('\n').map_or(0, |end| end + 1);
    let made_up = cut(path, whole as u64).and_then(|()| append(path, &text[whole..]));
    Ok(made_up.map_err(LedgerError::from)?)
}

/// Appends to a file, which is made where it is not there, and has that survive a loss of power.
fn append(path: &Path, text: &str) -> Result<(), FileError> {
    use std::os::unix::fs::OpenOptionsExt;
    let add = || -> io::Result<()> {
        let is_new = !path.exists();
        let mut file = File::options().append(true).create(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        match path.parent().filter(|_| is_new) {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    };
    add().map_err(FileError::when("add a line to", path))
}

/// Takes away what was written of a line that did not get whole.
fn cut(path: &Path, length: u64) -> Result<(), FileError> {
    let cut = || -> io::Result<()> {
        let file = File::options().write(true).open(path)?;
        if file.metadata()?.len() > length {
            file.set_len(length)?;
            file.sync_all()?;
        }
        Ok(())
    };
    match cut() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done.map_err(FileError::when("write", path)),
    }
}

/// The ledger of a store of before there were ledgers: what was restored is known by what is left of it.
fn converted(layout: &Layout) -> Result<Ledger, ApplyError> {
    let mut ledger = Ledger::default();
    ledger.add(now(), LedgerEvent::Begun { version: VERSION });
    let mut all = shelf::list(layout)?;
    // In the order in which they came, as far as a clock knows it.
    all.sort_by_key(|found| found.manifest.as_ref().map(|manifest| manifest.created.clone()));
    for found in all {
        let snapshot = found.name.clone();
        let Some(manifest) = &found.manifest else { continue };
        let (id, guest) = (manifest.id(), manifest.guest.clone());
        match found.place {
            SnapshotState::Consumed => {
                let guest = found.restored.map(|restored| restored.guest);
                ledger.add(now(), LedgerEvent::Restored { id, snapshot, guest });
            }
            // One that has an id was in a ledger; where that is, is not known here.
            SnapshotState::Ready if manifest.has_own_id() => {}
            SnapshotState::Ready => {
                ledger.add(now(), LedgerEvent::Adopted { id, snapshot, guest });
            }
        }
    }
    Ok(ledger)
}

/// What [`accept`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Nothing: the ledger is whole.
    Whole,
    /// So many lines were taken from the witness.
    Completed(usize),
    /// These were voided, by what they were called where that is known; the files that were not sound are kept under other names.
    BegunAnew { voided: Vec<Option<SnapshotName>>, kept: Vec<PathBuf> },
}

/// Makes a ledger whole again, so that nothing that may have been restored can be restored again.
pub fn accept(layout: &Layout) -> Result<Accepted, ApplyError> {
    let lock = hold(layout)?;
    let found = BothLedgers::read(layout).map_err(LedgerError::from)?;
    let error = match found.agreed(layout) {
        Ok(_) => {
            drop(lock);
            HeldLedger::open(layout)?;
            return Ok(Accepted::Whole);
        }
        Err(error) => error,
    };
    match error {
        LedgerError::WentBack { lacks, .. } => {
            let witness = files::read_text(&layout.witness()).map_err(LedgerError::from)?;
            bring_up(&layout.ledger(), Ledger::sound_part(&witness).text())?;
            Ok(Accepted::Completed(lacks))
        }
        LedgerError::File(_) | LedgerError::Fault { source: LedgerFault::Newer(_), .. } => Err(error.into()),
        LedgerError::Fault { .. } | LedgerError::Forked { .. } | LedgerError::NoWitness { .. } => {
            begin_anew(layout)
        }
    }
}

/// Goes on from the longest sound part, with all that is known to be over, and voids the rest.
fn begin_anew(layout: &Layout) -> Result<Accepted, ApplyError> {
    let texts = [layout.witness(), layout.ledger()].map(|path| files::read_text_if_present(&path));
    let [witness, store] = texts;
    let (witness, store) = (
        witness.map_err(LedgerError::from)?.unwrap_or_default(),
        store.map_err(LedgerError::from)?.unwrap_or_default(),
    );
    let mut ledger = match Ledger::sound_part(&witness) {
        sound if sound.lines.is_empty() => Ledger::sound_part(&store),
        sound => sound,
    };
    if ledger.lines.is_empty() {
        ledger.add(now(), LedgerEvent::Begun { version: VERSION });
    }
    let told = Ledger::readable(&witness).into_iter().chain(Ledger::readable(&store));
    let told: Vec<_> = told.filter_map(|event| Some((event.id()?, event.snapshot().cloned()))).collect();
    let there = shelf::list(layout)?.into_iter();
    let there = there.filter_map(|found| Some((found.manifest?.id(), Some(found.name))));
    let mut voided = Vec::new();
    for (id, snapshot) in told.into_iter().chain(there) {
        if ledger.fate(id).is_none_or(Fate::is_open) {
            voided.push(snapshot.clone());
            ledger.add(now(), LedgerEvent::Voided { id, snapshot });
        }
    }
    let mut kept = Vec::new();
    for path in [layout.ledger(), layout.witness()] {
        kept.extend(set_aside(&path)?);
        files::write(&path, ledger.text().as_bytes(), 0o600).map_err(LedgerError::from)?;
    }
    Ok(Accepted::BegunAnew { voided, kept })
}

/// Gives a file that is not sound another name, too; for whoever wants to know what happened.
fn set_aside(path: &Path) -> Result<Option<PathBuf>, ApplyError> {
    for number in 1.. {
        let aside = path.with_extension(format!("ledger.before-{number}"));
        match std::fs::hard_link(path, &aside) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            linked => {
                linked.map_err(FileError::when("keep", &aside)).map_err(LedgerError::from)?;
                return Ok(Some(aside));
            }
        }
    }
    Ok(None)
}
