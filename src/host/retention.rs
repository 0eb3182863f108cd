//! Which snapshots a fleet keeps.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::base::{ByteSize, GuestName, SnapshotName};
use crate::fleet::SnapshotKeep;

/// A snapshot that can be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSnapshot {
    pub name: SnapshotName,
    pub guest: GuestName,
    /// Place in the order in which snapshots came, which no clock decides.
    pub order: u64,
    /// By the host's clock.
    pub created: Option<SystemTime>,
    /// Bytes that it takes on the disk.
    pub size: u64,
}

/// Why one goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetentionReason {
    #[error("its guest has {newer} newer one{} ([snapshots] keep.count)", if *.newer == 1 { "" } else { "s" })]
    Count { newer: u32 },
    #[error("it is older than {} ([snapshots] keep.age)", humantime::format_duration(*.0))]
    Age(Duration),
    #[error("all take more than {0}, and its guest has a newer one ([snapshots] keep.size)")]
    Size(ByteSize),
}

/// Those that are not kept any more, oldest first. Of each guest the newest `count` stay; what is older than `age` goes, be it the
/// newest; and the oldest of all go until the rest takes no more than `size`, but for each guest's newest.
pub fn outdated(
    mut all: Vec<KeptSnapshot>,
    keep: &SnapshotKeep,
    now: SystemTime,
) -> Vec<(KeptSnapshot, RetentionReason)> {
    all.sort_by_key(|snapshot| snapshot.order);
    let mut newer: BTreeMap<GuestName, u32> = BTreeMap::new();
    let mut reasons: Vec<Option<RetentionReason>> = Vec::new();
    let mut is_newest = Vec::new();
    for snapshot in all.iter().rev() {
        let newer = newer.entry(snapshot.guest.clone()).or_default();
        // A clock that was set back makes nothing old.
        let age = snapshot.created.and_then(|created| now.duration_since(created).ok()).unwrap_or_default();
        let by_age = keep.age.filter(|most| age > *most).map(RetentionReason::Age);
        let by_count =
            keep.count.filter(|most| *newer >= *most).map(|newer| RetentionReason::Count { newer });
        reasons.push(by_count.or(by_age));
        is_newest.push(*newer == 0);
        *newer += 1;
    }
    reasons.reverse();
    is_newest.reverse();
    if let Some(most) = keep.size {
        let mut left: u64 =
            all.iter().zip(&reasons).filter(|(_, why)| why.is_none()).map(|(one, _)| one.size).sum();
        for ((snapshot, why), newest) in all.iter().zip(&mut reasons).zip(is_newest) {
            if left > most.bytes() && why.is_none() && !newest {
                *why = Some(RetentionReason::Size(most));
                left -= snapshot.size;
            }
        }
    }
    all.into_iter().zip(reasons).filter_map(|(snapshot, why)| Some((snapshot, why?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    /// Of `a` on the days 1, 2, 3, and of `b` on day 4, of 10 MiB each.
    fn all() -> Vec<KeptSnapshot> {
        let one = |(name, guest, day): (&str, &str, u64)| KeptSnapshot {
            name: name.parse().unwrap(),
            guest: guest.parse().unwrap(),
            order: day,
            created: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(day * DAY)),
            size: 10 << 20,
        };
        // In no order.
        [("a2", "a", 2), ("b4", "b", 4), ("a1", "a", 1), ("a3", "a", 3)].map(one).to_vec()
    }

    fn goes(keep: SnapshotKeep, day: u64) -> String {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(day * DAY);
        let names = outdated(all(), &keep, now).into_iter().map(|(snapshot, _)| snapshot.name.to_string());
        names.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn why_one_goes_is_said_in_words_that_fit_the_number() {
        assert_eq!(
            RetentionReason::Count { newer: 1 }.to_string(),
            "its guest has 1 newer one ([snapshots] keep.count)"
        );
        assert_eq!(
            RetentionReason::Count { newer: 2 }.to_string(),
            "its guest has 2 newer ones ([snapshots] keep.count)"
        );
    }

    #[test]
    fn all_are_kept_unless_something_is_said() {
        assert_eq!(goes(SnapshotKeep::default(), 1000), "");
    }

    #[test]
    fn of_each_guest_the_newest_are_kept() {
        assert_eq!(goes(SnapshotKeep { count: Some(2), ..Default::default() }, 5), "a1");
        assert_eq!(goes(SnapshotKeep { count: Some(1), ..Default::default() }, 5), "a1 a2");
    }

    #[test]
    fn what_is_too_old_goes_and_a_clock_that_was_set_back_makes_nothing_old() {
        let keep = SnapshotKeep { age: Some(Duration::from_secs(2 * DAY)), ..Default::default() };
        assert_eq!(goes(keep, 4), "a1");
        assert_eq!(goes(keep, 100), "a1 a2 a3 b4");
        assert_eq!(goes(keep, 0), "");
        // Nor does it make a new one the oldest.
        let mut turned = all();
        turned[3].created = Some(SystemTime::UNIX_EPOCH);
        let keep = SnapshotKeep { count: Some(1), ..Default::default() };
        let names: Vec<_> = outdated(turned, &keep, SystemTime::UNIX_EPOCH)
            .into_iter()
            .map(|(one, _)| one.name.to_string())
            .collect();
        assert_eq!(names, ["a1", "a2"]);
    }

    #[test]
    fn the_oldest_go_until_the_rest_fits_but_for_the_newest_of_each_guest() {
        let keep = |mib| SnapshotKeep { size: Some(ByteSize::from_mib(mib)), ..Default::default() };
        assert_eq!(goes(keep(40), 5), "");
        assert_eq!(goes(keep(39), 5), "a1");
        assert_eq!(goes(keep(25), 5), "a1 a2");
        assert_eq!(goes(keep(1), 5), "a1 a2");
        // What goes anyway counts no more.
        assert_eq!(goes(SnapshotKeep { count: Some(2), ..keep(30) }, 5), "a1");
    }
}
