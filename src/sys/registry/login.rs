//! Logins at registries, by the files that `podman login`, `skopeo login` and `docker login` write (containers-auth.json(5)).
//! Helpers that keep passwords elsewhere are not asked, and told where there is no other login.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::{ImageRepository, RegistryError};
use crate::sys::fs::read_text_if_present;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthFile {
    auths: Option<BTreeMap<String, LoginEntry>>,
    /// By which Docker keeps what stands in no `auth`: `docker-credential-NAME`.
    creds_store: Option<String>,
    /// The same for single hosts.
    cred_helpers: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct LoginEntry {
    /// Name, a colon and the password, in base64.
    auth: Option<String>,
}

/// What is known of a login at a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KnownLogin {
    /// The value of `Authorization` (RFC 7617).
    Given(String),
    /// A helper has it, or may have it.
    InHelper { path: PathBuf, helper: String },
    #[default]
    None,
}

/// That of the first file that has a login there.
pub(super) fn find(files: &[PathBuf], repository: &ImageRepository) -> Result<KnownLogin, RegistryError> {
    let mut found = KnownLogin::None;
    for path in files {
        let Some(text) = read_text_if_present(path)? else { continue };
        let malformed = |source| RegistryError::Logins { path: path.clone(), source };
        let file: AuthFile = serde_json::from_str(&text).map_err(malformed)?;
        if let Some((place, auth)) = of(&file, repository) {
            let is_login = STANDARD.decode(auth.trim()).is_ok_and(|login| login.contains(&b':'));
            return match is_login {
                true => Ok(KnownLogin::Given(format!("Basic {}", auth.trim()))),
                false => Err(RegistryError::NotBase64 { path: path.clone(), place }),
            };
        }
        if let (KnownLogin::None, Some(helper)) = (&found, helper_of(&file, &repository.host)) {
            found = KnownLogin::InHelper { path: path.clone(), helper };
        }
    }
    Ok(found)
}

/// The helper that keeps the logins at a host.
fn helper_of(file: &AuthFile, host: &str) -> Option<String> {
    let helpers = file.cred_helpers.iter().flatten();
    let own = helpers.filter(|(key, _)| is_host(key, host)).map(|(_, helper)| helper).next();
    own.or(file.creds_store.as_ref()).filter(|helper| !helper.is_empty()).cloned()
}

/// That of the repository itself, else of what it is below, else of its host; with the place that it is of.
fn of(file: &AuthFile, ImageRepository { host, name }: &ImageRepository) -> Option<(String, String)> {
    let auths = file.auths.as_ref()?;
    let filled = |auth: String| Some(auth).filter(|auth| !auth.is_empty());
    let mut place = format!("{host}/{name}");
    loop {
        if let Some(auth) = auths.get(&place).and_then(|entry| entry.auth.clone()) {
            return Some((place, filled(auth)?));
        }
        let Some((above, _)) = place.rsplit_once('/') else { break };
        place = above.to_owned();
    }
    let (key, entry) = auths.iter().find(|(key, _)| key.contains("://") && is_host(key, host))?;
    Some((key.clone(), filled(entry.auth.clone()?)?))
}

/// Whether a key is of a host, as Docker spells them.
fn is_host(key: &str, host: &str) -> bool {
    let key = key.trim_start_matches("https://").trim_start_matches("http://");
    let key = key.split('/').next().unwrap_or_default();
    key == host || (host == "docker.io" && key == "index.docker.io")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(host: &str, name: &str) -> ImageRepository {
        ImageRepository { host: host.into(), name: name.into() }
    }

    #[test]
    fn the_nearest_login_counts() {
        let text = r#"{ "auths": { "a.org": { "auth": "host" }, "a.org/team": { "auth": "team" }, "b.org": {},
            "https://index.docker.io/v1/": { "auth": "docker" } }, "credsStore": "x" }"#;
        let file: AuthFile = serde_json::from_str(text).unwrap();
        let found = |host: &str, name: &str| of(&file, &repository(host, name)).map(|(_, auth)| auth);
        assert_eq!(found("a.org", "team/x").as_deref(), Some("team"));
        assert_eq!(found("a.org", "teams/x").as_deref(), Some("host"));
        assert_eq!(found("docker.io", "library/alpine").as_deref(), Some("docker"));
        assert_eq!(found("b.org", "x"), None);
        assert_eq!(found("a.org:5000", "team/x"), None);
    }

    #[test]
    fn a_helper_that_is_not_asked_is_known_and_what_is_no_login_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let found = |text: &str, host: &str| {
            let path = dir.path().join("config.json");
            std::fs::write(&path, text).unwrap();
            find(&[dir.path().join("absent"), path.clone()], &repository(host, "x"))
        };
        let helper = |name: &str| {
            let path = dir.path().join("config.json");
            KnownLogin::InHelper { path, helper: name.to_owned() }
        };
        let both = r#"{ "auths": { "a.org": {} }, "credsStore": "pass", "credHelpers": { "ecr.org": "ecr-login" } }"#;
        assert_eq!(found(both, "a.org").unwrap(), helper("pass"));
        assert_eq!(found(both, "ecr.org").unwrap(), helper("ecr-login"));
        assert_eq!(found(r#"{ "auths": null }"#, "a.org").unwrap(), KnownLogin::None);
        let given = format!(
            r#"{{ "auths": {{ "a.org": {{ "auth": "{}" }} }}, "credsStore": "x" }}"#,
            STANDARD.encode("u:p")
        );
        assert_eq!(found(&given, "a.org").unwrap(), KnownLogin::Given("Basic dTpw".to_owned()));
        for wrong in ["u:p", "dTpw!"] {
            let text = format!(r#"{{ "auths": {{ "a.org": {{ "auth": "{wrong}" }} }} }}"#);
            let error = found(&text, "a.org").unwrap_err().to_string();
            assert!(error.contains("`auth` of a.org is not a name and a password in base64"), "{error}");
        }
    }
}
