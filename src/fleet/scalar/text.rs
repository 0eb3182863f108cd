//! Scalars that are written as a string, made only by parsing.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::super::model::{BuiltinList, ScriptMoment, ScriptName, Source};
use super::super::registry::RegistryImage;
use crate::base::time::parse_duration;
use crate::base::{ByteSize, InvalidValue, Rate, Sha256};

pub(super) fn wrong<T>(rule: impl Into<String>) -> Result<T, InvalidValue> {
    Err(InvalidValue(rule.into()))
}

/// A path as it is written: relative to the directory of `fleet.toml`, or absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPath(pub PathBuf);

impl FromStr for LocalPath {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if text.is_empty() || text.chars().any(char::is_control) {
            return wrong("must be a path without control characters");
        }
        if text.starts_with("file:") || text.contains("://") {
            return wrong("must be a path, not a URL");
        }
        Ok(Self(text.into()))
    }
}

/// Where the destinations of a rule come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleList {
    Builtin(BuiltinList),
    File(LocalPath),
}

impl FromStr for RuleList {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text.strip_prefix("builtin:") {
            None => text.parse().map(Self::File),
            Some(name) => match BuiltinList::ALL.into_iter().find(|list| list.name() == name) {
                Some(list) => Ok(Self::Builtin(list)),
                None => {
                    let all = BuiltinList::ALL.map(|list| format!("builtin:{}", list.name()));
                    wrong(format!("is not a built-in list: there are {}", all.join(", ")))
                }
            },
        }
    }
}

/// A URL, or a path as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// Without a trailing slash.
    Url(String),
    Path(PathBuf),
}

impl FromStr for Location {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return text.parse().map(|LocalPath(path)| Self::Path(path));
        };
        if !matches!(scheme, "http" | "https") {
            return wrong("must begin with http:// or https://, or be a path");
        }
        let host = rest.split('/').next().unwrap_or_default();
        if host.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return wrong("must be a URL with a host and without white space");
        }
        if host.contains('@') {
            return wrong("must not contain a user name or password");
        }
        Ok(Self::Url(text.trim_end_matches('/').to_owned()))
    }
}

impl FromStr for Source {
    type Err = InvalidValue;

    /// An address, or a path as it is written: one that is not absolute is below the working directory.
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        Ok(match text.parse()? {
            Location::Url(url) => Self::Url(url),
            Location::Path(path) => Self::Path(path),
        })
    }
}

/// A URL, without a trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebUrl(pub String);

impl FromStr for WebUrl {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text.parse() {
            Ok(Location::Url(url)) => Ok(Self(url)),
            Err(error) if text.starts_with("http") => Err(error),
            _ => wrong("must begin with http:// or https://"),
        }
    }
}

/// Bytes in a second, written in bytes (`"50MiB/s"`) or as a rate in bits (`"20Mbit/s"`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bandwidth(pub u64);

impl FromStr for Bandwidth {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let in_bits = text.parse::<Rate>().map(|rate| rate.bits_per_second() / 8);
        let in_bytes = || text.strip_suffix("/s")?.parse::<ByteSize>().ok().map(ByteSize::bytes);
        match in_bits.ok().or_else(in_bytes) {
            Some(0) => wrong("must be more than zero"),
            Some(bytes) => Ok(Self(bytes)),
            None => wrong("must be a rate such as \"50MiB/s\" or \"20Mbit/s\""),
        }
    }
}

/// A duration in whole seconds, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub u16);

impl FromStr for Seconds {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let digits = text.strip_suffix('s').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
        let seconds = digits.and_then(|digits| digits.parse().ok()).filter(|seconds| *seconds != 0);
        seconds.map_or_else(
            || wrong("must be a duration from \"1s\" to \"65535s\""),
            |seconds| Ok(Self(seconds)),
        )
    }
}

/// A duration such as `"8h"`, more than nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime(pub Duration);

impl FromStr for Lifetime {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        parse_duration(text).map(Self)
    }
}

/// A path that does not depend on where `fleet.toml` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbsolutePath(pub PathBuf);

impl FromStr for AbsolutePath {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let path = Path::new(text);
        let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !path.is_absolute() || !plain || text.len() < 2 || text.chars().any(char::is_control) {
            return wrong("must be an absolute path below /, without '..'");
        }
        Ok(Self(path.components().collect()))
    }
}

/// An address or prefix of either family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination(pub IpNet);

