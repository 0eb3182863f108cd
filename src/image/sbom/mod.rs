//! The bill of materials of an image: what it is made of, from where, under which licenses, and what needs what.
//!
//! Everything comes from the image's own record and from `fleet.lock`. Bytes follow from these alone: no clock, no chance.

mod cyclonedx;
mod license;
mod spdx;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::apk::{InstalledPackage, PackageInfo, Version};
use crate::base::Sha256;
use crate::base::text::percent;
use crate::base::time::LAST_SECOND;
use crate::lock::model::{Lock, LockedPackage};

use super::inspect::InspectedImage;
use license::License;

/// In which form a bill is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// SPDX 2.3 in JSON.
    Spdx,
    /// CycloneDX 1.6 in JSON.
    CycloneDx,
}

/// What a bill is made of besides the image.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// Digest of the whole image file.
    pub sha256: Sha256,
    /// Where packages came from; those that it does not pin by their very checksum are told without.
    pub lock: Option<&'a Lock>,
    /// Seconds since the epoch that the bill is dated at; else it is the build of the newest package.
    pub created: Option<u64>,
}

/// A bill before it is written in a format.
struct BillOfMaterials<'a> {
    /// The file system's label, which follows from the build key.
    name: String,
    title: Option<&'a str>,
    sha256: Sha256,
    /// Seconds since the epoch.
    created: u64,
    /// Whose packages these are, as package URLs have it: `ID` of `os-release`.
    vendor: String,
    packages: Vec<Item<'a>>,
}

/// A package in a bill.
struct Item<'a> {
    info: &'a PackageInfo,
    license: Option<License>,
    locked: Option<&'a LockedPackage>,
    /// Packages that it needs, as numbers in the bill.
    needs: BTreeSet<usize>,
}

/// Writes the bill of an image.
pub fn document(image: &InspectedImage, sources: &Sources<'_>, format: Format) -> Value {
    let bill = BillOfMaterials::of(image, sources);
    match format {
        Format::Spdx => spdx::document(&bill),
        Format::CycloneDx => cyclonedx::document(&bill),
    }
}

impl<'a> BillOfMaterials<'a> {
    fn of(image: &'a InspectedImage, sources: &Sources<'a>) -> Self {
        let system = &image.system;
        let packages = &system.packages;
        let newest = packages.iter().filter_map(|package| built(&package.info)).max();
        let label = image.volume.label();
        let file = image.volume.path().file_name().unwrap_or_default().to_string_lossy();
        let vendor = system.distribution.as_deref().filter(|id| {
            id.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte))
        });
        let needs = needs(packages);
        let items = packages.iter().zip(needs).map(|(package, needs)| Item {
            info: &package.info,
            license: License::parse(&package.info.license),
            locked: sources.lock.and_then(|lock| locked(lock, &package.info)),
            needs,
        });
        Self {
            name: if label.is_empty() { file.into_owned() } else { label },
            title: system.title.as_deref(),
            sha256: sources.sha256,
            created: sources.created.or(newest).unwrap_or(0),
            vendor: vendor.unwrap_or("alpine").to_owned(),
            packages: items.collect(),
        }
    }

    /// The package URL of a package (`pkg:apk/...`), by which vulnerability databases know it.
    fn package_url(&self, info: &PackageInfo) -> String {
        let (name, version) = (percent(&info.name), percent(info.version.as_str()));
        format!("pkg:apk/{}/{name}@{version}?arch={}", self.vendor, percent(&info.arch))
    }
}

impl Item<'_> {
    /// Where the package was downloaded from; `None` where its repository is a directory, or is not known.
    fn download(&self) -> Option<String> {
        let repository = &self.locked?.repository;
        let is_url = repository.starts_with("https://") || repository.starts_with("http://");
        is_url.then(|| format!("{repository}/{}/{}", self.info.arch, self.info.file_name()))
    }

    /// The homepage, where it can stand as a URL.
    fn homepage(&self) -> Option<&str> {
        let url = self.info.url.as_str();
        let is_url = url.starts_with("https://") || url.starts_with("http://");
        let rest = url.split_once("://").map_or("", |(_, rest)| rest);
        let is_plain = rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"{}|\\^`".contains(&byte));
        (is_url && !rest.is_empty() && is_plain).then_some(url)
    }
}

/// When a package was built, where that is a time.
fn built(info: &PackageInfo) -> Option<u64> {
    info.build_date.filter(|seconds| *seconds <= LAST_SECOND)
}

/// The lock's entry for the very package that is installed.
fn locked<'a>(lock: &'a Lock, info: &PackageInfo) -> Option<&'a LockedPackage> {
    let checksum = info.checksum.to_string();
    lock.package.iter().find(|locked| {
        locked.checksum == checksum && locked.name == info.name && locked.version == info.version.as_str()
    })
}

/// For each package the others that meet what it depends on.
fn needs(packages: &[InstalledPackage]) -> Vec<BTreeSet<usize>> {
    let mut providers: BTreeMap<&str, Vec<(usize, Option<&Version>)>> = BTreeMap::new();
    for (number, package) in packages.iter().enumerate() {
        let info = &package.info;
        providers.entry(&info.name).or_default().push((number, Some(&info.version)));
        for name in &info.provides {
            providers.entry(&name.name).or_default().push((number, name.provided_version()));
        }
    }
    let of = |(number, package): (usize, &InstalledPackage)| {
        let mut needs = BTreeSet::new();
        for dependency in package.info.depends.iter().filter(|dependency| !dependency.conflict) {
            let met = providers.get(dependency.name.as_str()).into_iter().flatten().filter(
                |(provider, version)| {
                    *provider != number && dependency.is_met_by(*version, &packages[*provider].info.checksum)
                },
            );
            needs.extend(met.map(|(provider, _)| *provider));
        }
        needs
    };
    packages.iter().enumerate().map(of).collect()
}
