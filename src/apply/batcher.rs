//! Work that costs as much for many as for one: who comes while it is done is served by the next round, with all others who came.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Rounds of work on things of a kind.
#[derive(Debug)]
pub struct Batcher<T> {
    rounds: Mutex<Rounds<T>>,
    over: Condvar,
}

#[derive(Debug)]
struct Rounds<T> {
    /// Those of the next round.
    waiting: Vec<T>,
    next: u64,
    is_running: bool,
    /// How many rounds are over, and which of them failed.
    over: u64,
    failed: Vec<u64>,
}

impl<T> Default for Batcher<T> {
    fn default() -> Self {
        let rounds = Rounds { waiting: Vec::new(), next: 0, is_running: false, over: 0, failed: Vec::new() };
        Self { rounds: Mutex::new(rounds), over: Condvar::new() }
    }
}

impl<T> Batcher<T> {
    /// Has the work done for this one, by this thread or by another; whether all of its round was done.
    pub fn run(&self, one: T, work: impl FnOnce(Vec<T>) -> bool) -> bool {
        let mut rounds = self.lock();
        rounds.waiting.push(one);
        let own = rounds.next;
        while rounds.is_running && rounds.over <= own {
            rounds = self.over.wait(rounds).unwrap_or_else(PoisonError::into_inner);
        }
        if rounds.over <= own {
            let all = std::mem::take(&mut rounds.waiting);
            rounds.next += 1;
            rounds.is_running = true;
            drop(rounds);
            // Whoever waits is let go whatever happens.
            let mut end = RoundEnd { of: self, is_done: false };
            end.is_done = work(all);
            drop(end);
            rounds = self.lock();
        }
        !rounds.failed.contains(&own)
    }

    fn lock(&self) -> MutexGuard<'_, Rounds<T>> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of a round, when it is dropped.
struct RoundEnd<'a, T> {
    of: &'a Batcher<T>,
    is_done: bool,
}

impl<T> Drop for RoundEnd<'_, T> {
    fn drop(&mut self) {
        let mut rounds = self.of.lock();
        if !self.is_done {
            let failed = rounds.over;
            rounds.failed.push(failed);
        }
        rounds.over += 1;
        rounds.is_running = false;
        self.of.over.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_is_served_once_and_those_who_wait_together() {
        let (batcher, served) = (Batcher::default(), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for number in 0..40 {
                let (batcher, served) = (&batcher, &served);
                scope.spawn(move || {
                    let work = |all: Vec<u32>| {
                        std::thread::sleep(Duration::from_millis(5));
                        served.lock().unwrap().push(all);
                        true
                    };
                    assert!(batcher.run(number, work));
                    assert!(served.lock().unwrap().iter().flatten().any(|served| *served == number));
                });
            }
        });
        let served = served.into_inner().unwrap();
        assert_eq!(served.iter().map(Vec::len).sum::<usize>(), 40);
        assert_eq!(served.iter().flatten().collect::<BTreeSet<_>>().len(), 40);
        assert!(served.len() < 20, "{served:?}");
    }

    #[test]
    fn a_round_that_fails_is_told_to_those_in_it_alone() {
        let batcher = Batcher::default();
        assert!(!batcher.run(1, |all| all != [1]));
        assert!(batcher.run(2, |all| all == [2]));
        let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            batcher.run(3, |_| panic!("as a test"));
        }));
        assert!(panics.is_err());
        assert!(batcher.run(4, |all| all == [4]));
    }
}
