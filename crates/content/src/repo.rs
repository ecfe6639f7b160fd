//! A repository as this mount shows it: the catalogue entry whose snapshot is being served. A pinned
//! one is a repository as it was: inodes whose snapshot was replaced belong to it.
//!
//! Invariant: the snapshot changes only in the mount's flip, under the switch lock,
//! together with the inodes; that of a pinned one never does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use monofs_model::{Repository, Snapshot, StorageId};
use parking_lot::RwLock;

use crate::packed::{Packed, Volume};
use crate::shown::ShownTree;
use crate::times::{KnownTimes, ShownTimes};

/// One mounted repository.
#[derive(Debug)]
pub struct Repo {
    path: Box<str>,
    storage_id: OnceLock<StorageId>,
    shown: RwLock<ShownEntry>,
    /// Of generations, besides what the entry tells; boxed, since of most repositories there is
    /// none.
    times: RwLock<Option<Box<KnownTimes>>>,
    closure_asked: AtomicBool,
    is_pinned: bool,
}

#[derive(Debug)]
struct ShownEntry {
    packed: Packed,
    /// Decoded when it was first asked for.
    entry: Option<Arc<Repository>>,
}

impl Repo {
    /// A repository that readers see at `entry`'s snapshot. `None` without a snapshot: such entries
    /// are never shown.
    pub fn new(entry: Arc<Repository>) -> Option<Arc<Self>> {
        let packed = Packed::of(&entry)?;
        let shown = ShownEntry {
            packed,
            entry: Some(entry.clone()),
        };
        Some(Arc::new(Self::with(entry.path.clone().into(), shown)))
    }

    /// The repository as it is shown now, for those who go on seeing that.
    pub fn pinned(&self) -> Arc<Self> {
        let entry = self.entry();
        let shown = ShownEntry {
            packed: self.to_packed(),
            entry: Some(entry),
        };
        Arc::new(Self {
            // What is known of it is read on demand; nothing asks for all of it at once.
            closure_asked: AtomicBool::new(true),
            is_pinned: true,
            times: RwLock::new(self.times.read().clone()),
            ..Self::with(self.path.to_string(), shown)
        })
    }

    /// Whether this is a repository as it was.
    pub fn is_pinned(&self) -> bool {
        self.is_pinned
    }

    /// The repository at `path`, which is that of the entry.
    pub fn packed(path: String, packed: Packed) -> Arc<Self> {
        let shown = ShownEntry {
            packed,
            entry: None,
        };
        Arc::new(Self::with(path, shown))
    }

    fn with(path: String, shown: ShownEntry) -> Self {
        Self {
            path: path.into_boxed_str(),
            storage_id: OnceLock::new(),
            shown: RwLock::new(shown),
            times: RwLock::default(),
            closure_asked: AtomicBool::new(false),
            is_pinned: false,
        }
    }

    /// Where it is shown.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The id under which nodes store it.
    pub fn storage_id(&self) -> &StorageId {
        self.storage_id.get_or_init(|| self.entry().storage_id())
    }

    /// The entry being served.
    pub fn entry(&self) -> Arc<Repository> {
        if let Some(entry) = self.look(|shown| shown.entry.clone()) {
            return entry;
        }
        let mut shown = self.shown.write();
        let ShownEntry { packed, entry } = &mut *shown;
        entry
            .get_or_insert_with(|| Arc::new(packed.decode()))
            .clone()
    }

    /// The entry being served, packed.
    pub fn to_packed(&self) -> Packed {
        self.look(|shown| shown.packed.clone())
    }

    /// Whether readers see the same as with this entry.
    pub fn shows(&self, packed: &Packed) -> bool {
        self.look(|shown| shown.packed.same(packed))
    }

    /// The root directory being served.
    pub fn root(&self) -> ShownTree {
        self.look(|shown| shown.packed.root)
    }

    /// The times that the entry being served tells.
    pub fn shown_times(&self) -> ShownTimes {
        self.look(|shown| shown.packed.times)
    }

    /// The time of a generation of what is being served; `None`: it is not known here. Seconds
    /// since the epoch.
    pub fn time_of(&self, generation: u64) -> Option<i64> {
        self.time_with(&self.shown_times(), generation)
    }

    /// The same, once an entry is served that tells `shown`.
    pub fn time_with(&self, shown: &ShownTimes, generation: u64) -> Option<i64> {
        let known = self.times.read();
        let known = known.as_deref();
        known
            .and_then(|known| known.late(generation))
            .or_else(|| shown.get(generation))
            .or_else(|| known?.get(generation))
    }

    /// Learns about times.
    pub fn learn_times(&self, learn: impl FnOnce(&mut KnownTimes)) {
        learn(self.times.write().get_or_insert_default());
    }

    /// Looks at what is known about times, besides what the entry tells.
    pub fn look_at_times<T>(&self, look: impl FnOnce(&KnownTimes) -> T) -> Option<T> {
        self.times.read().as_deref().map(look)
    }

    /// The size of what is being served.
    pub fn volume(&self) -> Volume {
        self.look(|shown| shown.packed.volume)
    }

    /// Bytes of memory that it takes before it is looked at, without what the allocator adds.
    pub fn memory_bytes(&self) -> usize {
        std::mem::size_of::<Self>()
            + self.path.len()
            + self.look(|shown| shown.packed.encoded_bytes())
    }

    fn look<T>(&self, look: impl FnOnce(&ShownEntry) -> T) -> T {
        look(&self.shown.read())
    }

    /// Serves another entry from now on. Entries without a snapshot are ignored.
    pub fn set(&self, entry: Arc<Repository>) {
        if let Some(packed) = Packed::of(&entry) {
            *self.shown.write() = ShownEntry {
                packed,
                entry: Some(entry),
            };
        }
    }

    /// True for the first caller only, which asks for the whole closure.
    pub fn first_touch(&self) -> bool {
        !self.closure_asked.swap(true, Ordering::Relaxed)
    }

    /// The first touch came to nothing: the next one is the first again.
    pub fn touch_again(&self) {
        self.closure_asked.store(false, Ordering::Relaxed);
    }
}

/// The snapshot of an entry that is being served.
pub fn snapshot_of(entry: &Repository) -> &Snapshot {
    entry
        .snapshot
        .as_ref()
        .expect("Repo::new and Repo::set take only entries with a snapshot")
}
