//! The ledger of a fleet's snapshots: what was made, imported, restored and exported, one line each, for ever. It alone decides what
//! may be restored: a snapshot that it does not know came from elsewhere, and one that was restored stays so, whatever a backup brings
//! back.
//!
//! It stands in two places: in the store, and as its witness on the host outside of the store. Each line has the SHA-256 of the one
//! before, so that a line that was changed or taken out is seen in one of them, and one that was cut off the end by comparing both.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::{GuestName, Sha256, SnapshotName};

/// Tells one frozen guest from every other. It stays the same wherever the snapshot is copied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SnapshotId(pub Sha256);

impl SnapshotId {
    /// The same snapshot in the hands of another host: a ledger that has counted one does not take the other for it, so that a
    /// snapshot may come back to where it once was.
    #[must_use]
    pub fn handed_to(self, recipient: &str) -> Self {
        Self(Sha256::of(format!("sisforge snapshot handed over\n{}\n{recipient}\n", self.0)))
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Version of the lines that are written.
pub const VERSION: u32 = 1;

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case", deny_unknown_fields)]
pub enum LedgerEvent {
    /// The first line.
    Begun { version: u32 },
    /// A guest was frozen here.
    Made { id: SnapshotId, snapshot: SnapshotName, guest: GuestName },
    /// A snapshot was there before there was a ledger.
    Adopted { id: SnapshotId, snapshot: SnapshotName, guest: GuestName },
    /// It was brought from another host.
    Imported { id: SnapshotId, snapshot: SnapshotName, guest: GuestName },
    /// A guest goes on from it; `guest` is empty where an earlier sisforge did not note which.
    Restored { id: SnapshotId, snapshot: SnapshotName, guest: Option<GuestName> },
    /// It is another host's from now on.
    Exported { id: SnapshotId, snapshot: SnapshotName, recipient: String },
    /// Nobody knows what became of it, because the ledger was not whole.
    Voided { id: SnapshotId, snapshot: Option<SnapshotName> },
}

impl LedgerEvent {
    /// Of which snapshot it tells.
    pub fn id(&self) -> Option<SnapshotId> {
        match self {
            Self::Begun { .. } => None,
            Self::Made { id, .. }
            | Self::Adopted { id, .. }
            | Self::Imported { id, .. }
            | Self::Restored { id, .. }
            | Self::Exported { id, .. }
            | Self::Voided { id, .. } => Some(*id),
        }
    }

    /// Whether it makes a snapshot one that can be restored.
    fn opens(&self) -> bool {
        matches!(self, Self::Made { .. } | Self::Adopted { .. } | Self::Imported { .. })
    }

    /// In words, such as `restored as alice`.
    pub fn words(&self) -> String {
        match self {
            Self::Begun { version } => format!("begun, version {version}"),
            Self::Made { guest, .. } => format!("made of {guest}"),
            Self::Adopted { guest, .. } => format!("of {guest}, there before the ledger was"),
            Self::Imported { guest, .. } => format!("of {guest}, imported from another host"),
            Self::Restored { guest: Some(guest), .. } => format!("restored as {guest}"),
            Self::Restored { guest: None, .. } => "restored".to_owned(),
            Self::Exported { recipient, .. } => format!("exported to {recipient}"),
            Self::Voided { .. } => {
                "void: the ledger that would tell what became of it was not whole".to_owned()
            }
        }
    }

    /// What it calls the snapshot.
    pub fn snapshot(&self) -> Option<&SnapshotName> {
        match self {
            Self::Begun { .. } => None,
            Self::Made { snapshot, .. }
            | Self::Adopted { snapshot, .. }
            | Self::Imported { snapshot, .. }
            | Self::Restored { snapshot, .. }
            | Self::Exported { snapshot, .. } => Some(snapshot),
            Self::Voided { snapshot, .. } => snapshot.as_ref(),
        }
    }
}

/// A line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerLine {
    /// From 1 on.
    pub number: u64,
    /// When, by the host's clock, in UTC. Nothing is decided by it but the age of what was imported: clocks are set back.
    pub at: String,
    /// SHA-256 of the line before, without its end; of nothing, for the first.
    pub before: Sha256,
    #[serde(flatten)]
    pub event: LedgerEvent,
}

/// What became of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// The line that says so.
    pub line: LedgerLine,
}

impl Fate {
    /// Whether it may be restored.
    pub fn is_open(&self) -> bool {
        self.line.event.opens()
    }
}

/// What is wrong within a ledger.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerFault {
    #[error("line {number} cannot be read: {why}")]
    Line { number: u64, why: String },
    #[error("line {0} does not follow the one before: a line was changed, added or taken out")]
    Chain(u64),
    #[error("a newer sisforge wrote it (version {0})")]
    Newer(u32),
}

