//! What is known of a watch, for the threads beside it.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::fleet::Fleet;
use crate::run::metrics::{self, WatchMetrics};
use crate::run::workspace::Revision;
use crate::run::{RunError, Workspace};

/// What is known of what is followed, for whoever asks meanwhile.
#[derive(Debug, Default)]
pub struct Following {
    /// The last fleet without a mistake.
    pub(super) good: Option<Revision>,
    /// What the host was last brought to, which its file may say no more.
    pub(super) last: Option<Fleet>,
    pub(super) metrics: WatchMetrics,
}

impl Following {
    /// The file of the fleet that is followed.
    pub fn file(this: &Mutex<Self>, base: &Workspace<'_>) -> PathBuf {
        let good = this.lock().unwrap_or_else(PoisonError::into_inner).good.clone();
        good.map_or_else(|| base.clone(), |good| base.at(&good)).settings.file.clone()
    }

    /// Metrics of the fleet that is followed, as far as it is known, and of following it.
    pub fn metrics(this: &Mutex<Self>, base: &Workspace<'_>) -> Result<String, RunError> {
        let (good, last, metrics) = {
            let seen = this.lock().unwrap_or_else(PoisonError::into_inner);
            (seen.good.clone(), seen.last.clone(), seen.metrics.clone())
        };
        let workspace = good.map_or_else(|| base.clone(), |good| base.at(&good));
        metrics::text_of_watch(&workspace, last, &metrics)
    }
}
