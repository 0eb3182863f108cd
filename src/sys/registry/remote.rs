//! A repository of a registry that blobs and manifests are pushed to and pulled from (OCI distribution specification 1.1).

use crate::base::Sha256;
use crate::base::text::last_lines;
use crate::sys::http::{ATTEMPTS, Answer, Client, ExpectedBody, HttpError, SmallRequest};
use crate::sys::oci::parse_digest;

use super::allowed::AllowedClient;
use super::{Action, ImageRepository, RegistryError};

/// A repository to which somebody is let in.
#[derive(Debug)]
pub struct RemoteRepository {
    place: ImageRepository,
    /// For messages.
    called: String,
    allowed: AllowedClient,
}

impl RemoteRepository {
    /// Asks the registry to be let in.
    pub fn open(
        place: ImageRepository,
        called: String,
        client: &Client,
        action: Action,
    ) -> Result<Self, RegistryError> {
        let allowed = AllowedClient::new(client.clone(), place.clone(), called.clone(), action);
        allowed.let_in()?;
        Ok(Self { allowed, place, called })
    }

    /// The manifest of a tag; `None` where there is none. Nobody but the registry can say what its digest should be.
    pub fn manifest(&self, tag: &str) -> Result<Option<Vec<u8>>, RegistryError> {
        let url = format!("{}/manifests/{tag}", self.place.url());
        let answer = self.send("GET", &url, &[], &[], Action::Pull)?;
        let said = answer.digest.as_deref().and_then(parse_digest);
        match answer.status {
            200 => match said.filter(|said| *said != Sha256::of(&answer.body)) {
                Some(expected) => Err(RegistryError::Digest { image: self.called.clone(), expected }),
                None => Ok(Some(answer.body)),
            },
            404 => Ok(None),
            _ => Err(self.refused(format!("the manifest {tag}"), &answer)),
        }
    }

    /// A blob, whose digest is held against its bytes.
    pub fn blob(&self, sha256: &Sha256, size: u64) -> Result<Vec<u8>, RegistryError> {
        let url = format!("{}/blobs/sha256:{sha256}", self.place.url());
        let failed = |source| match source {
            // A server that is away, or that lets nobody in, says nothing of its blobs.
            HttpError::Unreachable { .. } | HttpError::Status { status: 401 | 403 | 429 | 500.., .. } => {
                self.failed(source)
            }
            source => {
                let (image, what) = (self.called.clone(), format!("the blob sha256:{sha256}"));
                RegistryError::Broken { image, what, source }
            }
        };
        let bytes = self.download(&url, Some(size), size)?.map_err(failed)?;
        if Sha256::of(&bytes) == *sha256 {
            return Ok(bytes);
        }
        Err(RegistryError::Digest { image: self.called.clone(), expected: *sha256 })
    }

    fn download(
        &self,
        url: &str,
        size: Option<u64>,
        limit: u64,
    ) -> Result<Result<Vec<u8>, HttpError>, RegistryError> {
        let is_refused = |got: &Result<_, _>| matches!(got, Err(HttpError::Status { status: 401, .. }));
        self.allowed.request(is_refused, |client| {
            let mut bytes = Vec::new();
            let wanted = ExpectedBody { size, limit, resume: size.is_some(), attempts: ATTEMPTS };
            client.download(url, &mut bytes, wanted, &|_| ()).map(|_| bytes)
        })
    }

    /// Sends a blob, unless the repository has it; whether it was sent.
    pub fn push_blob(&self, sha256: &Sha256, bytes: &[u8]) -> Result<bool, RegistryError> {
        let base = self.place.url();
        let there = self.send("HEAD", &format!("{base}/blobs/sha256:{sha256}"), &[], &[], Action::Push)?;
        if there.status == 200 {
            return Ok(false);
        }
        let what = || format!("the blob sha256:{sha256}");
        let begun = self.send("POST", &format!("{base}/blobs/uploads/"), &[], &[], Action::Push)?;
        let (202, Some(location)) = (begun.status, &begun.location) else {
            return Err(self.refused(what(), &begun));
        };
        // It may be without its host.
        let place = if location.starts_with('/') {
            format!("{}{location}", self.place.origin().trim_end_matches("/v2/"))
        } else {
            location.clone()
        };
        let joint = if place.contains('?') { '&' } else { '?' };
        let headers = [("Content-Type", "application/octet-stream")];
        let put = self.send(
            "PUT",
            &format!("{place}{joint}digest=sha256:{sha256}"),
            &headers,
            bytes,
            Action::Push,
        )?;
        if put.status == 201 { Ok(true) } else { Err(self.refused(what(), &put)) }
    }

    /// Gives a manifest a tag; all that it names must be there.
    pub fn push_manifest(&self, tag: &str, media_type: &str, bytes: &[u8]) -> Result<(), RegistryError> {
        let url = format!("{}/manifests/{tag}", self.place.url());
        let put = self.send("PUT", &url, &[("Content-Type", media_type)], bytes, Action::Push)?;
        if put.status == 201 { Ok(()) } else { Err(self.refused(format!("the manifest {tag}"), &put)) }
    }

    fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        action: Action,
    ) -> Result<Answer, RegistryError> {
        let is_refused = |got: &Result<Answer, _>| got.as_ref().is_ok_and(|answer| answer.status == 401);
        let send = |client: &Client| client.send(SmallRequest { method, url, headers, body });
        let answer = self.allowed.request(is_refused, send)?.map_err(|source| self.failed(source))?;
        match answer.status {
            status @ (401 | 403) => Err(self.allowed.denied(status, action)),
            _ => Ok(answer),
        }
    }

    fn refused(&self, what: String, answer: &Answer) -> RegistryError {
        let body = last_lines(&String::from_utf8_lossy(&answer.body)).join(" ");
        RegistryError::Refused { image: self.called.clone(), what, status: answer.status, body }
    }

    fn failed(&self, source: HttpError) -> RegistryError {
        match source {
            HttpError::Status { status: status @ (401 | 403), .. } => {
                self.allowed.denied(status, Action::Pull)
            }
            source => RegistryError::Http { image: self.called.clone(), source },
        }
    }
}
