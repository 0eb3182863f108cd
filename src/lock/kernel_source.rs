//! Which bytes a kernel's source is: its digest, from whoever vouches for it.
//!
//! `fleet.toml` says it, or the earlier lock. Else, with a keyring, it is read from `sha256sums.asc` beside the tarball, as
//! kernel.org has it, which a key of the keyring must have signed. Else what the server gives is taken as it comes, once.

use std::path::{Path, PathBuf};

use crate::base::diagnostic::{each, together};
use crate::base::{Class, Diagnosis, Diagnostic, InvalidValue, Sha256};
use crate::fleet::{KernelBuild, KernelSpec};
use crate::sys::fetch::{ExpectedFile, FetchError, GetError, MirroredUrl};
use crate::sys::fs::{self as files, FileError};
use crate::sys::gpg::{self, GpgError};

use super::model::LockedKernel;
use super::request::{Request, Update};
use super::wanted::WantedKernel;

/// A kernel source that cannot be pinned.
#[derive(Debug, thiserror::Error)]
pub enum KernelSourceError {
    #[error("cannot get the kernel source")]
    Fetch(#[from] FetchError),
    #[error("the cache stored the kernel source as {0:?}, which is not a digest")]
    Digest(String, #[source] InvalidValue),
    #[error("cannot get the list of digests {url}")]
    Sums { url: String, source: GetError<SumsError> },
    #[error("none of {} lists of digests confirms the kernel source: {}", .0.len(), each(.0))]
    NoSums(Vec<GetError<SumsError>>),
}

impl Diagnostic for KernelSourceError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Fetch(error) => error.diagnosis(),
            Self::Digest(..) => Class::Failed.hint("remove the cache"),
            Self::Sums { source, .. } => source.diagnosis(),
            Self::NoSums(errors) => together(errors),
        }
    }
}

/// A list of digests that does not say which one a file has.
#[derive(Debug, thiserror::Error)]
pub enum SumsError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Gpg(#[from] GpgError),
    #[error("it has more than {SUMS_MAX} bytes")]
    TooLarge,
    #[error("it is signed by {signer}, and does not name {file}")]
    NotListed { signer: String, file: String },
}

impl Diagnostic for SumsError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::File(error) => error.diagnosis(),
            Self::Gpg(error) => error.diagnosis(),
            Self::TooLarge => Class::Invalid.hint("name a list of SHA-256 sums"),
            Self::NotListed { .. } => {
                Class::Invalid.hint("name the list that belongs to this source, or another source")
            }
        }
    }
}

/// Name of the list that kernel.org has in each directory of sources.
const SUMS: &str = "sha256sums.asc";

/// The largest list that is read, in bytes: kernel.org's have less than a MiB.
const SUMS_MAX: usize = 16 << 20;

/// The kernel of a lock. A source at an address is downloaded and hashed when it is new, or when another keyring is to
/// vouch for it; from then on its digest stands.
pub(super) fn pin(request: &Request<'_>) -> Result<LockedKernel, KernelSourceError> {
    let wanted = &request.wanted.kernel;
    let old = request.old.map(|lock| &lock.kernel).filter(|old| old.source == wanted.source);
    let vouched = old.filter(|old| wanted.keyring.is_none() || wanted.keyring == old.keyring);
    let sha256 = match (wanted.sha256, vouched) {
        (Some(sha256), _) => sha256,
        (None, Some(old)) => old.sha256,
        (None, None) => download(wanted, request)?,
    };
    let mut locked = LockedKernel {
        source: wanted.source.clone(),
        sha256,
        keyring: wanted.keyring,
        config: wanted.config,
        patches: wanted.patches.clone(),
        toolchain: request.old.and_then(|lock| lock.kernel.toolchain.clone()),
        files: wanted.parts.files.clone(),
        options: wanted.parts.options.clone(),
    };
    let unchanged = old == Some(&locked) && *request.update != Update::All && locked.toolchain.is_some();
    if locked.config.is_none() {
        locked.toolchain = None;
    } else if !unchanged && let Some(toolchain) = request.toolchain {
        locked.toolchain = Some(toolchain.to_owned());
    }
    Ok(locked)
}

