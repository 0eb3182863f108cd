//! Who asks, where a server wants to know: by `HTTP_AUTH`, as apk and libfetch have it, or by a netrc file, as curl and wget do.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::network::{Network, host};

/// The value of `Authorization` (RFC 7617) for a URL, where this host has a name and a password for its server.
pub(super) fn authorization(network: &Network, url: &str) -> Option<String> {
    let netrc = || std::fs::read_to_string(network.netrc.as_ref()?).ok();
    let (user, password) = match netrc().and_then(|text| of_netrc(&text, host(url))) {
        Some(found) => found,
        None => of_variable(network.http_auth.as_deref()?)?,
    };
    Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
}

/// `basic:REALM:USER:PASSWORD` (fetch(3)); whatever the realm.
fn of_variable(text: &str) -> Option<(String, String)> {
    let mut parts = text.splitn(4, ':');
    let is_basic = parts.next().is_some_and(|scheme| scheme.eq_ignore_ascii_case("basic"));
    let (_, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    is_basic.then(|| (user.to_owned(), password.to_owned()))
}

/// The first entry for a host, or the default (netrc(5)).
fn of_netrc(text: &str, host: &str) -> Option<(String, String)> {
    let lines = text.lines().map(|line| line.split_once('#').map_or(line, |(before, _)| before));
    let mut words = lines.flat_map(str::split_ascii_whitespace);
    let (mut is_meant, mut user, mut password) = (false, None, None);
    while let Some(word) = words.next() {
        match word {
            "machine" | "default" => {
                if let (true, Some(user), Some(password)) = (is_meant, user, password) {
                    return Some((user, password));
                }
                is_meant = word == "default" || words.next() == Some(host);
                (user, password) = (None, None);
            }
            "login" => user = words.next().map(str::to_owned),
            "password" => password = words.next().map(str::to_owned),
            _ => {}
        }
    }
    is_meant.then_some(user?).zip(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_its_own_entry_or_the_default() {
        let text = "machine a.org login ann password one # two\nmachine b.org\n\tlogin bob\n\tpassword two\ndefault login x password y\n";
        let found = |host: &str| of_netrc(text, host).map(|(user, password)| format!("{user}:{password}"));
        assert_eq!(found("a.org").as_deref(), Some("ann:one"));
        assert_eq!(found("b.org").as_deref(), Some("bob:two"));
        assert_eq!(found("c.org").as_deref(), Some("x:y"));
        assert_eq!(of_netrc("machine a.org login ann", "a.org"), None);
        assert_eq!(of_netrc("machine a.org login ann password one", "b.org"), None);
    }

    #[test]
    fn the_variable_is_as_libfetch_has_it() {
        let network = |text: &str| Network { http_auth: Some(text.into()), ..Network::default() };
        let header = authorization(&network("basic:*:ann:a:b"), "https://a.org/x");
        assert_eq!(header.as_deref(), Some("Basic YW5uOmE6Yg=="));
        assert_eq!(authorization(&network("digest:*:ann:a"), "https://a.org/x"), None);
        assert_eq!(authorization(&network("basic:ann"), "https://a.org/x"), None);
    }
}
