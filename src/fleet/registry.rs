//! References to images and artifacts of registries.

use std::fmt;
use std::str::FromStr;

use crate::base::{InvalidValue, Sha256};

/// An image of a registry (the reference of the OCI distribution specification, with the registry always named).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RegistryImage {
    /// With a port where it has one.
    pub host: String,
    /// Such as `library/alpine`.
    pub name: String,
    /// At least one of the two is there.
    pub tag: Option<String>,
    /// Of the manifest, or of an index for several platforms; what the tag leads to then plays no part.
    pub sha256: Option<Sha256>,
}

impl RegistryImage {
    /// What the image is called where it is used: by its tag, where it has one.
    pub fn called(&self) -> String {
        match (&self.tag, &self.sha256) {
            (Some(tag), _) => format!("{}/{}:{tag}", self.host, self.name),
            (None, Some(sha256)) => format!("{}/{}@sha256:{sha256}", self.host, self.name),
            (None, None) => format!("{}/{}", self.host, self.name),
        }
    }
}

impl FromStr for RegistryImage {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let wrong = |why: &str| Err(InvalidValue(why.to_owned()));
        if has_login(text) {
            return wrong(NO_LOGIN);
        }
        let (rest, sha256) = match text.split_once('@') {
            Some((rest, digest)) => match digest.strip_prefix("sha256:").map(str::parse) {
                Some(Ok(sha256)) => (rest, Some(sha256)),
                _ => return wrong("must end with `@sha256:` and 64 hexadecimal digits"),
            },
            None => (text, None),
        };
        let (host, name, tag) = parts(rest, "docker://docker.io/library/alpine:3.20")?;
        if tag.is_none() && sha256.is_none() {
            return wrong("needs a tag or a digest, as in \"docker://docker.io/library/alpine:3.20\"");
        }
        Ok(Self { host, name, tag, sha256 })
    }
}

/// Host, name and tag of a reference without a digest.
fn parts(text: &str, example: &str) -> Result<(String, String, Option<String>), InvalidValue> {
    let wrong = |why: &str| Err(InvalidValue(why.to_owned()));
    let Some((host, path)) = text.split_once('/').filter(|(host, _)| is_host(host)) else {
        return wrong(&format!("must name its registry, as in {example:?}"));
    };
    let (name, tag) = match path.split_once(':') {
        Some((name, tag)) if is_tag(tag) => (name, Some(tag.to_owned())),
        Some(_) => {
            return wrong("has an invalid tag: up to 128 letters, digits, `.`, `_` and `-` are allowed");
        }
        None => (path, None),
    };
    if !name.split('/').all(is_part) {
        return wrong(
            "has an invalid name: lower-case letters and digits are allowed, with `.`, `_`, `-` and `/` \
             between them",
        );
    }
    // More is no reference (Docker's `NameTotalLengthMax`), and Podman lists no image beside one.
    if host.len() + 1 + name.len() > 255 {
        return wrong("is too long: registry and name have at most 255 characters together");
    }
    Ok((host.to_owned(), name.to_owned(), tag))
}

/// Where artifacts of a fleet are pushed to and pulled from: `oci://HOST/NAME[:TAG]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactPlace {
    /// With a port where it has one.
    pub host: String,
    pub name: String,
    pub tag: Option<String>,
}

impl ArtifactPlace {
    /// The tag, `latest` unless given.
    pub fn tag(&self) -> &str {
        self.tag.as_deref().unwrap_or("latest")
    }
}

impl FromStr for ArtifactPlace {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        const EXAMPLE: &str = "oci://registry.example.org/team/fleet";
        let Some(rest) = text.strip_prefix("oci://") else {
            return Err(InvalidValue(format!("must begin with oci://, as in {EXAMPLE:?}")));
        };
        if has_login(rest) {
            return Err(InvalidValue(NO_LOGIN.to_owned()));
        }
        if rest.contains('@') {
            return Err(InvalidValue(
                "must have no digest: fleet.lock has those of all artifacts".to_owned(),
            ));
        }
        let (host, name, tag) = parts(rest, EXAMPLE)?;
        Ok(Self { host, name, tag })
    }
}

