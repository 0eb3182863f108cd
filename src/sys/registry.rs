//! Images of container registries (OCI distribution specification 1.1, and Docker's token service): what a reference leads to,
//! by digest, into the cache of downloads.
//!
//! Everything but the digest of a tag is asked for by its digest and verified; what the cache or a vendor directory has, no server
//! is asked for. Who is asked for a login has it from the files of Podman and Docker.

mod access;
mod allowed;
mod login;
mod remote;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::base::Sha256;
use crate::base::text::excerpt;
use crate::base::{Class, Diagnosis, Diagnostic};

use super::digest::sha256_of_file;
use super::fetch::{Cache, ExpectedFile, FetchError, MirroredUrl, UnexpectedBody};
use super::fs::FileError;
use super::http::HttpError;
use super::oci::{Descriptor, Document, LARGEST_DOCUMENT, Platform, parse_digest};
use super::report::Report;

use allowed::AllowedClient;

pub use access::Action;
pub use login::KnownLogin;
pub use remote::RemoteRepository;

/// Manifests and indexes that are taken.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// Why an image is not had.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("cannot pull {image} from its registry")]
    Download { image: String, source: FetchError },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{host} does not allow {} of {image}: it answers {status}", access_in_words(*.action, .login))]
    Denied { host: String, image: String, status: u16, action: Action, login: KnownLogin },
    #[error("{} is not a file of logins at registries: {source}", path.display())]
    Logins { path: PathBuf, source: serde_json::Error },
    #[error("{}: `auth` of {place} is not a name and a password in base64", path.display())]
    NotBase64 { path: PathBuf, place: String },
    #[error("{} the registry of {image}", if source.reached() { "a fault of" } else { "cannot reach" })]
    Http { image: String, source: HttpError },
    #[error("the registry of {image} was reached, but has not {what} as it was pushed")]
    Broken { image: String, what: String, source: HttpError },
    #[error("the registry of {image} refuses {what}: it answers {status}{}", said(.body))]
    Refused { image: String, what: String, status: u16, body: String },
    #[error("the registry of {image} sends other bytes than those of the digest {expected}")]
    Digest { image: String, expected: Sha256 },
    #[error("{host} asks for an unsupported kind of login: {challenge:?}")]
    Challenge { host: String, challenge: String },
    #[error("cannot ask {host} for a token to pull with")]
    Ask { host: String, source: HttpError },
    #[error("{image}: {what} does not follow the OCI image specification")]
    Malformed { image: String, what: String, source: serde_json::Error },
    #[error("{image}: {problem}")]
    Unsupported { image: String, problem: String },
}

impl Diagnostic for RegistryError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            // What a registry names by its digest is never pinned anew.
            Self::Download { source, .. } if source.what_came() == Some(UnexpectedBody::Other) => {
                source.diagnosis().hint("what the registry has of it is damaged: push the image there again, or pull it from another")
            }
            Self::Fetch(error) | Self::Download { source: error, .. } => error.diagnosis(),
            Self::File(error) => error.diagnosis().of(Class::Failed),
            Self::Denied { host, login: KnownLogin::InHelper { path, helper }, .. } => Class::Failed.hint(format!(
                "{} leaves this login to the helper docker-credential-{helper}, which is not asked: `podman login {host}`, or \
                 `skopeo login {host}`, writes it into a file that is read",
                path.display()
            )),
            Self::Denied { host, .. } | Self::Challenge { host, .. } => Class::Failed.hint(format!(
                "log in: `podman login {host}`, `skopeo login {host}` or `docker login {host}` writes a file that is read; or \
                 `skopeo copy docker://... oci-archive:FILE` writes an image into a file",
            )),
            Self::Ask { source, .. } | Self::Http { source, .. } => source.diagnosis(),
            Self::Logins { .. } | Self::NotBase64 { .. } => {
                Class::Invalid.hint("remove that file, and log in again")
            }
            Self::Broken { .. } => Class::Failed.hint(
                "push it again (`sisforge push`); a registry that keeps what is damaged must have it removed first",
            ),
            Self::Refused { .. } => Class::Failed.no_hint(),
            Self::Digest { .. } => Class::Failed.hint("the registry, or whoever is between, is not to be trusted"),
            Self::Malformed { .. } | Self::Unsupported { .. } => Class::Invalid.no_hint(),
        }
    }
}

