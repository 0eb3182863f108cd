//! HTTP downloads that survive what networks do: cut connections, busy servers, lies about length.

mod ask;
mod login;
mod network;
pub mod serve;
mod sink;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use ureq::Proxy;
use ureq::tls::TlsConfig;

use crate::base::{Class, Diagnosis, Diagnostic, web_page};

use super::fs::{input_diagnosis, io_diagnosis};

pub use ask::{Answer, SmallRequest};
pub use network::{Network, NetworkError};
pub use sink::{FileSink, Sink};

/// Why a download failed for good.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("cannot download {url}: the server answers {status}{}", status_hint(*.status))]
    Status { url: String, status: u16 },
    #[error("cannot reach the server of {url} (check the network, the address and the proxy variables)")]
    Unreachable { url: String, source: Box<ureq::Error> },
    #[error("the download of {url} was interrupted after {received} bytes, after several attempts")]
    Cut { url: String, received: u64, source: io::Error },
    #[error("{url} has {found} bytes, but {expected} are expected: the file was {}", misfortune(*.found, *.expected))]
    Length { url: String, found: u64, expected: u64 },
    #[error("{url} is an HTML page (perhaps a login page, or a 'not found' page) instead of the file")]
    Page { url: String },
    #[error("{url} is longer than the {limit} bytes that are allowed for it")]
    TooLarge { url: String, limit: u64 },
    #[error("cannot store the download of {url}")]
    Store { url: String, source: io::Error },
    #[error("cannot read {url}")]
    Local { url: String, source: io::Error },
}

impl Diagnostic for HttpError {
    /// What a server does is no fault of whoever asks, and may be in order the next time.
    fn diagnosis(&self) -> Diagnosis {
        match self {
            // What to do is in their words.
            Self::Status { .. } | Self::Unreachable { .. } | Self::Cut { .. } => Class::Failed.no_hint(),
            Self::Length { .. } => Class::Failed.hint(OTHER_FILE),
            Self::Page { .. } => Class::Failed.hint(web_page::HINT),
            Self::TooLarge { .. } => Class::Failed.hint("check the address"),
            Self::Store { source, .. } => io_diagnosis(source),
            Self::Local { source, .. } => input_diagnosis(source),
        }
    }
}

/// What to do about a file that is not the one that was pinned.
pub(super) const OTHER_FILE: &str = "if the file was replaced on purpose, pin its new digest";

impl HttpError {
    /// Whether there was a server that answered.
    pub fn reached(&self) -> bool {
        !matches!(self, Self::Unreachable { .. })
    }

    /// Whether the same request may go better later.
    pub fn may_pass(&self) -> bool {
        match self {
            // 206 and 416: of what was here already nothing is left now.
            Self::Status { status, .. } => may_pass(*status) || matches!(status, 206 | 416),
            Self::Unreachable { source, .. } => !is_lasting(source),
            Self::Cut { .. } => true,
            Self::Length { .. }
            | Self::Page { .. }
            | Self::TooLarge { .. }
            | Self::Store { .. }
            | Self::Local { .. } => false,
        }
    }
}

fn may_pass(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..=599)
}

fn is_lasting(error: &ureq::Error) -> bool {
    use ureq::Error as E;
    match error {
        E::BadUri(_) | E::Http(_) | E::InvalidProxyUrl | E::TooManyRedirects | E::Tls(_) | E::Rustls(_) => {
            true
        }
        // So rustls tells of a certificate that is not to be trusted.
        E::Io(error) => error.kind() == io::ErrorKind::InvalidData,
        _ => false,
    }
}

/// What happened to a file of another length.
fn misfortune(found: u64, expected: u64) -> &'static str {
    if found < expected { "cut off or replaced" } else { "replaced" }
}

fn status_hint(status: u16) -> &'static str {
    match status {
        401 => {
            " (it wants a login: name and password come from ~/.netrc, or from HTTP_AUTH=basic:*:NAME:PASSWORD)"
        }
        403 | 407 => " (it forbids that, or a proxy does)",
        404 | 410 => " (it is no longer there, or the address is wrong; repositories remove old versions)",
        429 => " (too many requests; try again later)",
        500..=599 => " (a fault of the server; try again later)",
        _ => "",
    }
}

