//! The live table of `top`, drawn by ratatui over the whole terminal.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell, Row, Table, TableState};

use crate::apply::status::GuestPhase;
use crate::run::Workspace;
use crate::run::usage::{GuestLoad, History, Meter, Throughput};
use crate::sys::interrupt;

use super::{SortedBy, bytes, percent, render, sort};
use crate::cli::error::CliError;

/// Shows the table until the user leaves it.
pub fn show(
    meter: &mut Meter,
    workspace: &Workspace<'_>,
    interval: Duration,
    sorted_by: SortedBy,
    coloured: bool,
) -> Result<(), CliError> {
    // What cannot be looked at is said on a terminal that is as it was.
    let loads = meter.look(workspace)?;
    // A signal must not leave the terminal as it is while the table stands there.
    let _deferral = interrupt::defer();
    let mut terminal = ratatui::try_init().map_err(terminal_failed)?;
    let mut screen = Screen {
        loads,
        sorted_by,
        coloured,
        first: 0,
        height: 0,
        failure: None,
        state: TableState::default(),
    };
    let ended = screen.run(&mut terminal, meter, workspace, interval);
    ratatui::restore();
    ended
}

fn terminal_failed(error: io::Error) -> CliError {
    CliError::failed(format!("cannot draw on this terminal: {error}"))
}

/// What is on the screen.
struct Screen {
    loads: Vec<GuestLoad>,
    sorted_by: SortedBy,
    coloured: bool,
    /// The first guest that is seen, and how many of them there is room for.
    first: usize,
    height: usize,
    /// Why the last look failed: what is seen is older.
    failure: Option<String>,
    state: TableState,
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyAction {
    Leave,
    Sort(SortedBy),
    Move(isize),
    Nothing,
}

impl Screen {
    fn run(
        &mut self,
        terminal: &mut ratatui::DefaultTerminal,
        meter: &mut Meter,
        workspace: &Workspace<'_>,
        interval: Duration,
    ) -> Result<(), CliError> {
        // The first look has nothing to be compared with, so that the second comes soon.
        let mut next = Instant::now() + interval.min(Duration::from_millis(500));
        loop {
            sort(&mut self.loads, self.sorted_by);
            terminal.draw(|frame| self.draw(frame)).map_err(terminal_failed)?;
            // Signals are looked for now and then as well.
            let wait = next.saturating_duration_since(Instant::now()).min(Duration::from_millis(100));
            let action = if event::poll(wait).map_err(terminal_failed)? {
                key_action(&event::read().map_err(terminal_failed)?)
            } else {
                KeyAction::Nothing
            };
            match action {
                KeyAction::Leave => return Ok(()),
                KeyAction::Sort(by) => self.sorted_by = by,
                KeyAction::Move(rows) => self.scroll(rows),
                KeyAction::Nothing => {}
            }
            if interrupt::asked().is_some() {
                return Ok(());
            }
            if Instant::now() >= next {
                match meter.look(workspace) {
                    Ok(loads) => (self.loads, self.failure) = (loads, None),
                    Err(error) => self.failure = Some(crate::base::diagnostic::one_line(&error)),
                }
                next = Instant::now() + interval;
            }
        }
    }

    fn scroll(&mut self, rows: isize) {
        let page = self.height.max(1) as isize;
        let rows = if rows.abs() > 1 { rows.signum() * page } else { rows };
        let last = self.loads.len().saturating_sub(self.height);
        self.first = self.first.saturating_add_signed(rows).min(last);
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let [head, table, foot] =
            Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)])
                .areas(frame.area());
        self.height = usize::from(table.height.saturating_sub(1));
        self.scroll(0);
        frame.render_widget(Line::from(summary(&self.loads)), head);
        *self.state.offset_mut() = self.first;
        let rows = self.loads.iter().map(|load| guest_row(load, self.coloured));
        let titles = Row::new(HEAD.map(|(title, by)| {
            let sorted = by == Some(self.sorted_by);
            Cell::from(if sorted { format!("{title} ↓") } else { title.to_owned() })
        }));
        let widths = [10, 12, 7, 20, 10, 10, 10, 10, 20, 9, 9, 8].map(Constraint::Min);
        let table_widget =
            Table::new(rows, widths).header(titles.style(Style::new().add_modifier(Modifier::REVERSED)));
        frame.render_stateful_widget(table_widget, table, &mut self.state);
        let keys = "q leave   sort by: c cpu  m memory  n network  d disk  a name   ↑ ↓ page up/down";
        frame.render_widget(Line::from(self.failure.clone().unwrap_or_else(|| keys.to_owned())), foot);
    }
}

const HEAD: [(&str, Option<SortedBy>); 12] = [
    ("NAME", Some(SortedBy::Name)),
    ("STATE", None),
    ("CPU", Some(SortedBy::Cpu)),
    ("", None),
    ("MEMORY", Some(SortedBy::Memory)),
    ("LIMIT", None),
    ("RECEIVED/s", Some(SortedBy::Network)),
    ("SENT/s", None),
    ("", None),
    ("READ/s", Some(SortedBy::Disk)),
    ("WRITTEN/s", None),
    ("UPTIME", None),
];

