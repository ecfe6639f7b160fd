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

use monofs_api::commands::LiveFigures;
use monofs_launch::exit::Failure;

use crate::text::clean;
use crate::top::figures::{SampleHistory, StatusSample};
use crate::top::grid::GridSort;

/// The shortest and the longest time between two samples.
pub const INTERVAL_MIN: Duration = Duration::from_millis(200);
const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// How long a notice is shown.
const NOTICE: Duration = Duration::from_secs(10);
/// Lines that a page of scrolling moves.
const PAGE: usize = 10;

/// A key that means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewKey {
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
pub enum ViewEvent {
    Key(ViewKey),
    /// A router answered.
    Told(Box<StatusSample>),
    /// No router did; why, in one line.
    Failed(String),
    /// The screen has another size, or must be drawn for another reason.
    Redraw,
    /// Time goes on.
    Tick,
}

impl From<Result<StatusSample, Failure>> for ViewEvent {
    fn from(answer: Result<StatusSample, Failure>) -> Self {
        match answer {
            Ok(sample) => Self::Told(Box::new(sample)),
            Err(failure) => Self::Failed(failure.message),
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewCommand {
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
pub struct LiveView {
    pub panel: Panel,
    pub sort: [GridSort; Panel::ALL.len()],
    pub scroll: usize,
    pub paused: bool,
    pub help: bool,
    pub interval: Duration,
    pub figures: Option<LiveFigures>,
    /// When the figures were told.
    pub told_at: Duration,
    /// Why no router answers, and since when.
    pub failed: Option<(String, Duration)>,
    notice: Option<(String, Duration)>,
    history: SampleHistory,
    asking: bool,
    asked_at: Option<Duration>,
    dirty: bool,
    /// The second that is on the screen.
    shown: u64,
}

impl LiveView {
    /// Nothing is known yet.
    pub fn new(interval: Duration) -> Self {
        Self {
            panel: Panel::Overview,
            sort: [GridSort::default(); Panel::ALL.len()],
            scroll: 0,
            paused: false,
            help: false,
            interval: interval.clamp(INTERVAL_MIN, INTERVAL_MAX),
            figures: None,
            told_at: Duration::ZERO,
            failed: None,
            notice: None,
            history: SampleHistory::default(),
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
        let (text, since) = self.notice.as_ref()?;
        (now.saturating_sub(*since) < NOTICE).then_some(text)
    }

    /// Takes an event; what is to be done about it.
    pub fn step(&mut self, event: ViewEvent, now: Duration) -> ViewCommand {
        // What the event changes.
        match event {
            ViewEvent::Key(key) => return self.key(key, now),
            ViewEvent::Told(sample) => self.told(*sample, now),
            ViewEvent::Failed(why) => self.unanswered(why, now),
            ViewEvent::Redraw => self.dirty = true,
            ViewEvent::Tick => {
                if self.shown != now.as_secs() {
                    self.shown = now.as_secs();
                    self.dirty = true;
                }
            }
        }
        // Whether it is time to ask.
        let due = self
            .asked_at
            .is_none_or(|asked| now.saturating_sub(asked) >= self.interval);
        if self.paused || self.asking || !due {
            return ViewCommand::Nothing;
        }
        self.asking = true;
        self.asked_at = Some(now);
        ViewCommand::Ask
    }

    fn told(&mut self, sample: StatusSample, now: Duration) {
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
        self.failed = None;
        self.told_at = now;
        self.dirty = true;
    }

    fn unanswered(&mut self, why: String, now: Duration) {
        self.asking = false;
        let since = self.failed.take().map_or(now, |(_, since)| since);
        self.failed = Some((clean(&why), since));
        self.dirty = true;
    }

    fn key(&mut self, key: ViewKey, now: Duration) -> ViewCommand {
        // Every key may change the screen.
        self.dirty = true;
        match key {
            ViewKey::Interrupt | ViewKey::Char('q') => return ViewCommand::Quit,
            ViewKey::Escape if self.help => self.help = false,
            ViewKey::Escape => return ViewCommand::Quit,
            ViewKey::Char('?' | 'h') => self.help = !self.help,
            ViewKey::Char(' ' | 'p') => {
                self.paused = !self.paused;
                if !self.paused {
                    return self.step(ViewEvent::Tick, now);
                }
            }
            ViewKey::Char(digit @ '1'..='5') => {
                self.open(Panel::ALL[digit as usize - '1' as usize])
            }
            ViewKey::Next => self.open(self.neighbour(1)),
            ViewKey::Previous => self.open(self.neighbour(Panel::ALL.len() - 1)),
            ViewKey::Char('s') => self.sort_by(1),
            ViewKey::Char('S') => self.sort_by(self.panel.columns() - 1),
            ViewKey::Char('r') => self.sort_mut().reversed ^= true,
            ViewKey::Char('+') => self.interval = (self.interval / 2).max(INTERVAL_MIN),
            ViewKey::Char('-') => self.interval = (self.interval * 2).min(INTERVAL_MAX),
            ViewKey::Up | ViewKey::Char('k') => self.scroll = self.scroll.saturating_sub(1),
            ViewKey::Down | ViewKey::Char('j') => self.scroll_by(1),
            ViewKey::PageUp => self.scroll = self.scroll.saturating_sub(PAGE),
            ViewKey::PageDown => self.scroll_by(PAGE),
            ViewKey::Home => self.scroll = 0,
            ViewKey::End => self.scroll = self.rows().saturating_sub(1),
            ViewKey::Char(_) => {}
        }
        ViewCommand::Nothing
    }

    fn open(&mut self, panel: Panel) {
        self.panel = panel;
        self.scroll = 0;
        self.help = false;
    }

    fn neighbour(&self, by: usize) -> Panel {
        Panel::ALL[(self.panel.number() + by) % Panel::ALL.len()]
    }

    /// How the open panel is sorted.
    pub fn sorted(&self) -> GridSort {
        self.sort[self.panel.number()]
    }

    fn sort_mut(&mut self) -> &mut GridSort {
        &mut self.sort[self.panel.number()]
    }

    fn sort_by(&mut self, columns: usize) {
        let most = self.panel.columns();
        let sort = self.sort_mut();
        *sort = GridSort {
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
