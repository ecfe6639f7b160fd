//! The loop: keys, answers and time go into the view, and what it wants comes out.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::{BoxFuture, FutureExt};
use monofs_launch::exit::{Code, Failure};
use tokio::time::MissedTickBehavior;

use crate::session::CommandSession;
use crate::top::draw::draw;
use crate::top::figures::StatusSample;
use crate::top::terminal::LiveScreen;
use crate::top::view::{LiveView, ViewCommand, ViewEvent};

/// How often the view is told that time goes on.
const TICK: Duration = Duration::from_millis(100);

/// Asks once. Errors: no router answers.
pub async fn sample(session: &CommandSession, start: Instant) -> Result<StatusSample, Failure> {
    let status = session.status().await?;
    Ok(StatusSample {
        at: start.elapsed(),
        router: session.cluster.answering().to_owned(),
        status,
    })
}

/// Shows the cluster until the user or a signal ends it.
pub async fn run(session: &CommandSession, interval: Duration) -> Result<()> {
    let start = Instant::now();
    let (mut screen, mut events) = LiveScreen::open()?;
    let mut view = LiveView::new(interval);
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asking: BoxFuture<'_, ViewEvent> = futures::future::pending().boxed();
    loop {
        if view.take_dirty() {
            let now = start.elapsed();
            screen.draw(|frame, palette| draw(frame, &view, now, palette))?;
        }
        let event = tokio::select! {
            // The signal first: the process has no time to lose then.
            biased;
            () = session.interrupt.cancelled() => return Ok(()),
            event = events.recv() => event.ok_or_else(|| {
                Failure::new(Code::Failed, "the terminal went away")
                    .hint("`monofs-admin top --once` needs none")
            })?,
            event = &mut asking => {
                asking = futures::future::pending().boxed();
                event
            }
            _ = ticks.tick() => ViewEvent::Tick,
        };
        match view.step(event, start.elapsed()) {
            ViewCommand::Nothing => {}
            ViewCommand::Quit => return Ok(()),
            ViewCommand::Ask => {
                asking = sample(session, start).map(ViewEvent::from).boxed();
            }
        }
    }
}