/// The whole lines of a ledger, each of which follows the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub lines: Vec<LedgerLine>,
    /// The text of those lines.
    text: String,
    fates: BTreeMap<SnapshotId, Fate>,
}

impl Ledger {
    /// Reads one. What stands behind its last line end was being written when the power went, so that nothing came of it: it does not
    /// count.
    ///
    /// # Errors
    /// The first line that is not what was written.
    pub fn parse(text: &str) -> Result<Self, LedgerFault> {
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let mut ledger = Self::default();
        for line in whole.lines() {
            ledger.take(line)?;
        }
        Ok(ledger)
    }

    /// As many of its lines as are what was written.
    pub fn sound_part(text: &str) -> Self {
        let mut ledger = Self::default();
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let _ = whole.lines().try_for_each(|line| ledger.take(line));
        ledger
    }

    /// Every line that can be read, whatever stands before it.
    pub fn readable(text: &str) -> Vec<LedgerEvent> {
        let lines = text.lines().filter_map(|line| serde_json::from_str::<LedgerLine>(line).ok());
        lines.map(|line| line.event).collect()
    }

    fn take(&mut self, text: &str) -> Result<(), LedgerFault> {
        let number = self.lines.len() as u64 + 1;
        let unread = |error: serde_json::Error| LedgerFault::Line { number, why: error.to_string() };
        let line: LedgerLine = match serde_json::from_str(text) {
            Ok(line) => line,
            Err(error) => return Err(newer(text).unwrap_or_else(|| unread(error))),
        };
        if let LedgerEvent::Begun { version } = line.event
            && version > VERSION
        {
            return Err(LedgerFault::Newer(version));
        }
        let is_first = matches!(line.event, LedgerEvent::Begun { .. });
        if line.number != number || line.before != self.head() || is_first != (number == 1) {
            return Err(LedgerFault::Chain(number));
        }
        self.push(line, text);
        Ok(())
    }

    fn push(&mut self, line: LedgerLine, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
        if let Some(id) = line.event.id() {
            let is_over = self.fates.get(&id).is_some_and(|fate| !fate.is_open());
            // Nothing that comes later makes it one that can be restored again.
            if !is_over {
                self.fates.insert(id, Fate { line: line.clone() });
            }
        }
        self.lines.push(line);
    }

    /// Whether it says nothing but what was there before there was a ledger.
    pub fn is_begun_only(&self) -> bool {
        let of_before = |event: &LedgerEvent| {
            matches!(
                event,
                LedgerEvent::Begun { .. } | LedgerEvent::Adopted { .. } | LedgerEvent::Restored { .. }
            )
        };
        self.lines.iter().all(|line| of_before(&line.event))
    }

    /// SHA-256 of the last line.
    pub fn head(&self) -> Sha256 {
        Sha256::of(self.text.lines().next_back().unwrap_or_default())
    }

    /// Its lines as they are written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What became of a snapshot; `None` where it never was here.
    pub fn fate(&self, id: SnapshotId) -> Option<&Fate> {
        self.fates.get(&id)
    }

    /// Every snapshot that is known.
    pub fn fates(&self) -> impl Iterator<Item = (&SnapshotId, &Fate)> {
        self.fates.iter()
    }

    /// Adds a line, and gives its text with its end.
    pub fn add(&mut self, at: String, event: LedgerEvent) -> String {
        let line = LedgerLine { number: self.lines.len() as u64 + 1, at, before: self.head(), event };
        let text = crate::base::text::json(&line);
        self.push(line, &text);
        text + "\n"
    }
}

/// Whether a line that cannot be read is the first one of a later version.
fn newer(text: &str) -> Option<LedgerFault> {
    let line: serde_json::Value = serde_json::from_str(text).ok()?;
    let version = line.get("version")?.as_u64()?;
    (version > u64::from(VERSION)).then(|| LedgerFault::Newer(u32::try_from(version).unwrap_or(u32::MAX)))
}

/// How the ledger of a store and its witness on the host are to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// There is neither.
    None,
    /// Both say the same; or the store has so many lines more, because nobody came to write them to the witness.
    Whole { witness_lacks: usize },
    /// The store lacks so many of the witness's last lines.
    WentBack(usize),
    /// They differ from this line on.
    Forked(u64),
    /// The store's ledger is there, and its witness is not.
    NoWitness,
}

