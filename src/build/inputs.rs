//! What a build takes from the network: fetched into the cache, or copied into a vendor directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use rayon::prelude::*;

use crate::base::Sha256;
use crate::base::text::counted;
use crate::fleet::{ContainerImage, KernelSpec, Source};
use crate::lock::indexes::{FileLocation, index_place};
use crate::lock::model::LockedPackage;
use crate::lock::repository::DOWNLOADS;
use crate::lock::wanted::mentioned_containers;
use crate::sys::digest::sha256_of_file;
use crate::sys::fetch::MirroredUrl;
use crate::sys::fs::{self as files, FileError};
use crate::sys::registry::Blob;
use crate::sys::report::Unit;
use crate::sys::vendor;

use super::builder::Builder;
use super::error::{BuildError, LIST, VendorError};
use super::threads::thread_pool;

/// Something that a build takes from the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// `name-version` of a package, `kernel source`, or the container image that a file is of.
    pub name: String,
    pub url: String,
    pub sha256: Sha256,
    /// In bytes.
    pub size: u64,
    /// Where it is on this machine.
    pub path: PathBuf,
}

/// What a vendor directory holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vendored {
    pub files: usize,
    /// Of all files.
    pub bytes: u64,
    /// Files of an earlier run that nothing needs any longer.
    pub removed: usize,
}

/// Where the keys are by which the indexes were verified, for apk; sisforge trusts those of `fleet.toml`.
const KEYS: &str = "keys";

impl Builder<'_> {
    /// Downloads everything that a build needs and the cache does not have.
    pub fn fetch(&self) -> Result<Vec<Input>, BuildError> {
        self.refuse_stale()?;
        let repositories = self.repositories();
        let task = self.report.begin("fetch", Some(self.lock.package.len() as u64), Unit::Steps);
        let fetch = |locked: &LockedPackage| -> Result<Option<Input>, BuildError> {
            let FileLocation::Network(address) = repositories.pinned_place(locked)? else { return Ok(None) };
            let path = repositories.pinned_file(locked)?;
            task.advance(1);
            let (name, url) = (locked.id(), address.url);
            Ok(Some(Input { name, url, sha256: locked.sha256, size: locked.size, path }))
        };
        // The kernel's source is much the largest, so it is not waited for last.
        let (kernel, packages) = thread_pool(DOWNLOADS)?.install(|| {
            rayon::join(
                || self.fetch_kernel(),
                || self.lock.package.par_iter().map(fetch).collect::<Result<Vec<_>, _>>(),
            )
        });
        let mut inputs: Vec<Input> = packages?.into_iter().flatten().chain(kernel?).collect();
        inputs.extend(self.fetch_containers()?);
        task.finish(&counted(inputs.len(), "file"));
        Ok(inputs)
    }

    /// Every file of every image that comes from a registry, those that images share once.
    fn fetch_containers(&self) -> Result<Vec<Input>, BuildError> {
        let mut inputs = BTreeMap::new();
        for (spelled, image) in mentioned_containers(&self.project.fleet) {
            let ContainerImage::Registry(reference) = image else { continue };
            let sha256 = self.lock.container.get(&spelled);
            let sha256 = sha256.ok_or_else(|| BuildError::ContainerNotLocked(spelled.clone()))?;
            for blob in self.puller().pull(reference, *sha256)?.blobs.into_values() {
                let Blob { url, sha256, size, path } = blob;
                let input = Input { name: spelled.clone(), url, sha256, size, path };
                inputs.insert(input.url.clone(), input);
            }
        }
        Ok(inputs.into_values().collect())
    }

    fn fetch_kernel(&self) -> Result<Option<Input>, BuildError> {
        let KernelSpec::Build(build) = &self.project.fleet.kernel else { return Ok(None) };
        let Source::Url(url) = &build.source else { return Ok(None) };
        let path = self.kernel_source(build)?;
        let size = std::fs::metadata(&path).map_err(FileError::when("read", &path))?.len();
        let (name, sha256) = ("kernel source".to_owned(), self.lock.kernel.sha256);
        Ok(Some(Input { name, url: url.clone(), sha256, size, path }))
    }

    /// Copies everything that a build takes from the network into a directory, laid out as [`vendor`] says: what the lock pins,
    /// each repository's index as it is now, and the keys that it is verified by. Files of an earlier run that nothing
    /// needs any longer go. A run that was killed is completed by the next. A directory that holds what no earlier run
    /// has put there is refused.
    pub fn vendor(&self, dir: &Path) -> Result<Vendored, BuildError> {
        let before = listed(dir)?;
        // What an earlier run has brought is not downloaded again, but is looked at.
        let cache = self.cache.clone().vendored(Some(dir.to_owned())).verifying();
        let looking = Builder { cache: &cache, ..*self };
        let inputs = looking.fetch()?;
        let mut wanted: BTreeMap<PathBuf, VendoredContent> = BTreeMap::new();
        for input in &inputs {
            let content = VendoredContent { sha256: input.sha256, from: From::File(&input.path) };
            wanted.insert(place(dir, &input.url)?, content);
        }
        for (path, bytes) in looking.indexes_and_keys(dir)? {
            wanted.insert(path, VendoredContent { sha256: Sha256::of(&bytes), from: From::Bytes(bytes) });
        }
        // Written first and last, so that whatever a killed run leaves is known to be of such a run.
        let all: BTreeSet<&PathBuf> = before.iter().chain(wanted.keys()).collect();
        let mut list: BTreeMap<&PathBuf, Sha256> = all.iter().map(|path| (*path, Sha256([0; 32]))).collect();
        write_list(dir, &list)?;
        let task = self.report.begin("vendor", Some(wanted.len() as u64), Unit::Steps);
        let copy = |(path, content): (&PathBuf, &VendoredContent<'_>)| {
            let size = content.write(path)?;
            task.advance(1);
            Ok(size)
        };
        let sizes = wanted.iter().map(copy).collect::<Result<Vec<u64>, VendorError>>()?;
        let stale: Vec<&PathBuf> = before.iter().filter(|path| !wanted.contains_key(*path)).collect();
        for path in &stale {
            files::remove(path)?;
            remove_empty(path, dir);
        }
        list = wanted.iter().map(|(path, content)| (path, content.sha256)).collect();
        write_list(dir, &list)?;
        task.finish(&counted(wanted.len(), "file"));
        Ok(Vendored { files: wanted.len(), bytes: sizes.iter().sum(), removed: stale.len() })
    }

    fn indexes_and_keys(&self, dir: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>, BuildError> {
        let repositories = self.repositories();
        let mut found = Vec::new();
        for spec in &self.project.fleet.repositories {
            let FileLocation::Network(MirroredUrl { url, .. }) = index_place(spec) else { continue };
            found.push((place(dir, &url)?, repositories.index(spec)?.bytes));
            let keys = repositories.keys(spec)?;
            found.extend(keys.files().map(|(name, pem)| (dir.join(KEYS).join(name), pem.to_vec())));
        }
        Ok(found)
    }
}

