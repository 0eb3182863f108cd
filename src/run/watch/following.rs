//! What is known of a watch, for the threads beside it.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::run::metrics::{self, WatchMetrics};
use crate::run::workspace::Revision;
use crate::run::{RunError, Workspace};

/// What is known of what is followed, for whoever asks meanwhile.
#[derive(Debug, Default)]
pub struct Following {
    /// The last fleet without a mistake.
    pub(super) good: Option<Revision>,
    pub(super) metrics: WatchMetrics,
}

impl Following {
    /// The file of the fleet that is followed.
    pub fn file(this: &Mutex<Self>, base: &Workspace<'_>) -> PathBuf {
        let good = this.lock().unwrap_or_else(PoisonError::into_inner).good.clone();
        good.map_or_else(|| base.clone(), |good| base.at(&good)).settings.file.clone()
    }

    /// Metrics of the fleet that is followed, and of following it.
    pub fn metrics(this: &Mutex<Self>, base: &Workspace<'_>) -> Result<String, RunError> {
        let (good, metrics) = {
            let seen = this.lock().unwrap_or_else(PoisonError::into_inner);
            (seen.good.clone(), seen.metrics.clone())
        };
        let workspace = good.map_or_else(|| base.clone(), |good| base.at(&good));
        metrics::text(&workspace, Some(&metrics))
    }
}
