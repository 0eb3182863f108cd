//! Scalars of containers, spelled as podman-run(1) has them.

use std::str::FromStr;

use schemars::{Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::super::model::{PortMapping, Protocol, RestartPolicy, VolumeMount};
use super::super::reader::{FromToml, Value, unexpected};
use super::text::wrong;
use super::{number, parse_text};
use crate::base::problem::{Problem, Problems, Read};
use crate::base::{GuestPath, InvalidValue};

/// A word of a command: anything that a process can be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandWord(pub String);

impl FromStr for CommandWord {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if text.contains('\0') {
            return wrong("holds a zero byte, which no process can be given");
        }
        Ok(Self(text.to_owned()))
    }
}

/// Name of an environment variable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VariableName(pub String);

impl FromStr for VariableName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if first && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
            Ok(Self(text.to_owned()))
        } else {
            wrong(
                "must name a variable with letters, digits, '_', '.' and '-', beginning with a letter or '_'",
            )
        }
    }
}

/// Value of an environment variable; numbers and switches may stand without quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariableValue(pub String);

impl FromToml for VariableValue {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Read<Self> {
        match value.get_ref() {
            DeValue::Integer(integer) => {
                match number(integer) {
                    Some(number) => Ok(Self(number.to_string())),
                    None => Err(problems
                        .report(Problem::new(value.span(), format!("{integer} does not fit 64 bits")))),
                }
            }
            DeValue::Boolean(switch) => Ok(Self(switch.to_string())),
            _ => parse_text::<CommandWord>(value, "a string", problems).map(|CommandWord(text)| Self(text)),
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer", "boolean"] })
    }
}

impl FromToml for PortMapping {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Read<Self> {
        const WANTED: &str = "a port, or \"HOST:CONTAINER[/PROTOCOL]\"";
        let parsed = match value.get_ref() {
            DeValue::Integer(integer) => integer.to_string().parse(),
            DeValue::String(text) => text.parse(),
            _ => return Err(unexpected(value, WANTED, problems)),
        };
        parsed.map_err(|InvalidValue(rule)| {
            let problem = Problem::new(value.span(), format!("{} {rule}", shown(value)));
            problems.report(problem.hint("a number is the same port of the guest and of the container"))
        })
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "integer", "minimum": 1, "maximum": 65535 },
            { "type": "string", "pattern": "^[0-9]+(:[0-9]+)?(/(tcp|udp))?$" },
        ] })
    }
}

fn shown(value: &Value<'_>) -> String {
    match value.get_ref() {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(integer) => integer.to_string(),
        _ => String::new(),
    }
}

impl FromStr for PortMapping {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let (ports, protocol) = match text.split_once('/') {
            None | Some((_, "tcp")) => (text.strip_suffix("/tcp").unwrap_or(text), Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some(_) => return wrong("has a protocol that is neither tcp nor udp"),
        };
        let port = |text: &str| {
            let digits = text.bytes().all(|b| b.is_ascii_digit());
            text.parse::<u16>().ok().filter(|port| digits && *port != 0)
        };
        let (guest, container) = ports.split_once(':').unwrap_or((ports, ports));
        match port(guest).zip(port(container)) {
            Some((guest, container)) => Ok(Self { guest, container, protocol }),
            None => wrong("must be a port from 1 to 65535, or two as \"HOST:CONTAINER\""),
        }
    }
}

impl FromStr for VolumeMount {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let mut parts = text.split(':');
        let (source, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let read_only = match (parts.next(), parts.next()) {
            (None | Some("rw"), None) => false,
            (Some("ro"), None) => true,
            _ => {
                return wrong("must be \"NAME:/PATH\" or \"./DIR:/PATH\", with \":ro\" behind it or nothing");
            }
        };
        if target.parse::<GuestPath>().is_err() {
            return wrong(
                "must have an absolute path of the container behind the ':', as in \"data:/srv/data\"",
            );
        }
        Ok(Self { source: volume_source(source)?, target: target.to_owned(), read_only })
    }
}

/// A volume of Podman's by its name, or a directory of the home.
fn volume_source(text: &str) -> Result<String, InvalidValue> {
    let Some(directory) = text.strip_prefix("./").or_else(|| text.strip_prefix("~/")) else {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        let starts = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        return if starts && text.bytes().all(plain) {
            Ok(text.to_owned())
        } else {
            wrong(
                "must begin with the name of a volume, or with \"./DIR\", a directory of the guest's home; nothing outside of the home can be mounted",
            )
        };
    };
    match format!("/{directory}").parse::<GuestPath>() {
        Ok(_) => Ok(format!("./{directory}")),
        Err(_) => wrong(
            "leads out of the guest's home: it must be \"./DIR\" without '..', doubled or trailing slashes",
        ),
    }
}

/// A directory of a container in RAM, as `--tmpfs` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TmpfsMount(pub String);

impl FromStr for TmpfsMount {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let (path, options) = text.split_once(':').unwrap_or((text, "rw"));
        if path.parse::<GuestPath>().is_err() || path.contains(',') {
            return wrong(
                "must be an absolute path of the container, as in \"/run/app\" or \"/run/app:size=16m\"",
            );
        }
        let all_digits =
            |text: &str, digits: &str| !text.is_empty() && text.chars().all(|c| digits.contains(c));
        let is_known = |option: &str| match option.split_once('=') {
            Some(("size", size)) => {
                all_digits(size.trim_end_matches(['k', 'm', 'g', '%']), "0123456789")
                    && size.trim_end_matches(|c: char| !c.is_ascii_digit()).len() + 1 >= size.len()
            }
            Some(("mode", mode)) => all_digits(mode, "01234567") && mode.len() <= 5,
            Some(_) => false,
            None => ["rw", "ro", "exec", "noexec", "suid", "nosuid", "dev", "nodev"].contains(&option),
        };
        match options.split(',').find(|option| !is_known(option)) {
            None => Ok(Self(text.to_owned())),
            Some(option) => wrong(format!(
                "has the option {option:?}: there are size=N[kmg%], mode=OCTAL, rw, ro, and exec, suid and dev with or without no"
            )),
        }
    }
}

