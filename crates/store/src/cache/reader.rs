//! Reading the cache: views that cost no lock shared with other readers or writers.
//!
//! Beginning an LMDB read transaction takes a mutex of the environment, which readers on several
//! threads would queue at. So views are kept for the next reader on the same thread while nothing
//! was written. An idle view pins pages, so every put first ends those that idle, and what is begun
//! before or during a put is not kept after it.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use monofs_model::Oid;
use parking_lot::Mutex;

use super::generation::{CacheRow, Generation, GenerationTxn};
use super::{CacheStore, GenerationPair};

/// Views that idle at most; threads share them by number.
const IDLE_MAX: usize = 32;
/// Most hits in the previous generation that are remembered for promotion; further ones are
/// forgotten.
const PROMOTE_ROWS_MAX: usize = 65_536;

/// One consistent view of both generations. Transactions begin on first use; one that could not
/// begin stays `None`.
struct CacheView {
    // Order matters: transactions end before their environments are let go.
    current: OnceCell<Option<GenerationTxn>>,
    previous: OnceCell<Option<GenerationTxn>>,
    pair: Arc<GenerationPair>,
    /// The epoch of [`IdleViews`] before the view began.
    epoch: u64,
}

/// A place for one view; on a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct ViewSlot(Mutex<Option<CacheView>>);

/// Views that were read from and wait for their next reader.
#[derive(Default)]
pub(super) struct IdleViews {
    /// Odd while a put runs; a view is as good as new while its own, even, epoch lasts.
    epoch: AtomicU64,
    slots: [ViewSlot; IDLE_MAX],
}

/// A put under way: while this value lives no view is kept.
pub(super) struct ViewsChanging<'i>(&'i IdleViews);

impl IdleViews {
    /// Ends all idle views before a put; the caller is the only writer.
    pub(super) fn changing(&self) -> ViewsChanging<'_> {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.slots
            .iter()
            .for_each(|slot| drop(slot.0.lock().take()));
        ViewsChanging(self)
    }

    fn slot(&self) -> &Mutex<Option<CacheView>> {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static NUMBER: usize = THREADS.fetch_add(1, Ordering::Relaxed);
        }
        &self.slots[NUMBER.with(|number| *number) % IDLE_MAX].0
    }

    fn take(&self) -> Option<CacheView> {
        let view = self.slot().try_lock()?.take()?;
        (view.epoch == self.epoch.load(Ordering::SeqCst)).then_some(view)
    }

    fn keep(&self, view: CacheView) {
        if let Some(mut slot) = self.slot().try_lock()
            && slot.is_none()
            // Looked at under the lock: a put that begins now finds the view in its slot.
            && view.epoch.is_multiple_of(2)
            && view.epoch == self.epoch.load(Ordering::SeqCst)
        {
            *slot = Some(view);
        }
    }
}

impl Drop for ViewsChanging<'_> {
    fn drop(&mut self) {
        self.0.epoch.fetch_add(1, Ordering::SeqCst);
    }
}

impl CacheStore {
    /// Begins reading: one consistent view. Keep it short. A failure to begin reads as an empty
    /// cache.
    pub fn read(&self) -> CacheReader<'_> {
        let view = self.idle.take().unwrap_or_else(|| CacheView {
            epoch: self.idle.epoch.load(Ordering::SeqCst),
            pair: self.pair(),
            current: OnceCell::new(),
            previous: OnceCell::new(),
        });
        CacheReader {
            cache: self,
            view: Some(view),
        }
    }

    fn note_hit(&self, row: CacheRow) {
        // Never wait here: a hit that is not noted is only less likely to stay.
        if let Some(mut promote) = self.promote.try_lock()
            && promote.len() < PROMOTE_ROWS_MAX
        {
            promote.insert(row);
        }
    }
}

/// One consistent view of the cache.
pub struct CacheReader<'c> {
    cache: &'c CacheStore,
    /// `None` only while the reader is being dropped.
    view: Option<CacheView>,
}

impl CacheReader<'_> {
    /// The directory record of a tree, in the map.
    pub fn tree(&self, oid: &Oid) -> Option<&[u8]> {
        self.find(
            |generation, txn| generation.tree(txn, oid),
            || CacheRow::tree(oid),
        )
    }

    /// The frame of one chunk.
    pub fn chunk(&self, oid: &Oid, index: u32) -> Option<Bytes> {
        self.find(
            |generation, txn| generation.chunk(txn, oid, index),
            || CacheRow::chunk(oid, index),
        )
    }

    /// Whether the frame of a chunk is here. It does not count as used.
    pub fn has_chunk(&self, oid: &Oid, index: u32) -> bool {
        let has = |generation: &Generation, txn: &GenerationTxn| {
            generation.has_chunk(txn, oid, index).then_some(())
        };
        self.in_current(has)
            .or_else(|| self.in_previous(has))
            .is_some()
    }

    fn find<'r, T>(
        &'r self,
        look: impl Fn(&'r Generation, &'r GenerationTxn) -> Option<T>,
        row: impl FnOnce() -> CacheRow,
    ) -> Option<T> {
        self.in_current(&look).or_else(|| {
            let found = self.in_previous(&look)?;
            self.cache.note_hit(row());
            Some(found)
        })
    }

    fn in_current<'r, T>(
        &'r self,
        look: impl Fn(&'r Generation, &'r GenerationTxn) -> Option<T>,
    ) -> Option<T> {
        let view = self.view.as_ref()?;
        let newer = view.pair.current.as_deref()?;
        look(newer, view.current.get_or_init(|| newer.begin()).as_ref()?)
    }

    fn in_previous<'r, T>(
        &'r self,
        look: impl Fn(&'r Generation, &'r GenerationTxn) -> Option<T>,
    ) -> Option<T> {
        let view = self.view.as_ref()?;
        let older = view.pair.previous.as_deref()?;
        look(older, view.previous.get_or_init(|| older.begin()).as_ref()?)
    }
}

impl Drop for CacheReader<'_> {
    fn drop(&mut self) {
        if let Some(view) = self.view.take() {
            self.cache.idle.keep(view);
        }
    }
}
