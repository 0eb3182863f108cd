//! The scalars of `fleet.toml`: how each is written, and what it is when it is written wrongly.

mod container;
mod text;

use std::ops::RangeInclusive;
use std::str::FromStr;

use schemars::{Schema, SchemaGenerator, json_schema};
use toml::Spanned;
use toml::de::{DeInteger, DeValue};

use super::model::{
    Backing, LogLevel, OnExit, OptionValue, ParameterValue, Preset, Protocol, RestartPolicy, ScriptMoment,
    ScriptName, VmmKind, VolumeMount,
};
use super::reader::{FromKey, FromToml, Value, unexpected};
use super::registry::ArtifactPlace;
use crate::base::problem::{Problem, Problems, Read, suggest};
use crate::base::{
    ByteSize, FleetName, GuestName, GuestPath, InterfaceName, InvalidValue, KernelOption, Label, PerSecond,
    Rate, Sha256,
};

pub use container::*;
pub use text::*;

/// Reads a string and parses it.
fn parse_text<T: FromStr<Err = InvalidValue>>(
    value: &Value<'_>,
    wanted: &str,
    problems: &mut Problems,
) -> Read<T> {
    let DeValue::String(text) = value.get_ref() else {
        return Err(unexpected(value, wanted, problems));
    };
    text.parse()
        .map_err(|InvalidValue(rule)| problems.report(Problem::new(value.span(), format!("{text:?} {rule}"))))
}

/// Scalars that are written as a string: the type, what it is called, and a regular expression for the schema.
macro_rules! text_scalars {
    ($( $type:ty, $wanted:literal, $pattern:literal; )+) => { $(
        impl FromToml for $type {
            fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Read<Self> {
                parse_text(value, $wanted, problems)
            }

            fn schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    )+ };
}

text_scalars! {
    VariableName, "the name of a variable", "^[A-Za-z_][A-Za-z0-9_.-]*$";
    FleetName, "a name", "^[a-z0-9][a-z0-9-]{0,31}$";
    Label, "a name", "^[a-z0-9][a-z0-9._-]{0,63}$";
    ByteSize, "a size such as \"512MiB\"", "^[0-9]+ *(KiB|MiB|GiB|TiB)$";
    Bandwidth, "a rate such as \"50MiB/s\"", "^[0-9]+ *([KMG]iB|[kMG]bit)/s$";
    Seconds, "a duration such as \"5s\"", "^[0-9]+s$";
    Lifetime, "a duration such as \"8h\"", "^([0-9]+ *[a-z]+ *)+$";
    PerSecond, "a frequency such as \"100/s\"", "^[0-9]+ */s$";
    RuleList, "a path, or a list such as \"builtin:private\"", ".";
    Rate, "a rate such as \"20Mbit/s\"", "^[0-9]+ *[kMG]bit/s$";
    Sha256, "a SHA-256 digest", "^[0-9a-fA-F]{64}$";
    InterfaceName, "the name of a network interface", "^[^/:\"\\s]{1,15}$";
    Location, "a URL or a path", ".";
    WebUrl, "a URL", "^https?://[^/\\s]";
    LocalPath, "a path", ".";
    AbsolutePath, "an absolute path", "^/";
    Destination, "an address or prefix such as \"10.0.0.0/8\"", "^[0-9a-fA-F.:]+(/[0-9]+)?$";
    GuestNet, "an IPv4 prefix such as \"10.107.0.0/16\"", "^[0-9.]+/[0-9]+$";
    NameServer, "an IPv4 address", "^[0-9.]+$";
    UidRange, "a range such as \"200000-265535\"", "^[0-9]+-[0-9]+$";
    ImageLocation, "\"oci-archive:PATH[:REFERENCE]\", \"docker-archive:PATH\", \"oci:PATH[:REFERENCE]\" or \
      \"docker://HOST/NAME:TAG\"", "^(oci|oci-archive|docker-archive):.|^docker://.";
    ArtifactPlace, "a registry's address such as \"oci://registry.example.org/team/fleet\"", "^oci://[^/@\\s]+/[^@\\s]+$";
    ImageName, "the name of a container image", "^\\S+$";
    CommandWord, "a string", "";
    VolumeMount, "a volume such as \"data:/srv/data\"", "^[^:]+:/[^:]+(:r[ow])?$";
    TmpfsMount, "a path such as \"/run/app\"", "^/";
    ContainerUser, "a user such as \"1000:1000\"", "^[^:]+(:[^:]+)?$";
    RestartPolicy, "one of no, on-failure, on-failure:N and always", "^(no|always|on-failure(:[0-9]+)?)$";
    SecretTarget, "a file name or a path", ".";
    WorldEntry, "a package such as \"podman~5\"", "^!?[^\\s!]+$";
    Tag, "a tag", "^[A-Za-z0-9._-]+$";
    ScriptDigest, "a digest such as \"sha256:0123...\"", "^(sha256:)?[0-9a-fA-F]{64}$";
    Account, "the name of a user or group", "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}$";
    FsLabel, "the label of a file system", "^[A-Za-z0-9_.-]{1,16}$";
}

/// Keys of free-form tables: the type, how it is parsed, and its regular expression.
macro_rules! keys {
    ($( $type:ty, $parse:expr, $pattern:literal; )+) => { $(
        impl FromKey for $type {
            const PATTERN: &'static str = $pattern;

            fn from_key(key: &str) -> Result<Self, InvalidValue> {
                let parse: fn(&str) -> Result<Self, InvalidValue> = $parse;
                parse(key)
            }
        }
    )+ };
}

keys! {
    Label, Label::from_str, "^[a-z0-9][a-z0-9._-]{0,63}$";
    GuestName, GuestName::declared, "^(?=.{1,11}$)[a-z0-9]+(-[a-z0-9]+)*$";
    GuestPath, GuestPath::from_str, "^/.";
    KernelOption, KernelOption::parse, "^(CONFIG_)?[A-Za-z0-9_]+$";
    ParameterName, ParameterName::from_str, "^[A-Za-z_][A-Za-z0-9_]*$";
    VariableName, VariableName::from_str, "^[A-Za-z_][A-Za-z0-9_.-]*$";
    String, |key| Ok(key.to_owned()), "";
    ScriptName, ScriptName::from_str, "^.+\\.(pre-install|post-install|trigger)$";
}

/// Scalars that are one of a few words.
macro_rules! choices {
    ($( $type:ident { $( $word:literal => $variant:ident ),+ } )+) => { $(
        impl FromToml for $type {
            fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Read<Self> {
                let words = [$($word),+];
                match value.get_ref() {
                    $( DeValue::String(text) if text == $word => Ok(Self::$variant), )+
                    DeValue::String(text) => Err(problems.report(
                        Problem::new(value.span(), format!("{text:?} is not one of {}", words.join(", ")))
                            .hint(suggest("choices", text, words)),
                    )),
                    _ => Err(unexpected(value, &format!("one of {}", words.join(", ")), problems)),
                }
            }

            fn schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "enum": [$($word),+] })
            }
        }
    )+ };
}

