//! How guests that run are replaced.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::apply::linux::READY_TIMEOUT;
use crate::plan::Strategy;

/// How guests are brought up.
#[derive(clap::Args)]
pub struct RolloutArgs {
    /// How guests that run are replaced
    #[arg(long, value_enum, default_value_t = StrategyArg::Recreate)]
    strategy: StrategyArg,
    /// Guests that may be down at the same time [default: 1]; implies `--strategy rolling`
    #[arg(long, value_name = "N")]
    max_unavailable: Option<NonZeroUsize>,
    /// Seconds that a guest may take to be ready
    #[arg(long, value_name = "SECONDS", default_value_t = READY_TIMEOUT.as_secs())]
    timeout: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum StrategyArg {
    /// All are stopped, then all are started
    Recreate,
    /// Few at a time; one that does not get ready ends it, and the others run on as they are
    Rolling,
}

impl RolloutArgs {
    /// The strategy; `--max-unavailable` alone asks for a rolling one.
    pub fn strategy(&self) -> Strategy {
        match (self.strategy, self.max_unavailable) {
            (StrategyArg::Recreate, None) => Strategy::Recreate,
            (_, max) => Strategy::Rolling { max_unavailable: max.unwrap_or(NonZeroUsize::MIN) },
        }
    }

    /// How long a guest may take to be ready.
    pub fn ready_timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}
