//! What an image is called, as Podman would call it when it loads the same file.

use std::collections::BTreeMap;
use std::path::Path;

/// By containerd and BuildKit; Podman takes it before the other.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// Bytes of the longest name without its tag, the registry included (`NameTotalLengthMax` of Docker's references). One that is longer
/// keeps Podman from listing any image of the store.
const LONGEST_NAME: usize = 255;

/// Bytes of the name of a file that become part of that of an image.
const MOST_OF_FILE: usize = 128;

pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The names of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageNames {
    /// Full names with a tag, such as `localhost/browser:latest`.
    pub own: Vec<String>,
    /// One that it has where no other image of the disk has it: Podman's for an annotation that is a bare tag, such as
    /// `localhost/1.0:latest`, which many images would share.
    pub spare: Option<String>,
}

impl ImageNames {
    /// From the annotations of a manifest in an OCI layout: containerd's name, else the reference where that is a name; a bare tag
    /// (as the OCI specification has it) makes the tag of the file's name, and no annotation the file's name and `latest`.
    /// The error is the annotation that cannot be a name.
    pub(super) fn of_annotations(
        annotations: &BTreeMap<String, String>,
        path: &Path,
    ) -> Result<Self, String> {
        let given = [CONTAINERD_NAME, REF_NAME].into_iter().filter_map(|key| annotations.get(key));
        match given.map(String::as_str).find(|name| !name.is_empty()) {
            Some(tag) if is_tag(tag) => {
                let own = full_name(&format!("{}:{tag}", stem(path)));
                Ok(Self { own: own.into_iter().collect(), spare: full_name(tag) })
            }
            Some(name) => Self::of_tags([name]),
            None => Ok(Self { own: full_name(stem(path).as_str()).into_iter().collect(), spare: None }),
        }
    }

    /// From what `docker save` says.
    pub(super) fn of_tags<'t>(tags: impl IntoIterator<Item = &'t str>) -> Result<Self, String> {
        let own = tags.into_iter().map(|tag| full_name(tag).ok_or_else(|| tag.to_owned()));
        Ok(Self { own: own.collect::<Result<_, _>>()?, spare: None })
    }

    /// What a file tells that says nothing of a name.
    pub(super) fn of_file(path: &Path) -> Self {
        Self { own: full_name(&stem(path)).into_iter().collect(), spare: None }
    }
}

/// The file's name without its ending, as far as it can be the name of an image.
fn stem(path: &Path) -> String {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_ascii_lowercase();
    let plain = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let is_component = is_component(&stem);
    let name: String = if is_component { stem } else { stem.chars().map(plain).collect() };
    // Whatever the file is called, its name is one that images can have.
    let name = name[..name.len().min(MOST_OF_FILE)].trim_matches(['-', '.', '_']);
    if name.is_empty() { "image".to_owned() } else { name.to_owned() }
}

/// The full name of an image that is called so, as `NormalizeName` of Podman's libimage makes it: `localhost/` before what names no
/// registry, Docker's registry with `library/` before what has no owner, `latest` where there is neither tag nor digest, no tag beside
/// a digest. `None` for what cannot be a name.
pub fn full_name(text: &str) -> Option<String> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    let slash = rest.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match rest[slash..].split_once(':') {
        Some((last, tag)) => (&rest[..slash + last.len()], Some(tag)),
        None => (rest, None),
    };
    // What no host can be called is a part of the path.
    let is_named = |first: &str| first == "localhost" || first.contains(['.', ':']);
    let is_host = |first: &str| is_named(first) && (is_registry(first) || !is_component(first));
    let registry = name.split_once('/').filter(|(first, _)| is_host(first));
    let (registry, path) = registry.unwrap_or(("localhost", name));
    let is_hex = |digest: &str| {
        let hex = digest.strip_prefix("sha256:").unwrap_or_default();
        hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    if !path.split('/').all(is_component)
        || !tag.is_none_or(is_tag)
        || !digest.is_none_or(is_hex)
        || !is_registry(registry)
    {
        return None;
    }
    let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
    let library = if registry == "docker.io" && !path.contains('/') { "library/" } else { "" };
    let name = format!("{registry}/{library}{path}");
    (name.len() <= LONGEST_NAME).then(|| match (digest, tag) {
        (Some(digest), _) => format!("{name}@{digest}"),
        (None, tag) => format!("{name}:{}", tag.unwrap_or("latest")),
    })
}

fn is_tag(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|b| is_word(b) || matches!(b, b'.' | b'-'))
}

