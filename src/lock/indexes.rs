//! The newest signed index of a repository: from a directory, from the network, or, offline, the one that was seen last.

use std::path::PathBuf;
use std::time::SystemTime;

use crate::apk::{INDEX_FILE, Index, KeyRing};
use crate::fleet::{RepositorySpec, Source};
use crate::sys::fetch::{Cache, FetchError, GetError, LastSeen, MirroredUrl};
use crate::sys::fs as files;
use crate::sys::report::Report;

use super::model::ARCH;
use super::refusal::RepositoryError;

/// Largest index that is downloaded: Alpine's community repository has 2.5 MB.
const MAX_INDEX: u64 = 256 << 20;

/// An index, and the bytes that it was read from.
pub struct SignedIndex {
    pub index: Index,
    pub bytes: Vec<u8>,
}

/// The way to indexes.
pub struct Indexes<'a> {
    pub cache: &'a Cache,
    pub offline: bool,
    pub report: &'a dyn Report,
}

impl Indexes<'_> {
    /// The newest index of a repository that errors call `name`, its signature checked. Offline, it is the one that was seen
    /// last.
    pub fn newest(
        &self,
        name: &str,
        place: &FileLocation,
        keys: &KeyRing,
    ) -> Result<SignedIndex, RepositoryError> {
        let accept = |bytes: &[u8]| match Index::verify(bytes, keys) {
            Ok(index) => Ok(SignedIndex { index, bytes: bytes.to_vec() }),
            Err(source) => Err(RepositoryError::Index { repository: name.to_owned(), source }),
        };
        match place {
            FileLocation::Here(path) => accept(&files::read(path)?),
            FileLocation::Network(address) if self.offline => accept(&self.last(name, address)?),
            FileLocation::Network(address) => {
                let fetch = |source| RepositoryError::FetchIndex { repository: name.to_owned(), source };
                let had = self.cache.latest(address, MAX_INDEX, self.report, accept);
                had.map_err(|errors| nowhere(name, errors, fetch))
            }
        }
    }

    /// The index that was seen last, and a note that tells so.
    fn last(&self, name: &str, address: &MirroredUrl) -> Result<Vec<u8>, RepositoryError> {
        let (bytes, whence) = match self.cache.last_seen(address) {
            None => return Err(RepositoryError::Offline { repository: name.to_owned() }),
            Some(LastSeen::Vendored { bytes, path }) => (bytes, format!("that in {}", path.display())),
            Some(LastSeen::Cached { bytes, since }) => {
                (bytes, format!("the one last seen, {} ago", ago(since)))
            }
        };
        self.report.note(&format!("offline: the index of the repository {name} is {whence}"));
        Ok(bytes)
    }
}

/// What is to be said where no place of a repository serves.
pub(super) fn nowhere(
    name: &str,
    errors: Vec<GetError<RepositoryError>>,
    fetch: impl Fn(FetchError) -> RepositoryError,
) -> RepositoryError {
    let plain = |error| match error {
        GetError::Fetch(error) => fetch(error),
        GetError::Refused(error) => error,
    };
    let mut errors: Vec<_> = errors.into_iter().map(plain).collect();
    match errors.len() {
        1 => errors.remove(0),
        _ => RepositoryError::Nowhere { repository: name.to_owned(), errors },
    }
}

/// Where a file of a repository is.
pub enum FileLocation {
    Network(MirroredUrl),
    /// On this machine.
    Here(PathBuf),
}

/// Where the index of a fleet's repository is.
pub fn index_place(spec: &RepositorySpec) -> FileLocation {
    place(&spec.location, &spec.mirrors, ARCH, INDEX_FILE)
}

/// Where a package of a fleet's repository is; `package` is its name and version.
pub(super) fn package_place(spec: &RepositorySpec, package: &str) -> FileLocation {
    place(&spec.location, &spec.mirrors, ARCH, &format!("{package}.apk"))
}

/// Where a file of a repository is, for machines of `arch`.
pub fn place(location: &Source, mirrors: &[String], arch: &str, file: &str) -> FileLocation {
    match location {
        Source::Path(dir) => FileLocation::Here(dir.join(arch).join(file)),
        Source::Url(url) => {
            let address = MirroredUrl { url: url.clone(), mirrors: mirrors.to_vec() };
            FileLocation::Network(address.below(&format!("{arch}/{file}")))
        }
    }
}

/// A time that has passed, in the largest unit of which there are two.
fn ago(since: SystemTime) -> String {
    let seconds = SystemTime::now().duration_since(since).unwrap_or_default().as_secs();
    let units = [(86_400, "days"), (3600, "hours"), (60, "minutes")];
    let unit = units.iter().find(|(length, _)| seconds >= 2 * length);
    unit.map_or_else(|| format!("{seconds} seconds"), |(length, name)| format!("{} {name}", seconds / length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_time_is_told_in_a_unit_that_fits() {
        let told = |seconds| ago(SystemTime::now() - Duration::from_secs(seconds));
        assert_eq!(
            [told(119), told(120), told(7300), told(200_000)],
            ["119 seconds", "2 minutes", "2 hours", "2 days"]
        );
    }
}
