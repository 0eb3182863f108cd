//! Who may do what at a registry: the registry says which kind of login it wants (RFC 9110, and Docker's token service).

use serde::Deserialize;

use crate::base::text::percent_query;

use super::{ImageRepository, KnownLogin, RegistryError, login};
use crate::sys::http::Client;

/// What somebody wants of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Pull,
    /// To push, which pulls as well.
    Push,
}

impl Action {
    fn scope(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
        }
    }
}

/// The header by which a registry allows an action; none where it asks for none. `image` stands in messages.
pub(super) fn authorization(
    client: &Client,
    repository: &ImageRepository,
    image: &str,
    action: Action,
) -> Result<Option<(&'static str, String)>, RegistryError> {
    let host = || repository.host.clone();
    let failed = |source| RegistryError::Ask { host: host(), source };
    let answer = client.ask(&repository.origin()).map_err(failed)?;
    let (401, Some(challenge)) = (answer.status, &answer.challenge) else { return Ok(None) };
    let login = login::find(client.auth_files(), repository)?;
    let denied = |status| RegistryError::Denied {
        host: host(),
        image: image.to_owned(),
        status,
        action,
        login: login.clone(),
    };
    let given = match &login {
        KnownLogin::Given(value) => Some(value.clone()),
        KnownLogin::None | KnownLogin::InHelper { .. } => None,
    };
    if challenge.split(' ').next().is_some_and(|scheme| scheme.eq_ignore_ascii_case("basic")) {
        return given.map(|login| Some(("Authorization", login))).ok_or_else(|| denied(answer.status));
    }
    let unknown = || RegistryError::Challenge { host: host(), challenge: challenge.clone() };
    let url = token_url(challenge, &repository.name, action).ok_or_else(unknown)?;
    let headers = given.into_iter().map(|login| ("Authorization", login)).collect();
    let answer = client.clone().with_headers(headers).ask(&url).map_err(failed)?;
    let token: Option<Token> = serde_json::from_slice(&answer.body).ok();
    let token = token.filter(|_| answer.status == 200).and_then(|token| token.token.or(token.access_token));
    let token = token.ok_or_else(|| denied(answer.status))?;
    Ok(Some(("Authorization", format!("Bearer {token}"))))
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// Where a token is had, from `Bearer realm="URL",service="NAME"`; `None` for a challenge of another kind.
fn token_url(challenge: &str, name: &str, action: Action) -> Option<String> {
    let (scheme, parameters) = challenge.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let value = |wanted: &str| {
        let rest = parameters.split_once(&format!("{wanted}=\""))?.1;
        rest.split_once('"').map(|(value, _)| value)
    };
    let realm = value("realm").filter(|realm| realm.starts_with("http"))?;
    let joint = if realm.contains('?') { '&' } else { '?' };
    let service =
        value("service").map(|service| format!("service={}&", percent_query(service))).unwrap_or_default();
    Some(format!("{realm}{joint}{service}scope=repository:{}:{}", percent_query(name), action.scope()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_asked_for_where_the_challenge_says() {
        let docker = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io""#;
        assert_eq!(
            token_url(docker, "library/alpine", Action::Pull).unwrap(),
            "https://auth.docker.io/token?service=registry.docker.io&scope=repository:library/alpine:pull"
        );
        assert_eq!(
            token_url(r#"bearer realm="http://a/t?x=1",service="a b""#, "n", Action::Push).unwrap(),
            "http://a/t?x=1&service=a%20b&scope=repository:n:pull,push"
        );
        for other in ["Basic realm=\"x\"", "Bearer service=\"x\"", "Bearer realm=\"file:///x\"", "Bearer"] {
            assert_eq!(token_url(other, "n", Action::Pull), None, "{other}");
        }
    }
}
