//! What is shown and what happens next, decided by events alone: `step(event, now)`.
//!
//! ```text
//!            Tick, interval over                Told, Failed
//!   resting ---------------------> asking ------------------> resting
//!      ^ space                                                   |
//!      |                                                         | space
//!      +------------------------- paused <-----------------------+
//! ```

use std::time::Duration;

use crate::text::clean;
use crate::top::figures::{Figures, History, Sample};
use crate::top::grid::Sort;

/// The shortest and the longest time between two samples.
pub const INTERVAL_MIN: Duration = Duration::from_millis(200);
const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// How long a notice is shown.
const NOTICE: Duration = Duration::from_secs(10);
/// Lines that a page of scrolling moves.
const PAGE: usize = 10;

/// A key that means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Char(char),
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    /// Tab and the arrow to the right.
    Next,
    /// Shift-Tab and the arrow to the left.
    Previous,
    Escape,
    /// Ctrl-C.
    Interrupt,
}

/// What happens to the view.
#[derive(Debug)]
pub enum Event {
    Key(Key),
    /// A router answered.
    Told(Box<Sample>),
    /// No router did; why, in one line.
    Failed(String),
    /// The screen has another size, or must be drawn for another reason.
    Redraw,
    /// Time goes on.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Nothing,
    /// Take a sample; answer with `Told` or `Failed`.
    Ask,
    Quit,
}

/// What fills the screen below the summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Panel {
    Overview,
    Nodes,
    Fetchers,
    Jobs,
    Clients,
}

impl Panel {
    /// In the order of their keys, which start with 1.
    pub const ALL: [Self; 5] = [
        Self::Overview,
        Self::Nodes,
        Self::Fetchers,
        Self::Jobs,
        Self::Clients,
    ];

    /// Its name on the screen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overview => "overview",
            Self::Nodes => "nodes",
            Self::Fetchers => "fetchers",
            Self::Jobs => "jobs",
            Self::Clients => "clients",
        }
    }

    /// Its place among [`Panel::ALL`].
    pub fn number(self) -> usize {
        self as usize
    }

    /// Columns that it can be sorted by. The overview sorts its nodes.
    fn columns(self) -> usize {
        match self {
            Self::Overview | Self::Nodes => 13,
            Self::Fetchers | Self::Clients => 11,
            Self::Jobs => 6,
        }
    }
}

/// The view.
#[derive(Debug)]
pub struct View {
    pub panel: Panel,
    pub sort: [Sort; Panel::ALL.len()],
    pub scroll: usize,
    pub paused: bool,
    pub help: bool,
    pub interval: Duration,
    pub figures: Option<Figures>,
    /// When the figures were told.
    pub told_at: Duration,
    /// Why nobody answers, and since when.
    pub failed: Option<(String, Duration)>,
    notice: Option<(String, Duration)>,
    history: History,
    asking: bool,
    asked_at: Option<Duration>,
    dirty: bool,
    /// The second that is on the screen.
    shown: u64,
}

impl View {
    /// Nothing is known yet.
    pub fn new(interval: Duration) -> Self {
        Self {
            panel: Panel::Overview,
            sort: [Sort::default(); Panel::ALL.len()],
            scroll: 0,
            paused: false,
            help: false,
            interval: interval.clamp(INTERVAL_MIN, INTERVAL_MAX),
            figures: None,
            told_at: Duration::ZERO,
            failed: None,
            notice: None,
            history: History::default(),
            asking: false,
            asked_at: None,
            dirty: true,
            shown: 0,
        }
    }

    /// Whether the screen must be drawn again; asked once before each drawing.
    pub fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    /// Something to be told for a while.
    pub fn notice(&self, now: Duration) -> Option<&str> {
        let fresh = |(_, since): &&(String, Duration)| now.saturating_sub(*since) < NOTICE;
        self.notice
            .as_ref()
            .filter(fresh)
            .map(|(text, _)| text.as_str())
    }

