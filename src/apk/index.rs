//! `APKINDEX.tar.gz`: which packages a repository has. Parsed only once its signature is checked.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read as _;

use rayon::prelude::*;

use crate::base::{Class, Diagnosis, Diagnostic};

use super::archive::{ArchiveError, TarEntry, TarKind, TarReader};
use super::archive_writer::TarWriter;
use super::foreign::ForeignFormat;
use super::gzip::{self, GzipError};
use super::info::{Draft, PackageInfo, index_record};
use super::signature::{DAMAGED, KeyError, KeyRing, Signature, SignatureError, SigningKey};

/// Largest signature member, inflated: several signatures of at most 64 KiB.
pub(super) const MAX_SIGNATURES: u64 = 1 << 20;
/// Largest signature that is read.
pub(super) const MAX_SIGNATURE: u64 = 1 << 16;
/// Largest index, inflated: Alpine's community repository has 20 MB.
const MAX_INDEX: u64 = 256 << 20;

/// Bytes of text that are worth another processor.
const PART: usize = 256 << 10;

/// Why an index is refused.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error("the index: {0}")]
    Foreign(#[from] ForeignFormat),
    #[error("the index: {0}")]
    Signature(#[from] SignatureError),
    #[error("the index: {0}")]
    Gzip(#[from] GzipError),
    #[error("the index: {0}")]
    Archive(#[from] ArchiveError),
    #[error("the index has no APKINDEX")]
    Missing,
    #[error("the index has two files {0}")]
    Twice(String),
    #[error("the index: bytes follow its end")]
    Trailing,
    #[error("the index cannot be signed")]
    Key(#[from] KeyError),
}

impl Diagnostic for IndexError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Foreign(error) => error.diagnosis(),
            Self::Signature(error) => error.diagnosis(),
            Self::Archive(error) => error.diagnosis(),
            Self::Gzip(_) | Self::Missing | Self::Twice(_) | Self::Trailing => Class::Invalid.hint(DAMAGED),
            Self::Key(error) => error.diagnosis(),
        }
    }
}

/// The packages of a repository.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Index {
    pub description: String,
    /// In the order of the index, which decides between equals.
    pub packages: Vec<PackageInfo>,
    /// Records that cannot be installed, by name and version, with the reason.
    pub rejected: Vec<(String, String)>,
    /// File name of the key whose signature was checked; `None` for an index that was made here.
    pub key: Option<String>,
}

impl Index {
    /// Checks the signature of a whole `APKINDEX.tar.gz` and reads it. Single records that cannot be installed are no
    /// error: see [`Index::rejected`].
    pub fn verify(bytes: &[u8], keys: &KeyRing) -> Result<Self, IndexError> {
        ForeignFormat::refuse(bytes)?;
        let (signatures, signed) = signatures(bytes)?;
        let key = keys.verify(&signatures, signed)?;
        Ok(Self { key: Some(key), ..Self::read_members(signed)? })
    }

    /// Reads an index to show it, whoever signed it. Nothing may be installed by it.
    pub fn inspect(bytes: &[u8]) -> Result<Self, IndexError> {
        ForeignFormat::refuse(bytes)?;
        Self::read_members(signatures(bytes)?.1)
    }

    fn read_members(bytes: &[u8]) -> Result<Self, IndexError> {
        let member = gzip::first_member(bytes, MAX_INDEX)?;
        if !member.rest.is_empty() {
            return Err(IndexError::Trailing);
        }
        let mut reader = TarReader::new(&member.inflated[..]);
        let mut files = BTreeMap::new();
        while let Some(entry) = reader.next_entry()? {
            let path = entry.path.escape_debug().to_string();
            if files.insert(entry.path, reader.content()?).is_some() {
                return Err(IndexError::Twice(path));
            }
        }
        let description = files.get("DESCRIPTION").map_or(Cow::Borrowed(""), |bytes| as_text(bytes));
        let index = Self::parse(&as_text(files.get("APKINDEX").ok_or(IndexError::Missing)?));
        Ok(Self { description: description.trim_end().to_owned(), ..index })
    }

    /// Reads the text of an `APKINDEX`.
    pub fn parse(text: &str) -> Self {
        let parts: Vec<Self> = parts_of(text).into_par_iter().map(Self::parse_part).collect();
        let mut parts = parts.into_iter();
        let mut index = parts.next().unwrap_or_default();
        for part in parts {
            index.packages.extend(part.packages);
            index.rejected.extend(part.rejected);
        }
        index
    }

