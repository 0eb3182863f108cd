//! How many guests a pool has: so many that run, or so many that are handed out.

use std::ops::Range;

use toml::Spanned;

use super::super::file::{PoolSection, SessionSection};
use super::super::model::{GuestSpec, KEPT_DISK, RestartPolicy, WarmPool};
use super::super::scalar::{Count, Lifetime};
use super::{Validator, optional};
use crate::base::problem::{Problem, Read, ReadRef, suggest};

/// Said where it is not clear which of the two a pool is.
const EITHER: &str =
    "set either `replicas`, for guests that run, or `spare` and `max`, for guests that are handed out";

/// How many guests a pool has.
pub(super) enum PoolSize {
    Fixed(u32),
    Warm(WarmPool),
}

impl PoolSize {
    /// Guests that it may ever have.
    pub fn members(&self) -> u32 {
        match self {
            Self::Fixed(replicas) => *replicas,
            Self::Warm(pool) => pool.max,
        }
    }

    /// What is told of guests that are handed out.
    pub fn warm(&self) -> Option<WarmPool> {
        match self {
            Self::Fixed(_) => None,
            Self::Warm(pool) => Some(pool.clone()),
        }
    }
}

impl Validator<'_> {
    /// The size of a pool. `what` is for messages, such as ``pool `kiosk` ``.
    pub(super) fn pool_size(&mut self, section: &PoolSection, what: &str) -> Read<PoolSize> {
        let [replicas, spare, max] = [
            number(section.replicas.by_ref()?),
            number(section.spare.by_ref()?),
            number(section.max.by_ref()?),
        ];
        let mut refuse = |place: &Range<usize>, message: String, hint: &str| {
            Err(self.problems.report(Problem::new(place.clone(), message).hint(hint)))
        };
        let stray = stray_key(section)?;
        match (replicas, spare, max) {
            (Some((replicas, _)), None, None) => match stray {
                None => Ok(PoolSize::Fixed(replicas)),
                Some((key, place)) => refuse(&place, format!("{what} has `replicas` and `{key}`"), EITHER),
            },
            (Some((_, place)), ..) => {
                refuse(&place, format!("{what} has `replicas` beside `spare` or `max`"), EITHER)
            }
            (None, Some((spare, _)), Some((max, _))) if spare <= max => {
                Ok(PoolSize::Warm(self.warm(section, spare, max)?))
            }
            (None, Some((spare, place)), Some((max, _))) => {
                let message = format!("{what} has {spare} spare guests, but {max} guests at the most");
                refuse(&place, message, "raise `max`, or lower `spare`")
            }
            (None, Some((_, place)), None) => refuse(
                &place,
                format!("{what} has `spare`, but no `max`"),
                "set `max`: guests at the most, in use and spare",
            ),
            (None, None, Some((_, place))) => {
                let hint = "set `spare`: guests that stand ready beyond those in use";
                refuse(&place, format!("{what} has `max`, but no `spare`"), hint)
            }
            (None, None, None) => {
                refuse(&section.place, format!("{what} does not say how many guests it has"), EITHER)
            }
        }
    }
}

impl Validator<'_> {
    fn warm(&mut self, section: &PoolSection, spare: u32, max: u32) -> Read<WarmPool> {
        let paused = section.paused.by_ref()?.as_ref().is_none_or(|paused| *paused.get_ref());
        let (ttl, disk, ends_with) = match section.session.by_ref()? {
            Some(SessionSection { ttl, disk, ends_with, .. }) => (
                (*ttl)?.map(|Lifetime(ttl)| ttl),
                optional(disk, |size| self.disk_size(size, "the disk of a session"))?,
                ends_with.clone()?.map(Spanned::into_inner),
            ),
            None => (None, None, None),
        };
        Ok(WarmPool { spare, max, paused, ttl, disk, ends_with })
    }

    /// A pool whose sessions end with a container that its guests have.
    pub(super) fn warm_member(
        &mut self,
        section: &PoolSection,
        warm: Option<WarmPool>,
        member: GuestSpec,
        what: &str,
    ) -> Read<GuestSpec> {
        if warm.as_ref().is_some_and(|warm| warm.disk.is_some()) {
            self.kept_disk_is_whole(section, &member, what)?;
        }
        let Some(name) = warm.as_ref().and_then(|warm| warm.ends_with.as_ref()) else {
            return Ok(GuestSpec { warm, ..member });
        };
        let Some(container) = member.containers.iter().find(|container| container.name == *name) else {
            let names: Vec<&str> =
                member.containers.iter().map(|container| container.name.as_str()).collect();
            let message =
                format!("the sessions of {what} end with a container `{name}`, which it does not have");
            let hint = suggest("containers", name.as_str(), names);
            return Err(self.problems.report(Problem::new(ends_with_place(section), message).hint(hint)));
        };
        if container.restart == RestartPolicy::Always {
            let message = format!(
                "the sessions of {what} end with `{name}`, which never ends: it has `restart = \"always\"`"
            );
            let problem = Problem::new(ends_with_place(section), message);
            return Err(self.problems.report(problem.hint("set `restart` to \"no\" or \"on-failure\"")));
        }
        Ok(GuestSpec { warm, ..member })
    }
}

impl Validator<'_> {
    /// What is on a session's disk is not there when containers start, so that none can mount a part of it.
    fn kept_disk_is_whole(&mut self, section: &PoolSection, member: &GuestSpec, what: &str) -> Read<()> {
        let begin = format!("{KEPT_DISK}/");
        let mut parts = member
            .containers
            .iter()
            .flat_map(|container| container.volumes.iter().map(move |v| (container, v)));
        let Some((container, volume)) = parts.find(|(_, volume)| volume.source.starts_with(&begin)) else {
            return Ok(());
        };
        let message = format!(
            "container `{}` of {what} mounts `{}`, a part of the disk that sessions bring, which is not there when it starts",
            container.name, volume.source
        );
        let hint = format!(
            "mount `{KEPT_DISK}` as a whole: what the container finds there changes when a session brings its disk"
        );
        Err(self.problems.report(Problem::new(section.place.clone(), message).hint(hint)))
    }
}

fn ends_with_place(section: &PoolSection) -> Range<usize> {
    let session = section.session.by_ref().ok().and_then(Option::as_ref);
    let key = session.and_then(|session| session.ends_with.by_ref().ok()?.as_ref());
    key.map_or_else(|| section.place.clone(), Spanned::span)
}

fn number<const LEAST: u32>(count: &Option<Spanned<Count<LEAST, 65536>>>) -> Option<(u32, Range<usize>)> {
    count.as_ref().map(|count| (count.get_ref().0, count.span()))
}

/// A key that only guests that are handed out have.
fn stray_key(section: &PoolSection) -> Read<Option<(&'static str, Range<usize>)>> {
    let paused = section.paused.by_ref()?.as_ref().map(|paused| ("paused", paused.span()));
    let session = section.session.by_ref()?.as_ref().map(|session| ("session", session.place.clone()));
    Ok(paused.or(session))
}
