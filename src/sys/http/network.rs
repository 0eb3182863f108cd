//! How this host reaches the network: through which proxies, and trusting whose certificates.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ureq::Proxy;
use ureq::tls::{Certificate, PemItem, RootCerts, parse_pem};

use crate::base::{Class, Diagnosis, Diagnostic};

use super::super::fs::{FileError, read};

/// What the environment says of the network. Nothing said: no proxy, and the certificate authorities that the host trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// A PEM file of the only authorities to trust.
    pub certificates: Option<PathBuf>,
    /// The proxy for `http://`, such as `http://proxy:3128`. It must allow CONNECT to the repository's port.
    pub http_proxy: Option<String>,
    /// The proxy for `https://`.
    pub https_proxy: Option<String>,
    /// Hosts that are reached without a proxy, separated by commas: `example.org` is its subdomains too, `*` is every host.
    pub no_proxy: Option<String>,
    /// `basic:REALM:USER:PASSWORD`, for a server that wants a login.
    pub http_auth: Option<String>,
    /// A netrc file, which comes before that for the servers that it names.
    pub netrc: Option<PathBuf>,
    /// Logins at registries (containers-auth.json(5), and Docker's `config.json`): of the files that are there, the first that
    /// names a registry.
    pub auth_files: Vec<PathBuf>,
}

/// A network that cannot be used as it is described.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("cannot load the certificate authorities")]
    Certificates(#[source] FileError),
    #[error("{text:?} is not a proxy address such as http://proxy:3128")]
    Proxy { text: String, source: Box<ureq::Error> },
}

impl Diagnostic for NetworkError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Certificates(_) | Self::Proxy { .. } => {
                Class::Invalid.hint("check http_proxy, https_proxy, no_proxy and SSL_CERT_FILE")
            }
        }
    }
}

impl Network {
    /// The file of the authorities that are named, which are the only ones to trust then. It holds one at least; all are decoded for
    /// the first request, which most commands do not send.
    pub(super) fn roots(&self) -> Result<Option<Vec<u8>>, NetworkError> {
        let Some(path) = &self.certificates else { return Ok(None) };
        let pem = read(path).map_err(NetworkError::Certificates)?;
        if certificates(&pem).next().is_none() {
            let none = io::Error::other("it contains no certificate in PEM format");
            return Err(NetworkError::Certificates(FileError::when("read", path)(none)));
        }
        Ok(Some(pem))
    }

    /// The proxies for `http://` and for `https://`.
    pub(super) fn proxies(&self) -> Result<[Option<Proxy>; 2], NetworkError> {
        let parse = |text: &Option<String>| text.as_deref().map(proxy).transpose();
        Ok([parse(&self.http_proxy)?, parse(&self.https_proxy)?])
    }

    /// Whether a URL's host is reached without a proxy.
    pub(super) fn is_direct(&self, url: &str) -> bool {
        let host = host(url).to_ascii_lowercase();
        let entries = self.no_proxy.iter().flat_map(|list| list.split([',', ' ']));
        entries.map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
            let entry = entry.trim_start_matches('*').trim_start_matches('.').to_ascii_lowercase();
            entry.is_empty()
                || host == entry
                || host.strip_suffix(&entry).is_some_and(|sub| sub.ends_with('.'))
        })
    }
}

fn proxy(text: &str) -> Result<Proxy, NetworkError> {
    let is_http = text.split_once("://").is_none_or(|(scheme, _)| matches!(scheme, "http" | "https"));
    let proxy = if is_http { Proxy::new(text) } else { Err(ureq::Error::InvalidProxyUrl) };
    proxy.map_err(|source| NetworkError::Proxy { text: text.to_owned(), source: Box::new(source) })
}

/// The host of a URL, without its port.
pub(super) fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    }
}

/// Where distributions keep the authorities that they trust.
const TRUSTED: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

fn certificates(pem: &[u8]) -> impl Iterator<Item = Certificate<'static>> {
    parse_pem(pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    })
}

/// The authorities of a file; without one, those that the host trusts, else Mozilla's.
pub(super) fn trusted_roots(named: Option<&[u8]>) -> RootCerts {
    let of_host = || TRUSTED.iter().find_map(|path| std::fs::read(Path::new(path)).ok()).unwrap_or_default();
    let certificates: Vec<_> = match named {
        Some(pem) => certificates(pem).collect(),
        None => certificates(&of_host()).collect(),
    };
    if certificates.is_empty() { RootCerts::WebPki } else { RootCerts::Specific(Arc::new(certificates)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_authorities_are_trusted() {
        if !TRUSTED.iter().any(|path| Path::new(path).exists()) {
            eprintln!("skipped: this host has no certificate authorities");
            return;
        }
        assert!(matches!(trusted_roots(None), RootCerts::Specific(certificates) if !certificates.is_empty()));
    }

    #[test]
    fn hosts_and_their_subdomains_may_be_reached_without_a_proxy() {
        let is_direct = |list: &str, url: &str| {
            Network { no_proxy: Some(list.into()), ..Network::default() }.is_direct(url)
        };
        for list in ["example.org", ".example.org", "*.example.org", "a, EXAMPLE.org", "*"] {
            assert!(is_direct(list, "https://mirror.example.org:8443/x"), "{list}");
        }
        for list in ["", ",", "ample.org", "example.org.evil.net", "mirror"] {
            assert!(!is_direct(list, "https://mirror.example.org/x"), "{list}");
        }
        assert!(is_direct("127.0.0.1", "http://127.0.0.1:80/") && is_direct("::1", "http://[::1]:80/"));
    }

    #[test]
    fn what_is_no_proxy_is_refused() {
        for text in ["socks5://proxy:1080", "http://", "ftp://x"] {
            let error = proxy(text).unwrap_err().to_string();
            assert!(error.ends_with("is not a proxy address such as http://proxy:3128"), "{error}");
        }
        assert!(proxy("proxy:3128").is_ok());
    }
}