    fn parse_part(text: &str) -> Self {
        // A record has some hundred bytes.
        let mut index = Self { packages: Vec::with_capacity(text.len() / 300), ..Self::default() };
        for record in text.split("\n\n").filter(|record| !record.trim().is_empty()) {
            match parse_record(record) {
                Ok(info) => index.packages.push(info),
                Err(rejected) => index.rejected.push(rejected),
            }
        }
        index
    }

    /// The text of an `APKINDEX`.
    pub fn to_text(&self) -> String {
        self.packages.iter().map(|info| index_record(info) + "\n").collect()
    }

    /// The bytes of an `APKINDEX.tar.gz`, signed: the same for the same packages and key.
    pub fn to_signed(&self, key: &SigningKey) -> Result<Vec<u8>, IndexError> {
        let mut tar = TarWriter::default();
        for (name, text) in [("DESCRIPTION", self.description.clone()), ("APKINDEX", self.to_text())] {
            tar.add(
                &TarEntry { path: name.into(), size: text.len() as u64, ..TarEntry::empty() },
                text.as_bytes(),
            );
        }
        let body = gzip::compress(&tar.ended());
        let mut bytes = signature_member(key, &body)?;
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }
}

/// Somebody else's text: UTF-8, and what is not, such as a description in Latin-1, as Latin-1 has it.
pub(super) fn as_text(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let chunks = bytes.utf8_chunks();
    let text = chunks
        .flat_map(|chunk| chunk.valid().chars().chain(chunk.invalid().iter().map(|byte| char::from(*byte))));
    Cow::Owned(text.collect())
}

/// The text of an index in as many parts as there are processors, cut between records.
fn parts_of(text: &str) -> Vec<&str> {
    let count = (text.len() / PART).min(rayon::current_num_threads()).max(1);
    let mut parts = Vec::with_capacity(count);
    let mut rest = text;
    for left in (2..=count).rev() {
        let cut = rest.len() / left;
        let Some(end) = rest.as_bytes()[cut..].windows(2).position(|pair| pair == b"\n\n") else { break };
        let (part, after) = rest.split_at(cut + end + 2);
        parts.push(part);
        rest = after;
    }
    parts.push(rest);
    parts
}

fn parse_record(record: &str) -> Result<PackageInfo, (String, String)> {
    let mut draft = Draft::default();
    let mut problem = None;
    for line in record.lines() {
        let (&[letter, b':', ..], Some(value)) = (line.as_bytes(), line.get(2..)) else { continue };
        if let Err(error) = draft.index_line(char::from(letter), value) {
            problem.get_or_insert(error);
        }
    }
    let label = draft.label();
    match problem {
        Some(error) => Err((label, error.to_string())),
        None => draft.finish_indexed().map_err(|error| (label, error.to_string())),
    }
}

/// Members of signatures that are looked at: whoever signs once more puts another in front.
const MOST_SIGNED: usize = 16;

/// Signatures in front of what they sign, and the rest, which each of them signs. A file without any is returned whole.
pub(super) fn signatures(bytes: &[u8]) -> Result<(Vec<Signature>, &[u8]), IndexError> {
    let (mut found, mut rest) = (Vec::new(), bytes);
    for _ in 0..MOST_SIGNED {
        let (more, after) = signatures_of_member(rest)?;
        if after.len() == rest.len() {
            break;
        }
        found.extend(more);
        rest = after;
    }
    Ok((found, rest))
}

/// The signatures of the first member and what follows it; where it is no member of signatures, all of it.
fn signatures_of_member(bytes: &[u8]) -> Result<(Vec<Signature>, &[u8]), IndexError> {
    let Ok(member) = gzip::first_member(bytes, MAX_SIGNATURES) else { return Ok((Vec::new(), bytes)) };
    let mut reader = TarReader::new(&member.inflated[..]);
    let mut found = Vec::new();
    let mut has_entries = false;
    while let Some(entry) = reader.next_entry()? {
        has_entries = true;
        if !entry.path.starts_with(".SIGN.") {
            return Ok((Vec::new(), bytes));
        }
        let Some((algorithm, key)) = Signature::parse_name(&entry.path) else { continue };
        if entry.kind != TarKind::File || entry.size > MAX_SIGNATURE {
            continue;
        }
        let mut signature = Vec::new();
        reader.read_to_end(&mut signature).map_err(ArchiveError::Read)?;
        found.push(Signature { algorithm, key: key.to_owned(), bytes: signature });
    }
    Ok((found, if has_entries { member.rest } else { bytes }))
}

