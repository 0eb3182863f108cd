//! All packages of all repositories, with names as numbers and the links between them.

use std::cmp::Reverse;
use std::collections::HashMap;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

pub(super) use super::links::NameId;

use super::Repository;
use super::links::Links;
use crate::apk::dependency::{Checksum, Dependency};
use crate::apk::index::Index;
use crate::apk::info::PackageInfo;
use crate::apk::rules::Rules;
use crate::apk::version::Version;

pub(super) type PackageId = usize;
/// Repositories as bits, by their position.
pub(super) type RepositorySet = u64;

/// A package that has a name: its own, or one that it provides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Provider<'u> {
    pub package: PackageId,
    /// `None`: it provides the name without a version, and others may do so beside it.
    pub version: Option<&'u Version>,
}

/// A name that is asked for or provided.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name<'u> {
    pub text: &'u str,
    hash: u32,
}

/// A requirement with its name as a number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Requirement<'u> {
    pub name: NameId,
    pub text: &'u Dependency,
    rules: Rules,
}

/// A package of one or more repositories.
#[derive(Debug)]
pub(super) struct Package<'u, 'a> {
    pub info: &'a PackageInfo,
    pub name: NameId,
    pub repositories: RepositorySet,
    pub fits_arch: bool,
    pub depends: Vec<Requirement<'u>>,
    pub install_if: Vec<Requirement<'u>>,
    pub provides: Vec<(NameId, Option<&'u Version>)>,
}

/// What there is to choose from.
#[derive(Debug)]
pub(super) struct Universe<'u, 'a> {
    pub names: Vec<Name<'u>>,
    /// In index order.
    providers: Links<Provider<'u>>,
    /// Names with a provider that depends on this one.
    needed_by: Links<NameId>,
    /// Names with a provider whose install_if mentions this one.
    install_if_of: Links<NameId>,
    pub packages: Vec<Package<'u, 'a>>,
    pub world: Vec<Requirement<'u>>,
    /// Repositories without a tag.
    pub untagged: RepositorySet,
    /// In the order in which they first appear.
    pub tags: Vec<(&'a str, RepositorySet)>,
    /// Records of the indexes that cannot be installed, with the reason.
    pub rejected: Vec<(&'a str, &'a str)>,
    pub rules: Rules,
}

impl<'u, 'a: 'u> Universe<'u, 'a> {
    pub fn new(world: &'u [Dependency], repositories: &[Repository<'a>], arch: &str, rules: Rules) -> Self {
        let mut reader = IndexReader::new(rules);
        let (mut untagged, mut tags, mut rejected) = (0, Vec::new(), Vec::new());
        for (position, repository) in repositories.iter().enumerate() {
            let bit = 1 << position;
            match repository.tag {
                None => untagged |= bit,
                Some(tag) => match tags.iter_mut().find(|(known, _)| *known == tag) {
                    Some((_, set)) => *set |= bit,
                    None => tags.push((tag, bit)),
                },
            }
            let refused = repository.index.rejected.iter();
            rejected.extend(refused.map(|(label, reason)| (label.as_str(), reason.as_str())));
            reader.read(repository.index, bit, arch);
        }
        let world = reader.needs(world);
        let IndexReader { names, providers, packages, .. } = reader;
        let providers = Links::gather(names.len(), &providers);
        let (needed_by, install_if_of) = reverse_links(&names, &providers, &packages);
        Self { names, providers, needed_by, install_if_of, packages, world, untagged, tags, rejected, rules }
    }

    /// The packages that have a name, in index order.
    pub fn providers(&self, name: NameId) -> &[Provider<'u>] {
        self.providers.of(name)
    }

    /// Names with a provider that depends on this one.
    pub fn needed_by(&self, name: NameId) -> &[NameId] {
        self.needed_by.of(name)
    }

    /// Names with a provider whose install_if mentions this one.
    pub fn install_if_of(&self, name: NameId) -> &[NameId] {
        self.install_if_of.of(name)
    }

    /// Repositories that a requirement may be met from first.
    pub fn repositories_of(&self, tag: Option<&str>) -> RepositorySet {
        let Some(tag) = tag else { return self.untagged };
        self.tags.iter().find(|(known, _)| *known == tag).map_or(0, |(_, repositories)| *repositories)
    }
}

/// Packages and names as they are met.
struct IndexReader<'u, 'a> {
    rules: Rules,
    names: Vec<Name<'u>>,
    by_text: HashTable<NameId>,
    providers: Vec<(NameId, Provider<'u>)>,
    packages: Vec<Package<'u, 'a>>,
    by_checksum: HashMap<Checksum, PackageId>,
}

impl<'u, 'a: 'u> IndexReader<'u, 'a> {
    fn new(rules: Rules) -> Self {
        Self {
            rules,
            names: Vec::new(),
            by_text: HashTable::new(),
            providers: Vec::new(),
            packages: Vec::new(),
            by_checksum: HashMap::new(),
        }
    }

    fn read(&mut self, index: &'a Index, repository: RepositorySet, arch: &str) {
        self.packages.reserve(index.packages.len());
        self.by_checksum.reserve(index.packages.len());
        for info in &index.packages {
            match self.by_checksum.get(&info.checksum) {
                Some(package) => self.packages[*package].repositories |= repository,
                None => {
                    let id = self.add(info, repository, arch);
                    self.by_checksum.insert(info.checksum, id);
                }
            }
        }
    }