/// What is known of a download before it comes.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedBody {
    /// Its exact length in bytes.
    pub size: Option<u64>,
    /// The most bytes that are taken.
    pub limit: u64,
    /// Whether bytes that are there already may be the beginning of it. Only for what is verified in the end: the
    /// file may be another one by now.
    pub resume: bool,
    /// Failures in a row, without a byte more in between, after which it is given up.
    pub attempts: u32,
}

/// What a server says of the version of a file that it sends (`ETag` and `Last-Modified`, RFC 9110), and is asked by later
/// whether the file is still that one.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CacheValidators {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified: Option<String>,
}

impl CacheValidators {
    /// Whether the server has said nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn of(headers: &ureq::http::HeaderMap) -> Self {
        let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
        Self { etag: text("ETag"), modified: text("Last-Modified") }
    }
}

/// A client with a pool of connections.
#[derive(Clone, Debug)]
pub struct Client {
    /// Made for the first request: most commands send none, and a host's authorities are many.
    agents: Arc<OnceLock<Agents>>,
    /// In PEM; `None`: those that the host trusts.
    roots: Option<Vec<u8>>,
    proxies: [Option<Proxy>; 2],
    network: Network,
    first_pause: Duration,
    /// Sent with each request.
    headers: Vec<(&'static str, String)>,
}

/// What sends requests, on each way.
#[derive(Debug)]
struct Agents {
    direct: ureq::Agent,
    by_http_proxy: Option<ureq::Agent>,
    by_https_proxy: Option<ureq::Agent>,
}

/// Failures in a row after which a download is given up that has one place only.
pub const ATTEMPTS: u32 = 5;
/// The most requests for one download, however well each of them goes.
const REQUESTS: u32 = 200;
/// The pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause that a server may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a server may think, and how long it may stay silent within an answer.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);

/// Why one attempt failed.
enum AttemptError {
    /// It would fail again.
    Final(HttpError),
    /// It may go better later; the server may say when.
    Passing(HttpError, Option<Duration>),
}

impl Client {
    /// The client of this process for a network of which nothing is said: no proxy, and the authorities that the host trusts.
    pub fn shared() -> &'static Self {
        static CLIENT: OnceLock<Client> = OnceLock::new();
        CLIENT.get_or_init(|| Self::with(Network::default(), None, [None, None]))
    }

    /// A client for the network as it is described.
    pub fn new(network: Network) -> Result<Self, NetworkError> {
        let (roots, proxies) = (network.roots()?, network.proxies()?);
        Ok(Self::with(network, roots, proxies))
    }

    fn with(network: Network, roots: Option<Vec<u8>>, proxies: [Option<Proxy>; 2]) -> Self {
        let agents = Arc::default();
        Self { agents, roots, proxies, network, first_pause: FIRST_PAUSE, headers: Vec::new() }
    }

    fn agents(&self) -> &Agents {
        self.agents.get_or_init(|| {
            let roots = network::trusted_roots(self.roots.as_deref());
            let tls = TlsConfig::builder().root_certs(roots).build();
            let agent = |proxy: &Option<Proxy>| agent(&tls, proxy.clone());
            let [http, https] = &self.proxies;
            Agents {
                direct: agent(&None),
                by_http_proxy: http.is_some().then(|| agent(http)),
                by_https_proxy: https.is_some().then(|| agent(https)),
            }
        })
    }

    /// The one by which a URL is reached.
    fn agent(&self, url: &str) -> &ureq::Agent {
        let agents = self.agents();
        let proxy = if url.starts_with("https:") { &agents.by_https_proxy } else { &agents.by_http_proxy };
        proxy.as_ref().filter(|_| !self.network.is_direct(url)).unwrap_or(&agents.direct)
    }

    /// The same client with another first pause.
    #[must_use]
    pub fn with_first_pause(mut self, pause: Duration) -> Self {
        self.first_pause = pause;
        self
    }

    /// Downloads `url` (`http`, `https` or `file`) into `sink`; `more` is told of each piece. What passes (no connection,
    /// a cut, 408, 429 and 5xx) is tried again, from where it broke off where `wanted` allows. Where it fails, what has
    /// come so far stays in `sink`.
    pub fn download(
        &self,
        url: &str,
        sink: &mut dyn Sink,
        wanted: ExpectedBody,
        more: &dyn Fn(u64),
    ) -> Result<(), HttpError> {
        self.download_newer(url, &CacheValidators::default(), sink, wanted, more).map(drop)
    }