/// What is not allowed, in words.
fn access_in_words(action: Action, login: &KnownLogin) -> &'static str {
    match (action, login) {
        (Action::Pull, KnownLogin::Given(_)) => "pulls by this login",
        (Action::Push, KnownLogin::Given(_)) => "pushes by this login",
        (Action::Pull, KnownLogin::None | KnownLogin::InHelper { .. }) => "anonymous pulls",
        (Action::Push, KnownLogin::None | KnownLogin::InHelper { .. }) => "anonymous pushes",
    }
}

/// What an answer says besides its status.
fn said(body: &str) -> String {
    if body.is_empty() { String::new() } else { format!(" ({})", excerpt(body)) }
}

/// Where an image is, without tag or digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRepository {
    /// With a port where it has one.
    pub host: String,
    /// Such as `library/alpine`.
    pub name: String,
}

impl ImageRepository {
    /// The address of its API. Docker's own registry is elsewhere than its name says. This machine itself is asked without TLS, as
    /// Docker has it.
    pub fn url(&self) -> String {
        let host = if self.host == "docker.io" { "registry-1.docker.io" } else { self.host.as_str() };
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let scheme = if matches!(name, "localhost" | "127.0.0.1" | "[::1]") { "http" } else { "https" };
        format!("{scheme}://{host}/v2/{}", self.name)
    }

    fn origin(&self) -> String {
        self.url().trim_end_matches(&self.name).to_owned()
    }
}

/// A file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    pub url: String,
    pub sha256: Sha256,
    /// In bytes.
    pub size: u64,
    /// Where it is on this machine.
    pub path: PathBuf,
}

/// An image whose every file is on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// Of the manifest for guests ([`Platform::rank`]).
    pub manifest: Sha256,
    /// Index, manifest, config and layers, by digest.
    pub blobs: BTreeMap<Sha256, Blob>,
}

/// A way to the images of one repository.
pub struct Puller<'a> {
    repository: ImageRepository,
    /// For messages.
    image: String,
    cache: &'a Cache,
    allowed: AllowedClient,
    offline: bool,
    report: &'a dyn Report,
}

impl<'a> Puller<'a> {
    /// For an image of a repository, called so in messages. No server is asked yet.
    pub fn new(
        repository: ImageRepository,
        image: String,
        cache: &'a Cache,
        offline: bool,
        report: &'a dyn Report,
    ) -> Self {
        let client = cache.client().clone();
        let allowed = AllowedClient::new(client, repository.clone(), image.clone(), Action::Pull);
        Self { repository, image, cache, allowed, offline, report }
    }

    /// The digest of what a tag leads to now, an index or a manifest; offline, of what it last led to.
    pub fn resolve(&self, tag: &str) -> Result<Sha256, RegistryError> {
        let address = format!("{}/manifests/{tag}", self.repository.url()).as_str().into();
        let path = if self.offline {
            self.cache.get(&address, ExpectedFile::default(), true, self.report)
        } else {
            self.download(&address, ExpectedFile::default())?
        };
        let path = path.map_err(|source| self.failed(source))?;
        self.parse(&path)?;
        Ok(sha256_of_file(&path)?.0)
    }

    /// Brings everything of the image with this digest to this machine; an index leads to its image for Linux on amd64.
    pub fn pull(&self, digest: Sha256) -> Result<Pulled, RegistryError> {
        let mut blobs = BTreeMap::new();
        let mut sha256 = digest;
        let mut document = self.document(sha256, None, &mut blobs)?;
        if let Document::Index(index) = &document {
            let chosen = self.for_platform(&index.manifests)?;
            sha256 = self.digest(&chosen.digest)?;
            document = self.document(sha256, Some(chosen.size), &mut blobs)?;
        }
        let Document::Manifest(manifest) = document else {
            return Err(self.unsupported("its index leads to another index"));
        };
        for part in std::iter::once(&manifest.config).chain(&manifest.layers) {
            let digest = self.digest(&part.digest)?;
            self.blob("blobs", digest, Some(part.size), &mut blobs)?;
        }
        Ok(Pulled { manifest: sha256, blobs })
    }

