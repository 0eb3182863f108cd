//! From what is written to a [`Fleet`]: names are looked up, defaults filled in, values compared.
//!
//! Every part is validated whatever is wrong with the others, so that all problems are told together.

mod container;
mod guest;
mod host;
mod image;
mod kernel;
mod machine;
mod names;
mod network;
mod pool;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use super::file::{FleetFile, FleetSection, RepositorySection};
use super::model::{
    DiskSpec, Fleet, ImageSpec, MachineSpec, NetworkPolicy, RepositorySpec, SnapshotKeep, Source, SourceText,
    VmmKind,
};
use super::reader::{List, Named};
use super::scalar::{LocalPath, Location, WebUrl};
use crate::base::problem::{Problem, Problems, Read, ReadRef, suggest};
use crate::base::{ByteSize, FleetName, Label, is_host_label};

/// Where a value that is there stands in the file.
fn span_of<T>(value: &Read<Option<Spanned<T>>>) -> Option<Range<usize>> {
    value.as_ref().ok()?.as_ref().map(Spanned::span)
}

/// Something outside of `fleet.toml` that it mentions, to be looked up when it is loaded from disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    pub span: Range<usize>,
    pub thing: MentionTarget,
    /// Whether whoever takes from a registry what others built does without it.
    pub only_to_build: bool,
}

impl Mention {
    /// Whether there is nothing of that name.
    pub fn is_absent(&self) -> bool {
        self.thing.path().is_some_and(|path| path.symlink_metadata().is_err())
    }
}

/// What is mentioned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MentionTarget {
    File(PathBuf),
    Directory(PathBuf),
    FileOrDirectory(PathBuf),
    /// The directory of an OCI image layout.
    Layout(PathBuf),
    /// A file that whoever starts guests must have, and nobody else.
    Secret(PathBuf),
    /// A file for `podman kube play`.
    Kube(PathBuf),
    /// A directory that must hold a `*.rsa.pub`.
    Keys(PathBuf),
    Recipe(Label),
    KernelBase(Label),
    KernelFragment(Label),
}

impl MentionTarget {
    /// Where it is, if that is what `fleet.toml` says of it.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path)
            | Self::Directory(path)
            | Self::FileOrDirectory(path)
            | Self::Layout(path)
            | Self::Secret(path)
            | Self::Kube(path)
            | Self::Keys(path) => Some(path),
            Self::Recipe(_) | Self::KernelBase(_) | Self::KernelFragment(_) => None,
        }
    }
}

/// Validates what was read. The mentions are complete even where there is no fleet.
pub fn validate(
    root: &Path,
    project: &Path,
    source: SourceText,
    file: &FleetFile,
    problems: &mut Problems,
) -> (Read<Fleet>, Vec<Mention>) {
    let vmm = file.fleet.as_ref().ok().and_then(|fleet| fleet.vmm.ok().flatten());
    let vmm = vmm.unwrap_or_default();
    let mut validator = Validator { root, vmm, problems, mentions: Vec::new() };
    let fleet = validator.fleet(source, file).map(|fleet| Fleet { project: project.to_owned(), ..fleet });
    (fleet, validator.mentions)
}

/// A snapshot that is younger may be the one that was just made.
const LEAST_AGE: Duration = Duration::from_secs(60);

/// Validates a value where there is one.
fn optional<T, U>(value: &Read<Option<T>>, validate: impl FnOnce(&T) -> Read<U>) -> Read<Option<U>> {
    value.by_ref()?.as_ref().map(validate).transpose()
}

/// Things by name. A name is declared even where what it names is wrong.
type Table<U> = Read<BTreeMap<Label, Read<U>>>;

/// What guests refer to.
struct Declarations {
    images: Table<ImageSpec>,
    disks: Table<DiskSpec>,
    machines: Table<MachineSpec>,
    networks: Table<NetworkPolicy>,
}

/// The table, where nothing in it is wrong.
fn whole<K: Ord, U>(table: BTreeMap<K, Read<U>>) -> Read<BTreeMap<K, U>> {
    table.into_iter().map(|(name, value)| Ok((name, value?))).collect()
}

/// Collects everything there is; plain `collect` would leave what comes after the first mistake unseen.
fn all<T, C: FromIterator<T>>(items: impl Iterator<Item = Read<T>>) -> Read<C> {
    let items: Vec<Read<T>> = items.collect();
    items.into_iter().collect()
}

/// Where problems and mentions go while parts are validated.
pub(super) struct Validator<'a> {
    root: &'a Path,
    /// That of the fleet; Firecracker where it could not be read.
    vmm: VmmKind,
    problems: &'a mut Problems,
    mentions: Vec<Mention>,
}