fn download(wanted: &WantedKernel, request: &Request<'_>) -> Result<Sha256, KernelSourceError> {
    let (mirrors, keyring) = match &request.fleet.kernel {
        KernelSpec::Build(KernelBuild { mirrors, keyring, .. }) => (mirrors.clone(), keyring.as_deref()),
        KernelSpec::Ready { .. } => (Vec::new(), None),
    };
    let address = MirroredUrl { url: wanted.source.clone(), mirrors };
    let Request { cache, offline, report, .. } = *request;
    if let Some(keyring) = keyring {
        let sha256 = signed_digest(&address, keyring, request)?;
        cache.get(&address, ExpectedFile { sha256: Some(sha256), size: None }, offline, report)?;
        return Ok(sha256);
    }
    let path = cache.get(&address, ExpectedFile::default(), offline, report)?;
    report.note(&format!(
        "the digest of {} is pinned on first use, without a signature; [kernel] `keyring` or `sha256` \
         would verify it",
        wanted.source
    ));
    // The cache names what it was not told the digest of by its digest.
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.parse().map_err(|reason| KernelSourceError::Digest(name, reason))
}

/// What the signed list beside a source says of it.
fn signed_digest(
    source: &MirroredUrl,
    keyring: &Path,
    request: &Request<'_>,
) -> Result<Sha256, KernelSourceError> {
    let file = source.url.rsplit('/').next().unwrap_or(&source.url);
    let sums = source.beside(SUMS);
    let read = |path: PathBuf| -> Result<_, SumsError> {
        let bytes = files::read(&path)?;
        if bytes.len() > SUMS_MAX {
            return Err(SumsError::TooLarge);
        }
        let signed = gpg::verify(keyring, bytes)?;
        match digest_in(&String::from_utf8_lossy(&signed.text), file) {
            Some(sha256) => Ok((sha256, signed.signer)),
            None => Err(SumsError::NotListed { signer: signed.signer, file: file.to_owned() }),
        }
    };
    let read = request.cache.get_accepted(&sums, None, request.offline, request.report, read);
    let (sha256, signer) = read.map_err(|mut errors| match errors.pop() {
        Some(source) if errors.is_empty() => KernelSourceError::Sums { url: sums.url.clone(), source },
        last => KernelSourceError::NoSums(errors.into_iter().chain(last).collect()),
    })?;
    request.report.info(&format!("{file}: the digest is signed by {signer}"));
    Ok(sha256)
}

/// The digest of a file in a list as `sha256sum` writes it. One that is listed with two digests has none.
fn digest_in(sums: &str, file: &str) -> Option<Sha256> {
    let named = |line: &str| {
        let (digest, name) = line.trim_end().split_once(' ')?;
        // A second character tells text from binary files.
        let name = name.strip_prefix([' ', '*'])?;
        (name == file).then(|| digest.parse().ok())?
    };
    let mut digests = sums.lines().filter_map(named);
    let first = digests.next()?;
    digests.all(|other| other == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_a_file_is_that_of_its_whole_name() {
        let digest = |byte: u8| Sha256::of([byte]);
        let sums = format!(
            "{}  linux-6.1.155.tar.gz\n{}  linux-6.1.155.tar.xz\n{} *linux-6.1.1.tar.xz\nnonsense\n{}  \
             twice\n{}  twice\nxyz  broken\n",
            digest(1),
            digest(2),
            digest(3),
            digest(4),
            digest(5)
        );
        assert_eq!(digest_in(&sums, "linux-6.1.155.tar.xz"), Some(digest(2)));
        assert_eq!(digest_in(&sums, "linux-6.1.1.tar.xz"), Some(digest(3)));
        for none in ["linux-6.1.15.tar.xz", "155.tar.xz", "twice", "broken", ""] {
            assert_eq!(digest_in(&sums, none), None, "{none}");
        }
    }
}
