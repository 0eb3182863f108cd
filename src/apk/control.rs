//! The control member of a package: `.PKGINFO` and scripts, and where it lies between signatures and data.

use std::collections::BTreeMap;
use std::io::Read as _;

use crate::base::Sha256;

use super::archive::TarReader;
use super::dependency::Checksum;
use super::foreign::ForeignFormat;
use super::gzip;
use super::index::{as_text, signatures};
use super::info::{Draft, InfoError, PackageInfo};
use super::refusal::Refusal;
use super::scripts::{Script, ScriptKind};
use super::signature::Signature;

/// Largest control member, inflated: `.PKGINFO` and a few scripts.
const MAX_CONTROL: u64 = 16 << 20;

/// The control member, and where its neighbours are.
pub(super) struct ControlMember {
    pub signatures: Vec<Signature>,
    inflated: Vec<u8>,
    pub checksum: Checksum,
    /// Where the control member begins and the data member begins.
    start: usize,
    pub data: usize,
}

/// What a control member says.
pub(super) struct Stated {
    pub info: PackageInfo,
    /// The text that `info` was read from.
    pub pkginfo: String,
    pub scripts: Vec<Script>,
    pub data_hash: Sha256,
}

impl ControlMember {
    /// Finds the control member in the beginning of a package.
    pub fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        ForeignFormat::refuse(bytes)?;
        let (signatures, signed) = signatures(bytes).map_err(Refusal::SignatureMember)?;
        let member = gzip::first_member(signed, MAX_CONTROL)?;
        Ok(Self {
            signatures,
            checksum: Checksum::of(member.compressed),
            start: bytes.len() - signed.len(),
            data: bytes.len() - member.rest.len(),
            inflated: member.inflated,
        })
    }

    pub fn compressed<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.start..self.data]
    }

    /// Reads what it says; `size` is that of the whole package.
    pub fn parse(&self, size: u64) -> Result<Stated, Refusal> {
        let mut reader = TarReader::new(&self.inflated[..]);
        let mut files = BTreeMap::new();
        while let Some(entry) = reader.next_entry().map_err(Refusal::ControlArchive)? {
            if !entry.path.starts_with('.') || entry.path.contains('/') {
                return Err(Refusal::Control("it contains a file that belongs in the data member"));
            }
            let mut body = Vec::new();
            reader.read_to_end(&mut body).map_err(|error| Refusal::ControlArchive(error.into()))?;
            if files.insert(entry.path, body).is_some() {
                return Err(Refusal::Control("it contains a file twice"));
            }
        }
        if files.contains_key(".INSTALL") {
            return Err(Refusal::Control("it contains .INSTALL, which apk no longer supports"));
        }
        let pkginfo = files.remove(".PKGINFO").ok_or(Refusal::Control("it has no .PKGINFO"))?;
        let pkginfo = as_text(&pkginfo).into_owned();
        let draft = Draft::from_pkginfo(&pkginfo)?;
        let data_hash = draft.data_hash.ok_or(InfoError::Missing("datahash"))?;
        let script =
            |kind: ScriptKind| files.remove(&format!(".{}", kind.as_str())).map(|body| Script { kind, body });
        let scripts = ScriptKind::ALL.into_iter().filter_map(script).collect();
        Ok(Stated { info: draft.finish(self.checksum, size)?, pkginfo, scripts, data_hash })
    }
}
