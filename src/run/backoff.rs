//! When `watch` starts guests again: at once, and later each time that they end soon, as Kubernetes does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::base::GuestName;
use crate::plan::Plan;

/// Before the second start in a row; twice as long before each further one.
const FIRST_DELAY: Duration = Duration::from_secs(10);
/// The longest that a guest waits.
const LONGEST_DELAY: Duration = Duration::from_secs(300);
/// A guest that ran for so long counts as one that never ended.
const RESET_AFTER: Duration = Duration::from_secs(600);

/// How often each guest was started again, and when.
#[derive(Debug, Default)]
pub struct RestartBackoff {
    starts: BTreeMap<GuestName, Starts>,
    /// Those that are left, and were told to be.
    left: BTreeSet<GuestName>,
}

/// Starts of one guest in a row.
#[derive(Debug)]
struct Starts {
    count: u32,
    /// When the last one was over, well or not.
    last: Instant,
    /// Whether it was told that the next one has to wait.
    is_told: bool,
}

/// Why a guest is not started now. Each is told once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Postponed {
    /// It ended, or did not get ready, so often in a row.
    BackOff { guest: GuestName, starts: u32, wait: Duration },
    /// It ended, and fleet.toml leaves it so.
    LeftEnded { guest: GuestName },
}

impl Starts {
    fn delay(&self) -> Duration {
        FIRST_DELAY.saturating_mul(1 << self.count.saturating_sub(1).min(10)).min(LONGEST_DELAY)
    }
}

impl RestartBackoff {
    /// Takes out of a repair what is not to be done now; `stays` says of a guest whether it ended and is left so. Gives what is
    /// new of that, and whether all that is left out is so for good.
    pub fn postpone(
        &mut self,
        plan: &mut Plan,
        stays: impl Fn(&GuestName) -> bool,
        now: Instant,
    ) -> (Vec<Postponed>, bool) {
        let (mut told, mut held, mut is_settled) = (Vec::new(), BTreeSet::new(), true);
        self.starts.retain(|_, starts| now.duration_since(starts.last) < RESET_AFTER);
        self.left.retain(|guest| plan_starts(plan).any(|started| started == guest));
        for guest in plan_starts(plan).cloned().collect::<Vec<_>>() {
            if stays(&guest) {
                held.insert(guest.clone());
                let is_new = self.left.insert(guest.clone());
                told.extend(is_new.then_some(Postponed::LeftEnded { guest }));
                continue;
            }
            let Some(starts) = self.starts.get_mut(&guest) else { continue };
            let wait = starts.delay().saturating_sub(now.duration_since(starts.last));
            if !wait.is_zero() {
                is_settled = false;
                held.insert(guest.clone());
                let is_new = !std::mem::replace(&mut starts.is_told, true);
                told.extend(is_new.then_some(Postponed::BackOff { guest, starts: starts.count, wait }));
            }
        }
        plan.leave_out(&held);
        (told, is_settled)
    }

    /// Counts the starts of a repair that was carried out.
    pub fn count(&mut self, plan: &Plan, now: Instant) {
        for guest in plan_starts(plan) {
            let count = self.starts.get(guest).map_or(0, |starts| starts.count) + 1;
            self.starts.insert(guest.clone(), Starts { count, last: now, is_told: false });
        }
    }

    /// Another revision is another guest.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

/// Guests whose VMM a plan starts.
fn plan_starts(plan: &Plan) -> impl Iterator<Item = &GuestName> {
    plan.start.iter().filter(|steps| steps.starts()).map(|steps| &steps.guest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::VmmKind;
    use crate::plan::{GuestSteps, Step, StepReason};

    fn guest(name: &str) -> GuestName {
        name.parse().unwrap()
    }

    /// A plan that starts these guests.
    fn plan(names: &[&str]) -> Plan {
        let machine = crate::host::snapshot::tests::manifest(VmmKind::Qemu).machine;
        let start = |name: &&str| {
            let start = Step::StartVmm { guest: guest(name), machine: machine.clone() };
            GuestSteps::new(&guest(name), StepReason::found("no longer running"), vec![start])
        };
        Plan { start: names.iter().map(start).collect(), ..Plan::default() }
    }

    #[test]
    fn a_guest_that_ends_again_and_again_is_started_later_each_time() {
        let (mut restarts, begun) = (RestartBackoff::default(), Instant::now());
        let mut waits = Vec::new();
        let mut now = begun;
        for _ in 0..8 {
            let mut repair = plan(&["a"]);
            let (told, is_settled) = restarts.postpone(&mut repair, |_| false, now);
            let wait = told.iter().map(|held| match held {
                Postponed::BackOff { wait, .. } => *wait,
                Postponed::LeftEnded { .. } => panic!("{held:?}"),
            });
            let wait = wait.sum::<Duration>();
            assert_eq!(repair.is_empty(), !wait.is_zero());
            assert_eq!(is_settled, wait.is_zero());
            let (told, _) = restarts.postpone(&mut plan(&["a"]), |_| false, now);
            assert_eq!(told, [], "it is told once");
            waits.push(wait.as_secs());
            now += wait;
            let mut repair = plan(&["a", "b"]);
            restarts.postpone(&mut repair, |_| false, now);
            assert_eq!(repair, plan(&["a", "b"]), "its time has come, and others do not wait for it");
            restarts.count(&plan(&["a"]), now);
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        let mut repair = plan(&["a"]);
        restarts.postpone(&mut repair, |_| false, now + RESET_AFTER);
        assert_eq!(repair, plan(&["a"]), "what ran for long begins anew");
    }

    #[test]
    fn a_guest_that_is_left_is_told_once_and_nothing_is_missing() {
        let mut restarts = RestartBackoff::default();
        for told in [vec![Postponed::LeftEnded { guest: guest("a") }], Vec::new()] {
            let mut repair = plan(&["a"]);
            assert_eq!(restarts.postpone(&mut repair, |_| true, Instant::now()), (told, true));
            assert!(repair.is_empty());
        }
        restarts.postpone(&mut Plan::default(), |_| true, Instant::now());
        let (told, _) = restarts.postpone(&mut plan(&["a"]), |_| true, Instant::now());
        assert_eq!(told.len(), 1, "it ran again meanwhile");
    }
}
