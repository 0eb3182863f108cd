//! Users and pools: every guest with every default filled in.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;

use super::super::file::{DiskChoice, FleetFile, GuestSection, IoSection};
use super::super::model::{DiskSpec, GuestSpec, IoSpec, OnExit, PoolMember};
use super::super::scalar::{Bandwidth, Count};
use super::container::PlacedContainer;
use super::machine::NamedMachine;
use super::pool::PoolSize;
use super::{Declarations, Validator, optional};
use crate::base::problem::{Problem, Read, ReadRef};
use crate::base::{ByteSize, GuestName, InvalidValue, Label, is_host_label};

/// Below it, the kernel, its page tables and an init leave nothing for a container.
const LEAST_MEMORY_MIB: u64 = 64;

/// Nobody is preferred.
const EVEN_WEIGHT: u16 = 100;

const DEFAULT_MEMORY: ByteSize = ByteSize::from_mib(512);

/// Guests by name.
pub(super) type Guests = BTreeMap<GuestName, Read<GuestSpec>>;

/// A disk, and the name that it was declared under.
type NamedDisk = (Option<Label>, DiskSpec);

/// What a section of a guest, or `[defaults]`, says itself.
#[derive(Clone)]
struct GuestOverrides {
    image: Read<Option<Label>>,
    network: Read<Option<Label>>,
    disk: Read<Option<NamedDisk>>,
    machine: Read<Option<NamedMachine>>,
    vcpus: Read<Option<u8>>,
    memory: Read<Option<ByteSize>>,
    cpu_weight: Read<Option<u16>>,
    io: Read<Option<IoSpec>>,
    containers: Read<Option<Vec<PlacedContainer>>>,
    on_exit: Read<Option<OnExit>>,
}

impl GuestOverrides {
    /// Nothing at all.
    const NOTHING: Self = Self {
        image: Ok(None),
        network: Ok(None),
        disk: Ok(None),
        machine: Ok(None),
        vcpus: Ok(None),
        memory: Ok(None),
        cpu_weight: Ok(None),
        io: Ok(None),
        containers: Ok(None),
        on_exit: Ok(None),
    };
}