impl fmt::Display for ArtifactPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci://{}/{}", self.host, self.name)?;
        self.tag.as_ref().map_or(Ok(()), |tag| write!(f, ":{tag}"))
    }
}

/// As `fleet.toml` has it.
impl fmt::Display for RegistryImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "docker://{}", self.called())?;
        match (&self.tag, &self.sha256) {
            (Some(_), Some(sha256)) => write!(f, "@sha256:{sha256}"),
            _ => Ok(()),
        }
    }
}

const NO_LOGIN: &str =
    "must not hold a name and password: log in with `podman login HOST`, which writes a file that is read";

/// Whether somebody's name stands before the host, as in other addresses.
fn has_login(text: &str) -> bool {
    text.split_once('/').is_some_and(|(host, _)| host.contains('@'))
}

/// A first part without dot or port is a name at Docker's registry for Docker, and nothing here.
fn is_host(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-:[]".contains(&b);
    text.bytes().all(plain) && (text.contains(['.', ':']) || text == "localhost")
}

fn is_tag(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    first && text.len() <= 128 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// Words with one `.`, one or two `_`, or any number of `-` between them.
fn is_part(text: &str) -> bool {
    let is_word = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = [text.bytes().next(), text.bytes().last()];
    let between = text.as_bytes().split(is_word).filter(|between| !between.is_empty());
    let is_separator =
        |between: &[u8]| matches!(between, b"." | b"_" | b"__") || between.iter().all(|b| *b == b'-');
    ends.iter().all(|end| end.as_ref().is_some_and(is_word)) && between.into_iter().all(is_separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_written_as_it_was_read() {
        let digest = Sha256::of("x");
        for text in [
            "docker.io/library/alpine:3.20".to_owned(),
            format!("docker.io/library/alpine:3.20@sha256:{digest}"),
            format!("127.0.0.1:5000/a@sha256:{digest}"),
            "localhost/a/b_c/d-e:_1.x".to_owned(),
        ] {
            let image: RegistryImage = text.parse().unwrap();
            assert_eq!(image.to_string(), format!("docker://{text}"));
        }
        let image: RegistryImage = format!("quay.io/a:1@sha256:{digest}").parse().unwrap();
        assert_eq!(image.called(), "quay.io/a:1");
    }

    #[test]
    fn artifacts_have_a_place_with_a_host_and_no_digest() {
        for text in ["oci://127.0.0.1:5000/team/fleet", "oci://registry.example.org/a:1.0"] {
            assert_eq!(text.parse::<ArtifactPlace>().unwrap().to_string(), text);
        }
        assert_eq!("oci://a.org/b".parse::<ArtifactPlace>().unwrap().tag(), "latest");
        for text in [
            "a.org/b",
            "docker://a.org/b",
            "oci://b",
            "oci://team/b",
            "oci://a.org/B",
            "oci://a.org/b:",
            "oci://a.org/b@sha256:00",
        ] {
            assert!(text.parse::<ArtifactPlace>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_leaves_a_doubt_is_refused() {
        for text in [
            "alpine:3.20",
            "library/alpine:3.20",
            "docker.io/library/alpine",
            "docker.io/Alpine:1",
            "docker.io/a/../b:1",
            "docker.io/a//b:1",
            "docker.io/a:1@sha256:12",
            "docker.io/a:1@md5:12",
            "docker.io/a:-1",
            "docker.io/a: 1",
            "user@docker.io/a:1",
            "docker.io/a..b:1",
            &format!("docker.io/{}:1", "a".repeat(246)),
        ] {
            assert!(text.parse::<RegistryImage>().is_err(), "{text}");
        }
    }
}
