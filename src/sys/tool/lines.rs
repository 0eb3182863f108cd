//! A tool that tells how far it is, and is ended where it takes more than it may.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::base::text::printable;

use super::{Tool, ToolError};

/// Bytes of one line of a program that tells how far it is.
const LONGEST_LINE: u64 = 64 << 10;
/// How many lines are told of one that failed.
const LAST_LINES: usize = 20;
/// How often is looked whether it takes more than it may.
const GUARDED_EVERY: Duration = Duration::from_secs(1);

impl Tool {
    /// Runs with stdout and stderr as one stream, each line given to `line` as it comes. It is printable, and cut where it is
    /// very long: a program may be anybody's.
    pub fn lines(&self, line: impl FnMut(&str)) -> Result<(), ToolError> {
        self.lines_within(&|| None, line)
    }

    /// The same until `exceeded` says which bound the tool is beyond; it is asked once a second. The tool is then killed, and what
    /// ends with it.
    pub fn lines_within(
        &self,
        exceeded: &(dyn Fn() -> Option<String> + Sync),
        mut line: impl FnMut(&str),
    ) -> Result<(), ToolError> {
        let expression = self.expression().stderr_to_stdout().unchecked();
        let reader = expression.reader().map_err(|source| self.start_error(source))?;
        let beyond = Mutex::new(None);
        let last = thread::scope(|scope| {
            let (working, over) = mpsc::channel::<()>();
            scope.spawn(|| {
                let over = over;
                while over.recv_timeout(GUARDED_EVERY) == Err(RecvTimeoutError::Timeout) {
                    if let Some(bound) = exceeded() {
                        *beyond.lock().unwrap_or_else(PoisonError::into_inner) = Some(bound);
                        // One that ended meanwhile is what is wanted.
                        let _ = reader.kill();
                        break;
                    }
                }
            });
            let last = last_lines(&mut BufReader::new(&reader), &mut line);
            drop(working);
            last
        });
        if let Some(bound) = beyond.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(ToolError::Exceeded { command: self.command_line(), bound });
        }
        match reader.try_wait() {
            Ok(Some(output)) if output.status.success() => Ok(()),
            Ok(Some(output)) => Err(self.failed(&output.status, last.as_bytes())),
            Ok(None) => Err(self.start_error(io::Error::other("output ended before the process did"))),
            Err(source) => Err(self.start_error(source)),
        }
    }
}

/// Gives away each line; the last ones of all.
fn last_lines(lines: &mut impl BufRead, line: &mut impl FnMut(&str)) -> String {
    let mut last = VecDeque::with_capacity(LAST_LINES + 1);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        match lines.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut bytes) {
            Ok(0) | Err(_) => return Vec::from(last).join("\n"),
            Ok(_) => {
                let text = printable(&String::from_utf8_lossy(&bytes).trim_end().replace('\t', "    "));
                line(&text);
                last.push_back(text);
                if last.len() > LAST_LINES {
                    last.pop_front();
                }
            }
        }
    }
}
