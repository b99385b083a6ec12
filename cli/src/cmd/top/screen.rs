//! The terminal: what it shows, and what its keys do.

use super::Tab;
use super::lines::{Line, Value, lines};
use super::sample::Sample;
use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::output::Exit;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line as Text, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Table, TableState, Wrap};
use ratatui::{DefaultTerminal, Frame};
use sluice_proto::v1::{TracePacket, TraceRequest, trace_packet::Packet};
use std::time::{Duration, Instant};

/// Lines that are drawn at most: nobody scrolls through more, and a switch may have a million flows.
const MOST: usize = 2000;
const KEYS: &str = "Tab view  / filter  < > sort  I invert  Enter all of it  t trace  p pause  ? keys  q quit";
const HELP: [&str; 11] = [
    "Tab, right, left, 1-5      another view",
    "up, down, PgUp, PgDn       another line; Home, End the first, the last",
    "/ or F4                    only lines in which a word is; Esc all of them",
    "< and >, F6                sort by another column",
    "I                          the other way round",
    "Enter                      all of a line",
    "t                          trace the last packet of a drop",
    "p or Space                 stop, and go on",
    "r                          look now",
    "q or F10                   quit",
    "? or F1                    this",
];

/// What lies over the table.
struct Popup {
    title: String,
    text: String,
    scrolled: u16,
}

struct Screen {
    tab: Tab,
    column: usize,
    is_descending: bool,
    filter: String,
    is_typing: bool,
    is_paused: bool,
    selected: TableState,
    popup: Option<Popup>,
    before: Option<Sample>,
    now: Option<Sample>,
    /// Those that are shown.
    lines: Vec<Line>,
    /// How many there are.
    count: usize,
    fault: String,
}

/// Shows it until somebody quits.
pub(super) fn run(target: &Target, tab: Tab, every: Duration) -> Result<Exit, Failure> {
    let mut client = Some(Client::connect(target)?);
    let mut screen = Screen::new(tab);
    let failed = |error: std::io::Error| Failure::new("the terminal cannot be used").why(error.to_string());
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let result = screen.show(&mut terminal, target, &mut client, every);
    ratatui::restore();
    result.map(|()| Exit::Yes).map_err(failed)
}

impl Screen {
    fn new(tab: Tab) -> Self {
        Self {
            tab,
            column: tab.order(),
            is_descending: true,
            filter: String::new(),
            is_typing: false,
            is_paused: false,
            selected: TableState::default().with_selected(0),
            popup: None,
            before: None,
            now: None,
            lines: Vec::new(),
            count: 0,
            fault: String::new(),
        }
    }