pub(crate) use choices;

/// What happens to packets that no rule names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultAction {
    Allow,
    Deny,
}

/// Pages that a guest's memory is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePages {
    Of2MiB,
}

choices! {
    HugePages { "2MiB" => Of2MiB }
    LogLevel { "error" => Error, "warn" => Warn, "info" => Info, "debug" => Debug, "trace" => Trace }
    VmmKind { "firecracker" => Firecracker, "qemu" => Qemu }
    Protocol { "tcp" => Tcp, "udp" => Udp }
    OnExit { "restart" => Restart, "leave" => Leave }
    Backing { "file" => File, "tmpfs" => Tmpfs }
    Preset { "closed" => Closed, "browse" => Browse, "open" => Open }
    DefaultAction { "allow" => Allow, "deny" => Deny }
    ScriptMoment { "pre-install" => PreInstall, "post-install" => PostInstall, "trigger" => Trigger }
}

/// One value, or a list of them.
#[derive(Clone, Debug)]
pub struct OneOrMore<T>(pub Vec<Spanned<T>>);

impl<T: FromToml> FromToml for OneOrMore<T> {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Read<Self> {
        let DeValue::Array(array) = value.get_ref() else {
            return Spanned::from_toml(value, problems).map(|one| Self(vec![one]));
        };
        if array.is_empty() {
            return Err(problems.report(Problem::new(value.span(), "the list is empty")));
        }
        let all: Vec<Read<Spanned<T>>> =
            array.iter().map(|value| Spanned::from_toml(value, problems)).collect();
        all.into_iter().collect::<Read<_>>().map(Self)
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let one = T::schema(generator);
        json_schema!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
    }
}

impl FromToml for ParameterValue {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Read<Self> {
        match value.get_ref() {
            DeValue::Boolean(value) => Ok(Self::Boolean(*value)),
            DeValue::String(text) => Ok(Self::Text(text.clone().into_owned())),
            DeValue::Integer(integer) => number(integer).map(Self::Integer).ok_or_else(|| {
                problems.report(Problem::new(value.span(), format!("{integer} does not fit 64 bits")))
            }),
            DeValue::Array(array) => {
                let all: Vec<Read<String>> =
                    array.iter().map(|value| String::from_toml(value, problems)).collect();
                all.into_iter().collect::<Read<_>>().map(Self::List)
            }
            _ => Err(unexpected(value, "a string, an integer, true, false, or a list of strings", problems)),
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": ["string", "integer", "boolean"] },
            { "type": "array", "items": { "type": "string" } },
        ] })
    }
}

/// Either the word `"auto"` or a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auto<T> {
    Auto,
    Given(T),
}

impl<T> Auto<T> {
    /// The value, if one was given.
    pub fn given(self) -> Option<T> {
        match self {
            Self::Auto => None,
            Self::Given(value) => Some(value),
        }
    }
}

