//! `[machine.NAME]`: what a VMM is told, and what it can be told.

use std::ops::Range;

use toml::Spanned;

use super::super::file::{
    BalloonSection, LimitSection, MachineChoice, MachineNetworkSection, MachineSection, TemplateChoice,
};
use super::super::model::{
    Balloon, Bucket, CpuTemplate, MachineSpec, Metadata, NetworkLimits, RateLimiter, VmmKind,
};
use super::super::scalar::{Bandwidth, Count, Seconds};
use super::{Declarations, MentionTarget, Validator, optional, span_of};
use crate::base::problem::{Problem, Read, ReadRef};
use crate::base::{ByteSize, Label};

/// A machine, and the name that it was declared under.
pub(super) type NamedMachine = (Option<Label>, MachineSpec);

/// Size of a huge page.
const HUGE_PAGE_MIB: u64 = 2;

impl Validator<'_> {
    pub(super) fn machine_choice(
        &mut self,
        machine: &Spanned<MachineChoice>,
        declared: &Declarations,
    ) -> Read<NamedMachine> {
        match machine.get_ref() {
            MachineChoice::Inline(section) => Ok((None, self.machine(section)?)),
            MachineChoice::Named(name) => {
                let place = Spanned::new(machine.span(), name.clone());
                let spec = self.declared("machine", &place, &declared.machines)?.clone()?;
                Ok((Some(name.clone()), spec))
            }
        }
    }

    pub(super) fn machine(&mut self, section: &MachineSection) -> Read<MachineSpec> {
        let possible = self.possible(section);
        let cpu_template = optional(&section.cpu_template, |template| match template.get_ref() {
            TemplateChoice::Static(template) => Ok(CpuTemplate::Static(*template)),
            TemplateChoice::Custom(path) => {
                let path = Spanned::new(template.span(), path.clone());
                Ok(CpuTemplate::Custom(self.path(&path, MentionTarget::File)))
            }
        });
        let seccomp = optional(&section.seccomp, |path| Ok(self.path(path, MentionTarget::File)));
        let balloon = optional(&section.balloon, |balloon| self.balloon(balloon.get_ref()));
        let entropy = self.limits(&section.entropy);
        let disk = self.limits(&section.disk);
        let network = optional(&section.network, |network| self.device(network.get_ref()));
        let metadata = optional(&section.metadata, |metadata| {
            let metadata = metadata.get_ref();
            let file = metadata.file.by_ref().map(|file| self.path(file, MentionTarget::File));
            Ok(Metadata { file: file?, imds: metadata.imds?.unwrap_or(false) })
        });
        possible?;
        Ok(MachineSpec {
            huge_pages: section.huge_pages.by_ref()?.is_some(),
            cpu_template: cpu_template?,
            seccomp: seccomp?,
            log_level: section.log_level.by_ref()?.as_ref().map(|level| *level.get_ref()),
            metrics: is_true(&section.metrics)?,
            balloon: balloon?,
            entropy: entropy?,
            vsock: is_true(&section.vsock)?,
            metadata: metadata?,
            disk: disk?,
            network: network?.unwrap_or_default(),
        })
    }

    fn balloon(&mut self, section: &BalloonSection) -> Read<Balloon> {
        let size = optional(&section.size, |size| self.size(size, "a balloon", 1));
        let statistics = section.statistics.by_ref()?.as_ref().map(|seconds| *seconds.get_ref());
        Ok(Balloon {
            size_mib: size?.map_or(0, ByteSize::mib),
            deflate_on_oom: section.deflate_on_oom?.unwrap_or(true),
            statistics: statistics.map_or(0, |Seconds(seconds)| seconds),
            reporting: section.reporting?.unwrap_or(false),
        })
    }

    fn device(&mut self, section: &MachineNetworkSection) -> Read<NetworkLimits> {
        let (up, down) = (self.limits(&section.up), self.limits(&section.down));
        // Count<576, 1500> has made sure that it fits.
        let mtu = section.mtu.by_ref()?.as_ref().map(|mtu| mtu.get_ref().0 as u16);
        Ok(NetworkLimits { up: up?, down: down?, mtu })
    }

    fn limits(&mut self, section: &Read<Option<Spanned<LimitSection>>>) -> Read<RateLimiter> {
        let Some(section) = section.by_ref()? else { return Ok(RateLimiter::default()) };
        let section = section.get_ref();
        let bandwidth = self.bucket(
            ["bandwidth", "bandwidth-burst"],
            &section.bandwidth,
            |Bandwidth(bytes)| *bytes,
            &section.bandwidth_burst,
            |size| size.bytes(),
        );
        let operations = self.bucket(
            ["operations", "operations-burst"],
            &section.operations,
            |Count(count)| u64::from(*count),
            &section.operations_burst,
            |Count(count)| u64::from(*count),
        );
        let limits = RateLimiter { bandwidth: bandwidth?, operations: operations? };
        if limits == RateLimiter::default() {
            return Err(self.problems.report(
                Problem::new(section.place.clone(), "this limits nothing")
                    .hint("set `bandwidth`, `operations` (per second), or both"),
            ));
        }
        Ok(limits)
    }

    fn bucket<R, B>(
        &mut self,
        [key, burst_key]: [&str; 2],
        rate: &Read<Option<Spanned<R>>>,
        per_second: impl Fn(&R) -> u64,
        burst: &Read<Option<Spanned<B>>>,
        once: impl Fn(&B) -> u64,
    ) -> Read<Option<Bucket>> {
        match (rate.by_ref()?, burst.by_ref()?) {
            (Some(rate), burst) => {
                let burst = burst.as_ref().map_or(0, |burst| once(burst.get_ref()));
                Ok(Some(Bucket { per_second: per_second(rate.get_ref()), burst }))
            }
            (None, None) => Ok(None),
            (None, Some(burst)) => Err(self.problems.report(
                Problem::new(burst.span(), format!("`{burst_key}` without `{key}`"))
                    .hint(format!("`{burst_key}` alone has no effect")),
            )),
        }
    }

    /// Tells of each key that the fleet's VMM can do nothing with.
    fn possible(&mut self, section: &MachineSection) -> Read<()> {
        if self.vmm != VmmKind::Qemu {
            return Ok(());
        }
        let mut keys = vec![
            ("cpu-template", span_of(&section.cpu_template)),
            ("seccomp", span_of(&section.seccomp)),
            ("log-level", span_of(&section.log_level)),
            ("metrics", span_of(&section.metrics)),
            ("vsock", span_of(&section.vsock)),
            ("metadata", span_of(&section.metadata)),
        ];
        if let Ok(Some(balloon)) = &section.balloon {
            keys.push(("balloon.statistics", span_of(&balloon.get_ref().statistics)));
        }
        if let Ok(Some(network)) = &section.network {
            keys.push(("network.up", span_of(&network.get_ref().up)));
            keys.push(("network.down", span_of(&network.get_ref().down)));
        }
        for (name, limits) in [("disk", &section.disk), ("entropy", &section.entropy)] {
            let Ok(Some(limits)) = limits else { continue };
            let limits = limits.get_ref();
            keys.push((name, span_of(&limits.bandwidth_burst)));
            keys.push((name, span_of(&limits.operations_burst)));
            if name == "entropy" {
                keys.push((name, span_of(&limits.operations)));
            }
        }
        let mut possible = Ok(());
        for (key, place) in keys.into_iter().filter_map(|(key, place)| Some((key, place?))) {
            let problem = Problem::new(place, format!("QEMU does not support this part of `{key}`"));
            let problem = problem.hint("remove it, or run the fleet with `vmm = \"firecracker\"`");
            possible = Err(self.problems.report(problem));
        }
        possible
    }

    /// Whether a machine fits the memory of its guest.
    pub(super) fn fits(
        &mut self,
        machine: &MachineSpec,
        memory: ByteSize,
        place: &Range<usize>,
        what: &str,
    ) -> Read<()> {
        let mut fits = Ok(());
        if machine.huge_pages && !memory.mib().is_multiple_of(HUGE_PAGE_MIB) {
            let message = format!("{what} has {memory} of memory, which is not a whole number of huge pages");
            let hint = format!("make `memory` a multiple of {HUGE_PAGE_MIB}MiB");
            fits = Err(self.problems.report(Problem::new(place.clone(), message).hint(hint)));
        }
        let balloon = machine.balloon.filter(|balloon| balloon.size_mib >= memory.mib());
        if let Some(balloon) = balloon {
            let message = format!(
                "the balloon of {what} takes {}, but it has {memory} of memory",
                ByteSize::from_mib(balloon.size_mib)
            );
            fits = Err(self.problems.report(
                Problem::new(place.clone(), message).hint("make `balloon.size` smaller, or `memory` larger"),
            ));
        }
        fits
    }
}

fn is_true(value: &Read<Option<Spanned<bool>>>) -> Read<bool> {
    Ok(value.by_ref()?.as_ref().is_some_and(|value| *value.get_ref()))
}
