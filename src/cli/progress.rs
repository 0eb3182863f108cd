//! How long work looks: bars on a terminal, a line per task elsewhere, objects with `--json`, nothing with `-q`.

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::base::text::json;
use crate::sys::report::{Report, Severity, Silent, Task, Unit};

use super::output::EventJson;
use super::render;
use super::settings::Settings;

/// The report that suits the settings and the terminal. With `--json`, a command either prints events or one document.
pub fn reporter(settings: &Settings, prints_events: bool) -> Box<dyn Report> {
    if settings.json && prints_events {
        Box::new(JsonLines)
    } else if settings.json && !settings.quiet {
        Box::new(NotesAlone)
    } else if settings.quiet && !settings.json {
        Box::new(ErrorsAlone)
    } else if settings.json {
        Box::new(Silent)
    } else if settings.draws {
        Box::new(Bars(MultiProgress::new()))
    } else {
        Box::new(PlainLines { verbose: settings.verbose })
    }
}

struct Bars(MultiProgress);

const NAME_WIDTH: usize = 24;

impl Report for Bars {
    fn begin(&self, name: &str, total: Option<u64>, unit: Unit) -> Box<dyn Task> {
        let template = match (total, unit) {
            (None, _) => "{spinner} {prefix} {elapsed} {wide_msg}",
            (_, Unit::Bytes) => "{spinner} {prefix} {bar:24} {bytes}/{total_bytes} {wide_msg}",
            (_, Unit::Steps) => "{spinner} {prefix} {bar:24} {pos}/{len} {elapsed} {wide_msg}",
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new).with_style(style);
        let bar = self.0.add(bar.with_prefix(format!("{name:NAME_WIDTH$}")));
        bar.enable_steady_tick(Duration::from_millis(120));
        Box::new(Bar { bar, all: self.0.clone(), name: name.to_owned(), begun: Instant::now() })
    }

    fn say(&self, severity: Severity, text: &str) {
        let _ = self.0.println(severity.labelled(text));
    }
}

struct Bar {
    bar: ProgressBar,
    all: MultiProgress,
    name: String,
    begun: Instant,
}

impl Task for Bar {
    fn advance(&self, amount: u64) {
        self.bar.inc(amount);
    }

    fn detail(&self, text: &str) {
        self.bar.set_message(text.to_owned());
    }

    fn finish(&self, text: &str) {
        self.bar.finish_and_clear();
        let _ = self.all.println(finished(&self.name, text, self.begun.elapsed()));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn finished(name: &str, text: &str, took: Duration) -> String {
    format!("{name:NAME_WIDTH$} {text} ({:.1} s)", took.as_secs_f64())
}

struct PlainLines {
    /// Whether what is being done is told too, before it is done.
    verbose: bool,
}

impl Report for PlainLines {
    fn begin(&self, name: &str, total: Option<u64>, _: Unit) -> Box<dyn Task> {
        let now = Instant::now();
        let (name, pace) = (name.to_owned(), Pace::new(total, now));
        Box::new(LineTask { name, begun: now, pace, verbose: self.verbose })
    }

    fn say(&self, severity: Severity, text: &str) {
        render::tell(&severity.labelled(text));
    }
}

struct LineTask {
    name: String,
    begun: Instant,
    pace: Pace,
    verbose: bool,
}

/// How often work that goes on for minutes tells of itself where there is no terminal to draw on.
const EVERY: Duration = Duration::from_secs(30);

/// How far a task is, told at intervals.
struct Pace {
    total: Option<u64>,
    done: AtomicU64,
    told: Mutex<Instant>,
}

impl Pace {
    fn new(total: Option<u64>, now: Instant) -> Self {
        Self { total: total.filter(|total| *total > 0), done: AtomicU64::new(0), told: Mutex::new(now) }
    }

    /// Counts, and gives what is done in percent when it is time to tell. What was estimated too low is almost done.
    fn advance(&self, amount: u64, now: Instant) -> Option<u64> {
        let done = self.done.fetch_add(amount, Ordering::Relaxed) + amount;
        let mut told = self.told.lock().ok()?;
        if now.duration_since(*told) < EVERY {
            return None;
        }
        *told = now;
        Some((done.saturating_mul(100) / self.total?).min(99))
    }
}

impl Task for LineTask {
    fn advance(&self, amount: u64) {
        if let Some(percent) = self.pace.advance(amount, Instant::now()) {
            render::tell(&format!("{:NAME_WIDTH$} {percent} %", self.name));
        }
    }

    fn detail(&self, text: &str) {
        if self.verbose {
            render::tell_step(&format!("{:NAME_WIDTH$}", self.name), text);
        }
    }

    fn finish(&self, text: &str) {
        render::tell(&finished(&self.name, text, self.begun.elapsed()));
    }
}

/// Of whoever wants to hear of nothing else.
struct ErrorsAlone;

impl Report for ErrorsAlone {
    fn begin(&self, _: &str, _: Option<u64>, _: Unit) -> Box<dyn Task> {
        Box::new(Silent)
    }

    fn say(&self, severity: Severity, text: &str) {
        if severity == Severity::Error {
            render::tell(&severity.labelled(text));
        }
    }
}

/// Notes on stderr, beside the one document on stdout.
struct NotesAlone;

impl Report for NotesAlone {
    fn begin(&self, _: &str, _: Option<u64>, _: Unit) -> Box<dyn Task> {
        Box::new(Silent)
    }

    fn say(&self, severity: Severity, text: &str) {
        render::tell(&severity.labelled(text));
    }
}

struct JsonLines;

fn emit(event: &EventJson) {
    let mut out = std::io::stdout().lock();
    let line = json(event);
    // A reader that went away ends the output, not the work.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

impl Report for JsonLines {
    fn begin(&self, name: &str, total: Option<u64>, _: Unit) -> Box<dyn Task> {
        emit(&EventJson::Begin { task: name.to_owned() });
        let now = Instant::now();
        Box::new(JsonTask { name: name.to_owned(), begun: now, pace: Pace::new(total, now) })
    }

    fn say(&self, severity: Severity, text: &str) {
        emit(&EventJson::Note { severity: severity.into(), text: text.to_owned() });
    }
}

struct JsonTask {
    name: String,
    begun: Instant,
    pace: Pace,
}

impl Task for JsonTask {
    fn advance(&self, amount: u64) {
        if let Some(percent) = self.pace.advance(amount, Instant::now()) {
            emit(&EventJson::Progress { task: self.name.clone(), percent });
        }
    }

    fn detail(&self, _: &str) {}

    fn finish(&self, text: &str) {
        let seconds = self.begun.elapsed().as_secs_f64();
        emit(&EventJson::End { task: self.name.clone(), result: text.to_owned(), seconds });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_of_minutes_tells_how_far_it_is_and_short_work_nothing() {
        let begun = Instant::now();
        let pace = Pace::new(Some(200), begun);
        assert_eq!(pace.advance(50, begun + EVERY / 2), None);
        assert_eq!(pace.advance(50, begun + EVERY), Some(50));
        assert_eq!(pace.advance(50, begun + EVERY + EVERY / 2), None);
        assert_eq!(pace.advance(500, begun + EVERY * 3), Some(99), "an estimate that was too low");
        assert_eq!(Pace::new(None, begun).advance(1, begun + EVERY), None);
    }
}