/// User and group of a container, by names or numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerUser(pub String);

impl FromStr for ContainerUser {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let is_one = |name: &str| {
            name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
                && name.len() <= 32
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        let (user, group) = text.split_once(':').unwrap_or((text, "0"));
        if is_one(user) && is_one(group) {
            Ok(Self(text.to_owned()))
        } else {
            wrong("must be a user, or \"USER:GROUP\", each by name or number")
        }
    }
}

impl FromStr for RestartPolicy {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let times = |text: &str| {
            let digits = text.bytes().all(|b| b.is_ascii_digit());
            text.parse::<u32>().ok().filter(|times| digits && *times != 0)
        };
        match (text, text.strip_prefix("on-failure:").map(times)) {
            ("no", _) => Ok(Self::No),
            ("always", _) => Ok(Self::Always),
            ("on-failure", _) => Ok(Self::OnFailure(None)),
            (_, Some(Some(times))) => Ok(Self::OnFailure(Some(times))),
            _ => wrong("is not one of no, on-failure, on-failure:N and always"),
        }
    }
}

/// Where a container finds a secret: a name below `/run/secrets`, or a whole path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretTarget(pub String);

impl FromStr for SecretTarget {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let path = if text.starts_with('/') { text.to_owned() } else { format!("/{text}") };
        // Podman takes options apart at commas.
        if path.parse::<GuestPath>().is_ok() && !text.contains(',') {
            Ok(Self(text.to_owned()))
        } else {
            wrong("must be a name below /run/secrets, or an absolute path of the container, without ','")
        }
    }
}

/// Processors, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MilliCpus(pub u32);

impl FromToml for MilliCpus {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Read<Self> {
        let text = match value.get_ref() {
            DeValue::Integer(integer) => integer.to_string(),
            DeValue::Float(float) => float.as_str().to_owned(),
            _ => return Err(unexpected(value, "a number of processors such as 0.5", problems)),
        };
        let milli = text.parse::<f64>().ok().map(|cpus| (cpus * 1000.0).round());
        match milli.filter(|milli| (10.0..=32_000.0).contains(milli)) {
            Some(milli) => Ok(Self(milli as u32)),
            None => {
                Err(problems.report(Problem::new(value.span(), format!("{text} is not from 0.01 to 32"))))
            }
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0.01, "maximum": 32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_written_as_podman_has_them() {
        let read = |text: &str| text.parse::<PortMapping>().map(|port| port.to_string());
        for (text, port) in [("80", "80:80/tcp"), ("8080:80", "8080:80/tcp"), ("53:5353/udp", "53:5353/udp")]
        {
            assert_eq!(read(text).unwrap(), port);
        }
        for wrong in [
            "",
            "0",
            "65536",
            "1:2:3",
            "-1",
            "+80",
            "80/sctp",
            "127.0.0.1:80:80",
            "80/",
            "80:80/udp/tcp",
            " 80",
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_volume_is_in_the_home() {
        let read = |text: &str| text.parse::<VolumeMount>().map(|volume| volume.to_string());
        for (text, volume) in [
            ("data:/srv", "data:/srv"),
            ("./a b/c:/srv:ro", "./a b/c:/srv:ro"),
            ("~/notes:/n:rw", "./notes:/n"),
        ] {
            assert_eq!(read(text).unwrap(), volume);
        }
        for wrong in [
            "/etc:/etc",
            "../x:/x",
            "./..:/x",
            "./a/../../x:/x",
            "./:/x",
            ".:/x",
            "~:/x",
            "data",
            "data:srv",
            "data:/srv:z",
            "data:/srv:ro:rw",
            "--privileged:/x",
            "-v:/x",
            "",
            ":/x",
            "./a//b:/x",
            "./a\n:/x",
            "data:/",
            "data:/../x",
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_podman_takes_as_text_is_no_option() {
        for good in ["/run", "/a b:size=16m,mode=1777,noexec", "/x:ro"] {
            assert!(good.parse::<TmpfsMount>().is_ok(), "{good:?}");
        }
        for wrong in ["run", "/x:", "/x:size=", "/x:size=1mm", "/x:bind", "/x,y", "/x:uid=0", "--x"] {
            assert!(wrong.parse::<TmpfsMount>().is_err(), "{wrong:?}");
        }
        for wrong in ["", "-1", "--user", "a:b:c", "a:", ":a", "a b", "a\n"] {
            assert!(wrong.parse::<ContainerUser>().is_err(), "{wrong:?}");
        }
        for good in ["no", "always", "on-failure", "on-failure:3"] {
            assert_eq!(good.parse::<RestartPolicy>().unwrap().to_string(), good);
        }
        for wrong in ["", "unless-stopped", "on-failure:", "on-failure:0", "on-failure:-1", "on-failure:+1"] {
            assert!(wrong.parse::<RestartPolicy>().is_err(), "{wrong:?}");
        }
        for wrong in ["", "/", "../x", "a,mode=0777", "/etc/../x", "a//b", "a\n"] {
            assert!(wrong.parse::<SecretTarget>().is_err(), "{wrong:?}");
        }
    }
}