impl Validator<'_> {
    /// The fleet's name, of which those of a network namespace, tables of nft and units are made.
    fn fleet_name(&mut self, fleet: &FleetSection) -> Read<FleetName> {
        let name = fleet.name.by_ref()?;
        if is_host_label(name.get_ref().as_str()) {
            return Ok(name.get_ref().clone());
        }
        let message = format!("the fleet's name `{}` is no part of a host name", name.get_ref());
        let hint = "use a-z and 0-9 with single '-' between them; `sisforge down` works by the old name, before it is changed";
        Err(self.problems.report(Problem::new(name.span(), message).hint(hint)))
    }

    fn fleet(&mut self, source: SourceText, file: &FleetFile) -> Read<Fleet> {
        let kernel = file.kernel.by_ref().and_then(|kernel| self.kernel(kernel));
        let repositories = self.repositories(file);
        let tags = repository_tags(file);
        let (host, snapshots) = (self.host(file.host.by_ref()), self.snapshots(file));
        let subnet = host.as_ref().ok().map(|host| host.subnet);
        let declared = Declarations {
            images: self.each(&file.image, |validator, image| validator.image(image, tags.as_deref())),
            disks: self.each(&file.disk, Self::disk),
            machines: self.each(&file.machine, Self::machine),
            networks: self.each(&file.network, |validator, network| validator.network(network, subnet)),
        };
        let guests = self.guests(file, &declared);
        let numbers = host.as_ref().ok().zip(guests.as_ref().ok());
        numbers.into_iter().for_each(|(host, guests)| self.capacity(file, host, guests.len()));
        let fleet = file.fleet.by_ref()?;
        if let Ok(Some(VmmKind::Qemu)) = fleet.vmm {
            self.emulated(file)?;
        }
        let (networks, guests) = (declared.networks.and_then(whole), guests.and_then(whole));
        if let (Ok(networks), Ok(guests)) = (&networks, &guests) {
            self.ports_suffice(networks, guests)?;
        }
        Ok(Fleet {
            root: self.root.to_owned(),
            project: self.root.to_owned(),
            source,
            name: self.fleet_name(fleet)?,
            vmm: fleet.vmm?.unwrap_or_default(),
            artifacts: fleet.artifacts.clone()?,
            kernel: kernel?,
            repositories: repositories?,
            images: whole(declared.images?)?,
            disks: whole(declared.disks?)?,
            networks: networks?,
            guests: guests?,
            snapshots: snapshots?,
            host: host?,
        })
    }

    /// Validates each value of a table of named things.
    fn each<T, U>(
        &mut self,
        table: &Read<Named<Label, T>>,
        mut validate: impl FnMut(&mut Self, &T) -> Read<U>,
    ) -> Table<U> {
        let entries = table.by_ref()?.iter();
        Ok(entries
            .map(|(name, value)| {
                (name.get_ref().clone(), value.by_ref().and_then(|value| validate(self, value)))
            })
            .collect())
    }

    fn repositories(&mut self, file: &FleetFile) -> Read<Vec<RepositorySpec>> {
        let sections = file.repository.by_ref()?;
        if sections.is_empty() {
            return Err(self.problems.report(
                Problem::new(file.place.clone(), "there is no [[repository]]")
                    .hint("add the one that packages come from: [[repository]] with a `url`"),
            ));
        }
        all(sections.iter().map(|section| self.repository(section.by_ref()?)))
    }

    fn repository(&mut self, section: &RepositorySection) -> Read<RepositorySpec> {
        let location = section.url.by_ref().map(|url| self.source(url, MentionTarget::Directory));
        let keys = section.keys.clone().map(|keys| {
            let keys = keys.unwrap_or_else(|| Spanned::new(section.place.clone(), LocalPath("keys".into())));
            self.path(&keys, MentionTarget::Keys)
        });
        let tag = section.tag.clone().map(|tag| tag.map(|tag| tag.into_inner().0));
        let mirrors = self.mirrors(section.url.by_ref().ok(), &section.mirrors);
        Ok(RepositorySpec { location: location?, mirrors: mirrors?, tag: tag?, keys: vec![keys?] })
    }

    /// Mirrors of a URL: each another one.
    pub(super) fn mirrors(
        &mut self,
        of: Option<&Spanned<Location>>,
        mirrors: &Read<Option<Spanned<List<WebUrl>>>>,
    ) -> Read<Vec<String>> {
        let Some(mirrors) = mirrors.by_ref()? else { return Ok(Vec::new()) };
        if let Some(path) = of.filter(|of| matches!(of.get_ref(), Location::Path(_))) {
            return Err(self.problems.report(
                Problem::new(mirrors.span(), "a local path cannot have `mirrors`")
                    .also(path.span(), "a path")
                    .hint("remove `mirrors`, or begin with http:// or https://"),
            ));
        }
        let mut places: BTreeMap<&str, Range<usize>> = BTreeMap::new();
        if let Some((Location::Url(url), span)) = of.map(|of| (of.get_ref(), of.span())) {
            places.insert(url, span);
        }
        all(mirrors.get_ref().iter().map(|mirror| {
            let mirror = mirror.by_ref()?;
            match places.insert(&mirror.get_ref().0, mirror.span()) {
                None => Ok(mirror.get_ref().0.clone()),
                Some(first) => Err(self.problems.report(
                    Problem::new(mirror.span(), "this URL is given twice")
                        .label("again")
                        .also(first, "first")
                        .hint("keep one of the two"),
                )),
            }
        }))
    }

    /// Resolves a path, and remembers that it was mentioned.
    fn path(&mut self, path: &Spanned<LocalPath>, thing: fn(PathBuf) -> MentionTarget) -> PathBuf {
        let resolved = resolve(self.root, &path.get_ref().0);
        self.mentions.push(Mention {
            span: path.span(),
            thing: thing(resolved.clone()),
            only_to_build: false,
        });
        resolved
    }

    /// The same of what plays no part but for its bytes, which fleet.lock pins.
    fn path_to_build(&mut self, path: &Spanned<LocalPath>, thing: fn(PathBuf) -> MentionTarget) -> PathBuf {
        let resolved = resolve(self.root, &path.get_ref().0);
        self.mentions.push(Mention {
            span: path.span(),
            thing: thing(resolved.clone()),
            only_to_build: true,
        });
        resolved
    }

    fn source(&mut self, location: &Spanned<Location>, thing: fn(PathBuf) -> MentionTarget) -> Source {
        match location.get_ref() {
            Location::Url(url) => Source::Url(url.clone()),
            Location::Path(path) => {
                let path = Spanned::new(location.span(), LocalPath(path.clone()));
                Source::Path(self.path_to_build(&path, thing))
            }
        }
    }

    /// Names of files that are looked up in `recipes/` or `kernel-configs/`.
    fn labels(&mut self, list: &List<Label>, thing: fn(Label) -> MentionTarget) -> Read<Vec<Label>> {
        all(list.iter().map(|label| label.by_ref().map(|label| self.label(label, thing))))
    }

    fn label(&mut self, label: &Spanned<Label>, thing: fn(Label) -> MentionTarget) -> Label {
        let thing = thing(label.get_ref().clone());
        self.mentions.push(Mention { span: label.span(), thing, only_to_build: false });
        label.get_ref().clone()
    }

    /// Looks up what is declared as `[table.NAME]`.
    fn declared<'t, U>(
        &mut self,
        table: &'static str,
        name: &Spanned<Label>,
        known: &'t Table<U>,
    ) -> Read<&'t Read<U>> {
        let known = known.by_ref()?;
        known.get(name.get_ref()).ok_or_else(|| {
            let text = name.get_ref().as_str();
            self.problems.report(
                Problem::new(name.span(), format!("{table} `{text}` is not declared"))
                    .label(format!("there is no [{table}.{text}]"))
                    .hint(suggest(&format!("declared {table}s"), text, known.keys().map(Label::as_str))),
            )
        })
    }

    /// Which snapshots are kept.
    fn snapshots(&mut self, file: &FleetFile) -> Read<SnapshotKeep> {
        let Some(section) = file.snapshots.by_ref()? else { return Ok(SnapshotKeep::default()) };
        let Some(keep) = section.keep.by_ref()? else { return Ok(SnapshotKeep::default()) };
        let age = optional(&keep.age, |age| match age.get_ref().0 {
            age if age >= LEAST_AGE => Ok(age),
            _ => {
                let problem = Problem::new(age.span(), "no snapshot would be kept for a minute");
                let hint = "`age` is at least \"1m\": a newer snapshot would go as soon as it was made";
                Err(self.problems.report(problem.hint(hint)))
            }
        });
        let keep = SnapshotKeep { count: keep.count?.map(|count| count.0), age: age?, size: keep.size? };
        if keep == SnapshotKeep::default() {
            let place = section.keep.by_ref()?.as_ref().map_or(0..0, |keep| keep.place.clone());
            let problem = Problem::new(place, "`keep` does not say which snapshots are kept");
            let hint = "set `count`, `age` or `size`; without `keep`, all are kept";
            return Err(self.problems.report(problem.hint(hint)));
        }
        Ok(keep)
    }

    /// Checks a size that a machine or a file system is given.
    fn size(&mut self, size: &Spanned<ByteSize>, what: &str, least_mib: u64) -> Read<ByteSize> {
        let value = *size.get_ref();
        let message = if value.mib() < least_mib {
            format!("{value} is too small: {what} needs at least {least_mib}MiB")
        } else if value != ByteSize::from_mib(value.mib()) {
            format!("{value} is not a whole number of MiB")
        } else {
            return Ok(value);
        };
        Err(self.problems.report(Problem::new(size.span(), message)))
    }
}

/// The tags of all repositories; `None` where one of them could not be read.
fn repository_tags(file: &FleetFile) -> Option<Vec<String>> {
    let sections = file.repository.as_ref().ok()?;
    let tags: Option<Vec<Option<String>>> = sections
        .iter()
        .map(|section| {
            let tag = section.as_ref().ok()?.tag.as_ref().ok()?;
            Some(tag.as_ref().map(|tag| tag.get_ref().0.clone()))
        })
        .collect();
    Some(tags?.into_iter().flatten().collect())
}

/// `path` seen from `root`, without `.`; `..` stays, since it may cross a link.
fn resolve(root: &Path, path: &Path) -> PathBuf {
    root.join(path).components().filter(|part| !matches!(part, Component::CurDir)).collect()
}