    /// The same, but nothing is sent where the server still has the version of `known`; else gives the stamp of what came.
    pub fn download_newer(
        &self,
        url: &str,
        known: &CacheValidators,
        sink: &mut dyn Sink,
        wanted: ExpectedBody,
        more: &dyn Fn(u64),
    ) -> Result<Option<CacheValidators>, HttpError> {
        if let Some(path) = url.strip_prefix("file://") {
            return copy(url, Path::new(path), sink, wanted, more).map(|()| Some(CacheValidators::default()));
        }
        let (mut failures, mut furthest, mut request) = (0, sink.len(), 0);
        let mut login = None;
        loop {
            let (error, pause) = match self.attempt(url, login.as_deref(), known, sink, wanted, more) {
                Ok(stamp) => return Ok(stamp),
                // Only who asks for a name is told one.
                Err(AttemptError::Final(HttpError::Status { status: 401, .. }))
                    if login.is_none() && login::authorization(&self.network, url).is_some() =>
                {
                    login = login::authorization(&self.network, url);
                    continue;
                }
                Err(AttemptError::Final(error)) => return Err(error),
                Err(AttemptError::Passing(error, pause)) => (error, pause),
            };
            if sink.len() > furthest {
                (failures, furthest) = (0, sink.len());
            }
            failures += 1;
            request += 1;
            if failures >= wanted.attempts || request == REQUESTS {
                return Err(error);
            }
            thread::sleep(pause.unwrap_or(self.pause(failures)).min(LONGEST_PAUSE));
        }
    }

    /// The auth files of registries that this host has.
    pub fn auth_files(&self) -> &[std::path::PathBuf] {
        &self.network.auth_files
    }

    fn with_own_headers<T>(&self, request: ureq::RequestBuilder<T>) -> ureq::RequestBuilder<T> {
        self.headers.iter().fold(request, |request, (name, value)| request.header(*name, value))
    }

    /// The pause after so many failures in a row.
    pub fn pause(&self, failures: u32) -> Duration {
        self.first_pause * (1 << (failures.clamp(1, 8) - 1))
    }

    fn attempt(
        &self,
        url: &str,
        login: Option<&str>,
        known: &CacheValidators,
        sink: &mut dyn Sink,
        wanted: ExpectedBody,
        more: &dyn Fn(u64),
    ) -> Result<Option<CacheValidators>, AttemptError> {
        let store = |source| AttemptError::Final(HttpError::Store { url: url.to_owned(), source });
        if !wanted.resume || sink.len() > wanted.size.unwrap_or(wanted.limit) {
            sink.restart().map_err(store)?;
        }
        if !sink.is_empty() && Some(sink.len()) == wanted.size {
            return Ok(Some(CacheValidators::default()));
        }
        let mut request = self.with_own_headers(self.agent(url).get(url));
        request = login.iter().fold(request, |request, login| request.header("Authorization", *login));
        if !sink.is_empty() {
            request = request.header("Range", format!("bytes={}-", sink.len()));
        } else {
            let validators = [("If-None-Match", &known.etag), ("If-Modified-Since", &known.modified)];
            for (name, value) in validators {
                request = value.iter().fold(request, |request, value| request.header(name, value));
            }
        }
        let response = request.call().map_err(|error| unreachable(url, error))?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let status = response.status().as_u16();
        match status {
            304 if !known.is_empty() && sink.is_empty() => return Ok(None),
            // The server does not do ranges, and sends all of it.
            200 => sink.restart().map_err(store)?,
            206 if starts_at(header("Content-Range"), sink.len()) => {}
            // What is here is no beginning of what is there.
            206 | 416 if !sink.is_empty() => {
                sink.restart().map_err(store)?;
                return Err(AttemptError::Passing(HttpError::Status { url: url.to_owned(), status }, None));
            }
            status if may_pass(status) => {
                let seconds = header("Retry-After").and_then(|text| text.parse().ok());
                let error = HttpError::Status { url: url.to_owned(), status };
                return Err(AttemptError::Passing(error, seconds.map(Duration::from_secs)));
            }
            _ => return Err(AttemptError::Final(HttpError::Status { url: url.to_owned(), status })),
        }
        let left = header("Content-Length").and_then(|text| text.parse::<u64>().ok());
        let stamp = CacheValidators::of(response.headers());
        receive(url, response.into_body().into_reader(), left, sink, wanted, more)?;
        Ok(Some(stamp))
    }
}

