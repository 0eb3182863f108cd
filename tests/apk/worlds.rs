//! Worlds and small universes, drawn at random: the same ones everywhere.

use std::collections::BTreeMap;

use sisforge::apk::{Checksum, Dependency, Index, PackageInfo};

use crate::common::random::Random;

/// What the wishes of a world are drawn from.
pub struct Names<'i> {
    packages: Vec<&'i PackageInfo>,
    /// Names that packages provide, with the version where they have one, by their kind: `so`, `cmd`, `pc`, `py3`, plain.
    provided: Vec<Vec<&'i Dependency>>,
    /// Names that an install_if mentions: those worth having in a world.
    triggers: Vec<&'i str>,
    /// Tags of repositories.
    tags: Vec<&'i str>,
}

impl<'i> Names<'i> {
    pub fn of(indexes: &[&'i Index], tags: &[&'i str]) -> Self {
        let packages: Vec<_> = indexes.iter().flat_map(|index| &index.packages).collect();
        let mut provided: BTreeMap<&str, Vec<&Dependency>> = BTreeMap::new();
        for wish in packages.iter().flat_map(|info| &info.provides) {
            let kind = wish.name.split_once(':').map_or("", |(kind, _)| kind);
            provided.entry(kind).or_default().push(wish);
        }
        let triggers = packages.iter().flat_map(|info| &info.install_if).map(|wish| wish.name.as_str());
        Self {
            triggers: triggers.collect(),
            provided: provided.into_values().collect(),
            packages,
            tags: tags.to_vec(),
        }
    }

    /// Names of packages, most of them plain, and everything else that may stand in a world.
    pub fn world(&self, random: &mut Random) -> Vec<Dependency> {
        let size = *random.one_of(&[1, 1, 2, 2, 3, 3, 4, 5, 8, 15, 40]);
        let mut world: Vec<Dependency> = Vec::new();
        for _ in 0..size {
            world.extend(self.wish(random).parse());
        }
        // Most packages need /bin/sh, which a world must name a provider of.
        if random.below(3) > 0 {
            world.push(Dependency::any("busybox"));
        }
        world.sort_by(|a, b| a.name.cmp(&b.name));
        // `apk add` takes the last wish for a name.
        world.dedup_by(|a, b| a.name == b.name);
        world
    }

    fn wish(&self, random: &mut Random) -> String {
        let (name, version) = match random.below(20) {
            0..=2 => {
                let kind = random.one_of(&self.provided);
                let wish = random.one_of(kind);
                let version = wish.provided_version().map(ToString::to_string);
                // Such a name rarely fits together with the rest unless it is asked for as it is.
                match version.filter(|_| random.once_in(2)) {
                    Some(version) => return format!("{}{}", wish.name, constraint(random, &version)),
                    None => return wish.name.to_string(),
                }
            }
            3 => return (*random.one_of(&self.triggers)).to_owned(),
            4 if random.once_in(8) => return "nobody-has-this".to_owned(),
            4 if random.once_in(8) => return "!nobody-has-this".to_owned(),
            _ => {
                let package = random.one_of(&self.packages);
                (&package.name, package.version.as_str())
            }
        };
        if !self.tags.is_empty() && random.once_in(3) {
            let tag = random.one_of(&self.tags);
            return match random.once_in(4) {
                true => format!("{name}@{tag}{}", constraint(random, version)),
                false => format!("{name}@{tag}"),
            };
        }
        match random.below(10) {
            0..=2 => format!("{name}{}", constraint(random, version)),
            3 => format!("!{name}"),
            4 if random.once_in(3) => format!("!{name}{}", constraint(random, version)),
            _ => name.clone(),
        }
    }
}

/// An operator and a version: the one given, or its first parts behind `~`.
///
/// Those parts are numbers alone. Where the version that is wished for goes on and the package's does not, as in
/// `~1.2_p1` for a 1.2-r0, apk 2.14 takes them for equal and apk 3 does not; sisforge follows apk 3.
fn constraint(random: &mut Random, version: &str) -> String {
    let operator = *random.one_of(&["=", "=", ">=", ">=", "<=", "<", ">", "~", "~", "<~", ">~"]);
    if !operator.contains('~') {
        return format!("{operator}{version}");
    }
    let numbers = version.split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap();
    let dots = numbers.match_indices('.').map(|(at, _)| at);
    let ends: Vec<usize> = dots.chain(std::iter::once(numbers.len())).collect();
    format!("{operator}{}", &numbers[..*random.one_of(&ends)])
}