    fn show(
        &mut self,
        terminal: &mut DefaultTerminal,
        target: &Target,
        client: &mut Option<Client>,
        every: Duration,
    ) -> std::io::Result<()> {
        let mut due = Instant::now();
        loop {
            if Instant::now() >= due {
                if !self.is_paused || self.now.is_none() {
                    self.look(target, client);
                }
                due = Instant::now() + every;
            }
            terminal.draw(|frame| self.draw(frame))?;
            if !event::poll(due.saturating_duration_since(Instant::now()))? {
                continue;
            }
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    let tab = self.tab;
                    if key.code == KeyCode::Char('t') && !self.is_typing && self.popup.is_none() {
                        self.trace(client.as_ref());
                    } else if !self.press(key) {
                        return Ok(());
                    }
                    if self.tab != tab || key.code == KeyCode::Char('r') && !self.is_typing {
                        due = Instant::now();
                        self.is_paused = false;
                    }
                }
                _ => {}
            }
        }
    }

    /// Takes a sample; a switch that went away is tried again with the next one.
    fn look(&mut self, target: &Target, client: &mut Option<Client>) {
        let sample = match client.take().map_or_else(|| Client::connect(target), Ok) {
            Ok(there) => {
                let sample = Sample::take(&there, self.tab);
                *client = sample.is_ok().then_some(there);
                sample
            }
            Err(error) => Err(error),
        };
        match sample {
            Ok(sample) => {
                self.before = self.now.replace(sample);
                self.fault.clear();
                self.refresh();
            }
            Err(error) => self.fault = error.to_string().lines().next().unwrap_or_default().to_owned(),
        }
    }

    /// Makes the lines anew.
    fn refresh(&mut self) {
        let Some(now) = &self.now else { return };
        let mut all = lines(self.before.as_ref(), now);
        all.retain(|line| self.filter.is_empty() || line.has(&self.filter));
        self.count = all.len();
        Line::sort(&mut all, self.column, self.is_descending);
        all.truncate(MOST);
        self.lines = all;
        self.select(self.selected.selected().unwrap_or_default());
    }

    fn select(&mut self, line: usize) {
        self.selected.select(Some(line.min(self.lines.len().saturating_sub(1))));
    }

    fn turn(&mut self, tab: Tab) {
        if self.tab != tab {
            let filter = std::mem::take(&mut self.filter);
            *self = Self { filter, fault: std::mem::take(&mut self.fault), ..Self::new(tab) };
        }
    }

    fn neighbour(&self, by: usize) -> Tab {
        let at = Tab::ALL.iter().position(|tab| *tab == self.tab).unwrap_or_default();
        Tab::ALL.into_iter().cycle().nth(at + by).unwrap_or(self.tab)
    }

    /// What a key does; whether it goes on.
    fn press(&mut self, key: KeyEvent) -> bool {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return false;
        }
        if self.is_typing {
            self.type_in(key.code);
            return true;
        }
        if let Some(popup) = &mut self.popup {
            match key.code {
                KeyCode::Down | KeyCode::PageDown => popup.scrolled = popup.scrolled.saturating_add(1),
                KeyCode::Up | KeyCode::PageUp => popup.scrolled = popup.scrolled.saturating_sub(1),
                _ => self.popup = None,
            }
            return true;
        }
        let (line, columns) = (self.selected.selected().unwrap_or_default(), self.tab.columns().len());
        match key.code {
            KeyCode::Char('q') | KeyCode::F(10) => return false,
            KeyCode::Tab | KeyCode::Right => self.turn(self.neighbour(1)),
            KeyCode::BackTab | KeyCode::Left => self.turn(self.neighbour(Tab::ALL.len() - 1)),
            KeyCode::Char(digit @ '1'..='5') => {
                let at = digit.to_digit(10).unwrap_or(1) as usize - 1;
                self.turn(Tab::ALL.get(at).copied().unwrap_or(self.tab));
            }
            KeyCode::Down => self.select(line.saturating_add(1)),
            KeyCode::Up => self.select(line.saturating_sub(1)),
            KeyCode::PageDown => self.select(line.saturating_add(20)),
            KeyCode::PageUp => self.select(line.saturating_sub(20)),
            KeyCode::Home => self.select(0),
            KeyCode::End => self.select(usize::MAX),
            KeyCode::Char('/') | KeyCode::F(4) => self.is_typing = true,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('>') | KeyCode::F(6) => self.column = (self.column + 1) % columns,
            KeyCode::Char('<') => self.column = (self.column + columns - 1) % columns,
            KeyCode::Char('I') => self.is_descending = !self.is_descending,
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.open("Keys", HELP.join("\n")),
            KeyCode::Enter => self.open_line(),
            _ => {}
        }
        self.refresh();
        true
    }

    fn type_in(&mut self, key: KeyCode) {
        match key {
            KeyCode::Char(letter) => self.filter.push(letter),
            KeyCode::Backspace => _ = self.filter.pop(),
            KeyCode::Esc => {
                self.filter.clear();
                self.is_typing = false;
            }
            KeyCode::Enter => self.is_typing = false,
            _ => {}
        }
        self.refresh();
    }

    fn open(&mut self, title: &str, text: String) {
        self.popup = Some(Popup { title: title.to_owned(), text, scrolled: 0 });
    }

    fn line(&self) -> Option<&Line> {
        self.lines.get(self.selected.selected()?)
    }

    fn open_line(&mut self) {
        let Some(line) = self.line() else { return };
        let pairs = self.tab.columns().iter().zip(&line.values);
        let text: Vec<String> = pairs.map(|(column, value)| format!("{:<14}{}", column.title, value.text())).collect();
        self.open(self.tab.title(), text.join("\n"));
    }

    fn trace(&mut self, client: Option<&Client>) {
        let Some(packet) = self.line().and_then(|line| line.packet.clone()) else {
            return self.open("Trace", "Only drops whose last packet was kept can be traced.".to_owned());
        };
        let Some(client) = client else { return };
        let packets = vec![TracePacket { packet: Some(Packet::Flow(packet.flow.clone())), in_port: String::new() }];
        let request = TraceRequest { bridge: packet.bridge, packets, ..TraceRequest::default() };
        let text = match client.collect(client.trace().trace(request)) {
            Ok(replies) => replies.into_iter().map(|reply| reply.walk).collect::<Vec<_>>().join("\n"),
            Err(error) => error.to_string(),
        };
        self.open(&format!("sluice trace '{}'", packet.flow), text);
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let [head, tabs, body, foot] =
            Layout::vertical([Constraint::Length(2), Constraint::Length(1), Constraint::Min(3), Constraint::Length(1)])
                .areas(frame.area());
        frame.render_widget(Paragraph::new(self.head()), head);
        let views = Tab::ALL.iter().enumerate().flat_map(|(at, tab)| {
            let style = if *tab == self.tab { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
            [Span::styled(format!(" {} {} ", at + 1, tab.title()), style), Span::raw(" ")]
        });
        frame.render_widget(Text::from_iter(views), tabs);
        self.draw_lines(frame, body);
        let foot_text = if self.is_typing || !self.filter.is_empty() {
            let hint = if self.is_typing { "_   Enter: keep it, Esc: all lines" } else { "   Esc: all lines" };
            format!("filter: {}{hint}", self.filter)
        } else {
            KEYS.to_owned()
        };
        frame.render_widget(Text::styled(foot_text, Style::new().add_modifier(Modifier::DIM)), foot);
        if let Some(popup) = &self.popup {
            let area = inner(frame.area());
            frame.render_widget(Clear, area);
            let text = Paragraph::new(popup.text.as_str()).wrap(Wrap { trim: false }).scroll((popup.scrolled, 0));
            frame.render_widget(text.block(Block::bordered().title(popup.title.as_str())), area);
        }
    }

    fn head(&self) -> Vec<Text<'static>> {
        let Some(now) = &self.now else { return vec![Text::raw(self.fault.clone())] };
        let (status, stats) = (&now.status, &now.stats);
        let seconds = status.uptime_ms / 1000;
        let up = format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        let first = format!(
            "sluiced {}  up {up}  bridges {}  ports {}  flows {}  connections {}/{}",
            status.version, status.bridges, status.ports, status.flows, status.connections, status.max_connections
        );
        let time = self.before.as_ref().map_or(0.0, |before| now.at.duration_since(before.at).as_secs_f64());
        let rate = |of: fn(&sluice_proto::v1::GetStatsReply) -> u64| {
            let then = self.before.as_ref().map_or_else(|| of(stats), |before| of(&before.stats));
            let grown = of(stats).saturating_sub(then) as f64;
            Value::Number(if time > 0.0 { grown / time } else { 0.0 }).text()
        };
        let second = format!(
            "{} packets/s  {} forwarded/s  {} dropped/s   lines {}{}",
            rate(|stats| stats.received_packets),
            rate(|stats| stats.forwarded_packets),
            rate(|stats| stats.dropped_packets),
            self.count,
            if self.is_paused { "   PAUSED" } else { "" }
        );
        let bad = status.parts.iter().find(|part| !part.ok).map(|part| format!("   {}: {}", part.name, part.detail));
        let fault = if self.fault.is_empty() { bad } else { Some(format!("   {}; trying on", self.fault)) };
        let red = Style::new().fg(Color::Red);
        vec![Text::raw(first), Text::from_iter([Span::raw(second), Span::styled(fault.unwrap_or_default(), red)])]
    }

    fn draw_lines(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let columns = self.tab.columns();
        let texts: Vec<Vec<String>> =
            self.lines.iter().map(|line| line.values.iter().map(Value::text).collect()).collect();
        let width = |(at, column): (usize, &super::lines::Column)| {
            let widest = texts.iter().map(|row| row[at].chars().count()).max().unwrap_or_default();
            let width = widest.max(column.title.len() + 1).min(60);
            Constraint::Length(u16::try_from(width).unwrap_or(u16::MAX))
        };
        let widths: Vec<Constraint> = columns.iter().enumerate().map(width).collect();
        let title = |(at, column): (usize, &super::lines::Column)| {
            let arrow = match (at == self.column, self.is_descending) {
                (true, true) => "v",
                (true, false) => "^",
                _ => "",
            };
            aligned(format!("{}{arrow}", column.title), column.is_number())
        };
        let header = Row::new(columns.iter().enumerate().map(title));
        let rows = texts
            .into_iter()
            .map(|row| Row::new(row.into_iter().zip(columns).map(|(text, column)| aligned(text, column.is_number()))));
        let table = Table::new(rows, widths)
            .header(header.style(Style::new().add_modifier(Modifier::BOLD)))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
            .column_spacing(1);
        frame.render_stateful_widget(table, area, &mut self.selected);
    }
}

/// A cell, its text at the right for a number.
fn aligned(text: String, is_right: bool) -> Cell<'static> {
    let text = Text::raw(text);
    Cell::from(if is_right { text.right_aligned() } else { text })
}

/// What is left of a screen within a margin.
fn inner(area: Rect) -> Rect {
    let (x, y) = (area.width / 12, area.height / 8);
    Rect { x: area.x + x, y: area.y + y, width: area.width - 2 * x, height: area.height - 2 * y }
}