impl FromStr for Destination {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.into()));
        }
        let Ok(net) = text.parse::<IpNet>() else {
            return wrong("must be an address or a prefix, such as \"10.0.0.0/8\" or \"2001:db8::/32\"");
        };
        if net.trunc() == net {
            Ok(Self(net))
        } else {
            wrong(format!("has bits set after its prefix: the network is {}", net.trunc()))
        }
    }
}

/// The addresses that guests are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestNet(pub Ipv4Net);

impl FromStr for GuestNet {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let Ok(net) = text.parse::<Ipv4Net>() else {
            return wrong("must be an IPv4 network, such as \"10.107.0.0/16\"");
        };
        if net.trunc() != net {
            return wrong(format!("has bits set after its prefix: the network is {}", net.trunc()));
        }
        if !(8..=30).contains(&net.prefix_len()) {
            return wrong("must have a prefix of /8 to /30: every guest takes a /30 of it");
        }
        Ok(Self(net))
    }
}

/// A name server. Guests have IPv4 addresses alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameServer(pub Ipv4Addr);

impl FromStr for NameServer {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => Ok(Self(address)),
            Ok(IpAddr::V6(_)) => wrong("cannot be reached: guests have only IPv4 addresses"),
            Err(_) => wrong("must be an IPv4 address"),
        }
    }
}

/// User ids, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UidRange(pub RangeInclusive<u32>);

/// Below it, Debian and Alpine have ids of the system and of people.
const FIRST_UID: u32 = 1000;
/// Owner of files that no id of a namespace maps to (`nobody`), and the 16-bit "no id" beside it.
const RESERVED_UIDS: RangeInclusive<u32> = 65_534..=65_535;

impl FromStr for UidRange {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let bounds = text.split_once('-').and_then(|(first, last)| {
            Some((first.trim().parse::<u32>().ok()?, last.trim().parse::<u32>().ok()?))
        });
        match bounds {
            None => wrong("must be a range of user ids, such as \"200000-265535\""),
            Some((first, last)) if first > last => wrong("is empty: its end is before its beginning"),
            Some((first, _)) if first < FIRST_UID => {
                wrong(format!("must begin at {FIRST_UID} or above: lower ids belong to the system"))
            }
            Some((_, u32::MAX)) => wrong("must end below 4294967295, which means \"no id\""),
            Some((first, last)) if first <= *RESERVED_UIDS.end() && last >= *RESERVED_UIDS.start() => {
                wrong("must not contain 65534 (nobody) and 65535")
            }
            Some((first, last)) => Ok(Self(first..=last)),
        }
    }
}

/// A container image, with a path as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageLocation {
    /// With the reference behind it.
    OciArchive(LocalPath, Option<String>),
    OciLayout(LocalPath, Option<String>),
    DockerArchive(LocalPath),
    Registry(RegistryImage),
}

const TRANSPORTS: &str = "\"oci-archive:PATH[:REFERENCE]\", \"docker-archive:PATH\" (tar files), \"oci:PATH[:REFERENCE]\" (a layout \
     directory) or \"docker://HOST/NAME:TAG\" (a registry)";

/// `PATH[:REFERENCE]`, as skopeo reads it: the path ends at the first colon.
fn referenced(text: &str) -> Result<(LocalPath, Option<String>), InvalidValue> {
    match text.split_once(':') {
        None => Ok((text.parse()?, None)),
        Some((_, reference))
            if reference.is_empty() || reference.contains(|c: char| c.is_control() || c == ' ') =>
        {
            wrong("must have the reference of an image after the colon, such as \"oci:layout:1.0\"")
        }
        Some((path, reference)) => Ok((path.parse()?, Some(reference.to_owned()))),
    }
}

impl FromStr for ImageLocation {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text.split_once(':') {
            Some(("oci-archive", rest)) => referenced(rest).map(|(path, of)| Self::OciArchive(path, of)),
            Some(("oci", rest)) => referenced(rest).map(|(path, of)| Self::OciLayout(path, of)),
            Some(("docker-archive", path)) => path.parse().map(Self::DockerArchive),
            Some(("docker", rest)) if rest.starts_with("//") => rest[2..].parse().map(Self::Registry),
            Some(("dir" | "docker-dir", dir)) => wrong(format!(
                "is a directory that is no OCI image layout: `skopeo copy dir:{dir} oci:NEW` makes one, which is named \"oci:NEW\""
            )),
            Some((transport, _)) => {
                wrong(format!("has the transport `{transport}`: it must be {TRANSPORTS}"))
            }
            None => wrong(format!("must be {TRANSPORTS}")),
        }
    }
}