    fn name(&mut self, text: &'u str) -> NameId {
        let hash = murmur3(text.as_bytes(), 5381);
        let Self { names, by_text, .. } = self;
        let is_it = |id: &NameId| names[*id].hash == hash && names[*id].text == text;
        let again = |id: &NameId| spread(names[*id].hash);
        match by_text.entry(spread(hash), is_it, again) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let id = names.len();
                entry.insert(id);
                names.push(Name { text, hash });
                id
            }
        }
    }

    fn needs(&mut self, needs: &'u [Dependency]) -> Vec<Requirement<'u>> {
        let rules = self.rules;
        needs.iter().map(|text| Requirement { name: self.name(&text.name), text, rules }).collect()
    }

    fn add(&mut self, info: &'a PackageInfo, repository: RepositorySet, arch: &str) -> PackageId {
        let id = self.packages.len();
        // Numbers are given in the order in which apk meets the names.
        let name = self.name(&info.name);
        let depends = self.needs(&info.depends);
        let provides: Vec<_> =
            info.provides.iter().map(|need| (self.name(&need.name), need.provided_version())).collect();
        let own = std::iter::once((name, Some(&info.version)));
        let provided = own.chain(provides.iter().copied());
        self.providers.extend(provided.map(|(name, version)| (name, Provider { package: id, version })));
        let package = Package {
            info,
            name,
            repositories: repository,
            fits_arch: info.arch == arch || info.arch == "noarch",
            depends,
            install_if: self.needs(&info.install_if),
            provides,
        };
        self.packages.push(package);
        id
    }
}

/// Which names need a name, and which it installs, in the order of apk's hash table, which decides what comes first where
/// nothing else does: it has 20000 buckets, and the newest name of a bucket comes first.
fn reverse_links(
    names: &[Name<'_>],
    providers: &Links<Provider<'_>>,
    packages: &[Package<'_, '_>],
) -> (Links<NameId>, Links<NameId>) {
    const NOBODY: NameId = NameId::MAX;
    let mut order: Vec<NameId> = (0..names.len()).collect();
    order.sort_unstable_by_key(|name| (names[*name].hash % 20_000, Reverse(*name)));
    let (mut needed, mut mentioned) = (Vec::new(), Vec::new());
    // Names are linked one after the other, so that a repeated one is the last.
    let (mut last_needed, mut last_mentioned) = (vec![NOBODY; names.len()], vec![NOBODY; names.len()]);
    for name in order {
        for provider in providers.of(name) {
            let package = &packages[provider.package];
            for need in &package.depends {
                if std::mem::replace(&mut last_needed[need.name], name) != name {
                    needed.push((need.name, name));
                }
            }
            for need in &package.install_if {
                if std::mem::replace(&mut last_mentioned[need.name], name) != name {
                    mentioned.push((need.name, name));
                }
            }
        }
    }
    (Links::gather(names.len(), &needed), Links::gather(names.len(), &mentioned))
}

/// The hash with its bits in all places of 64, as the table wants them.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// MurmurHash3, x86, 32 bits (Austin Appleby, public domain).
fn murmur3(key: &[u8], seed: u32) -> u32 {
    let scramble = |k: u32| k.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let blocks = key.chunks_exact(4);
    let tail = scramble(blocks.remainder().iter().rev().fold(0, |word, b| word << 8 | u32::from(*b)));
    let body = blocks.fold(seed, |h, block| {
        (h ^ scramble(u32::from_le_bytes([block[0], block[1], block[2], block[3]])))
            .rotate_left(13)
            .wrapping_mul(5)
            .wrapping_add(0xe654_6b64)
    });
    // The length counts modulo 2^32.
    let mixed = body ^ tail ^ (key.len() as u32);
    let mixed = (mixed ^ mixed >> 16).wrapping_mul(0x85eb_ca6b);
    let mixed = (mixed ^ mixed >> 13).wrapping_mul(0xc2b2_ae35);
    mixed ^ mixed >> 16
}

impl Requirement<'_> {
    /// Is this requirement, of the package `of` or of the world, met where `chosen` has its name? By apk 3 a package never
    /// conflicts with itself: it may shut out all others that provide what it provides; and a name without a version stands
    /// below every version.
    pub fn is_met_by(
        &self,
        of: Option<PackageId>,
        chosen: Option<Provider<'_>>,
        packages: &[Package<'_, '_>],
    ) -> bool {
        match chosen {
            Some(provider)
                if self.rules == Rules::Apk3 && self.text.conflict && of == Some(provider.package) =>
            {
                true
            }
            Some(provider) => {
                let checksum = &packages[provider.package].info.checksum;
                match (provider.version, self.rules) {
                    (None, Rules::Apk3) => self.text.is_met_from_below(checksum),
                    (version, _) => self.text.is_met_by(version, checksum),
                }
            }
            None => self.text.conflict,
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_hash_is_murmur3() {
        assert_eq!(super::murmur3(b"", 1), 0x514e_28b7);
        assert_eq!(super::murmur3(b"test", 0), 0xba6b_d213);
        assert_eq!(super::murmur3(b"Hello, world!", 0x9747_b28c), 0x2488_4cba);
    }
}