/// What a file of a vendor directory is to hold.
struct VendoredContent<'a> {
    sha256: Sha256,
    from: From<'a>,
}

enum From<'a> {
    File(&'a Path),
    Bytes(Vec<u8>),
}

impl VendoredContent<'_> {
    /// Writes it where it is not there already; gives its size in bytes.
    fn write(&self, path: &Path) -> Result<u64, VendorError> {
        if let Ok((sha256, size)) = sha256_of_file(path)
            && sha256 == self.sha256
        {
            return Ok(size);
        }
        match &self.from {
            From::Bytes(bytes) => {
                files::write(path, bytes, 0o644)?;
                Ok(bytes.len() as u64)
            }
            From::File(from) => {
                let mut new = files::NewFile::create(path)?;
                let mut source = std::fs::File::open(from).map_err(FileError::when("open", *from))?;
                std::io::copy(&mut source, new.file()).map_err(FileError::when("write", path))?;
                let (sha256, size) = sha256_of_file(new.temporary_path())?;
                if sha256 != self.sha256 {
                    return Err(VendorError::Changed(from.to_path_buf()));
                }
                new.persist(0o644)?;
                Ok(size)
            }
        }
    }
}

fn place(dir: &Path, url: &str) -> Result<PathBuf, VendorError> {
    vendor::place(dir, url).ok_or_else(|| VendorError::Place { url: url.to_owned() })
}

/// The files that earlier runs have put into a vendor directory.
fn listed(dir: &Path) -> Result<BTreeSet<PathBuf>, VendorError> {
    let Some(text) = files::read_text_if_present(&dir.join(LIST))? else {
        let is_empty = std::fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none());
        return if is_empty { Ok(BTreeSet::new()) } else { Err(VendorError::Foreign(dir.to_owned())) };
    };
    let paths = text.lines().filter_map(|line| line.split_once("  ")).map(|(_, path)| Path::new(path));
    let is_plain = |path: &&Path| path.components().all(|part| matches!(part, Component::Normal(_)));
    Ok(paths.filter(is_plain).map(|path| dir.join(path)).collect())
}

fn write_list(dir: &Path, list: &BTreeMap<&PathBuf, Sha256>) -> Result<(), VendorError> {
    let line = |(path, sha256): (&&PathBuf, &Sha256)| {
        format!("{sha256}  {}\n", path.strip_prefix(dir).unwrap_or(path).display())
    };
    let text: String = list.iter().map(line).collect();
    Ok(files::write(&dir.join(LIST), text.as_bytes(), 0o644)?)
}

/// Removes the directories above a path that are empty now, up to a vendor directory.
fn remove_empty(path: &Path, dir: &Path) {
    let above = path.ancestors().skip(1).take_while(|above| *above != dir);
    // One that is not empty stays, and so do those above it.
    let _ = above.map(std::fs::remove_dir).take_while(Result::is_ok).count();
}
