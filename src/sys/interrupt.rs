//! Being asked to end, by SIGINT or SIGTERM, while something is under way that must not be left half done.
//!
//! Outside of a [`Deferral`] both signals end this process, as they do any other. While there is one, the first is noted, and whoever
//! is at work looks for it where it can stop; the next ends the process at once. A signal that was ignored when this program was
//! started (`nohup`, or `&` of a shell that controls no jobs) stays ignored.

use std::error::Error;
use std::fs;
use std::io;
use std::sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// A request to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("interrupted by {}", if *.signal == SIGINT { "SIGINT" } else { "SIGTERM" })]
pub struct Interrupted {
    signal: i32,
}

impl Interrupted {
    /// By the signal of this number.
    pub fn of(signal: i32) -> Self {
        Self { signal }
    }

    /// The exit status by which shells know it: 128 and the signal's number.
    pub fn status(self) -> u8 {
        u8::try_from(128 + self.signal).unwrap_or(u8::MAX)
    }
}

#[derive(Clone, Copy, Debug)]
struct Ending {
    deferrals: usize,
    asked: Option<Interrupted>,
}

static STATE: Mutex<Ending> = Mutex::new(Ending { deferrals: 0, asked: None });
static TELL: OnceLock<fn(Interrupted)> = OnceLock::new();

fn state() -> MutexGuard<'static, Ending> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// While this is there, a first signal ends nothing by itself.
#[derive(Debug)]
pub struct Deferral(());

/// Takes the end of this process into its own hands.
#[must_use]
pub fn defer() -> Deferral {
    static LISTENING: Once = Once::new();
    state().deferrals += 1;
    LISTENING.call_once(listen);
    Deferral(())
}

impl Drop for Deferral {
    fn drop(&mut self) {
        state().deferrals -= 1;
    }
}

/// Who says to a user that a signal was noted.
pub fn tell_by(tell: fn(Interrupted)) {
    let _ = TELL.set(tell);
}

/// Whether a signal would be noted now: a terminal sends one to the tools that this process started as well, and they must not
/// end in the middle of what they do for it.
pub fn is_deferred() -> bool {
    state().deferrals > 0
}

/// The first request to end, where there was one.
pub fn asked() -> Option<Interrupted> {
    state().asked
}

/// Fails where this process was asked to end, for work that leaves nothing where it fails.
pub fn check() -> io::Result<()> {
    asked().map_or(Ok(()), |interrupted| Err(io::Error::other(interrupted)))
}

/// Ends this process where it was asked to, as the signal would have that was noted: for whoever defers nothing more.
pub fn end_if_asked() {
    if let Some(interrupted) = asked() {
        let _ = emulate_default_handler(interrupted.signal);
    }
}

/// Whether work failed because this process was asked to end.
pub fn is_cause_of(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if error.is::<Interrupted>() || inner.is_some_and(|inner| inner.is::<Interrupted>()) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Has a thread wait for signals. Where it cannot, they end this process as ever.
fn listen() {
    let heeded = [SIGINT, SIGTERM].into_iter().filter(|signal| !is_ignored(*signal));
    if let Ok(mut signals) = Signals::new(heeded) {
        thread::spawn(move || signals.forever().for_each(note));
    }
}

fn note(signal: i32) {
    let mut state = state();
    if state.deferrals == 0 || state.asked.is_some() {
        let _ = emulate_default_handler(signal);
        return;
    }
    let interrupted = Interrupted::of(signal);
    state.asked = Some(interrupted);
    drop(state);
    if let Some(tell) = TELL.get() {
        tell(interrupted);
    }
}

/// By the mask that proc(5) describes.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask >> (signal - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_of_a_request_to_end_is_told_from_what_failed_otherwise() {
        let interrupted = Interrupted::of(SIGTERM);
        assert_eq!((interrupted.status(), interrupted.to_string().as_str()), (143, "interrupted by SIGTERM"));
        assert!(is_cause_of(&interrupted));
        assert!(is_cause_of(&io::Error::other(interrupted)));
        assert!(!is_cause_of(&io::Error::other("no room")));
        assert!(!is_cause_of(&io::Error::from(io::ErrorKind::Interrupted)));
    }
}