impl Validator<'_> {
    /// All guests, named even where they are wrong.
    pub(super) fn guests(&mut self, file: &FleetFile, declared: &Declarations) -> Read<Guests> {
        let defaults = file.defaults.by_ref().map(|section| match section {
            Some(section) => self.own(section, declared),
            None => GuestOverrides::NOTHING,
        });
        let mut guests = Guests::new();
        let mut places = BTreeMap::new();
        for (name, section) in file.user.iter().flat_map(|users| users.iter()) {
            let what = format!("user `{}`", name.get_ref());
            let own = section.by_ref().map(|section| (&section.place, self.own(section, declared)));
            let guest = own.and_then(|(place, own)| self.guest(own, defaults.by_ref()?, place, &what));
            places.insert(name.get_ref().clone(), name.span());
            guests.insert(name.get_ref().clone(), guest);
        }
        for (name, section) in file.pool.iter().flat_map(|pools| pools.iter()) {
            let what = format!("pool `{}`", name.get_ref());
            let Ok(section) = section else { continue };
            let own = self.own(&section.member, declared);
            let size = self.pool_size(section, &what);
            let warm = size.by_ref().ok().and_then(PoolSize::warm);
            let member =
                defaults.by_ref().and_then(|defaults| self.guest(own, defaults, &section.place, &what));
            let member = size.by_ref().and_then(|_| self.warm_member(section, warm, member?, &what));
            for (number, member_name) in self.members(name, size.by_ref().map_or(0, PoolSize::members)) {
                let place = Some(PoolMember { pool: name.get_ref().clone(), number });
                let member = member.clone().map(|member| GuestSpec { pool: place, ..member });
                if let Some(place) = places.insert(member_name.clone(), name.span()) {
                    self.clash(name, &member_name, place);
                }
                guests.insert(member_name, member);
            }
        }
        file.user.by_ref()?;
        file.pool.by_ref()?;
        Ok(guests)
    }

    /// Numbers and names of a pool's members; none where one of them would not be the name of a guest.
    fn members(&mut self, pool: &Spanned<Label>, count: u32) -> Vec<(u32, GuestName)> {
        let name = |number: u32| {
            let text = format!("{}-{number}", pool.get_ref());
            let name = GuestName::declared(&text).map_err(|InvalidValue(rule)| (text, rule));
            name.map(|name| (number, name))
        };
        // The last name is the longest.
        let names = (0..count).rev().map(name).collect::<Result<Vec<_>, _>>();
        names.unwrap_or_else(|(text, rule)| {
            let message = format!("pool `{}` has a guest `{text}`, whose name {rule}", pool.get_ref());
            let hint = match is_host_label(pool.get_ref().as_str()) {
                true => "shorten the name of the pool",
                false => "rename the pool",
            };
            self.problems.report(Problem::new(pool.span(), message).hint(hint));
            Vec::new()
        })
    }

    /// Refuses what software emulation cannot run, where it is said: in a section of guests, or in `[defaults]` for those that say
    /// nothing themselves.
    pub(super) fn emulated(&mut self, file: &FleetFile) -> Read<()> {
        let users = file.user.by_ref()?.iter();
        let users = users.filter_map(|(_, section)| section.as_ref().ok());
        let pools = file.pool.by_ref()?.iter();
        let pools = pools.filter_map(|(_, section)| Some(&section.as_ref().ok()?.member));
        let own: Vec<_> = users.chain(pools).filter_map(|section| section.vcpus.as_ref().ok()).collect();
        let inherits = own.iter().any(|vcpus| vcpus.is_none());
        let defaults =
            file.defaults.by_ref().ok().and_then(|defaults| defaults.as_ref()?.vcpus.as_ref().ok());
        let said = own.into_iter().chain(defaults.filter(|_| inherits)).flatten();
        let several = said.filter(|vcpus| vcpus.get_ref().0 > 1).map(Spanned::span);
        let problem = |place: Range<usize>| {
            Problem::new(place, "with `vmm = \"qemu\"` a guest can have only one virtual processor")
                .hint("a second one hangs under software emulation; set `vcpus = 1`")
        };
        several.map(|place| self.problems.report(problem(place))).last().map_or(Ok(()), Err)
    }

    fn clash(&mut self, pool: &Spanned<Label>, member: &GuestName, place: Range<usize>) {
        self.problems.report(
            Problem::new(pool.span(), format!("there are two guests `{member}`"))
                .label(format!("this pool has a `{member}`"))
                .also(place, format!("`{member}` is declared here"))
                .hint("rename one of the two"),
        );
    }

    /// A guest made of what it says itself and of the defaults. `what` is for messages, such as ``user `bob` ``.
    fn guest(
        &mut self,
        own: GuestOverrides,
        defaults: &GuestOverrides,
        place: &Range<usize>,
        what: &str,
    ) -> Read<GuestSpec> {
        let image = self.given("image", own.image, &defaults.image, place, what);
        let network = self.given("network", own.network, &defaults.network, place, what);
        let disk = self.given("disk", own.disk, &defaults.disk, place, what);
        let memory = own.memory?.or(defaults.memory?).unwrap_or(DEFAULT_MEMORY);
        let machine = own.machine?.map_or_else(|| defaults.machine.clone(), |own| Ok(Some(own)))?;
        let (machine_name, machine) = machine.unwrap_or_default();
        let fits = self.fits(&machine, memory, place, what);
        let vcpus = own.vcpus?.or(defaults.vcpus?).unwrap_or(1);
        let containers = match own.containers? {
            Some(containers) => self.sized(containers, memory, vcpus, what),
            None => self.sized(defaults.containers.clone()?.unwrap_or_default(), memory, vcpus, what),
        };
        let (disk_name, disk) = fits.and(disk)?;
        let (containers, container_places) = containers?;
        Ok(GuestSpec {
            image: image?,
            network: network?,
            disk_name,
            disk,
            machine_name,
            machine,
            vcpus,
            memory,
            cpu_weight: own.cpu_weight?.or(defaults.cpu_weight?).unwrap_or(EVEN_WEIGHT),
            io: own.io?.or(defaults.io?).unwrap_or_default(),
            containers,
            container_places,
            pool: None,
            warm: None,
            on_exit: own.on_exit?.or(defaults.on_exit?).unwrap_or_default(),
        })
    }

    /// The guest's own value, else the default; one of the two must be there.
    fn given<T: Clone>(
        &mut self,
        key: &str,
        own: Read<Option<T>>,
        default: &Read<Option<T>>,
        place: &Range<usize>,
        what: &str,
    ) -> Read<T> {
        let given = match own? {
            Some(own) => Some(own),
            None => default.clone()?,
        };
        given.ok_or_else(|| {
            self.problems.report(
                Problem::new(place.clone(), format!("{what} has no `{key}`"))
                    .hint("set it here, or for all guests in [defaults]"),
            )
        })
    }

    fn own(&mut self, section: &GuestSection, declared: &Declarations) -> GuestOverrides {
        let image = optional(&section.image, |image| {
            self.declared("image", image, &declared.images).map(|_| image.get_ref().clone())
        });
        let network = optional(&section.network, |network| {
            self.declared("network", network, &declared.networks).map(|_| network.get_ref().clone())
        });
        let disk = optional(&section.disk, |disk| self.disk_choice(disk, declared));
        let machine = optional(&section.machine, |machine| self.machine_choice(machine, declared));
        let memory = optional(&section.memory, |memory| self.size(memory, "a guest", LEAST_MEMORY_MIB));
        let containers = optional(&section.containers, |containers| self.containers(containers));
        // Count<1, 32> has made sure that it fits.
        let vcpus = section.vcpus.by_ref().map(|vcpus| vcpus.as_ref().map(|vcpus| vcpus.get_ref().0 as u8));
        // So does Count<1, 10000> here.
        let cpu_weight = section.cpu_weight.map(|weight| weight.map(|Count(weight)| weight as u16));
        let io = optional(&section.io, io_limits);
        let on_exit = section.on_exit;
        GuestOverrides { image, network, disk, machine, vcpus, memory, cpu_weight, io, containers, on_exit }
    }

    fn disk_choice(&mut self, disk: &Spanned<DiskChoice>, declared: &Declarations) -> Read<NamedDisk> {
        match disk.get_ref() {
            DiskChoice::Inline(section) => Ok((None, self.disk(section)?)),
            DiskChoice::Named(name) => {
                let place = Spanned::new(disk.span(), name.clone());
                let spec = self.declared("disk", &place, &declared.disks)?.clone()?;
                Ok((Some(name.clone()), spec))
            }
        }
    }
}

fn io_limits(section: &IoSection) -> Read<IoSpec> {
    Ok(IoSpec {
        read: section.read?.map(|Bandwidth(bytes)| bytes),
        write: section.write?.map(|Bandwidth(bytes)| bytes),
        read_operations: section.read_operations?.map(|Count(count)| count),
        write_operations: section.write_operations?.map(|Count(count)| count),
    })
}
