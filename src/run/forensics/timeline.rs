//! A time line of a guest: what its host noted, what it and its VMM said, what it sent, in the order of their times.

use std::collections::{BTreeSet, VecDeque};
use std::time::SystemTime;

use minijinja::context;
use serde::Serialize;

use crate::apply::linux::LinuxHost;
use crate::base::diagnostic::one_line;
use crate::base::network::protocol_word;
use crate::base::text::printable;
use crate::base::time::{parse_rfc3339, rfc3339_millis};
use crate::base::{FleetName, GuestName};
use crate::host::evidence::MissingEvidence;
use crate::host::logs::LogKind;
use crate::run::events::{self, HostEvent};
use crate::run::flow_log::{Kept, Noted};
use crate::run::flows::{Dropped, Flow};
use crate::run::log_lines::LogLine;
use crate::run::{RunError, Workspace};
use crate::sys::fs::FileError;
use crate::sys::log::{Lines, Reader, Start};

/// Most moments of one source, the newest of them: a guest says what it likes, as often as it likes.
const MOST: usize = 20_000;

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
pub struct Moment {
    /// RFC 3339, UTC; that of the line before it where its own is not known.
    time: String,
    source: Witness,
    text: String,
}

/// Who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Witness {
    Host,
    Serial,
    Vmm,
    Flow,
    Drop,
    Forensics,
}

impl Moment {
    /// Something that is done for the evidence, now.
    pub fn of_forensics(text: &str) -> Self {
        Self::new(SystemTime::now(), Witness::Forensics, text)
    }

    fn new(time: SystemTime, source: Witness, text: &str) -> Self {
        Self { time: rfc3339_millis(time), source, text: printable(text) }
    }
}

/// The moments of a guest.
#[derive(Debug, Default)]
pub struct TimeLine {
    moments: Vec<Moment>,
}

impl TimeLine {
    /// Adds a moment.
    pub fn add(&mut self, moment: Moment) {
        self.moments.push(moment);
    }

    /// Adds all that is kept of a guest. Gives what of it could not be read.
    pub fn of_guest(
        &mut self,
        workspace: &Workspace<'_>,
        host: &LinuxHost,
        guest: &GuestName,
    ) -> Vec<MissingEvidence> {
        let mut missing = Vec::new();
        let of_part = |what: &str, why| MissingEvidence { what: format!("{what} in the time line"), why };
        let layout = &host.layout;
        let parts = [
            ("events", events(host, guest)),
            ("serial log", log(&layout.guest(guest).log(LogKind::Serial), Witness::Serial)),
            ("VMM log", log(&layout.guest(guest).log(LogKind::Vmm), Witness::Vmm)),
            ("flows and drops", flows(workspace, guest)),
        ];
        for (what, part) in parts {
            match part {
                Ok(moments) => {
                    missing.extend(moments.unread.iter().map(|why| of_part(what, why.clone())));
                    self.moments.extend(moments.told(what));
                }
                Err(error) => missing.push(of_part(what, one_line(&error))),
            }
        }
        // Those of one source stay in the order in which they came.
        self.moments.sort_by(|a, b| a.time.cmp(&b.time));
        missing
    }

    /// A JSON object a line.
    pub fn json(&self) -> String {
        self.moments.iter().map(|moment| crate::base::text::json(moment) + "\n").collect()
    }

    /// A page that needs nothing beside itself, and runs no script.
    pub fn html(&self, fleet: &FleetName, guest: &GuestName) -> String {
        let mut environment = minijinja::Environment::new();
        let template = environment.add_template("timeline.html", include_str!("timeline.html.jinja"));
        let values = context! { fleet => fleet.as_str(), guest => guest.as_str(), moments => self.moments };
        let page = template.and_then(|()| environment.get_template("timeline.html")?.render(values));
        page.unwrap_or_else(|error| unreachable!("a template of this program is one that renders: {error}"))
    }
}

/// The newest moments of one source.
#[derive(Debug, Default)]
struct Newest {
    moments: VecDeque<Moment>,
    /// How many were older.
    left_out: u64,
    /// Why some could not be read.
    unread: BTreeSet<String>,
}

impl Newest {
    fn push(&mut self, moment: Moment) {
        if self.moments.len() == MOST {
            self.moments.pop_front();
            self.left_out += 1;
        }
        self.moments.push_back(moment);
    }

    /// Them, behind one that says how many of `what` were left out.
    fn told(self, what: &str) -> impl Iterator<Item = Moment> {
        let first = self.moments.front().map(|moment| moment.time.clone()).unwrap_or_default();
        let text = format!("{} earlier moments of the {what} are left out here", self.left_out);
        let note = Moment { time: first, source: Witness::Forensics, text };
        Some(note).filter(|_| self.left_out > 0).into_iter().chain(self.moments)
    }
}

