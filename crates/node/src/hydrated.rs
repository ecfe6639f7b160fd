//! How much of each snapshot's contents this node holds, without looking at every file at each
//! question.
//!
//! ```text
//! unknown --count (one walk)--> counted --add (per batch pulled)--> counted --complete--> all
//!    ^_______________ forget: a batch broke off, so what it stored is unknown
//! ```
//!
//! Invariants: only a walk says that all is held, `count` or the hydrator's that found nothing
//! missing; what was added since the count never sums up to all, whatever readers pull beside the
//! hydrator; a count that was dropped from the table (its snapshot is gone) is never asked again.
//!
//! Callers: `hydrate` counts and adds, `service::node` asks.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use monofs_model::{Oid, Result, Snapshot, StorageId};
use monofs_store::repo::{BlobWalk, RepoStore};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::blocking::blocking;

/// Files looked at per view of the database while counting.
const COUNT_STEP: usize = 65_536;

/// The counts of all snapshots that were asked for or hydrated since the start.
#[derive(Default)]
pub(crate) struct HydratedCounts {
    by_repository: Mutex<HashMap<StorageId, HashMap<Oid, Arc<HydratedCount>>>>,
}

/// One snapshot's contents.
#[derive(Default)]
pub(crate) struct HydratedCount {
    /// Held when they were counted.
    counted: OnceCell<u64>,
    /// Pulled since then.
    added: AtomicU64,
    complete: AtomicBool,
}

impl HydratedCounts {
    /// The count of a snapshot.
    pub fn of(&self, id: &StorageId, commit: &Oid) -> Arc<HydratedCount> {
        self.by_repository
            .lock()
            .entry(id.clone())
            .or_default()
            .entry(*commit)
            .or_default()
            .clone()
    }

    /// The next question about this snapshot counts anew.
    pub fn forget(&self, id: &StorageId, commit: &Oid) {
        if let Some(counts) = self.by_repository.lock().get_mut(id) {
            counts.remove(commit);
        }
    }

    /// Only these snapshots of a repository are left.
    pub fn retain(&self, id: &StorageId, commits: &[Oid]) {
        let mut all = self.by_repository.lock();
        match all.get_mut(id) {
            Some(_) if commits.is_empty() => drop(all.remove(id)),
            Some(counts) => counts.retain(|commit, _| commits.contains(commit)),
            None => {}
        }
    }
}

impl HydratedCount {
    /// Distinct blobs of `snapshot` that are held. The first call walks the snapshot; others wait
    /// for it.
    pub async fn held(&self, store: &Arc<RepoStore>, snapshot: &Snapshot) -> Result<u64> {
        if self.is_complete() {
            return Ok(snapshot.blobs);
        }
        let counted = *self
            .counted
            .get_or_try_init(|| {
                let store = store.clone();
                let root = snapshot.root;
                blocking(move || count_held(&store, root))
            })
            .await?;
        Ok(match self.added.load(Ordering::Relaxed) {
            _ if self.is_complete() => snapshot.blobs,
            0 => counted.min(snapshot.blobs),
            added => (counted + added).min(snapshot.blobs.saturating_sub(1)),
        })
    }

    /// This many more are held.
    pub fn add(&self, blobs: usize) {
        self.added.fetch_add(blobs as u64, Ordering::Relaxed);
    }

    /// A walk found nothing missing.
    pub fn complete(&self) {
        self.complete.store(true, Ordering::Release);
    }

    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }
}

/// Distinct blobs below `root` that are held, by one walk. Blocking. Ids are told apart by their
/// first 64 bits, which keeps a million of them at 20 MB; a figure for people, which decides
/// nothing.
pub(crate) fn count_held(store: &RepoStore, root: Oid) -> Result<u64> {
    if store.counts()?.blobs == 0 {
        return Ok(0);
    }
    let mut seen: HashSet<u64> = HashSet::new();
    let mut walk = BlobWalk::new(root);
    while walk.next_held(&store.read()?, COUNT_STEP, |oid, _| {
        seen.insert(id_prefix(oid));
    })? {}
    Ok(seen.len() as u64)
}