fn key_action(event: &Event) -> KeyAction {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) = event else {
        return KeyAction::Nothing;
    };
    match code {
        KeyCode::Char('q') | KeyCode::Esc => KeyAction::Leave,
        // The terminal sends no signal for it while it is raw.
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => KeyAction::Leave,
        KeyCode::Char('c') => KeyAction::Sort(SortedBy::Cpu),
        KeyCode::Char('m') => KeyAction::Sort(SortedBy::Memory),
        KeyCode::Char('n') => KeyAction::Sort(SortedBy::Network),
        KeyCode::Char('d') => KeyAction::Sort(SortedBy::Disk),
        KeyCode::Char('a') => KeyAction::Sort(SortedBy::Name),
        KeyCode::Up => KeyAction::Move(-1),
        KeyCode::Down => KeyAction::Move(1),
        KeyCode::PageUp => KeyAction::Move(-2),
        KeyCode::PageDown => KeyAction::Move(2),
        _ => KeyAction::Nothing,
    }
}

/// One line about all guests.
fn summary(loads: &[GuestLoad]) -> String {
    let phases = [GuestPhase::Ready, GuestPhase::Starting, GuestPhase::Broken, GuestPhase::Down];
    let count = |phase: &GuestPhase| loads.iter().filter(|load| load.sample.status.state == *phase).count();
    let states: Vec<_> = phases
        .iter()
        .map(|phase| (count(phase), phase.word()))
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    let cpu: f64 = loads.iter().filter_map(|load| load.cpu).sum();
    let memory: u64 = loads.iter().filter_map(|load| load.sample.usage.cgroup.memory).sum();
    let total = |way: fn(&Throughput) -> f64| {
        bytes(loads.iter().filter_map(|load| load.network.as_ref()).map(way).sum())
    };
    format!(
        "{} guests: {}   CPU {}   memory {}   received {}/s   sent {}/s",
        loads.len(),
        if states.is_empty() { "none".to_owned() } else { states.join(", ") },
        percent(cpu),
        render::bytes(memory),
        total(|rate| rate.into),
        total(|rate| rate.out),
    )
}

fn guest_row(load: &GuestLoad, coloured: bool) -> Row<'static> {
    let status = &load.sample.status;
    let mut cells = super::row(load);
    let vcpus = status.machine.as_ref().map_or(1, |machine| machine.vcpus);
    cells.insert(3, curve(&load.history.cpu, f64::from(vcpus)));
    // A network has no most, so that the largest of what is seen is the top; less than this is no traffic to look at.
    const LEAST: f64 = 1024.0;
    cells.insert(8, curve(&load.history.network, load.history.network.iter().copied().fold(LEAST, f64::max)));
    let style = match status.state {
        _ if !coloured => Style::new(),
        _ if status.quarantined.is_some() => Style::new().fg(Color::Yellow),
        GuestPhase::Broken => Style::new().fg(Color::Red),
        GuestPhase::Down | GuestPhase::Spare => Style::new().add_modifier(Modifier::DIM),
        GuestPhase::Ready | GuestPhase::Starting => Style::new(),
    };
    Row::new(cells.into_iter().map(|cell| Cell::from(Text::from(render::plain(&cell))))).style(style)
}

/// Values as blocks of eight heights, the newest at the right end.
fn curve(values: &VecDeque<f64>, most: f64) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let block = |value: &f64| BLOCKS[((value / most) * 7.0).round().clamp(0.0, 7.0) as usize];
    let drawn: String = values.iter().map(block).collect();
    format!("{drawn:>width$}", width = History::LENGTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_ends_with_the_newest_value() {
        assert_eq!(curve(&[0.0, 0.5, 1.0, 3.0].into(), 1.0), format!("{}▁▅██", " ".repeat(16)));
        assert_eq!(curve(&VecDeque::new(), 1.0).chars().count(), History::LENGTH);
    }

    #[test]
    fn keys_move_sort_and_leave() {
        let key = |code, modifiers| Event::Key(KeyEvent::new(code, modifiers));
        assert_eq!(key_action(&key(KeyCode::Char('c'), KeyModifiers::CONTROL)), KeyAction::Leave);
        assert_eq!(key_action(&key(KeyCode::Char('c'), KeyModifiers::NONE)), KeyAction::Sort(SortedBy::Cpu));
        assert_eq!(key_action(&Event::Resize(80, 25)), KeyAction::Nothing);
    }

    #[test]
    fn rows_move_as_far_as_there_are_guests() {
        let mut screen = Screen {
            loads: Vec::new(),
            sorted_by: SortedBy::Cpu,
            coloured: false,
            first: 0,
            height: 3,
            failure: None,
            state: TableState::default(),
        };
        screen.scroll(1);
        assert_eq!(screen.first, 0);
        let mut terminal =
            ratatui::Terminal::new(ratatui::backend::TestBackend::new(100, 3)).expect("a terminal");
        terminal.draw(|frame| screen.draw(frame)).expect("drawn");
        let text = format!("{}", terminal.backend());
        assert!(text.contains("0 guests: none"), "{text}");
    }
}