/// Lower-case words with one `.`, one or two `_`, or any number of `-` between them.
fn is_component(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let begins_and_ends = |at: Option<&u8>| at.is_some_and(|b| is_word(*b));
    let separators = bytes.split(|b| is_word(*b)).filter(|between| !between.is_empty());
    begins_and_ends(bytes.first())
        && begins_and_ends(bytes.last())
        && separators
            .into_iter()
            .all(|between| matches!(between, b"." | b"_" | b"__") || between.iter().all(|b| *b == b'-'))
}

fn is_registry(text: &str) -> bool {
    let (host, port) = text.split_once(':').map_or((text, "0"), |(host, port)| (host, port));
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(is_label) && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotated(annotations: &[(&str, &str)]) -> Result<ImageNames, String> {
        let annotations =
            annotations.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        ImageNames::of_annotations(&annotations, Path::new("images/Browser.tar"))
    }

    #[test]
    fn an_image_is_called_as_podman_would_call_it() {
        let name = |annotation: &str| {
            let names = annotated(&[(REF_NAME, annotation)]).unwrap();
            assert_eq!((names.own.len(), names.spare), (1, None), "{annotation}");
            names.own[0].clone()
        };
        assert_eq!(name("localhost/hello:1"), "localhost/hello:1");
        assert_eq!(name("quay.io/a/b"), "quay.io/a/b:latest");
        assert_eq!(name("quay.io:443/a/b"), "quay.io:443/a/b:latest");
        assert_eq!(name("hello:2"), "localhost/hello:2");
        assert_eq!(name("team/hello"), "localhost/team/hello:latest");
        assert_eq!(name("docker.io/alpine:3"), "docker.io/library/alpine:3");
        assert_eq!(name("index.docker.io/a/b:3"), "docker.io/a/b:3");
        let digest = format!("sha256:{}", "0".repeat(64));
        assert_eq!(name(&format!("quay.io/a:1@{digest}")), format!("quay.io/a@{digest}"));
    }

    #[test]
    fn a_name_is_as_long_as_podman_lists_it() {
        let longest = "a".repeat(LONGEST_NAME - "localhost/".len());
        assert!(full_name(&format!("{longest}:{}", "t".repeat(128))).is_some());
        for wrong in
            [format!("{longest}a:1"), format!("quay.io/{longest}/aa"), format!("docker.io/{longest}aa")]
        {
            assert_eq!(full_name(&wrong), None);
            assert_eq!(annotated(&[(REF_NAME, &wrong)]), Err(wrong));
        }
        let file = format!("{}_.tar", "b".repeat(MOST_OF_FILE + 50));
        assert_eq!(
            ImageNames::of_file(Path::new(&file)).own,
            [format!("localhost/{}:latest", "b".repeat(MOST_OF_FILE))]
        );
    }

    #[test]
    fn a_registry_with_an_underscore_is_taken_as_podman_takes_it() {
        assert_eq!(full_name("my_registry.local/a").as_deref(), Some("localhost/my_registry.local/a:latest"));
        assert_eq!(full_name("my_registry:5000/a"), None);
    }

    #[test]
    fn a_bare_tag_is_one_of_the_files_name() {
        let names = annotated(&[(REF_NAME, "1.0")]).unwrap();
        assert_eq!(names.own, ["localhost/browser:1.0"]);
        assert_eq!(names.spare.as_deref(), Some("localhost/1.0:latest"));
        assert_eq!(annotated(&[(REF_NAME, "RC1")]).unwrap().spare, None, "no name has capitals");
        assert_eq!(annotated(&[]).unwrap().own, ["localhost/browser:latest"]);
        assert_eq!(
            ImageNames::of_file(Path::new("My Browser (2).tar")).own,
            ["localhost/my-browser--2:latest"]
        );
    }

    #[test]
    fn containerds_name_comes_first() {
        let both = [(CONTAINERD_NAME, "docker.io/library/browser:1.0"), (REF_NAME, "1.0")];
        assert_eq!(annotated(&both).unwrap().own, ["docker.io/library/browser:1.0"]);
    }

    #[test]
    fn what_cannot_be_a_name_is_refused() {
        for wrong in
            ["Quay.io/A/B", "a b:1", "quay.io/a//b", "quay.io/a:", "quay.io/a@sha256:0", "-a/b:1", "a..b:1"]
        {
            assert_eq!(annotated(&[(REF_NAME, wrong)]), Err(wrong.to_owned()));
        }
    }
}