/// The first 64 bits of an id.
fn id_prefix(oid: &Oid) -> u64 {
    oid.as_bytes()
        .first_chunk()
        .map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use monofs_model::{DisplayPath, ObjectFormat, ObjectKind, TreeRecord};
    use monofs_store::frame;
    use monofs_store::pool::RepoPool;
    use monofs_store::repo::RepoMeta;

    use super::*;

    const FILES: [&str; 4] = ["one", "two", "three", "four"];

    /// A repository with one directory of [`FILES`], each named twice, and no contents.
    struct Fixture {
        _dir: tempfile::TempDir,
        store: Arc<RepoStore>,
        id: StorageId,
        snapshot: Snapshot,
    }

    fn blob(contents: &str) -> Oid {
        Oid::of(ObjectFormat::Sha1, ObjectKind::Blob, contents.as_bytes())
    }

    fn fixture() -> Fixture {
        let mut tree = Vec::new();
        for prefix in ["a", "b"] {
            for (n, contents) in FILES.iter().enumerate() {
                tree.extend_from_slice(format!("100644 {prefix}{n}\0").as_bytes());
                tree.extend_from_slice(blob(contents).as_bytes());
            }
        }
        let root = Oid::of(ObjectFormat::Sha1, ObjectKind::Tree, &tree);
        let record = TreeRecord::encode(&tree, ObjectFormat::Sha1, |_, _, _| Ok(5));
        let record = record.expect("a sound tree").bytes().clone();
        let snapshot = Snapshot {
            commit: Oid::of(ObjectFormat::Sha1, ObjectKind::Commit, b"commit"),
            root,
            commit_time: 0,
            trees: 1,
            blobs: FILES.len() as u64,
            bytes: 17,
            submodules: Vec::new(),
            generations: None,
        };
        let path = DisplayPath::new("h/r").expect("a path");
        let meta = RepoMeta {
            storage_id: path.storage_id(),
            path,
            source: monofs_model::SourceUrl::new("https://h/r.git").expect("a source"),
            ref_name: monofs_model::RefName::new("main").expect("a ref"),
            content: monofs_model::ContentMode::Lazy,
            format: ObjectFormat::Sha1,
        };
        let dir = tempfile::tempdir().expect("a directory");
        let pool = RepoPool::open(dir.path(), 1, Default::default()).expect("a pool");
        let store = pool.get_or_create(&meta).expect("a store");
        store.put_trees(&[(root, record)]).expect("room");
        store.put_snapshot(&snapshot).expect("its closure is here");
        Fixture {
            _dir: dir,
            store,
            id: meta.storage_id,
            snapshot,
        }
    }

    fn put(fixture: &Fixture, contents: &str) {
        let frame = frame::encode(contents.as_bytes());
        let blobs = [(blob(contents), frame)];
        fixture.store.put_blobs(&blobs).expect("room");
    }

    #[tokio::test]
    async fn distinct_contents_are_counted_once_and_what_is_added_since_never_makes_all() {
        let fixture = fixture();
        put(&fixture, "one");
        let counts = HydratedCounts::default();
        let count = counts.of(&fixture.id, &fixture.snapshot.commit);
        let held = || count.held(&fixture.store, &fixture.snapshot);
        assert_eq!(held().await, Ok(1));
        // What was counted is not looked at again; what is pulled is told.
        put(&fixture, "two");
        assert_eq!(held().await, Ok(1));
        count.add(1);
        assert_eq!(held().await, Ok(2));
        count.add(100);
        assert_eq!(held().await, Ok(3), "only a walk says that all is held");
        assert!(!count.is_complete());
        count.complete();
        assert_eq!(held().await, Ok(4));
    }

    #[tokio::test]
    async fn what_is_forgotten_is_counted_anew() {
        let fixture = fixture();
        let counts = HydratedCounts::default();
        let commit = fixture.snapshot.commit;
        let first = counts.of(&fixture.id, &commit);
        assert_eq!(first.held(&fixture.store, &fixture.snapshot).await, Ok(0));
        put(&fixture, "one");
        counts.forget(&fixture.id, &commit);
        let second = counts.of(&fixture.id, &commit);
        assert_eq!(second.held(&fixture.store, &fixture.snapshot).await, Ok(1));
    }

    #[test]
    fn only_commits_that_are_left_keep_their_counts() {
        let counts = HydratedCounts::default();
        let id = DisplayPath::new("h/r").expect("a path").storage_id();
        let commits = ["a", "b"].map(blob);
        for commit in &commits {
            counts.of(&id, commit).complete();
        }
        counts.retain(&id, &commits[..1]);
        assert!(counts.of(&id, &commits[0]).is_complete());
        assert!(!counts.of(&id, &commits[1]).is_complete());
        counts.retain(&id, &[]);
        assert!(counts.by_repository.lock().is_empty());
    }
}
