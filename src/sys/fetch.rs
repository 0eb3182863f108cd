//! A cache of downloads by digest, shared by all processes of a user.
//!
//! ```text
//! <dir>/sha256/<hex>     a whole download, verified, read-only
//! <dir>/partial/<hex>    the beginning of one, to go on with
//! <dir>/locks/<2 hex>    held while a download whose digest begins so is made
//! <dir>/known/<hex>      the digest of what an address held when it was last asked without one; named by the address
//! <dir>/latest/<hex>     an index as it last was, and what its server said of it; named by the address
//! ```
//!
//! Beside it there may be a vendor directory ([`vendor`](super::vendor)), which is looked into before the network.

mod address;
mod error;
mod latest;
mod servers;

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::base::{Sha256, web_page};

use super::digest::sha256_of_file;
use super::fs::{FileError, FileLock, create_dir_all, remove};
use super::http::{Client, ExpectedBody, FileSink, HttpError, Sink};
use super::report::{Report, Unit};
use super::vendor;

use servers::Servers;

pub use address::MirroredUrl;
pub use error::{FetchError, GetError, UnexpectedBody};
pub use latest::LastSeen;

/// What is known of a download before it comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpectedFile {
    /// Without it, the download is made each time.
    pub sha256: Option<Sha256>,
    /// In bytes.
    pub size: Option<u64>,
}

/// The most bytes of a download whose size is not known: more than any kernel source or package.
const LARGEST: u64 = 8 << 30;

/// Downloads by digest.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
    vendor: Option<PathBuf>,
    verify: bool,
    client: Client,
    servers: Servers,
}

