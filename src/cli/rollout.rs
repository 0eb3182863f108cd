//! How guests that run are replaced.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::apply::linux::READY_TIMEOUT;
use crate::plan::Strategy;

use super::error::CliError;

/// How guests are brought up.
#[derive(clap::Args)]
pub struct RolloutArgs {
    /// How guests that run are replaced [default: recreate]
    #[arg(long, value_enum)]
    strategy: Option<StrategyArg>,
    /// Guests that may be down at the same time [default: 1]; implies `--strategy rolling`
    #[arg(long, value_name = "N", value_parser = at_least_one)]
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

fn at_least_one(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "it must be a number of guests, at least 1".to_owned())
}

impl RolloutArgs {
    /// The strategy; `--max-unavailable` alone asks for a rolling one.
    pub fn strategy(&self) -> Result<Strategy, CliError> {
        match (self.strategy, self.max_unavailable) {
            (Some(StrategyArg::Recreate), Some(_)) => Err(CliError::invalid(
                "--max-unavailable has no effect with --strategy recreate: it stops all guests",
            )
            .hint("leave out --strategy recreate")),
            (None | Some(StrategyArg::Recreate), None) => Ok(Strategy::Recreate),
            (_, max) => Ok(Strategy::Rolling { max_unavailable: max.unwrap_or(NonZeroUsize::MIN) }),
        }
    }

    /// How long a guest may take to be ready.
    pub fn ready_timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}
