//! The terminal: taken over, drawn on, and given back as it was, whatever ends the process.
//!
//! A signal and `q` end by way of `Drop`. A panic aborts the process (see `monofs_launch`), so the
//! hook gives the terminal back first, or its words would be lost with the alternate screen.

use std::io::{ErrorKind, IsTerminal, Stdout, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use monofs_launch::colour;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::{Frame, Terminal};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use tokio::sync::mpsc;

use crate::top::grid::Palette;
use crate::top::view::{ViewEvent, ViewKey};

/// Keys that were typed and are not handled yet; more than that wait in the terminal.
const KEYS_MAX: usize = 64;
/// How often the thread that reads keys looks whether it is still wanted.
const POLL: Duration = Duration::from_millis(50);

/// Whether there is a terminal to draw on and to read keys from.
pub fn is_there() -> bool {
    stdout().is_terminal() && std::io::stdin().is_terminal() && !colour::is_plain_terminal()
}

/// The terminal while it is ours.
pub struct LiveScreen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    palette: Palette,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl LiveScreen {
    /// Takes it over; keys and changes of its size arrive as events.
    pub fn open() -> Result<(Self, mpsc::Receiver<ViewEvent>)> {
        give_back_on_panic();
        enable_raw_mode().context("set up the terminal")?;
        // From here on it is given back.
        let given = GiveBack;
        execute!(stdout(), EnterAlternateScreen).context("set up the terminal")?;
        let terminal =
            Terminal::new(CrosstermBackend::new(stdout())).context("set up the terminal")?;
        let (send, events) = mpsc::channel(KEYS_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let reader = std::thread::Builder::new()
            .name("keys".into())
            .spawn(move || read_keys(&send, &stopped));
        let reader = reader.context("start the thread that reads keys")?;
        std::mem::forget(given);
        let palette = if colour::wanted(&stdout()) {
            Palette::Coloured
        } else {
            Palette::Monochrome
        };
        Ok((
            Self {
                terminal,
                palette,
                stop,
                reader: Some(reader),
            },
            events,
        ))
    }

    /// Draws.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>, Palette)) -> Result<()> {
        let palette = self.palette;
        self.terminal
            .draw(|frame| draw(frame, palette))
            .context("draw on the terminal")?;
        Ok(())
    }
}

impl Drop for LiveScreen {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // First the thread: what it would read belongs to the next program on the terminal.
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        give_back();
    }
}

/// Gives the terminal back when it goes out of scope.
struct GiveBack;

impl Drop for GiveBack {
    fn drop(&mut self) {
        give_back();
    }
}

/// The terminal as it was. It may be gone; then there is nothing to give back.
fn give_back() {
    let _ = execute!(stdout(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}

fn give_back_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        give_back();
        report(panic);
    }));
}

fn read_keys(send: &mpsc::Sender<ViewEvent>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        // The end of this channel says that the terminal is gone.
        let Ok(()) = wait_for_key() else { return };
        let told = match event::poll(Duration::ZERO) {
            Ok(false) => continue,
            Ok(true) => event::read(),
            Err(error) => Err(error),
        };
        let event = match told {
            Ok(event::Event::Key(key)) => key_of(key).map(ViewEvent::Key),
            Ok(event::Event::Resize(..)) => Some(ViewEvent::Redraw),
            Ok(_) => None,
            Err(_) => return,
        };
        if let Some(event) = event
            && send.blocking_send(event).is_err()
        {
            return;
        }
    }
}

/// Waits until something was typed, or for a while. Err: the other end of the terminal is gone,
/// which is looked for here because crossterm then reads without end.
fn wait_for_key() -> std::io::Result<()> {
    let stdin = std::io::stdin();
    let mut look = [PollFd::new(&stdin, PollFlags::IN)];
    let a_while = Timespec {
        tv_sec: 0,
        tv_nsec: POLL.subsec_nanos().into(),
    };
    match rustix::event::poll(&mut look, Some(&a_while)) {
        Ok(_)
            if look[0]
                .revents()
                .intersects(PollFlags::HUP | PollFlags::ERR) =>
        {
            Err(ErrorKind::BrokenPipe.into())
        }
        // A signal, perhaps for another size.
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn key_of(key: KeyEvent) -> Option<ViewKey> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    Some(match key.code {
        KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => {
            ViewKey::Interrupt
        }
        KeyCode::Char(c) => ViewKey::Char(c),
        KeyCode::Up => ViewKey::Up,
        KeyCode::Down => ViewKey::Down,
        KeyCode::PageUp => ViewKey::PageUp,
        KeyCode::PageDown => ViewKey::PageDown,
        KeyCode::Home => ViewKey::Home,
        KeyCode::End => ViewKey::End,
        KeyCode::Tab | KeyCode::Right => ViewKey::Next,
        KeyCode::BackTab | KeyCode::Left => ViewKey::Previous,
        KeyCode::Esc => ViewKey::Escape,
        _ => return None,
    })
}