    /// Takes an event; what is to be done about it.
    pub fn step(&mut self, event: Event, now: Duration) -> Command {
        match event {
            Event::Key(key) => return self.key(key, now),
            Event::Told(sample) => self.told(*sample, now),
            Event::Failed(why) => self.unanswered(why, now),
            Event::Redraw => self.dirty = true,
            Event::Tick => {
                if self.shown != now.as_secs() {
                    (self.shown, self.dirty) = (now.as_secs(), true);
                }
            }
        }
        let due = self
            .asked_at
            .is_none_or(|asked| now.saturating_sub(asked) >= self.interval);
        if self.paused || self.asking || !due {
            return Command::Nothing;
        }
        (self.asking, self.asked_at) = (true, Some(now));
        Command::Ask
    }

    fn told(&mut self, sample: Sample, now: Duration) {
        self.asking = false;
        if self.paused {
            return;
        }
        let before = self.figures.as_ref().map(|figures| figures.router.as_str());
        if let Some(gone) = before.filter(|before| *before != sample.router) {
            self.notice = Some((
                format!("router {gone} went away; {} answers now", sample.router),
                now,
            ));
        } else if self.failed.is_some() {
            self.notice = Some((format!("router {} answers again", sample.router), now));
        }
        self.figures = Some(self.history.take(sample));
        (self.failed, self.told_at, self.dirty) = (None, now, true);
    }

    fn unanswered(&mut self, why: String, now: Duration) {
        self.asking = false;
        let since = self.failed.take().map_or(now, |(_, since)| since);
        self.failed = Some((clean(&why), since));
        self.dirty = true;
    }

    fn key(&mut self, key: Key, now: Duration) -> Command {
        self.dirty = true;
        match key {
            Key::Interrupt | Key::Char('q') => return Command::Quit,
            Key::Escape if self.help => self.help = false,
            Key::Escape => return Command::Quit,
            Key::Char('?' | 'h') => self.help = !self.help,
            Key::Char(' ' | 'p') => {
                self.paused = !self.paused;
                if !self.paused {
                    return self.step(Event::Tick, now);
                }
            }
            Key::Char(digit @ '1'..='5') => self.open(Panel::ALL[digit as usize - '1' as usize]),
            Key::Next => self.open(self.neighbour(1)),
            Key::Previous => self.open(self.neighbour(Panel::ALL.len() - 1)),
            Key::Char('s') => self.sort_by(1),
            Key::Char('S') => self.sort_by(self.panel.columns() - 1),
            Key::Char('r') => self.sort_mut().reversed ^= true,
            Key::Char('+') => self.interval = (self.interval / 2).max(INTERVAL_MIN),
            Key::Char('-') => self.interval = (self.interval * 2).min(INTERVAL_MAX),
            Key::Up | Key::Char('k') => self.scroll = self.scroll.saturating_sub(1),
            Key::Down | Key::Char('j') => self.scroll_by(1),
            Key::PageUp => self.scroll = self.scroll.saturating_sub(PAGE),
            Key::PageDown => self.scroll_by(PAGE),
            Key::Home => self.scroll = 0,
            Key::End => self.scroll = self.rows().saturating_sub(1),
            Key::Char(_) => {}
        }
        Command::Nothing
    }

    fn open(&mut self, panel: Panel) {
        (self.panel, self.scroll, self.help) = (panel, 0, false);
    }

    fn neighbour(&self, by: usize) -> Panel {
        Panel::ALL[(self.panel.number() + by) % Panel::ALL.len()]
    }

    /// How the open panel is sorted.
    pub fn sorted(&self) -> Sort {
        self.sort[self.panel.number()]
    }

    fn sort_mut(&mut self) -> &mut Sort {
        &mut self.sort[self.panel.number()]
    }

    fn sort_by(&mut self, columns: usize) {
        let most = self.panel.columns();
        let sort = self.sort_mut();
        *sort = Sort {
            column: (sort.column + columns) % most,
            reversed: false,
        };
        self.scroll = 0;
    }

    fn scroll_by(&mut self, lines: usize) {
        self.scroll = (self.scroll + lines).min(self.rows().saturating_sub(1));
    }

    /// Rows of the open panel.
    fn rows(&self) -> usize {
        let Some(figures) = &self.figures else {
            return 0;
        };
        match self.panel {
            Panel::Overview => 0,
            Panel::Nodes => figures.nodes.len(),
            Panel::Fetchers => figures.fetchers.len(),
            Panel::Jobs => figures.jobs.len(),
            Panel::Clients => figures.clients.len(),
        }
    }
}