fn log(path: &std::path::Path, source: Witness) -> Result<Newest, RunError> {
    let failed = || FileError::when("read", path);
    let (mut moments, mut last) = (Newest::default(), SystemTime::UNIX_EPOCH);
    for start in [Start::Previous, Start::This] {
        let mut reader = Reader::open(path, start).map_err(failed())?;
        let mut lines = Lines::default();
        let mut add = |time: Option<SystemTime>, line: &[u8]| {
            last = time.unwrap_or(last);
            moments.push(Moment::new(last, source, &String::from_utf8_lossy(line)));
        };
        while let Some(reader) = &mut reader
            && let Some((time, bytes)) = reader.read().map_err(failed())?
        {
            lines.feed(time, &bytes, &mut add);
        }
        lines.finish(&mut add);
    }
    Ok(moments)
}

fn events(host: &LinuxHost, guest: &GuestName) -> Result<Newest, RunError> {
    let mut moments = Newest::default();
    for line in events::log_of(&host.layout).unread()? {
        let HostEvent { time, what, .. } = match line {
            LogLine::Known(event) => event,
            LogLine::Gap(_) => continue,
            LogLine::Unread(why) => {
                moments.unread.insert(why);
                continue;
            }
        };
        let is_of_it = what.guest().is_none_or(|of| of == guest.as_str());
        if let (true, Ok(time)) = (is_of_it, parse_rfc3339(&time)) {
            moments.push(Moment::new(time, Witness::Host, &what.sentence()));
        }
    }
    Ok(moments)
}

fn flows(workspace: &Workspace<'_>, guest: &GuestName) -> Result<Newest, RunError> {
    let mut moments = Newest::default();
    for noted in Kept::of(workspace, guest.as_str())?.unread()? {
        match noted {
            Noted::Dropped(dropped) => {
                moments.push(Moment::new(dropped.time, Witness::Drop, &of_drop(&dropped)));
            }
            Noted::Flow(flow) => moments.push(Moment::new(flow.time, Witness::Flow, &of_flow(&flow))),
            Noted::Lost => {}
            Noted::Unread(why) => {
                moments.unread.insert(why);
            }
        }
    }
    Ok(moments)
}

fn of_drop(Dropped { why, packet, name, .. }: &Dropped) -> String {
    let (from, to) = packet.ports.unzip();
    let (from, to) = (ends(packet.from, from), ends(packet.to, to));
    format!("{} {from} -> {to}{}: {why}", protocol_word(packet.protocol), called(name.as_deref()))
}

fn of_flow(Flow { began, connection, name, .. }: &Flow) -> String {
    let word = if *began == Some(true) { "began" } else { "ended" };
    let (from, to) = (ends(connection.from, connection.from_port), ends(connection.to, connection.port));
    let bytes = match (connection.sent, connection.answered) {
        (Some(sent), Some(answered)) => format!(", {sent} bytes sent, {answered} answered"),
        _ => String::new(),
    };
    format!("{} {from} -> {to}{} {word}{bytes}", protocol_word(connection.protocol), called(name.as_deref()))
}

fn ends(address: std::net::Ipv4Addr, port: Option<u16>) -> String {
    port.map_or_else(|| address.to_string(), |port| format!("{address}:{port}"))
}

fn called(name: Option<&str>) -> String {
    name.map(|name| format!(" ({name})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_says_more_than_is_kept_has_a_moment_that_says_how_many_were_left_out() {
        let mut all = Newest::default();
        (0..MOST + 7).for_each(|number| {
            all.push(Moment::new(SystemTime::UNIX_EPOCH, Witness::Serial, &number.to_string()));
        });
        let told: Vec<_> = all.told("serial log").collect();
        assert_eq!((told.len(), told[1].text.as_str()), (MOST + 1, "7"));
        assert_eq!(told[0].text, "7 earlier moments of the serial log are left out here");
        let mut few = Newest::default();
        few.push(Moment::new(SystemTime::UNIX_EPOCH, Witness::Serial, "one"));
        assert_eq!(few.told("serial log").count(), 1);
    }

    #[test]
    fn a_page_shows_what_a_guest_says_and_does_nothing_of_it() {
        let mut line = TimeLine::default();
        line.add(Moment::new(SystemTime::UNIX_EPOCH, Witness::Serial, "<script>alert(1)</script>\u{1b}[2J"));
        let page = line.html(&"sis".parse().unwrap(), &"alice".parse().unwrap());
        assert!(page.contains("&lt;script&gt;alert(1)") && !page.contains("<script"), "{page}");
        assert!(!page.contains('\u{1b}') && page.contains("default-src 'none'"));
        assert!(!page.contains("://"), "it names no other place");
        assert!(line.json().ends_with("}\n"));
    }
}
