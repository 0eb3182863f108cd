//! Small answers whose status and headers matter: what a registry says of who may pull.

use std::io::Read;
use std::thread;

use super::{ATTEMPTS, AttemptError, Client, HttpError, may_pass, unreachable};

/// The most bytes that are read of such an answer.
const LARGEST: u64 = 1 << 20;

/// An answer of a server, whatever its status.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// `WWW-Authenticate`, where it is sent.
    pub challenge: Option<String>,
    pub body: Vec<u8>,
}

impl Client {
    /// The same client, which sends these headers with each request. A redirection to another host does not get an
    /// `Authorization`.
    #[must_use]
    pub fn with_headers(mut self, headers: Vec<(&'static str, String)>) -> Self {
        self.headers = headers;
        self
    }

    /// Asks once more where it may go better later.
    pub fn ask(&self, url: &str) -> Result<Answer, HttpError> {
        let mut failures = 0;
        loop {
            let error = match self.ask_once(url) {
                Ok(answer) if !may_pass(answer.status) => return Ok(answer),
                Ok(answer) => HttpError::Status { url: url.to_owned(), status: answer.status },
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

    fn ask_once(&self, url: &str) -> Result<Answer, AttemptError> {
        let request = self.with_own_headers(self.agent(url).get(url));
        let response = request.call().map_err(|error| unreachable(url, error))?;
        let status = response.status().as_u16();
        let challenge = response.headers().get("WWW-Authenticate");
        let challenge = challenge.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut body = Vec::new();
        let read = response.into_body().into_reader().take(LARGEST).read_to_end(&mut body);
        read.map_err(|source| {
            AttemptError::Passing(HttpError::Cut { url: url.to_owned(), received: 0, source }, None)
        })?;
        Ok(Answer { status, challenge, body })
    }
}
