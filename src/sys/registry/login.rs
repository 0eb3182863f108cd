//! Logins at registries, by the files that `podman login`, `skopeo login` and `docker login` write (containers-auth.json(5)).
//! Helpers that keep passwords elsewhere are not asked.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::{ImageRepository, RegistryError};
use crate::sys::fs::read_text_if_present;

#[derive(Deserialize)]
struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, LoginEntry>,
}

#[derive(Deserialize)]
struct LoginEntry {
    /// Name, a colon and the password, in base64.
    auth: Option<String>,
}

/// The value of `Authorization` (RFC 7617) for a repository: of the first file that has a login there.
pub(super) fn find(files: &[PathBuf], repository: &ImageRepository) -> Result<Option<String>, RegistryError> {
    for path in files {
        let Some(text) = read_text_if_present(path)? else { continue };
        let malformed = |source| RegistryError::Logins { path: path.clone(), source };
        let file: AuthFile = serde_json::from_str(&text).map_err(malformed)?;
        if let Some(auth) = of(&file.auths, repository) {
            return Ok(Some(format!("Basic {auth}")));
        }
    }
    Ok(None)
}

/// That of the repository itself, else of what it is below, else of its host.
fn of(
    auths: &BTreeMap<String, LoginEntry>,
    ImageRepository { host, name }: &ImageRepository,
) -> Option<String> {
    let mut place = format!("{host}/{name}");
    loop {
        if let Some(auth) = auths.get(&place).and_then(|entry| entry.auth.clone()) {
            return Some(auth).filter(|auth| !auth.is_empty());
        }
        let Some((above, _)) = place.rsplit_once('/') else { break };
        place = above.to_owned();
    }
    // As Docker spells them.
    let is_host = |key: &str| {
        let key = key.trim_start_matches("https://").trim_start_matches("http://");
        let key = key.split('/').next().unwrap_or_default();
        key == host || (host == "docker.io" && key == "index.docker.io")
    };
    let found = auths.iter().find(|(key, _)| key.contains("://") && is_host(key));
    found.and_then(|(_, entry)| entry.auth.clone()).filter(|auth| !auth.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_login_counts() {
        let text = r#"{ "auths": { "a.org": { "auth": "host" }, "a.org/team": { "auth": "team" }, "b.org": {},
            "https://index.docker.io/v1/": { "auth": "docker" } }, "credsStore": "x" }"#;
        let file: AuthFile = serde_json::from_str(text).unwrap();
        let found = |host: &str, name: &str| {
            of(&file.auths, &ImageRepository { host: host.into(), name: name.into() })
        };
        assert_eq!(found("a.org", "team/x").as_deref(), Some("team"));
        assert_eq!(found("a.org", "teams/x").as_deref(), Some("host"));
        assert_eq!(found("docker.io", "library/alpine").as_deref(), Some("docker"));
        assert_eq!(found("b.org", "x"), None);
        assert_eq!(found("a.org:5000", "team/x"), None);
    }
}