/// Compares them; each is `None` where it is not there.
pub fn compare(store: Option<&Ledger>, witness: Option<&Ledger>) -> Agreement {
    let (store, witness) = match (store, witness) {
        (None, None) => return Agreement::None,
        (Some(_), None) => return Agreement::NoWitness,
        (None, Some(witness)) => return Agreement::WentBack(witness.lines.len()),
        (Some(store), Some(witness)) => (store, witness),
    };
    let same = store.text.lines().zip(witness.text.lines()).take_while(|(a, b)| a == b).count();
    match (store.lines.len() - same, witness.lines.len() - same) {
        (witness_lacks, 0) => Agreement::Whole { witness_lacks },
        (0, lacks) => Agreement::WentBack(lacks),
        _ => Agreement::Forked(same as u64 + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SnapshotId {
        SnapshotId(Sha256::of(text))
    }

    fn made(text: &str) -> LedgerEvent {
        LedgerEvent::Made { id: id(text), snapshot: text.parse().unwrap(), guest: "alice".parse().unwrap() }
    }

    fn restored(text: &str) -> LedgerEvent {
        LedgerEvent::Restored { id: id(text), snapshot: text.parse().unwrap(), guest: None }
    }

    fn ledger(events: &[LedgerEvent]) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.add("2026-11-25T17:53:16Z".into(), LedgerEvent::Begun { version: VERSION });
        for event in events {
            ledger.add("2026-11-25T17:53:16Z".into(), event.clone());
        }
        ledger
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let whole = ledger(&[made("a"), made("b"), restored("a")]);
        assert_eq!(Ledger::parse(whole.text()), Ok(whole.clone()));
        assert!(!whole.fate(id("a")).unwrap().is_open());
        assert!(whole.fate(id("b")).unwrap().is_open());
        assert_eq!(whole.fate(id("c")), None);
    }

    #[test]
    fn what_was_restored_stays_so() {
        let mut again = ledger(&[made("a"), restored("a")]);
        again.add(String::new(), made("a"));
        assert!(!again.fate(id("a")).unwrap().is_open());
    }

    #[test]
    fn a_byte_that_is_changed_anywhere_but_in_the_last_line_is_seen() {
        let whole = ledger(&[made("a"), restored("a"), made("b")]);
        let text = whole.text().as_bytes();
        let last = whole.text().trim_end().rfind('\n').unwrap();
        for place in 0..last {
            let mut changed = text.to_vec();
            changed[place] ^= 1;
            let Ok(changed) = String::from_utf8(changed) else { continue };
            assert!(Ledger::parse(&changed).is_err(), "byte {place}");
        }
        // In the last one, the witness tells.
        let changed = whole.text().replacen("\"b\"", "\"c\"", 1);
        let changed = Ledger::parse(&changed).unwrap();
        assert_eq!(compare(Some(&changed), Some(&whole)), Agreement::Forked(4));
    }

    #[test]
    fn a_line_that_is_missing_is_seen_wherever_it_was() {
        let whole = ledger(&[made("a"), restored("a"), made("b")]);
        let lines: Vec<_> = whole.text().lines().collect();
        for gone in 0..lines.len() - 1 {
            let rest = lines.iter().enumerate().filter(|(place, _)| *place != gone);
            let text: String = rest.map(|(_, line)| format!("{line}\n")).collect();
            assert!(Ledger::parse(&text).is_err(), "line {gone}");
        }
        let cut =
            Ledger::parse(&lines[..3].iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        assert_eq!(compare(Some(&cut), Some(&whole)), Agreement::WentBack(1));
        assert_eq!(compare(Some(&whole), Some(&cut)), Agreement::Whole { witness_lacks: 1 });
        assert_eq!(compare(Some(&whole), Some(&whole)), Agreement::Whole { witness_lacks: 0 });
        assert_eq!(compare(None, Some(&whole)), Agreement::WentBack(4));
        assert_eq!(compare(Some(&whole), None), Agreement::NoWitness);
    }

    #[test]
    fn half_a_line_at_the_end_is_what_the_power_took() {
        let whole = ledger(&[made("a")]);
        for more in 1..20 {
            let torn = format!("{}{}", whole.text(), &"{\"number\":3,\"at\":\"2026\""[..more]);
            assert_eq!(Ledger::parse(&torn), Ok(whole.clone()));
        }
    }

    #[test]
    fn a_later_version_is_named() {
        let text = whole_of_version(7);
        assert_eq!(Ledger::parse(&text), Err(LedgerFault::Newer(7)));
    }

    fn whole_of_version(version: u32) -> String {
        let mut ledger = Ledger::default();
        ledger.add(String::new(), LedgerEvent::Begun { version })
    }

    #[test]
    fn a_snapshot_that_goes_to_another_host_and_comes_back_is_another_each_time() {
        let here = id("a");
        let there = here.handed_to("age1b");
        let back = there.handed_to("age1a");
        assert!(here != there && there != back && back != here);
        assert_eq!(there, here.handed_to("age1b"));
    }
}