/// The member that signs `body`.
pub(super) fn signature_member(key: &SigningKey, body: &[u8]) -> Result<Vec<u8>, KeyError> {
    let (name, signature) = key.sign(body)?;
    let mut tar = TarWriter::default();
    tar.add(&TarEntry { path: name, size: signature.len() as u64, ..TarEntry::empty() }, &signature);
    Ok(gzip::compress(&tar.unended()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = "C:Q1AAAAAAAAAAAAAAAAAAAAAAAAAAA=\nP:busybox\nV:1.35.0-r17\nA:x86_64\nS:508909\nI:962560\n\
        T:Size optimized toolbox\nU:https://busybox.net/\nL:GPL-2.0-only\no:busybox\n\
        m:A. Person <a@example.org>\nt:1655934198\nc:abc\nk:100\nD:so:libc.musl-x86_64.so.1\np:/bin/sh \
        cmd:[=1.35.0-r17\n\n";

    #[test]
    fn a_record_is_written_as_it_was_read() {
        let index = Index::parse(RECORD);
        assert_eq!(index.rejected, []);
        assert_eq!(index.to_text(), RECORD);
    }

    #[test]
    fn a_version_that_apk_cannot_read_is_no_fault() {
        for odd in ["1.2.3-beta.1", "v1.2", "1.0foo"] {
            let text = RECORD.replace("V:1.35.0-r17", &format!("V:{odd}"));
            let index = Index::parse(&text);
            assert_eq!(index.rejected, [], "{odd}");
            assert_eq!(index.packages[0].file_name(), format!("busybox-{odd}.apk"));
            assert_eq!(index.to_text(), text);
        }
        let text = RECORD
            .replace("p:/bin/sh cmd:[=1.35.0-r17", "p:pc:x264=v0.164 so:x=1_git2 cmd:dmd=2.104.0-beta.1 b");
        let index = Index::parse(&text);
        let names: Vec<&str> =
            index.packages[0].provides.iter().map(|dependency| dependency.name.as_str()).collect();
        assert_eq!(names, ["pc:x264", "so:x", "cmd:dmd", "b"]);
        assert_eq!(index.to_text(), text);
    }

    #[test]
    fn a_text_in_latin_1_harms_no_index() {
        assert_eq!(as_text(b"caf\xe9 \xc3\xa9"), "caf\u{e9} \u{e9}");
        let index = Index::parse(&as_text(
            &RECORD
                .replace("toolbox", "t")
                .into_bytes()
                .iter()
                .flat_map(|byte| if *byte == b'@' { vec![0xe9] } else { vec![*byte] })
                .collect::<Vec<u8>>(),
        ));
        assert_eq!(index.rejected, []);
        assert_eq!(index.packages[0].maintainer.as_deref(), Some("A. Person <a\u{e9}example.org>"));
    }

    #[test]
    fn what_is_no_index_is_told_apart() {
        let said = |bytes: &[u8]| Index::inspect(bytes).unwrap_err().to_string();
        assert!(said(b"ADB.pckg").contains("apk 3's own format (ADB)"));
        assert!(said(b"<!DOCTYPE html><title>Login</title>").contains("an HTML page"));
        assert!(said(b"version https://git-lfs.github.com/spec/v1\n").contains("Git LFS"));
    }

    #[test]
    fn a_record_that_cannot_be_installed_is_told_and_left_out() {
        let with = |line: &str| Index::parse(&RECORD.replace("k:100", line));
        assert_eq!(with("x:1").rejected, []);
        assert_eq!(
            with("X:1").rejected,
            [(
                "busybox-1.35.0-r17".to_owned(),
                "field 'X' is not known; fields whose letter is upper case must be".to_owned()
            )]
        );
        assert_eq!(with("i:a=b").rejected, []);
        for wrong in ["D:a=b", "P:../x", "V:1/2", "A:..", "D:a@edge", "T:a\u{1b}[2J"] {
            assert_eq!(with(wrong).rejected.len(), 1, "{wrong} was accepted");
        }
    }
}
