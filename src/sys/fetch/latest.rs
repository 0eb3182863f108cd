//! Small files that change behind their address, such as an index: downloaded when they changed, remembered for when there
//! is no network.
//!
//! A record is one line of JSON and then the file's bytes, written at once, so that a process that is killed leaves the old
//! one or the new one.

use std::error::Error;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::base::Sha256;
use crate::base::text::json;

use super::super::fs as files;
use super::super::http::{CacheValidators, ExpectedBody};
use super::super::report::Report;
use super::super::vendor;
use super::{Cache, FetchError, GetError, MirroredUrl};

/// A file as it was when it was last had. Nothing vouches for it but what it says itself.
#[derive(Clone, Debug)]
pub enum LastSeen {
    /// In the vendor directory.
    Vendored { bytes: Vec<u8>, path: PathBuf },
    /// In the cache, since then.
    Cached { bytes: Vec<u8>, since: SystemTime },
}

/// What is remembered of a file beside its bytes.
#[derive(Serialize, Deserialize)]
struct LatestRecord {
    /// Where it came from: another server's stamps mean something else.
    from: String,
    /// Of the bytes.
    sha256: Sha256,
    #[serde(flatten)]
    stamp: CacheValidators,
}

impl Cache {
    /// The newest version of a file, of at most `limit` bytes. What `accept` refuses counts as not had, so that a mirror is asked;
    /// what it accepts is remembered.
    pub fn latest<T, E: Error + 'static>(
        &self,
        address: &MirroredUrl,
        limit: u64,
        progress: &dyn Report,
        accept: impl Fn(&[u8]) -> Result<T, E>,
    ) -> Result<T, Vec<GetError<E>>> {
        self.servers.ask(&self.client, address, progress, |url, attempts| {
            let (known, old) = self.recall(address).filter(|(record, _)| record.from == url).unzip();
            let stamp = known.map(|record| record.stamp).unwrap_or_default();
            let wanted = ExpectedBody { size: None, limit, resume: false, attempts };
            let mut bytes = Vec::new();
            let newer = self.client.download_newer(url, &stamp, &mut bytes, wanted, &|_| {});
            let Some(stamp) = newer.map_err(FetchError::from)? else {
                return accept(&old.unwrap_or_default()).map_err(GetError::Refused);
            };
            let accepted = accept(&bytes).map_err(GetError::Refused)?;
            let (from, sha256) = (url.to_owned(), Sha256::of(&bytes));
            // Without memory, it is downloaded again next time, and is not there offline.
            let _ = self.keep_latest(address, &LatestRecord { from, sha256, stamp }, &bytes);
            Ok(accepted)
        })
    }

    /// A file as it last was, for when there is no network: that of the vendor directory, else that of the cache.
    pub fn last_seen(&self, address: &MirroredUrl) -> Option<LastSeen> {
        let vendored = self.vendor.as_deref().and_then(|dir| vendor::place(dir, &address.url));
        if let Some(path) = vendored
            && let Ok(bytes) = std::fs::read(&path)
        {
            return Some(LastSeen::Vendored { bytes, path });
        }
        let (_, bytes) = self.recall(address)?;
        let since = std::fs::metadata(self.record(address)).and_then(|meta| meta.modified()).ok()?;
        Some(LastSeen::Cached { bytes, since })
    }

    fn record(&self, address: &MirroredUrl) -> PathBuf {
        self.dir.join("latest").join(Sha256::of(&address.url).to_string())
    }

    /// The record of an address, if there is one and it is whole.
    fn recall(&self, address: &MirroredUrl) -> Option<(LatestRecord, Vec<u8>)> {
        let mut bytes = std::fs::read(self.record(address)).ok()?;
        let line = bytes.iter().position(|byte| *byte == b'\n')?;
        let record: LatestRecord = serde_json::from_slice(&bytes[..line]).ok()?;
        bytes.drain(..=line);
        (Sha256::of(&bytes) == record.sha256).then_some((record, bytes))
    }

    fn keep_latest(
        &self,
        address: &MirroredUrl,
        record: &LatestRecord,
        bytes: &[u8],
    ) -> Result<(), files::FileError> {
        let text = [json(record).as_bytes(), b"\n", bytes].concat();
        files::write(&self.record(address), &text, 0o644)
    }
}
