//! All packages of all repositories, with names as numbers and the links between them.

use std::collections::HashMap;

use super::Repository;
use crate::apk::dependency::{Checksum, Dependency};
use crate::apk::info::PackageInfo;
use crate::apk::version::Version;

pub(super) type NameId = usize;
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

/// A name that is wished for or provided.
#[derive(Debug, Default)]
pub(super) struct Name<'u> {
    pub text: &'u str,
    /// In index order.
    pub providers: Vec<Provider<'u>>,
    /// Names with a provider that depends on this one.
    pub needed_by: Vec<NameId>,
    /// Names with a provider whose install_if mentions this one.
    pub install_if_of: Vec<NameId>,
}

/// A wish with its name as a number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish<'u> {
    pub name: NameId,
    pub text: &'u Dependency,
}

/// A package of one or more repositories.
#[derive(Debug)]
pub(super) struct Package<'u, 'a> {
    pub info: &'a PackageInfo,
    pub name: NameId,
    pub repositories: RepositorySet,
    pub fits_arch: bool,
    pub depends: Vec<Wish<'u>>,
    pub install_if: Vec<Wish<'u>>,
    pub provides: Vec<(NameId, Option<&'u Version>)>,
}

/// What there is to choose from.
#[derive(Debug)]
pub(super) struct Universe<'u, 'a> {
    pub names: Vec<Name<'u>>,
    pub packages: Vec<Package<'u, 'a>>,
    pub world: Vec<Wish<'u>>,
    /// Repositories without a tag.
    pub untagged: RepositorySet,
    /// In the order in which they first appear.
    pub tags: Vec<(&'a str, RepositorySet)>,
    /// Records of the indexes that cannot be installed, with the reason.
    pub rejected: Vec<(&'a str, &'a str)>,
    by_text: HashMap<&'u str, NameId>,
}

impl<'u, 'a: 'u> Universe<'u, 'a> {
    pub fn new(world: &'u [Dependency], repositories: &[Repository<'a>], arch: &str) -> Self {
        let mut universe = Self {
            names: Vec::new(),
            packages: Vec::new(),
            world: Vec::new(),
            untagged: 0,
            tags: Vec::new(),
            rejected: Vec::new(),
            by_text: HashMap::new(),
        };
        let mut by_checksum: HashMap<Checksum, PackageId> = HashMap::new();
        for (position, repository) in repositories.iter().enumerate() {
            let bit = 1 << position;
            match repository.tag {
                Some(tag) => match universe.tags.iter_mut().find(|(known, _)| *known == tag) {
                    Some((_, set)) => *set |= bit,
                    None => universe.tags.push((tag, bit)),
                },
                None => universe.untagged |= bit,
            }
            let rejected = repository.index.rejected.iter();
            universe.rejected.extend(rejected.map(|(label, reason)| (label.as_str(), reason.as_str())));
            for info in &repository.index.packages {
                match by_checksum.get(&info.checksum) {
                    Some(package) => universe.packages[*package].repositories |= bit,
                    None => drop(by_checksum.insert(info.checksum, universe.add(info, bit, arch))),
                }
            }
        }
        universe.world = universe.wishes(world);
        universe.link();
        universe
    }

    /// Repositories that a wish may be met from first.
    pub fn repositories_of(&self, tag: Option<&str>) -> RepositorySet {
        let Some(tag) = tag else { return self.untagged };
        self.tags.iter().find(|(known, _)| *known == tag).map_or(0, |(_, repositories)| *repositories)
    }

    fn name(&mut self, text: &'u str) -> NameId {
        *self.by_text.entry(text).or_insert_with(|| {
            self.names.push(Name { text, ..Name::default() });
            self.names.len() - 1
        })
    }

    fn wishes(&mut self, wishes: &'u [Dependency]) -> Vec<Wish<'u>> {
        wishes.iter().map(|text| Wish { name: self.name(&text.name), text }).collect()
    }

    fn add(&mut self, info: &'a PackageInfo, repository: RepositorySet, arch: &str) -> PackageId {
        let id = self.packages.len();
        // Numbers are given in the order in which apk meets the names.
        let name = self.name(&info.name);
        let depends = self.wishes(&info.depends);
        self.names[name].providers.push(Provider { package: id, version: Some(&info.version) });
        let provides: Vec<_> =
            info.provides.iter().map(|wish| (self.name(&wish.name), wish.provided_version())).collect();
        for (name, version) in &provides {
            self.names[*name].providers.push(Provider { package: id, version: *version });
        }
        let package = Package {
            info,
            name,
            repositories: repository,
            fits_arch: info.arch == arch || info.arch == "noarch",
            depends,
            install_if: self.wishes(&info.install_if),
            provides,
        };
        self.packages.push(package);
        id
    }

    /// Links names in the order of apk's hash table, which decides what comes first where nothing else does.
    fn link(&mut self) {
        let mut order: Vec<NameId> = (0..self.names.len()).collect();
        order.sort_by_key(|name| (bucket(self.names[*name].text), std::cmp::Reverse(*name)));
        for name in order {
            let mut needed: Vec<NameId> = Vec::new();
            let mut mentioned: Vec<NameId> = Vec::new();
            for provider in &self.names[name].providers {
                let package = &self.packages[provider.package];
                needed.extend(package.depends.iter().map(|wish| wish.name));
                mentioned.extend(package.install_if.iter().map(|wish| wish.name));
            }
            for other in needed {
                push_once(&mut self.names[other].needed_by, name);
            }
            for other in mentioned {
                push_once(&mut self.names[other].install_if_of, name);
            }
        }
    }
}

/// Where apk keeps a name: it has 20000 buckets, and the newest name of a bucket comes first.
fn bucket(name: &str) -> u32 {
    murmur3(name.as_bytes(), 5381) % 20_000
}

/// MurmurHash3, x86, 32 bits (Austin Appleby, public domain).
fn murmur3(key: &[u8], seed: u32) -> u32 {
    let scramble = |k: u32| k.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, b| word << 8 | u32::from(*b));
    let blocks = key.chunks_exact(4);
    let tail = scramble(word(blocks.remainder()));
    let body = blocks.fold(seed, |h, block| {
        (h ^ scramble(word(block))).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
    });
    // The length counts modulo 2^32.
    let mixed = body ^ tail ^ (key.len() as u32);
    let mixed = (mixed ^ mixed >> 16).wrapping_mul(0x85eb_ca6b);
    let mixed = (mixed ^ mixed >> 13).wrapping_mul(0xc2b2_ae35);
    mixed ^ mixed >> 16
}

/// Names are linked one after the other, so that a repeated one is the last.
fn push_once(list: &mut Vec<NameId>, name: NameId) {
    if list.last() != Some(&name) {
        list.push(name);
    }
}

impl Wish<'_> {
    /// Is this wish, of the package `of` or of the world, met where `chosen` has its name? A package never conflicts with
    /// itself (apk 3): it may shut out all others that provide what it provides.
    pub fn is_met_by(
        &self,
        of: Option<PackageId>,
        chosen: Option<Provider<'_>>,
        packages: &[Package<'_, '_>],
    ) -> bool {
        match chosen {
            Some(provider) if self.text.conflict && of == Some(provider.package) => true,
            Some(provider) => {
                self.text.is_met_by(provider.version, &packages[provider.package].info.checksum)
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
