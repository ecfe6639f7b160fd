//! The times of generations: kept aside in the state store in rows of [`ROW`] generations, written by
//! the commit that flips the entry, read on demand and never held in memory.
//!
//! A value is [`VERSION`] and a `monofs.v1.GenerationTimes`. The rows of an entry that is removed
//! stay: what comes to its path later goes on counting where it ended, so that a generation means
//! one thing for ever, to clients that were away as well.
//!
//! Invariant: times grow by at least a second from each generation to the next (programs compare
//! whole seconds), and are whole seconds.

use std::sync::Arc;

use monofs_model::{Error, Repository, Result, StorageId};
use monofs_proto::v1;
use monofs_store::state::Write;
use prost::Message;

use super::room::{delete, put};
use crate::state::{ASIDE, SharedState};

/// Version of every value written.
const VERSION: u8 = 1;
/// Generations in one row.
pub const ROW: u64 = 1024;
/// Rows that are kept: generations before them show the time of the oldest one that is.
pub const ROWS_MAX: u64 = 64;
/// A generation is not shown before its time but for the rounding up to whole seconds: a flip whose
/// time would be further ahead of the clock waits.
pub(super) const AHEAD_MAX_MS: i64 = 2000;
/// A last time that is further ahead than this comes from a wrong clock: a flip does not wait.
pub(super) const AHEAD_WAIT_MAX_MS: i64 = 10_000;

/// A generation and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GenerationTime {
    pub generation: u64,
    /// Seconds since the epoch.
    pub time: i64,
}

/// The times of the generations of entries.
#[derive(Clone)]
pub struct TimesOfGenerations {
    shared: Arc<SharedState>,
}

impl TimesOfGenerations {
    /// Reads from the state store of `shared`.
    pub fn new(shared: &Arc<SharedState>) -> Self {
        Self {
            shared: shared.clone(),
        }
    }

    /// The last generation that was shown at a path, also by an entry that was removed. Errors: the
    /// state store's.
    pub async fn last(&self, id: &StorageId) -> Result<Option<GenerationTime>> {
        let kept = self.kept(id).await?;
        Ok(kept.last().and_then(last_of))
    }

    /// What is kept about the entry's last generation. Errors: the state store's.
    pub(super) async fn of(&self, entry: &Repository) -> Result<TimesOfEntry> {
        let id = entry.storage_id();
        let number = entry.generation / ROW;
        let own = self.scan(&key_of(&id, number)).await?.into_iter().next();
        // A router of before times were kept may have gone on counting into another row.
        let row = match own {
            Some(row) => Some(row),
            None => self.kept(&id).await?.pop(),
        };
        Ok(TimesOfEntry { row })
    }

    /// These rows, as far as they have times; older ones than are kept are filled with the oldest
    /// time. Errors: the state store's.
    pub async fn rows(&self, id: &StorageId, rows: &[u64]) -> Result<Vec<v1::GenerationTimes>> {
        let kept = self.kept(id).await?;
        let Some(oldest) = kept.first() else {
            return Ok(Vec::new());
        };
        let oldest_time = oldest.deltas.first().copied().unwrap_or_default();
        let row = |row: &u64| {
            let found = kept.iter().find(|kept| kept.row == *row).cloned();
            let is_older = *row < oldest.row;
            found.or_else(|| {
                is_older.then(|| v1::GenerationTimes {
                    row: *row,
                    first: row * ROW,
                    deltas: std::iter::once(oldest_time)
                        .chain(std::iter::repeat_n(0, ROW as usize - 1))
                        .collect(),
                })
            })
        };
        Ok(rows.iter().filter_map(row).collect())
    }

    /// All rows that are kept, the oldest first.
    async fn kept(&self, id: &StorageId) -> Result<Vec<v1::GenerationTimes>> {
        self.scan(&format!("{ASIDE}times/{id}/")).await
    }

    async fn scan(&self, prefix: &str) -> Result<Vec<v1::GenerationTimes>> {
        let scan = self.shared.store().scan(prefix).await?;
        scan.rows
            .iter()
            .map(|(_, row)| decode(&row.value))
            .collect()
    }
}

/// The key of a row. Its number has sixteen digits, so that rows come in their order.
fn key_of(id: &StorageId, row: u64) -> String {
    format!("{ASIDE}times/{id}/{row:016x}")
}

/// The last generation of a row.
pub(super) fn last_of(row: &v1::GenerationTimes) -> Option<GenerationTime> {
    let steps = row.deltas.len().checked_sub(1)? as u64;
    Some(GenerationTime {
        generation: row.first + steps,
        time: row.deltas.iter().sum(),
    })
}

/// The time of the generation that follows one of the time `last`, when it is shown at `now_ms`:
/// the next whole second, and at least a second later.
pub(super) fn next_time(last: i64, now_ms: i64) -> i64 {
    let now = now_ms.div_euclid(1000) + i64::from(now_ms.rem_euclid(1000) > 0);
    now.max(last.saturating_add(1))
}

/// The times of an entry's generations, as a change of it finds them.
pub(super) struct TimesOfEntry {
    /// The last row; `None` = the path never showed anything, or only before times were kept.
    row: Option<v1::GenerationTimes>,
}

