//! Writing back a file while somebody else writes to it, so that its disk is not idle until they are done.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Time for some pages to become dirty: each round also writes what tells where they are.
const PAUSE: Duration = Duration::from_millis(20);

/// Files that are written back again and again until this is dropped. Nothing waits for the last round, so whoever needs the bytes on
/// the disk syncs the files all the same.
#[derive(Debug)]
pub struct EarlyWriteback {
    is_done: Arc<AtomicBool>,
}

impl EarlyWriteback {
    /// Begins. A file that cannot be written back, or a thread that cannot be had, costs only time.
    pub fn begin(file: File) -> Self {
        let is_done = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_done);
        let write_back = move || {
            while !seen.load(Ordering::Relaxed) && file.sync_data().is_ok() {
                thread::sleep(PAUSE);
            }
        };
        let _ = thread::Builder::new().name("writeback".to_owned()).spawn(write_back);
        Self { is_done }
    }
}

impl Drop for EarlyWriteback {
    fn drop(&mut self) {
        self.is_done.store(true, Ordering::Relaxed);
    }
}
