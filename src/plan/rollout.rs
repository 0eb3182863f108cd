//! How guests that run are replaced: all at once, or few at a time.

use std::num::NonZeroUsize;

use super::model::{GuestSteps, Plan};

/// How guests that run are replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// All are stopped, then all are started.
    #[default]
    Recreate,
    /// So many at a time; where one does not get ready, no other is touched.
    Rolling { max_unavailable: NonZeroUsize },
}

impl Plan {
    /// The same in parts, each to be carried out where all of the one before was: first what takes down no guest that comes
    /// back, and then the others, so many at a time.
    #[must_use]
    pub fn in_parts(self, strategy: Strategy) -> Vec<Self> {
        let Strategy::Rolling { max_unavailable } = strategy else { return vec![self] };
        let all = self.clone();
        let is_replaced = |guest: &GuestSteps| all.is_replaced(guest);
        let (replaced, gone): (Vec<_>, Vec<_>) = self.stop.into_iter().partition(is_replaced);
        let (anew, start): (Vec<_>, Vec<_>) = self.start.into_iter().partition(is_replaced);
        let first = Self { stop: gone, start, ..self };
        let part = |names: &[GuestSteps]| {
            let of = |steps: &[GuestSteps]| {
                let is_one = |steps: &&GuestSteps| names.iter().any(|name| name.guest == steps.guest);
                steps.iter().filter(is_one).cloned().collect()
            };
            Self { stop: of(&replaced), start: of(&anew), ..Self::default() }
        };
        let parts: Vec<_> = replaced.chunks(max_unavailable.get()).map(part).collect();
        std::iter::once(first).filter(|first| !first.is_empty()).chain(parts).collect()
    }

    /// Whether a guest of it is both stopped and started.
    fn is_replaced(&self, guest: &GuestSteps) -> bool {
        let names = |steps: &[GuestSteps]| steps.iter().any(|steps| steps.guest == guest.guest);
        names(&self.stop) && names(&self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::GuestName;
    use crate::host::firewall::Ruleset;
    use crate::plan::{NetworkStep, Step, StepReason};

    fn steps(names: &[&str]) -> Vec<GuestSteps> {
        let steps = |name: &&str| {
            let guest: GuestName = name.parse().unwrap();
            GuestSteps::new(&guest, StepReason::found("why"), vec![Step::AwaitReady { guest: guest.clone() }])
        };
        names.iter().map(steps).collect()
    }

    fn names(steps: &[GuestSteps]) -> String {
        steps.iter().map(|steps| steps.guest.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn at_most_so_many_guests_that_run_are_down_at_once() {
        let plan = Plan {
            stop: steps(&["a", "b", "c", "gone", "z"]),
            rules: vec![Step::Network(NetworkStep::LoadRuleset(Ruleset::new("rules".into())))],
            start: steps(&["a", "b", "c", "new", "z"]),
            ..Plan::default()
        };
        let said = |strategy: Strategy| -> Vec<String> {
            let parts = plan.clone().in_parts(strategy);
            let said = |part: &Plan| {
                format!("{} | {} | {}", names(&part.stop), part.rules.len(), names(&part.start))
            };
            parts.iter().map(said).collect()
        };
        let rolling = |number| Strategy::Rolling { max_unavailable: NonZeroUsize::new(number).unwrap() };
        assert_eq!(said(Strategy::Recreate), ["a b c gone z | 1 | a b c new z"]);
        assert_eq!(said(rolling(3)), ["gone | 1 | new", "a b c | 0 | a b c", "z | 0 | z"]);
        let one = said(rolling(1));
        assert_eq!(one, ["gone | 1 | new", "a | 0 | a", "b | 0 | b", "c | 0 | c", "z | 0 | z"]);
    }

    #[test]
    fn a_rollout_without_replacements_has_one_part_and_one_without_work_none() {
        let rolling = Strategy::Rolling { max_unavailable: NonZeroUsize::MIN };
        let plan = Plan { start: steps(&["a"]), ..Plan::default() };
        assert_eq!(plan.clone().in_parts(rolling), [plan]);
        assert_eq!(Plan::default().in_parts(rolling), []);
    }
}