impl TimesOfEntry {
    /// The last generation that is kept.
    pub fn kept(&self) -> Option<GenerationTime> {
        self.row.as_ref().and_then(last_of)
    }

    /// The last generation of `entry`, if it ever showed something. One that was published by a
    /// router that kept no times has its commit's, but none before that of the generation before.
    pub fn last(&self, entry: &Repository, now: i64) -> Option<GenerationTime> {
        let kept = self.kept();
        if let Some(kept) = kept.filter(|kept| kept.generation >= entry.generation) {
            return Some(kept);
        }
        let shown = entry.snapshot.as_ref();
        let commit_time = shown.map(|snapshot| snapshot.commit_time.min(now));
        let earliest = kept.map(|kept| {
            let steps = i64::try_from(entry.generation - kept.generation).unwrap_or(i64::MAX);
            kept.time.saturating_add(steps)
        });
        Some(GenerationTime {
            generation: entry.generation,
            time: commit_time.into_iter().chain(earliest).max()?,
        })
    }

    /// The write that keeps the time of `last`, which is [`TimesOfEntry::last`]; `None`: it is kept.
    pub fn keep_last(&self, id: &StorageId, last: GenerationTime) -> Option<Write> {
        let kept = self.kept();
        let is_kept = kept.is_some_and(|kept| kept.generation >= last.generation);
        (!is_kept).then(|| put_row(id, &self.row_to(last)))
    }

    /// The writes that add the time of `next`, which follows `last`.
    pub fn writes(
        &self,
        id: &StorageId,
        last: Option<GenerationTime>,
        next: GenerationTime,
    ) -> Vec<Write> {
        let number = next.generation / ROW;
        let row = match last.filter(|last| last.generation / ROW == number) {
            Some(last) => {
                let mut row = self.row_to(last);
                row.deltas.push(next.time - last.time);
                row
            }
            None => row_of_one(next),
        };
        let mut writes = vec![put_row(id, &row)];
        if number >= ROWS_MAX && next.generation.is_multiple_of(ROW) {
            writes.push(delete(key_of(id, number - ROWS_MAX).into_bytes()));
        }
        writes
    }

    /// The row that ends with `last`. Generations without a time before it are a second apart.
    fn row_to(&self, last: GenerationTime) -> v1::GenerationTimes {
        let row = self.row.as_ref();
        let row = row.filter(|row| row.row == last.generation / ROW);
        let Some((row, kept)) = row.and_then(|row| Some((row, last_of(row)?))) else {
            return row_of_one(last);
        };
        let mut row = row.clone();
        let mut before = kept.time;
        for generation in kept.generation + 1..=last.generation {
            let time = match generation == last.generation {
                true => last.time,
                false => before.saturating_add(1),
            };
            row.deltas.push(time - before);
            before = time;
        }
        row
    }
}

/// A row that knows one generation.
fn row_of_one(of: GenerationTime) -> v1::GenerationTimes {
    v1::GenerationTimes {
        row: of.generation / ROW,
        first: of.generation,
        deltas: vec![of.time],
    }
}

fn put_row(id: &StorageId, row: &v1::GenerationTimes) -> Write {
    put(key_of(id, row.row).into_bytes(), encode(row))
}

fn encode(row: &v1::GenerationTimes) -> Vec<u8> {
    let mut value = vec![VERSION];
    value.extend_from_slice(&row.encode_to_vec());
    value
}

fn decode(value: &[u8]) -> Result<v1::GenerationTimes> {
    match value.split_first() {
        Some((&VERSION, message)) => v1::GenerationTimes::decode(message)
            .map_err(|e| Error::corrupt(format!("times of generations: {e}"))),
        version => Err(Error::refused(format!(
            "times of generations have version {:?}, this router knows {VERSION}; run a newer \
             monofs-router",
            version.map(|(version, _)| version)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_the_next_whole_second_and_later_than_the_last() {
        assert_eq!(next_time(0, 5000), 5);
        assert_eq!(next_time(0, 5001), 6);
        assert_eq!(next_time(6, 5001), 7);
        assert_eq!(next_time(100, 5001), 101);
    }

    fn at(generation: u64, time: i64) -> GenerationTime {
        GenerationTime { generation, time }
    }

    /// The last row after this one and what follows it.
    fn followed(row: v1::GenerationTimes, last: GenerationTime, next: GenerationTime) -> Vec<i64> {
        let times = TimesOfEntry { row: Some(row) };
        let mut row = times.row_to(last);
        row.deltas.push(next.time - last.time);
        assert_eq!(last_of(&row), Some(next));
        let sums = row.deltas.iter().scan(0, |sum, delta| {
            *sum += delta;
            Some(*sum)
        });
        sums.collect()
    }

    #[test]
    fn generations_that_an_older_router_published_have_times_of_their_own() {
        let row = v1::GenerationTimes {
            row: 0,
            first: 1,
            deltas: vec![100, 5],
        };
        let times = followed(row.clone(), at(2, 105), at(3, 110));
        assert_eq!(times, [100, 105, 110]);
        let times = followed(row, at(5, 200), at(6, 201));
        assert_eq!(times, [100, 105, 106, 107, 200, 201]);
    }
}