impl Cache {
    /// The cache in `dir`, which is made where it is missing. A file that is there already is trusted if its size is right.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let client = Client::shared().clone();
        Self { dir: dir.into(), vendor: None, verify: false, client, servers: Servers::default() }
    }

    /// The same, but what a vendor directory has is taken from there.
    #[must_use]
    pub fn vendored(mut self, dir: Option<PathBuf>) -> Self {
        self.vendor = dir;
        self
    }

    /// The same with another client.
    #[must_use]
    pub fn with_client(mut self, client: Client) -> Self {
        self.client = client;
        self
    }

    /// Its client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The same, but a file that is there already is hashed before it is used.
    #[must_use]
    pub fn verifying(mut self) -> Self {
        self.verify = true;
        self
    }

    /// The directory of the cache.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a download of this digest is or would be.
    pub fn path(&self, sha256: &Sha256) -> PathBuf {
        self.dir.join("sha256").join(sha256.to_string())
    }

    /// The path of what an address holds, downloaded if need be. Without a digest to expect, it is downloaded each time, or,
    /// offline, is what was downloaded last; the name of the path is then its digest. A file that is not the expected
    /// one is not kept.
    pub fn get(
        &self,
        address: &MirroredUrl,
        expected: ExpectedFile,
        offline: bool,
        progress: &dyn Report,
    ) -> Result<PathBuf, FetchError> {
        let Some(sha256) = expected.sha256 else {
            let any = |path: PathBuf| Ok::<_, FetchError>(path);
            return self.get_accepted(address, expected.size, offline, progress, any).map_err(|errors| {
                let plain = |error| match error {
                    GetError::Fetch(error) | GetError::Refused(error) => error,
                };
                FetchError::of_places(errors.into_iter().map(plain).collect())
            });
        };
        let path = self.path(&sha256);
        if self.holds(&path, &sha256, expected.size)? {
            return Ok(path);
        }
        if let Some(path) = self.vendored_file(address, &sha256, expected.size, offline, progress)? {
            return Ok(path);
        }
        if offline && !address.is_local() {
            return Err(self.offline(address));
        }
        let name = sha256.to_string();
        let _lock = FileLock::wait(&self.dir.join("locks").join(&name[..2]))?;
        // Another process may have made it meanwhile.
        if !self.holds(&path, &sha256, expected.size)? {
            self.fetch_pinned(address, &sha256, expected.size, progress)?;
        }
        Ok(path)
    }

    fn offline(&self, address: &MirroredUrl) -> FetchError {
        let vendor = self.vendor.clone();
        FetchError::Offline { url: address.url.clone(), dir: self.dir.clone(), vendor }
    }

    /// Whether the file is there and right; one that is wrong is removed.
    fn holds(&self, path: &Path, sha256: &Sha256, size: Option<u64>) -> Result<bool, FetchError> {
        let Ok(meta) = fs::metadata(path) else { return Ok(false) };
        let is_right = size.is_none_or(|size| size == meta.len())
            && (!self.verify || sha256_of_file(path)?.0 == *sha256);
        if !is_right {
            remove(path)?;
        }
        Ok(is_right)
    }

    /// What the vendor directory has of an address. A file that is not the expected one is an error offline; with the network it
    /// is told and not used.
    fn vendored_file(
        &self,
        address: &MirroredUrl,
        sha256: &Sha256,
        size: Option<u64>,
        offline: bool,
        progress: &dyn Report,
    ) -> Result<Option<PathBuf>, FetchError> {
        let Some(path) = self.vendor.as_deref().and_then(|dir| vendor::place(dir, &address.url)) else {
            return Ok(None);
        };
        let Ok(meta) = fs::metadata(&path) else { return Ok(None) };
        if size == Some(meta.len()) && !self.verify {
            return Ok(Some(path));
        }
        let found = sha256_of_file(&path)?.0;
        if found == *sha256 {
            return Ok(Some(path));
        }
        let (url, expected, found) = (path.display().to_string(), sha256.to_string(), found.to_string());
        let error = FetchError::Digest { url, expected, found };
        if offline {
            return Err(error);
        }
        progress.note(&format!("{error}; it is downloaded instead"));
        Ok(None)
    }

    fn fetch_pinned(
        &self,
        address: &MirroredUrl,
        sha256: &Sha256,
        size: Option<u64>,
        progress: &dyn Report,
    ) -> Result<(), FetchError> {
        let partial = self.dir.join("partial").join(sha256.to_string());
        create_dir_all(&self.dir.join("partial"))?;
        let ask = |url: &str, attempts| self.fetch_from(url, &partial, sha256, size, attempts, progress);
        self.servers.ask(&self.client, address, progress, ask).map_err(FetchError::of_places)
    }

    /// Goes on with what is there, from one place, until it is the expected file.
    fn fetch_from(
        &self,
        url: &str,
        partial: &Path,
        sha256: &Sha256,
        size: Option<u64>,
        attempts: u32,
        progress: &dyn Report,
    ) -> Result<(), FetchError> {
        loop {
            let resumed = fs::metadata(partial).is_ok_and(|meta| meta.len() > 0);
            let wanted = ExpectedBody { size, limit: size.unwrap_or(LARGEST), resume: true, attempts };
            self.download(url, partial, wanted, progress)?;
            let (found, _) = sha256_of_file(partial)?;
            if found == *sha256 {
                return self.keep(partial, sha256).map(drop);
            }
            let is_page = is_web_page(partial)?;
            remove(partial)?;
            // The beginning may have been of another file; then a whole one is right.
            if !resumed && is_page {
                return Err(HttpError::Page { url: url.to_owned() }.into());
            }
            if !resumed {
                let (expected, found) = (sha256.to_string(), found.to_string());
                return Err(FetchError::Digest { url: url.to_owned(), expected, found });
            }
        }
    }

    /// What `accept` makes of the file that an address holds now, or, offline, held when it was last downloaded. What it refuses
    /// counts as not had, so that a mirror is asked.
    pub fn get_accepted<T, E: Error + 'static>(
        &self,
        address: &MirroredUrl,
        size: Option<u64>,
        offline: bool,
        progress: &dyn Report,
        accept: impl Fn(PathBuf) -> Result<T, E>,
    ) -> Result<T, Vec<GetError<E>>> {
        if offline && !address.is_local() {
            let path = self.last_known(address, size).map_err(|error| vec![error.into()])?;
            return accept(path).map_err(|error| vec![GetError::Refused(error)]);
        }
        self.servers.ask(&self.client, address, progress, |url, attempts| {
            let (path, sha256) = self.fetch_unpinned(url, size, attempts, progress)?;
            let accepted = accept(path).map_err(GetError::Refused)?;
            self.remember(address, &sha256)?;
            Ok(accepted)
        })
    }

    fn fetch_unpinned(
        &self,
        url: &str,
        size: Option<u64>,
        attempts: u32,
        progress: &dyn Report,
    ) -> Result<(PathBuf, Sha256), FetchError> {
        let dir = self.dir.join("partial");
        create_dir_all(&dir)?;
        let temporary =
            tempfile::NamedTempFile::new_in(&dir).map_err(FileError::when("create file in", &dir))?;
        let wanted = ExpectedBody { size, limit: size.unwrap_or(LARGEST), resume: false, attempts };
        self.download(url, temporary.path(), wanted, progress)?;
        let (sha256, _) = sha256_of_file(temporary.path())?;
        let path = self.keep(temporary.path(), &sha256)?;
        // It has another name now; there is nothing left to remove.
        let _ = temporary.keep();
        Ok((path, sha256))
    }

    /// Where the digest of what an address held is remembered.
    fn known(&self, address: &MirroredUrl) -> PathBuf {
        self.dir.join("known").join(Sha256::of(&address.url).to_string())
    }

    fn remember(&self, address: &MirroredUrl, sha256: &Sha256) -> Result<(), FetchError> {
        let text = format!("{sha256} {}\n", address.url);
        Ok(super::fs::write(&self.known(address), text.as_bytes(), 0o644)?)
    }

    /// What an address held when it was last downloaded.
    fn last_known(&self, address: &MirroredUrl, size: Option<u64>) -> Result<PathBuf, FetchError> {
        let text = super::fs::read_text_if_present(&self.known(address))?.unwrap_or_default();
        if let Some(sha256) = text.split(' ').next().and_then(|digest| digest.parse().ok())
            && self.holds(&self.path(&sha256), &sha256, size)?
        {
            return Ok(self.path(&sha256));
        }
        // Whoever asks without a digest checks otherwise what is there.
        let vendored = self.vendor.as_deref().and_then(|dir| vendor::place(dir, &address.url));
        vendored.filter(|path| path.is_file()).ok_or_else(|| self.offline(address))
    }

    fn download(
        &self,
        url: &str,
        path: &Path,
        wanted: ExpectedBody,
        progress: &dyn Report,
    ) -> Result<(), FetchError> {
        let open = File::options().create(true).truncate(false).read(true).write(true).open(path);
        let sink = open.and_then(FileSink::new);
        let mut sink = sink.map_err(FileError::when("open", path))?;
        let name = url.rsplit('/').find(|part| !part.is_empty()).unwrap_or(url);
        let task = progress.begin(name, wanted.size, Unit::Bytes);
        task.advance(sink.len());
        self.client.download(url, &mut sink, wanted, &|count| task.advance(count))?;
        task.finish("downloaded");
        Ok(())
    }

    /// Gives a verified file its name, durably.
    fn keep(&self, from: &Path, sha256: &Sha256) -> Result<PathBuf, FetchError> {
        let path = self.path(sha256);
        create_dir_all(&self.dir.join("sha256"))?;
        let finish = || -> io::Result<()> {
            fs::set_permissions(from, fs::Permissions::from_mode(0o444))?;
            File::open(from)?.sync_all()?;
            fs::rename(from, &path)
        };
        finish().map_err(FileError::when("write", &path))?;
        Ok(path)
    }
}

fn is_web_page(path: &Path) -> Result<bool, FileError> {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(web_page::HEAD).read_to_end(&mut head));
    read.map_err(FileError::when("read", path))?;
    Ok(web_page::is(&head))
}

#[cfg(test)]
mod tests;
