//! How many guests a pool has: so many that run, or so many that are handed out.

use std::ops::Range;

use toml::Spanned;

use super::super::file::PoolSection;
use super::super::model::WarmPool;
use super::super::scalar::{Count, Lifetime};
use super::Validator;
use crate::base::problem::{Problem, Read, ReadRef};

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
    pub fn members(self) -> u32 {
        match self {
            Self::Fixed(replicas) => replicas,
            Self::Warm(pool) => pool.max,
        }
    }

    /// What is told of guests that are handed out.
    pub fn warm(&self) -> Option<WarmPool> {
        match self {
            Self::Fixed(_) => None,
            Self::Warm(pool) => Some(*pool),
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
                Ok(PoolSize::Warm(warm(section, spare, max)?))
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

fn number<const LEAST: u32>(count: &Option<Spanned<Count<LEAST, 65536>>>) -> Option<(u32, Range<usize>)> {
    count.as_ref().map(|count| (count.get_ref().0, count.span()))
}

/// A key that only guests that are handed out have.
fn stray_key(section: &PoolSection) -> Read<Option<(&'static str, Range<usize>)>> {
    let paused = section.paused.by_ref()?.as_ref().map(|paused| ("paused", paused.span()));
    let session = section.session.by_ref()?.as_ref().map(|session| ("session", session.place.clone()));
    Ok(paused.or(session))
}

fn warm(section: &PoolSection, spare: u32, max: u32) -> Read<WarmPool> {
    let paused = section.paused.by_ref()?.as_ref().is_none_or(|paused| *paused.get_ref());
    let ttl = match section.session.by_ref()? {
        Some(session) => session.ttl?.map(|Lifetime(ttl)| ttl),
        None => None,
    };
    Ok(WarmPool { spare, max, paused, ttl })
}