    fn for_platform<'m>(&self, all: &'m [Descriptor]) -> Result<&'m Descriptor, RegistryError> {
        let names = |platform: &Platform| {
            let parts = [&platform.os, &platform.architecture, &platform.variant];
            parts.into_iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("/")
        };
        let rank = |manifest: &Descriptor| manifest.platform.as_ref().and_then(Platform::rank);
        let found =
            all.iter().filter(|manifest| rank(manifest).is_some()).min_by_key(|manifest| rank(manifest));
        found.ok_or_else(|| {
            let there: Vec<_> = all.iter().filter_map(|one| one.platform.as_ref()).map(names).collect();
            self.unsupported(&format!("it is available for {}, but guests are linux/amd64", there.join(", ")))
        })
    }

    fn document(
        &self,
        sha256: Sha256,
        size: Option<u64>,
        blobs: &mut BTreeMap<Sha256, Blob>,
    ) -> Result<Document, RegistryError> {
        self.parse(&self.blob("manifests", sha256, size, blobs)?)
    }

    /// One file, from the cache or the registry.
    fn blob(
        &self,
        kind: &str,
        sha256: Sha256,
        size: Option<u64>,
        blobs: &mut BTreeMap<Sha256, Blob>,
    ) -> Result<PathBuf, RegistryError> {
        let url = format!("{}/{kind}/sha256:{}", self.repository.url(), sha256);
        let (address, expected) = (url.as_str().into(), ExpectedFile { sha256: Some(sha256), size });
        let path = match self.cache.get(&address, expected, true, self.report) {
            Err(FetchError::Offline { .. }) if !self.offline => self.download(&address, expected)?,
            there => there,
        };
        let path = path.map_err(|source| self.failed(source))?;
        let size = fs::metadata(&path).map_err(FileError::when("read", &path))?.len();
        blobs.insert(sha256, Blob { url, sha256, size, path: path.clone() });
        Ok(path)
    }

    fn parse(&self, path: &Path) -> Result<Document, RegistryError> {
        let size = fs::metadata(path).map_err(FileError::when("read", path))?.len();
        if size > LARGEST_DOCUMENT {
            return Err(self.unsupported("the manifest is larger than 4 MiB"));
        }
        let bytes = super::fs::read(path)?;
        let (image, what) = (self.image.clone(), "the manifest".to_owned());
        Document::parse(&bytes).map_err(|source| RegistryError::Malformed { image, what, source })
    }

    fn digest(&self, text: &str) -> Result<Sha256, RegistryError> {
        parse_digest(text).ok_or_else(|| self.unsupported(&format!("the digest {text:?} is not a sha256")))
    }

    fn unsupported(&self, problem: &str) -> RegistryError {
        RegistryError::Unsupported { image: self.image.clone(), problem: problem.to_owned() }
    }

    fn failed(&self, source: FetchError) -> RegistryError {
        let image = self.image.clone();
        match source {
            FetchError::Http(HttpError::Status { status: status @ (401 | 403), .. }) => {
                self.allowed.denied(status, Action::Pull)
            }
            FetchError::Offline { .. } => source.into(),
            source => RegistryError::Download { image, source },
        }
    }

    /// Brings a file from the registry into the cache.
    fn download(
        &self,
        address: &MirroredUrl,
        expected: ExpectedFile,
    ) -> Result<Result<PathBuf, FetchError>, RegistryError> {
        let is_refused =
            |got: &Result<_, _>| matches!(got, Err(FetchError::Http(HttpError::Status { status: 401, .. })));
        self.allowed.request(is_refused, |client| {
            let cache = self.cache.clone().with_client(client.clone());
            cache.get(address, expected, false, self.report)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_asked_without_tls() {
        let url = |host: &str| ImageRepository { host: host.into(), name: "a/b".into() }.url();
        assert_eq!(url("docker.io"), "https://registry-1.docker.io/v2/a/b");
        assert_eq!(url("quay.io:8443"), "https://quay.io:8443/v2/a/b");
        assert_eq!(url("localhost"), "http://localhost/v2/a/b");
        assert_eq!(url("127.0.0.1:5000"), "http://127.0.0.1:5000/v2/a/b");
        assert_eq!(url("localhost.evil.example"), "https://localhost.evil.example/v2/a/b");
    }
}