/// What a container is started from, such as `localhost/browser:latest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageName(pub String);

impl FromStr for ImageName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-/:@+".contains(&b);
        if text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric()) && text.bytes().all(plain) {
            Ok(Self(text.into()))
        } else {
            wrong("must be the name of a container image, such as \"localhost/browser:latest\"")
        }
    }
}

/// An entry of apk's world: `[!]name[@tag][op version]`, the tag before or behind the version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorldEntry {
    /// As apk writes it.
    pub entry: String,
    pub tag: Option<String>,
}

impl FromStr for WorldEntry {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let rule = "must be a package, such as \"podman\", \"podman~5\", \"so:libc.musl-x86_64.so.1\" or \
          \"podman@edge\"";
        let (rest, tag) = match text.split_once('@') {
            None => (text.to_owned(), None),
            Some((name, tail)) => {
                let end = tail.find(['<', '>', '=', '~']).unwrap_or(tail.len());
                (format!("{name}{}", &tail[end..]), Some(tail[..end].parse::<Tag>()?.0))
            }
        };
        let name_end = rest.find(['<', '>', '=', '~']).unwrap_or(rest.len());
        let (name, constraint) = rest.split_at(name_end);
        let name = name.strip_prefix('!').unwrap_or(name);
        let version = constraint.trim_start_matches(['<', '>', '=', '~']);
        let operator = &constraint[..constraint.len() - version.len()];
        let name_ok =
            name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'/' || b == b'_')
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+_.:/,[]-".contains(&b));
        let version_ok = version.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
            && version.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+=/".contains(&b));
        let constraint_ok = constraint.is_empty() || (version_ok && operator.len() <= 2);
        if !name_ok || !constraint_ok {
            return wrong(rule);
        }
        let shown_tag = tag.as_ref().map(|tag| format!("@{tag}")).unwrap_or_default();
        let conflict = if text.starts_with('!') { "!" } else { "" };
        Ok(Self { entry: format!("{conflict}{name}{shown_tag}{constraint}"), tag })
    }
}

/// A tag of a repository, without the `@`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag(pub String);

impl FromStr for Tag {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if !text.is_empty() && text.bytes().all(plain) {
            Ok(Self(text.into()))
        } else {
            wrong("must name a tag with letters, digits, '.', '_' and '-', without the '@'")
        }
    }
}

/// A user or group of the guest, by name or number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account(pub String);

impl FromStr for Account {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        let starts = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
        if starts && text.len() <= 32 && text.bytes().all(plain) {
            Ok(Self(text.into()))
        } else {
            wrong("must be the name or number of a user or group")
        }
    }
}

/// Label of an ext4 file system, which has room for 16 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FsLabel(pub String);

impl FromStr for FsLabel {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if (1..=16).contains(&text.len()) && text.bytes().all(plain) {
            Ok(Self(text.into()))
        } else {
            wrong("must be a label: 1 to 16 letters, digits, `.`, `_` or `-`")
        }
    }
}

/// Name of a recipe's parameter, as templates spell it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ParameterName(pub String);

impl FromStr for ParameterName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if first && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            Ok(Self(text.into()))
        } else {
            wrong("must name a parameter with letters, digits and '_', beginning with no digit")
        }
    }
}

impl FromStr for ScriptName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let rule =
            "must be a package and a kind of script, such as \"busybox.post-install\" or \"busybox.trigger\"";
        let Some((package, kind)) = text.rsplit_once('.') else { return wrong(rule) };
        if matches!(kind, "pre-upgrade" | "post-upgrade" | "pre-deinstall" | "post-deinstall") {
            return wrong(
                "needs no acceptance: images are built from scratch, so nothing is upgraded or removed",
            );
        }
        match ScriptMoment::ALL.into_iter().find(|moment| moment.as_str() == kind) {
            Some(moment) if !package.is_empty() => Ok(Self { package: package.into(), moment }),
            _ => wrong(rule),
        }
    }
}

/// The SHA-256 of a script, with or without `sha256:` before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScriptDigest(pub Sha256);

impl FromStr for ScriptDigest {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        text.strip_prefix("sha256:").unwrap_or(text).parse().map(Self)
    }
}
