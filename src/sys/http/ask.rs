//! Requests whose answer is small and whose status and headers matter: what a registry says of who may do what, and of what it
//! was given.

use std::io::Read;
use std::thread;

use ureq::http::{HeaderMap, Request};

use super::{ATTEMPTS, AttemptError, Client, HttpError, may_pass, unreachable};

/// The most bytes that are read of such an answer.
const LARGEST: u64 = 4 << 20;

/// An answer of a server, whatever its status.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// `WWW-Authenticate`, where it is sent.
    pub challenge: Option<String>,
    /// `Location`, where it is sent.
    pub location: Option<String>,
    /// `Docker-Content-Digest`, where it is sent: of the body, as registries say it.
    pub digest: Option<String>,
    pub body: Vec<u8>,
}

/// What a server is asked for or given.
#[derive(Clone, Copy, Debug)]
pub struct SmallRequest<'a> {
    /// Such as `HEAD`.
    pub method: &'a str,
    pub url: &'a str,
    /// Headers besides the client's own.
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
}

impl Client {
    /// The same client, which sends these headers with each request. A redirection to another host does not get an
    /// `Authorization`.
    #[must_use]
    pub fn with_headers(mut self, headers: Vec<(&'static str, String)>) -> Self {
        self.headers = headers;
        self
    }

    /// Asks with `GET`, once more where it may go better later.
    pub fn ask(&self, url: &str) -> Result<Answer, HttpError> {
        self.send(SmallRequest { method: "GET", url, headers: &[], body: &[] })
    }

    /// Sends a request, once more where it may go better later: only for what can be sent twice.
    pub fn send(&self, request: SmallRequest<'_>) -> Result<Answer, HttpError> {
        let mut failures = 0;
        loop {
            let error = match self.send_once(request) {
                Ok(answer) if !may_pass(answer.status) => return Ok(answer),
                Ok(answer) => HttpError::Status { url: request.url.to_owned(), status: answer.status },
                Err(AttemptError::Final(error)) => return Err(error),
                Err(AttemptError::Passing(error, _)) => error,
            };
            failures += 1;
            if failures == ATTEMPTS {
                return Err(error);
            }
            thread::sleep(self.pause(failures));
        }
    }

    fn send_once(
        &self,
        SmallRequest { method, url, headers, body }: SmallRequest<'_>,
    ) -> Result<Answer, AttemptError> {
        let own = self.headers.iter().map(|(name, value)| (*name, value.as_str()));
        let request = own
            .chain(headers.iter().copied())
            .fold(Request::builder().method(method).uri(url), |request, (name, value)| {
                request.header(name, value)
            });
        let agent = self.agent(url);
        let sent = match body {
            [] if matches!(method, "GET" | "HEAD") => request.body(()).map(|request| agent.run(request)),
            body => request.body(body).map(|request| agent.run(request)),
        };
        let response =
            sent.unwrap_or_else(|error| Err(error.into())).map_err(|error| unreachable(url, error))?;
        let (status, challenge) = (response.status().as_u16(), text(response.headers(), "WWW-Authenticate"));
        let location = text(response.headers(), "Location");
        let digest = text(response.headers(), "Docker-Content-Digest");
        let mut body = Vec::new();
        let read = response.into_body().into_reader().take(LARGEST).read_to_end(&mut body);
        read.map_err(|source| {
            AttemptError::Passing(HttpError::Cut { url: url.to_owned(), received: 0, source }, None)
        })?;
        Ok(Answer { status, challenge, location, digest, body })
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}