/// Some packages of an index, most of them in another version: what a testing repository beside it would have.
pub fn testing(random: &mut Random, index: &Index) -> Index {
    let mut packages = Vec::new();
    for info in &index.packages {
        if !random.once_in(6) {
            continue;
        }
        let mut info = info.clone();
        let suffix = *random.one_of(&["", "9", "_rc1-r0", "_p1-r0"]);
        if !suffix.is_empty() {
            let version = info.version.as_str();
            let version = version.split_once("-r").map_or(version, |(version, _)| version);
            let text = if suffix == "9" { format!("{version}-r9") } else { format!("{version}{suffix}") };
            let Ok(version) = text.parse() else { continue };
            info.version = version;
            info.checksum = Checksum::of(format!("testing {}", info.id()));
        }
        packages.push(info);
    }
    Index { packages, ..Index::default() }
}

/// What a small universe may have in it.
#[derive(Clone, Copy, Debug)]
pub struct Flavour {
    pub names: usize,
    pub versions: usize,
    /// Once in so many packages.
    pub priority: usize,
    pub install_if: usize,
    pub replaces: usize,
    pub conflicts: usize,
}

/// A small universe: versions, virtual names with and without versions, priorities, conflicts and install_if.
pub fn universe(random: &mut Random, flavour: Flavour) -> String {
    let names: Vec<String> =
        (0..flavour.names).map(|n| char::from(b'a' + u8::try_from(n).unwrap()).to_string()).collect();
    let wished: Vec<&str> = names.iter().map(String::as_str).chain(["v", "w", "so:x", "cmd:y"]).collect();
    let mut text = String::new();
    for (at, name) in names.iter().enumerate() {
        for version in 1..=1 + random.below(flavour.versions) {
            let identity = Checksum::of(format!("{name}{version}"));
            let mut record =
                format!("C:{identity}\nP:{name}\nV:{version}\nA:x86_64\nS:1\nI:1\nT:t\nU:u\nL:l\n");
            if random.once_in(flavour.priority) {
                record += &format!("k:{}\n", 1 + random.below(3));
            }
            if random.once_in(flavour.replaces) {
                record += &format!("r:{}\nq:{}\n", random.one_of(&names), random.below(3));
            }
            let depends: Vec<String> = (0..random.below(4))
                .map(|_| wish(random, &wished, flavour))
                .filter(|wish| !wish.trim_start_matches('!').starts_with(name.as_str()))
                .collect();
            if !depends.is_empty() {
                record += &format!("D:{}\n", depends.join(" "));
            }
            let some = 1 + random.below(3);
            match random.below(8) {
                0 => record += &format!("p:v={some}\n"),
                1 => record += "p:w\n",
                2 => record += "p:v w=1\n",
                3 => record += &format!("p:so:x={some} cmd:y\n"),
                4 => record += &format!("p:cmd:y={some}\n"),
                _ => {}
            }
            if random.once_in(flavour.install_if) {
                let (one, two) = (&names[(at + 1) % names.len()], &names[(at + 2) % names.len()]);
                match random.below(4) {
                    0 => record += &format!("i:{one}\n"),
                    1 => record += &format!("i:{one}={some} {two}\n"),
                    2 => record += &format!("i:{one} v\n"),
                    _ => record += &format!("i:{one} {two}\n"),
                }
            }
            text += &(record + "\n");
        }
    }
    text
}

fn wish(random: &mut Random, wished: &[&str], flavour: Flavour) -> String {
    let (name, version) = (*random.one_of(wished), 1 + random.below(3));
    if random.once_in(flavour.conflicts) {
        return format!("!{name}");
    }
    match random.below(8) {
        0 => format!("{name}={version}"),
        1 => format!("{name}>{version}"),
        2 => format!("{name}<{version}"),
        3 => format!("{name}>={version}"),
        _ => name.to_owned(),
    }
}

/// A few wishes for names of a small universe.
pub fn small_world(random: &mut Random, flavour: Flavour) -> Vec<String> {
    let letters = (b'a'..).take(flavour.names).map(|letter| char::from(letter).to_string());
    let mut world: Vec<String> = letters.chain(["v", "w", "so:x", "cmd:y"].map(str::to_owned)).collect();
    let size = 1 + random.below(4);
    while world.len() > size {
        world.remove(random.below(world.len()));
    }
    for wish in &mut world {
        match random.below(12) {
            0 => *wish += ">1",
            1 => *wish += "<2",
            2 => *wish += "~1",
            3 => wish.insert(0, '!'),
            _ => {}
        }
    }
    world
}