impl<T: FromToml> FromToml for Auto<T> {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Read<Self> {
        match value.get_ref() {
            DeValue::String(text) if text == "auto" => Ok(Self::Auto),
            _ => T::from_toml(value, problems).map(Self::Given),
        }
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "const": "auto" }, T::schema(generator)] })
    }
}

impl FromToml for bool {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Read<Self> {
        match value.get_ref() {
            DeValue::Boolean(value) => Ok(*value),
            _ => Err(unexpected(value, "true or false", problems)),
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "boolean" })
    }
}

impl FromToml for String {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Read<Self> {
        match value.get_ref() {
            DeValue::String(text) => Ok(text.clone().into_owned()),
            _ => Err(unexpected(value, "a string", problems)),
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

fn number(integer: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// An integer from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count<const MIN: u32, const MAX: u32>(pub u32);

impl<const MIN: u32, const MAX: u32> FromToml for Count<MIN, MAX> {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Read<Self> {
        let DeValue::Integer(integer) = value.get_ref() else {
            return Err(unexpected(value, &format!("an integer from {MIN} to {MAX}"), problems));
        };
        let count = number(integer).and_then(|count| u32::try_from(count).ok());
        count.filter(|count| (MIN..=MAX).contains(count)).map(Self).ok_or_else(|| {
            problems.report(Problem::new(value.span(), format!("{integer} is not from {MIN} to {MAX}")))
        })
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

/// Permission bits. They are only ever read in octal: decimal 644 would be 0o1204.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u16);

impl FromToml for Mode {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Read<Self> {
        let DeValue::Integer(integer) = value.get_ref() else {
            return Err(unexpected(value, "an octal integer such as 0o644", problems));
        };
        if integer.radix() != 8 && integer.as_str() != "0" {
            let octal = integer.as_str().bytes().all(|b| matches!(b, b'0'..=b'7'));
            let hint = if octal { format!("write 0o{}", integer.as_str()) } else { "such as 0o644".into() };
            return Err(problems.report(
                Problem::new(value.span(), format!("{integer} is not an octal file mode")).hint(hint),
            ));
        }
        let mode = number(integer).and_then(|mode| u16::try_from(mode).ok()).filter(|mode| *mode <= 0o7777);
        mode.map(Self).ok_or_else(|| {
            problems.report(Problem::new(value.span(), format!("{integer} is not from 0o0 to 0o7777")))
        })
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 0, "maximum": 0o7777 })
    }
}

/// A port, or a range `"8000-8100"`, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(pub RangeInclusive<u16>);

impl FromToml for Ports {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Read<Self> {
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port != 0);
        let range = match value.get_ref() {
            DeValue::Integer(integer) => {
                let port =
                    number(integer).and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
                port.map(|port| port..=port)
            }
            DeValue::String(text) => {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                port(first).zip(port(last)).map(|(first, last)| first..=last)
            }
            _ => return Err(unexpected(value, "a port, or a range such as \"8000-8100\"", problems)),
        };
        match range {
            None => Err(problems.report(
                Problem::new(value.span(), "ports are from 1 to 65535")
                    .hint("write a number, or a range such as \"8000-8100\""),
            )),
            Some(range) if range.is_empty() => Err(problems
                .report(Problem::new(value.span(), "the range is empty: its end is before its beginning"))),
            Some(range) => Ok(Self(range)),
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "integer", "minimum": 1, "maximum": 65535 },
            { "type": "string", "pattern": "^[0-9]+(-[0-9]+)?$" },
        ] })
    }
}

impl FromToml for KernelOption {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Read<Self> {
        let text = String::from_toml(value, problems)?;
        let told =
            |InvalidValue(rule)| problems.report(Problem::new(value.span(), format!("{text:?} {rule}")));
        Self::parse(&text).map_err(told)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": Self::PATTERN })
    }
}

impl FromToml for OptionValue {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Read<Self> {
        let refuse = |problems: &mut Problems, message: &str, hint: &str| {
            Err(problems.report(Problem::new(value.span(), message).hint(hint)))
        };
        match value.get_ref() {
            DeValue::Boolean(true) => Ok(Self::Yes),
            DeValue::Boolean(false) => Ok(Self::No),
            DeValue::Integer(integer) => match number(integer) {
                Some(number) => Ok(Self::Number(number)),
                None => refuse(problems, "the number is too large", "kernel options have 64 bits"),
            },
            DeValue::String(text) => match text.as_ref() {
                "m" => refuse(
                    problems,
                    "guests do not load modules, so \"m\" is not possible",
                    "build it in: write true",
                ),
                "y" => refuse(problems, "\"y\" is a string here", "write true"),
                "n" => refuse(problems, "\"n\" is a string here", "write false"),
                text if text.chars().any(char::is_control) => {
                    refuse(problems, "kernel options must not contain control characters", "write one line")
                }
                text => Ok(Self::Text(text.to_owned())),
            },
            _ => Err(unexpected(value, "true, false, a number or a string", problems)),
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["boolean", "integer", "string"], "not": { "enum": ["m", "y", "n"] } })
    }
}
