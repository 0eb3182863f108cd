//! Hashing a file while it is written: from its beginning to where the first writer still works.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use sha2::Digest as _;

use crate::base::Sha256;

/// Bytes read at a time. What was just written is read from memory.
const CHUNK: u64 = 1 << 20;

/// How far a file is final.
pub(super) struct Frontier {
    /// For each writer, where its part begins; `None` when it is done.
    open: Mutex<Vec<Option<u64>>>,
    moved: Condvar,
    /// Bytes of the whole file.
    end: u64,
}

impl Frontier {
    /// Of a file of `end` bytes, of which writer `n` writes nothing before `begins[n]`.
    pub fn new(begins: Vec<Option<u64>>, end: u64) -> Self {
        Self { open: Mutex::new(begins), moved: Condvar::new(), end }
    }

    fn open(&self) -> MutexGuard<'_, Vec<Option<u64>>> {
        // No writer can leave a half-made change.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that a writer writes nothing before an offset any more.
    pub fn reached(&self, writer: usize, offset: u64) {
        if let Some(Some(begin)) = self.open().get_mut(writer) {
            *begin = offset.max(*begin);
        }
        self.moved.notify_one();
    }

    /// Says that a writer is done.
    pub fn done(&self, writer: usize) {
        if let Some(begin) = self.open().get_mut(writer) {
            *begin = None;
        }
        self.moved.notify_one();
    }

    /// Says that no writer goes on.
    pub fn give_up(&self) {
        self.open().clear();
        self.moved.notify_one();
    }

    /// Waits until more than `hashed` bytes are final, or all of them; gives how many.
    fn beyond(&self, hashed: u64) -> u64 {
        let mut open = self.open();
        loop {
            let frontier = open.iter().flatten().min().copied().unwrap_or(self.end);
            if frontier > hashed || frontier == self.end {
                return frontier;
            }
            open = self.moved.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// SHA-256 of the whole file, finished soon after the last writer.
    pub fn sha256(&self, file: &File) -> io::Result<Sha256> {
        let mut hash = sha2::Sha256::new();
        let mut buffer = vec![0; CHUNK as usize];
        let mut hashed = 0;
        while hashed < self.end {
            let final_end = self.beyond(hashed);
            while hashed < final_end {
                let chunk = &mut buffer[..CHUNK.min(final_end - hashed) as usize];
                file.read_exact_at(chunk, hashed)?;
                hash.update(&*chunk);
                hashed += chunk.len() as u64;
            }
        }
        Ok(Sha256(hash.finalize().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_hashed_once_they_are_final() {
        let file = tempfile::tempfile().unwrap();
        let size = 3 * CHUNK + 10;
        file.set_len(size).unwrap();
        let frontier = Frontier::new(vec![Some(CHUNK + 5), None, Some(7)], size);
        std::thread::scope(|scope| {
            let digest = scope.spawn(|| frontier.sha256(&file).unwrap());
            assert_eq!(frontier.beyond(0), 7);
            frontier.reached(2, 100);
            assert_eq!(frontier.beyond(7), 100);
            file.write_all_at(b"early", 100).unwrap();
            frontier.done(2);
            assert_eq!(frontier.beyond(100), CHUNK + 5);
            file.write_all_at(b"late", 2 * CHUNK).unwrap();
            frontier.done(0);
            let mut whole = vec![0; size as usize];
            file.read_exact_at(&mut whole, 0).unwrap();
            assert_eq!(whole[2 * CHUNK as usize..][..4], *b"late");
            assert_eq!(digest.join().unwrap(), Sha256::of(&whole));
        });
    }

    #[test]
    fn nobody_waits_for_writers_that_gave_up() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(20).unwrap();
        let frontier = Frontier::new(vec![Some(3)], 20);
        std::thread::scope(|scope| {
            let digest = scope.spawn(|| frontier.sha256(&file).map(drop));
            frontier.give_up();
            digest.join().unwrap().unwrap();
        });
    }
}
