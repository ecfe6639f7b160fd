//! How often this router found that no holder could tell when the names of a repository last changed,
//! so that all of them got the time of an update.

use monofs_control::clock;
use monofs_model::DisplayPath;
use parking_lot::Mutex;

/// The last loss is told for this long, in seconds.
const TOLD_SECONDS: i64 = 24 * 3600;

/// What was lost since this router started.
#[derive(Debug, Default)]
pub struct LostGenerations(Mutex<Losses>);

#[derive(Debug, Default)]
struct Losses {
    count: u64,
    last: Option<(DisplayPath, i64)>,
}

impl LostGenerations {
    /// Counts a loss at `path`.
    pub fn note(&self, path: &DisplayPath) {
        let mut losses = self.0.lock();
        losses.count += 1;
        losses.last = Some((path.clone(), clock::now()));
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.0.lock().count
    }

    /// The path and the time, in seconds since the epoch, of the last one, if it is to be told at
    /// `now`.
    pub fn told(&self, now: i64) -> Option<(DisplayPath, i64)> {
        let last = self.0.lock().last.clone();
        last.filter(|(_, at)| now - at < TOLD_SECONDS)
    }
}