/// What sends requests by one proxy, or by none.
fn agent(tls: &TlsConfig, proxy: Option<Proxy>) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .tls_config(tls.clone())
        // Where none is given, the library would read the environment by itself.
        .proxy(proxy)
        .user_agent(concat!("sisforge/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        .timeout_resolve(Some(CONNECT_TIMEOUT))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(SILENCE_TIMEOUT))
        .timeout_per_read(Some(SILENCE_TIMEOUT));
    config.build().new_agent()
}

/// Reads a `Content-Range` such as `bytes 100-199/200`.
fn starts_at(range: Option<&str>, at: u64) -> bool {
    let start = range.and_then(|text| text.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    start == Some(at)
}

fn unreachable(url: &str, error: ureq::Error) -> AttemptError {
    let lasting = is_lasting(&error);
    let error = HttpError::Unreachable { url: url.to_owned(), source: Box::new(error) };
    if lasting { AttemptError::Final(error) } else { AttemptError::Passing(error, None) }
}

/// Takes in a body of `left` bytes, where the server has said so many.
fn receive(
    url: &str,
    mut body: impl Read,
    left: Option<u64>,
    sink: &mut dyn Sink,
    wanted: ExpectedBody,
    more: &dyn Fn(u64),
) -> Result<(), AttemptError> {
    let url = || url.to_owned();
    let too_large = || AttemptError::Final(HttpError::TooLarge { url: url(), limit: wanted.limit });
    let total = left.map(|left| sink.len().saturating_add(left));
    match (total, wanted.size) {
        (Some(found), Some(expected)) if found != expected => {
            let mut head = Vec::new();
            // Whatever comes of it: what is wrong is known.
            let _ = body.take(web_page::HEAD).read_to_end(&mut head);
            return Err(other_length(url(), &head, found, expected));
        }
        (Some(found), None) if found > wanted.limit => return Err(too_large()),
        _ => {}
    }
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(source) => {
                return Err(AttemptError::Passing(
                    HttpError::Cut { url: url(), received: sink.len(), source },
                    None,
                ));
            }
        };
        let reached = sink.len() + count as u64;
        if let Some(expected) = wanted.size.filter(|size| reached > *size) {
            let head = if sink.is_empty() { &buffer[..count] } else { &[] };
            return Err(other_length(url(), head, reached, expected));
        }
        if reached > wanted.limit {
            return Err(too_large());
        }
        let stored = sink.append(&buffer[..count]);
        stored.map_err(|source| AttemptError::Final(HttpError::Store { url: url(), source }))?;
        more(count as u64);
    }
    // A server that said no length just closes, whether it is done or not.
    if total.or(wanted.size).is_some_and(|total| sink.len() < total) {
        let source = io::ErrorKind::UnexpectedEof.into();
        return Err(AttemptError::Passing(HttpError::Cut { url: url(), received: sink.len(), source }, None));
    }
    Ok(())
}

/// What is to be said of a body of another length than was expected, by how it begins.
fn other_length(url: String, head: &[u8], found: u64, expected: u64) -> AttemptError {
    AttemptError::Final(match web_page::is(head) {
        true => HttpError::Page { url },
        false => HttpError::Length { url, found, expected },
    })
}

/// A file of this host in place of a download.
fn copy(
    url: &str,
    path: &Path,
    sink: &mut dyn Sink,
    wanted: ExpectedBody,
    more: &dyn Fn(u64),
) -> Result<(), HttpError> {
    let local = |source| HttpError::Local { url: url.to_owned(), source };
    let file = File::open(path).map_err(local)?;
    let len = file.metadata().map_err(local)?.len();
    sink.restart().map_err(|source| HttpError::Store { url: url.to_owned(), source })?;
    match receive(url, file, Some(len), sink, wanted, more) {
        Ok(()) => Ok(()),
        Err(AttemptError::Final(error) | AttemptError::Passing(error, _)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_starts_elsewhere_is_not_taken() {
        assert!(starts_at(Some("bytes 100-199/200"), 100));
        assert!(!starts_at(Some("bytes 0-199/200"), 100));
        assert!(!starts_at(None, 100));
    }
}
