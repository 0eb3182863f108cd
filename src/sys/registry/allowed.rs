//! A client that a registry lets in. What lets it in is a token that holds for minutes, and a pull may take longer.

use std::sync::{Mutex, PoisonError};

use super::access::{Action, authorization};
use super::{ImageRepository, MANIFESTS, RegistryError, login};
use crate::sys::http::Client;

/// A client for what somebody wants of a repository. No server is asked before its first use.
#[derive(Debug)]
pub(super) struct AllowedClient {
    client: Client,
    repository: ImageRepository,
    /// For messages.
    image: String,
    action: Action,
    /// With what the registry gave it last.
    allowed: Mutex<Option<Client>>,
}

impl AllowedClient {
    pub fn new(client: Client, repository: ImageRepository, image: String, action: Action) -> Self {
        Self { client, repository, image, action, allowed: Mutex::default() }
    }

    /// Makes a request; once more, let in anew, where `is_refused` says of the answer that what it was let in by holds no longer.
    pub fn request<T>(
        &self,
        is_refused: impl Fn(&T) -> bool,
        request: impl Fn(&Client) -> T,
    ) -> Result<T, RegistryError> {
        let known = self.allowed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(client) = known {
            let answer = request(&client);
            if !is_refused(&answer) {
                return Ok(answer);
            }
        }
        Ok(request(&self.let_in()?))
    }

    /// Why an answer of this status came.
    pub fn denied(&self, status: u16, action: Action) -> RegistryError {
        let (host, image) = (self.repository.host.clone(), self.image.clone());
        let login = login::find(self.client.auth_files(), &self.repository).unwrap_or_default();
        RegistryError::Denied { host, image, status, action, login }
    }

    /// Asks the registry to be let in.
    pub fn let_in(&self) -> Result<Client, RegistryError> {
        let header = authorization(&self.client, &self.repository, &self.image, self.action)?;
        let headers = header.into_iter().chain([("Accept", MANIFESTS.to_owned())]).collect();
        let client = self.client.clone().with_headers(headers);
        *self.allowed.lock().unwrap_or_else(PoisonError::into_inner) = Some(client.clone());
        Ok(client)
    }
}
