//! The loop: keys, answers and time go into the view, and what it wants comes out.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::{BoxFuture, FutureExt};
use monofs_launch::exit::{Code, Failure};
use tokio::time::MissedTickBehavior;

use crate::session::Session;
use crate::top::draw::draw;
use crate::top::figures::Sample;
use crate::top::terminal::Screen;
use crate::top::view::{Command, Event, View};

/// How often the view is told that time goes on.
const TICK: Duration = Duration::from_millis(100);

/// Asks once. Errors: no router answers.
pub async fn sample(session: &Session, start: Instant) -> Result<Sample, Failure> {
    let status = session.status().await?;
    Ok(Sample {
        at: start.elapsed(),
        router: session.cluster.answering().to_owned(),
        status,
    })
}

/// Shows the cluster until the user or a signal ends it.
pub async fn run(session: &Session, interval: Duration) -> Result<()> {
    let start = Instant::now();
    let (mut screen, mut events) = Screen::open()?;
    let mut view = View::new(interval);
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asking: BoxFuture<'_, Event> = futures::future::pending().boxed();
    loop {
        if view.take_dirty() {
            let now = start.elapsed();
            screen.draw(|frame, colours| draw(frame, &view, now, colours))?;
        }
        let event = tokio::select! {
            // The signal first: the process has no time to lose then.
            biased;
            () = session.interrupt.cancelled() => return Ok(()),
            event = events.recv() => event.ok_or_else(|| {
                Failure::new(Code::Failed, "the terminal went away").hint("`monofs-admin top --once` needs none")
            })?,
            event = &mut asking => {
                asking = futures::future::pending().boxed();
                event
            }
            _ = ticks.tick() => Event::Tick,
        };
        match view.step(event, start.elapsed()) {
            Command::Nothing => {}
            Command::Quit => return Ok(()),
            Command::Ask => {
                let told = |answer: Result<Sample, Failure>| match answer {
                    Ok(sample) => Event::Told(Box::new(sample)),
                    Err(failure) => Event::Failed(failure.message),
                };
                asking = sample(session, start).map(told).boxed();
            }
        }
    }
}
