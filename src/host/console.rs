//! What a guest says on its serial console.

use std::collections::VecDeque;

use crate::base::text::{excerpt, is_plain};
use crate::sys::log::Lines;

/// The line by which a guest says that all its services stand; behind it may come its ssh host key.
const READY: &str = "sisforge: ready";
/// The line by which a guest says that some of its services do not stand.
const FAILED: &str = "sisforge: failed:";
/// Longest host key, in bytes; one of RSA with 16,384 bits has fewer.
const LONGEST_KEY: usize = 4096;
/// Lines that an error shows.
const SHOWN: usize = 12;
/// How much of one it shows, in characters.
const LONGEST_SHOWN: usize = 500;

/// What a guest told when it was ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaidReady {
    /// `ssh-ed25519 AAAA...`; `None` where it told none, since it runs no sshd, and where what it told is none.
    pub host_key: Option<String>,
}

/// A log that is listened to as it grows.
#[derive(Debug, Default)]
pub struct ConsoleLog {
    lines: Lines,
    ready: Option<SaidReady>,
    failed: Option<String>,
    last: VecDeque<String>,
}

impl ConsoleLog {
    /// Takes in what comes next. A line that is still being written is not yet the whole key.
    pub fn feed(&mut self, bytes: &[u8]) {
        let Self { lines, ready, failed, last } = self;
        lines.feed(None, bytes, |_, line| {
            let line = String::from_utf8_lossy(line);
            if let (None, Some((_, key))) = (&ready, line.split_once(READY)) {
                *ready = Some(SaidReady { host_key: host_key(key) });
            }
            if let (None, Some((_, services))) = (&failed, line.split_once(FAILED)) {
                *failed = Some(excerpt(services));
            }
            remember(last, &line);
        });
    }

    /// What the first readiness line tells; `None` where the guest has not said that it is ready. The first line counts: later ones
    /// may be a user's.
    pub fn ready(&self) -> Option<&SaidReady> {
        self.ready.as_ref()
    }

    /// The services that the guest says do not stand; `None` where it has not said so.
    pub fn failed_services(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// The last lines that hold something, for an error.
    pub fn last_lines(mut self) -> Vec<String> {
        let last = &mut self.last;
        self.lines.finish(|_, line| remember(last, &String::from_utf8_lossy(line)));
        self.last.into()
    }
}

/// What a guest says of the disk of its session, whose mount it waits for: `recipes/rootless-podman/sis-session` has these lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionMount {
    /// Nothing: its image is of before such lines, or has no session.
    #[default]
    Untold,
    Awaited,
    Mounted,
    Failed,
}

impl SessionMount {
    /// Takes in the next line. What was said of a mount stands.
    pub fn hear(&mut self, line: &[u8]) {
        match line {
            b"sisforge: kept disk awaited" if *self == Self::Untold => *self = Self::Awaited,
            b"sisforge: kept disk mounted" => *self = Self::Mounted,
            b"sisforge: the kept disk cannot be mounted" => *self = Self::Failed,
            _ => {}
        }
    }
}

/// The key behind a readiness line; `None` where what stands there is none. It goes into the configuration of an ssh client.
fn host_key(text: &str) -> Option<String> {
    let mut words = text.split_whitespace();
    let (algorithm, key) = (words.next()?, words.next()?);
    let of = |word: &str, more: &str| {
        word.len() <= LONGEST_KEY && word.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    (of(algorithm, "-@.") && of(key, "+/=")).then(|| format!("{algorithm} {key}"))
}

fn remember(last: &mut VecDeque<String>, line: &str) {
    let line: String = line.chars().filter(|c| is_plain(*c)).take(LONGEST_SHOWN).collect();
    if !line.trim().is_empty() {
        if last.len() == SHOWN {
            last.pop_front();
        }
        last.push_back(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(pieces: &[&str]) -> ConsoleLog {
        let mut heard = ConsoleLog::default();
        pieces.iter().for_each(|piece| heard.feed(piece.as_bytes()));
        heard
    }

    fn ready(host_key: Option<&str>) -> Option<SaidReady> {
        Some(SaidReady { host_key: host_key.map(str::to_owned) })
    }

    #[test]
    fn a_guest_is_ready_once_its_line_is_whole() {
        assert_eq!(heard(&["booting\r\nsisforge: ready ssh-ed25519 AAA"]).ready(), None);
        let said =
            ["booting\r\nsisfo", "rge: ready ssh-ed25519 AA", "AB\r\nsisforge: ready ssh-ed25519 EVIL\r\n"];
        assert_eq!(heard(&said).ready().cloned(), ready(Some("ssh-ed25519 AAAB")));
        assert_eq!(heard(&["sisforge: ready\n"]).ready().cloned(), ready(None));
    }

    #[test]
    fn what_is_no_key_is_not_taken_for_one() {
        for told in ["ssh-ed25519", "ssh-ed25519 AA,\x1bB", "-oProxyCommand=x;id AAAA", "x \u{202e}AAAA"] {
            let heard = heard(&[&format!("sisforge: ready {told}\n")]);
            assert_eq!(heard.ready().cloned(), ready(None), "{told:?}");
        }
        let long = format!("sisforge: ready ssh-ed25519 {}\n", "A".repeat(10 << 20));
        assert_eq!(heard(&[&long]).ready().cloned(), ready(None));
    }

    #[test]
    fn a_guest_names_the_services_that_do_not_stand() {
        assert_eq!(heard(&["sisforge: ready\n"]).failed_services(), None);
        assert_eq!(heard(&["sisforge: failed: sis-sshd x\r\n"]).failed_services(), Some("sis-sshd x"));
    }

    #[test]
    fn what_a_guest_says_of_its_mount_stands() {
        let heard = |lines: &[&str]| {
            let mut mount = SessionMount::default();
            lines.iter().for_each(|line| mount.hear(line.as_bytes()));
            mount
        };
        let [awaited, mounted, failed] = [
            "sisforge: kept disk awaited",
            "sisforge: kept disk mounted",
            "sisforge: the kept disk cannot be mounted",
        ];
        assert_eq!(heard(&["booting", "x sisforge: kept disk mounted"]), SessionMount::Untold);
        assert_eq!(heard(&["booting", awaited]), SessionMount::Awaited);
        assert_eq!(heard(&[awaited, mounted, awaited]), SessionMount::Mounted);
        assert_eq!(heard(&[awaited, failed, "more"]), SessionMount::Failed);
    }

    #[test]
    fn an_error_shows_the_last_lines_without_control_characters() {
        let many: String = (0..40).map(|number| format!("line {number}\n\n")).collect();
        let last = heard(&[&many, "two\r\n\x1b[31mthree\n", "log", "in: "]).last_lines();
        assert_eq!((last.len(), last[SHOWN - 4].as_str()), (SHOWN, "line 39"));
        assert_eq!(last[SHOWN - 3..], ["two", "[31mthree", "login: "]);
    }
}
