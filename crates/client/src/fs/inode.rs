//! The inode table: everything the kernel holds a reference to, and nothing else.
//!
//! Invariants: an entry lives from the first reply that names it until the kernel has forgotten
//! every one of those replies; so the table is bounded by the kernel's own inode cache. The oid of
//! a file never changes; that of a directory is switched by [`InodeTable::switch_directory`] only,
//! and the versions that readers may still be listing are kept. A `dead` inode (its name is gone or
//! means something else now) goes on serving what it was, and is never given to a new lookup.
//!
//! An inode of a replaced snapshot is pinned: it belongs to a pinned [`Repo`], and [`PinnedInodes`]
//! counts it until it is forgotten, or a lookup finds it in what is shown.
//!
//! No lock here is held while calling out of this module, except into the closure of
//! [`InodeTable::with`].

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use monofs_content::evidence::NameKind;
use monofs_content::repo::Repo;
use monofs_content::shown::{NamedEntry, ShownTree};
use monofs_model::{EntryKind, GenerationRef, Oid};
use parking_lot::{Mutex, MutexGuard};

use super::attr::{FileKind, InodeAttr};
use super::identity::{CONTROL, Identity, Ino, ROOT, SLOTS};
use super::in_use::PinnedInodes;

const SHARDS: usize = 16;
/// Earlier versions of a directory that a listing in progress may still ask for.
const HISTORY_MAX: usize = 4;

/// What an inode stands for.
#[derive(Debug, Clone)]
pub enum InodeTarget {
    /// The directory `.monofs`.
    Control,
    /// A text made when it was looked up.
    Document(Bytes),
    /// A directory above repositories, by its path; the root is empty.
    Namespace(Arc<str>),
    /// A directory, file, symlink or submodule of a repository.
    Entry {
        kind: EntryKind,
        oid: Oid,
        /// In which its name last changed; a `u32`, since it fits where nothing else does.
        generation: u32,
        repo: Arc<Repo>,
    },
}

impl InodeTarget {
    /// An entry of a repository's directory.
    pub fn entry(named: &NamedEntry<'_>, repo: &Arc<Repo>) -> Self {
        Self::Entry {
            kind: named.entry.kind,
            oid: named.entry.oid,
            generation: short(&named.generations),
            repo: repo.clone(),
        }
    }
}

/// The generation of a name as an inode keeps it: no repository is updated four thousand million
/// times.
fn short(generations: &GenerationRef) -> u32 {
    u32::try_from(generations.own()).unwrap_or(u32::MAX)
}

/// A version of a directory that was replaced.
#[derive(Debug, Clone)]
pub struct PastVersion {
    version: u32,
    /// What the directory showed.
    pub shown: ShownTree,
    /// The snapshot in which it showed that.
    pub pinned: Arc<Repo>,
}

/// Versions of a directory that were replaced, the newest last.
type TreeHistory = [Option<PastVersion>; HISTORY_MAX];

/// What most directories need no room for.
#[derive(Debug, Default)]
struct DirectoryExtras {
    /// The node of a directory whose names changed in several generations.
    node: Option<Oid>,
    /// Of a directory that was switched.
    history: Option<Box<TreeHistory>>,
}

/// One inode. There are as many as the kernel has names of the mount in memory, so its size counts
/// (104 bytes).
#[derive(Debug)]
pub struct Inode {
    check: u64,
    pub parent: Ino,
    pub what: InodeTarget,
    /// What its name says that it is.
    pub name_kind: NameKind,
    pub size: u64,
    /// Seconds since the epoch.
    pub mtime: i64,
    /// Of a directory: grows with each switch.
    pub version: u32,
    lookups: u64,
    dead: bool,
    /// Of a directory that was switched, or has a generation node.
    extras: Option<Box<DirectoryExtras>>,
}

impl Inode {
    /// An inode that nothing refers to yet.
    pub fn new(identity: Identity, parent: Ino, what: InodeTarget, size: u64, mtime: i64) -> Self {
        Self {
            check: identity.check,
            parent,
            what,
            name_kind: NameKind::default(),
            size,
            mtime,
            version: 1,
            lookups: 0,
            dead: false,
            extras: None,
        }
    }

    /// The same, of a directory of a repository with these generations.
    pub fn with_generations(mut self, generations: &GenerationRef) -> Self {
        if let Some(node) = generations.node() {
            self.extras.get_or_insert_default().node = Some(node);
        }
        self
    }

    /// Whether it stands for this entry of a directory.
    pub fn is_entry(&self, named: &NamedEntry<'_>) -> bool {
        let NamedEntry { entry, generations } = named;
        match &self.what {
            InodeTarget::Entry {
                kind: EntryKind::Directory,
                ..
            } => entry.kind == EntryKind::Directory && self.shown() == Some(named.shown()),
            InodeTarget::Entry {
                kind,
                oid,
                generation,
                ..
            } => *kind == entry.kind && *oid == entry.oid && *generation == short(generations),
            _ => false,
        }
    }

    /// What a directory of a repository shows.
    pub fn shown(&self) -> Option<ShownTree> {
        let InodeTarget::Entry {
            kind: EntryKind::Directory,
            oid,
            generation,
            ..
        } = &self.what
        else {
            return None;
        };
        let own = u64::from(*generation);
        let node = self.extras.as_ref().and_then(|extras| extras.node);
        Some(ShownTree {
            tree: *oid,
            generations: match node {
                None => GenerationRef::Constant(own),
                Some(id) => GenerationRef::Node { own, id },
            },
        })
    }

    /// Its attributes under the number `ino`.
    pub fn attr(&self, ino: Ino) -> InodeAttr {
        let kind = match &self.what {
            InodeTarget::Control | InodeTarget::Namespace(_) => FileKind::Directory,
            InodeTarget::Document(_) => FileKind::File,
            InodeTarget::Entry { kind, .. } => FileKind::from(*kind),
        };
        InodeAttr {
            ino,
            kind,
            size: self.size,
            mtime: self.mtime,
        }
    }

    /// The half of its identity that is not in its number.
    pub fn check(&self) -> u64 {
        self.check
    }

    /// What this directory showed at an earlier version, if that is still known.
    pub fn past(&self, version: u32) -> Option<PastVersion> {
        let history = self.extras.as_deref()?.history.as_deref()?;
        let mut past = history.iter().flatten();
        past.find(|past| past.version == version).cloned()
    }

    /// The repository whose snapshot it belongs to, once that is no longer the one being served.
    pub fn pinned(&self) -> Option<&Arc<Repo>> {
        match &self.what {
            InodeTarget::Entry { repo, .. } if repo.is_pinned() => Some(repo),
            _ => None,
        }
    }
}

/// Inode numbers are hashes already: spread them, no more.
#[derive(Default)]
struct SpreadHasher(u64);

impl Hasher for SpreadHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes
            .iter()
            .for_each(|&byte| self.write_u64(self.0 << 8 ^ u64::from(byte)));
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = value.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
    }
}

/// Boxed, since up to half of a table's places are empty.
type InodeShard = HashMap<Ino, Box<Inode>, BuildHasherDefault<SpreadHasher>>;

/// All inodes of one mount.
pub struct InodeTable {
    shards: [Mutex<InodeShard>; SHARDS],
    pinned: PinnedInodes,
}

impl InodeTable {
    /// A table with the root and the control directory, which are never forgotten.
    pub fn new(now: i64) -> Self {
        let table = Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            pinned: PinnedInodes::default(),
        };
        let fixed = Identity { base: 0, check: 0 };
        for (ino, what) in [
            (ROOT, InodeTarget::Namespace("".into())),
            (CONTROL, InodeTarget::Control),
        ] {
            let mut inode = Inode::new(fixed, ROOT, what, 0, now);
            inode.lookups = u64::MAX / 2;
            table.shard(ino).insert(ino, Box::new(inode));
        }
        table
    }

    fn shard(&self, ino: Ino) -> MutexGuard<'_, InodeShard> {
        // All slots of one hash value are in one shard.
        self.shards[(ino / SLOTS) as usize % SHARDS].lock()
    }

    /// Looks at one inode. `None`: the kernel does not know it.
    pub fn with<R>(&self, ino: Ino, look: impl FnOnce(&Inode) -> R) -> Option<R> {
        self.shard(ino).get(&ino).map(|inode| look(inode))
    }

    /// Counts one more reference of the kernel to the inode with this identity, made by `make` if
    /// there is none. One that is not the `same` thing is retired, and another made. A pinned one
    /// that is found in `shown`, what is served of a repository now, belongs to that again. `None`
    /// when every slot is taken by something else, which needs eight collisions of 61 bits.
    pub fn remember(
        &self,
        identity: Identity,
        shown: Option<&Arc<Repo>>,
        same: impl Fn(&Inode) -> bool,
        make: impl FnOnce() -> Inode,
    ) -> Option<InodeAttr> {
        let mut shard = self.shard(identity.base);
        if let Ok(ino) = live_slot(&shard, identity) {
            let inode = shard.get_mut(&ino).expect("found above");
            if same(inode) {
                if inode.pinned().is_some()
                    && let Some(shown) = shown.filter(|repo| !repo.is_pinned())
                {
                    self.give(inode, shown);
                }
                inode.lookups += 1;
                return Some(inode.attr(ino));
            }
            inode.dead = true;
        }
        let ino = live_slot(&shard, identity).err()??;
        let inode = self.made(&mut shard, ino, make);
        inode.lookups += 1;
        Some(inode.attr(ino))
    }

    /// The inode at `ino`, made if there is none.
    fn made<'a>(
        &self,
        shard: &'a mut InodeShard,
        ino: Ino,
        make: impl FnOnce() -> Inode,
    ) -> &'a mut Inode {
        shard.entry(ino).or_insert_with(|| {
            let inode = Box::new(make());
            self.pinned.add(&inode.what);
            inode
        })
    }

    /// Makes an inode one of `repo`.
    fn give(&self, inode: &mut Inode, repo: &Arc<Repo>) {
        self.pinned.remove(&inode.what);
        if let InodeTarget::Entry { repo: of, .. } = &mut inode.what {
            of.clone_from(repo);
        }
        self.pinned.add(&inode.what);
    }

    /// The inodes of replaced snapshots.
    pub fn pinned(&self) -> &PinnedInodes {
        &self.pinned
    }

    /// Counts one more reference to an inode that no lookup is to find: something that is not there
    /// any more, in a listing that began when it was.
    pub fn remember_retired(
        &self,
        identity: Identity,
        make: impl FnOnce() -> Inode,
    ) -> Option<InodeAttr> {
        let mut shard = self.shard(identity.base);
        let ino = (identity.base..identity.base + SLOTS).find(|ino| !shard.contains_key(ino))?;
        let inode = self.made(&mut shard, ino, make);
        inode.lookups += 1;
        inode.dead = true;
        Some(inode.attr(ino))
    }

    /// Puts in a document under a number that was never used before, with one reference.
    pub fn remember_document(&self, ino: Ino, text: Bytes, now: i64) -> InodeAttr {
        let size = text.len() as u64;
        let mut inode = Inode::new(
            Identity {
                base: ino,
                check: 0,
            },
            CONTROL,
            InodeTarget::Document(text),
            size,
            now,
        );
        inode.lookups = 1;
        let attr = inode.attr(ino);
        self.shard(ino).insert(ino, Box::new(inode));
        attr
    }

    /// The live inode with this identity, if the kernel knows it.
    pub fn find(&self, identity: Identity) -> Option<Ino> {
        live_slot(&self.shard(identity.base), identity).ok()
    }

    /// The number that [`InodeTable::remember`] would give.
    pub fn number(&self, identity: Identity) -> Ino {
        match live_slot(&self.shard(identity.base), identity) {
            Ok(ino) => ino,
            Err(free) => free.unwrap_or(identity.base),
        }
    }

    /// Takes back `count` references.
    pub fn forget(&self, ino: Ino, count: u64) {
        let mut shard = self.shard(ino);
        if let Slot::Occupied(mut slot) = shard.entry(ino) {
            let inode = slot.get_mut();
            inode.lookups = inode.lookups.saturating_sub(count);
            if inode.lookups == 0 && ino != ROOT && ino != CONTROL {
                self.pinned.remove(&inode.what);
                slot.remove();
            }
        }
    }

    /// Has a directory show something else; what it showed, in the repository as it was, stays
    /// readable for listings in progress. `mtime` is set when the names in the directory changed.
    pub fn switch_directory(
        &self,
        ino: Ino,
        shown: ShownTree,
        before: &Arc<Repo>,
        mtime: Option<i64>,
    ) {
        if let Some(inode) = self.shard(ino).get_mut(&ino) {
            // What the directory showed is noted before it is replaced.
            let version = inode.version;
            let past = inode.shown().map(|shown| PastVersion {
                version,
                shown,
                pinned: before.clone(),
            });

            // The oldest of the kept versions gives way, and listings in progress find theirs by
            // its number.
            if let InodeTarget::Entry {
                oid, generation, ..
            } = &mut inode.what
            {
                *oid = shown.tree;
                *generation = short(&shown.generations);
                let extras = inode.extras.get_or_insert_default();
                extras.node = shown.generations.node();
                let history = extras.history.get_or_insert_default();
                history.rotate_left(1);
                history[HISTORY_MAX - 1] = past;
                inode.version = version.wrapping_add(1) & i32::MAX as u32;
            }
            if let Some(mtime) = mtime {
                inode.mtime = mtime;
            }
        }
    }

    /// Marks when the names of a directory above repositories changed.
    pub fn touch(&self, ino: Ino, now: i64) {
        if let Some(inode) = self.shard(ino).get_mut(&ino) {
            inode.mtime = now;
        }
    }

    /// Takes the inode away from new lookups. Readers that hold it go on seeing it as of `pinned`;
    /// `None` above repositories.
    pub fn retire(&self, ino: Ino, pinned: Option<&Arc<Repo>>) {
        if let Some(inode) = self.shard(ino).get_mut(&ino) {
            inode.dead = true;
            if let Some(pinned) = pinned {
                self.give(inode, pinned);
            }
        }
    }

    /// Says that an inode belongs to `pinned`, not to what is served now.
    pub fn pin(&self, ino: Ino, pinned: &Arc<Repo>) {
        if let Some(inode) = self.shard(ino).get_mut(&ino) {
            self.give(inode, pinned);
        }
    }

    /// How many inodes the kernel refers to.
    pub fn count(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

/// The live inode with this identity, or the first free slot for one.
fn live_slot(shard: &InodeShard, identity: Identity) -> Result<Ino, Option<Ino>> {
    let slots = identity.base..identity.base + SLOTS;
    // Nearly always it is in the first one. A live one may sit behind a slot that has become free
    // since, so all slots are looked at first.
    match slots.clone().find(|ino| is_live(shard, *ino, identity)) {
        Some(ino) => Ok(ino),
        None => Err(slots.into_iter().find(|ino| !shard.contains_key(ino))),
    }
}

fn is_live(shard: &InodeShard, ino: Ino, identity: Identity) -> bool {
    shard
        .get(&ino)
        .is_some_and(|inode| inode.check == identity.check && !inode.dead)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use monofs_model::tree::Entry;

    use super::*;

    fn directory(table: &InodeTable, name: &[u8]) -> InodeAttr {
        let identity = Identity::directory(ROOT, name);
        let what = || InodeTarget::Namespace(String::from_utf8_lossy(name).into());
        table
            .remember(
                identity,
                None,
                |_| true,
                || Inode::new(identity, ROOT, what(), 0, 5),
            )
            .unwrap()
    }

    #[test]
    fn an_inode_lives_until_every_lookup_is_forgotten() {
        let table = InodeTable::new(0);
        let empty = table.count();
        let first = directory(&table, b"a");
        assert_eq!(directory(&table, b"a").ino, first.ino);
        assert_eq!(table.count(), empty + 1);
        table.forget(first.ino, 1);
        assert!(table.with(first.ino, |_| ()).is_some());
        table.forget(first.ino, 1);
        assert!(table.with(first.ino, |_| ()).is_none());
        assert_eq!(table.count(), empty);
        table.forget(first.ino, 9);
    }

    #[test]
    fn an_inode_is_small() {
        assert!(size_of::<Inode>() <= 104, "{}", size_of::<Inode>());
    }

    #[test]
    fn the_latest_versions_of_a_directory_can_be_listed() {
        let oid = |n: u8| Oid::from_bytes(&[n; 20]).unwrap();
        let (table, identity) = (InodeTable::new(0), Identity::directory(ROOT, b"d"));
        let repo = || Repo::new(crate::fs::namespace::tests::entry("h/x", oid(0), 1)).unwrap();
        let what = || InodeTarget::Entry {
            kind: EntryKind::Directory,
            oid: oid(0),
            generation: 0,
            repo: repo(),
        };
        let shown = |n: u8| ShownTree {
            tree: oid(n),
            generations: GenerationRef::Constant(u64::from(n)),
        };
        let ino = table
            .remember(
                identity,
                None,
                |_| true,
                || Inode::new(identity, ROOT, what(), 0, 0),
            )
            .unwrap()
            .ino;
        let before = repo().pinned();
        (1..=6).for_each(|n| table.switch_directory(ino, shown(n), &before, None));
        let trees: Vec<_> = (1..=8)
            .map(|version| table.with(ino, |inode| inode.past(version)).unwrap())
            .map(|past| past.map(|past| past.shown))
            .collect();
        // The seventh is what it is now.
        let kept = (3..=6).map(|version| Some(shown(version - 1)));
        assert_eq!(
            trees,
            [None, None]
                .into_iter()
                .chain(kept)
                .chain([None, None])
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn an_inode_takes_the_bytes_that_are_said() {
        assert_eq!(size_of::<Inode>(), 104);
    }

    #[test]
    fn the_root_cannot_be_forgotten() {
        let table = InodeTable::new(0);
        table.forget(ROOT, u64::MAX);
        table.forget(CONTROL, u64::MAX);
        assert!(table.with(ROOT, |_| ()).is_some());
        assert!(table.with(CONTROL, |_| ()).is_some());
    }

    #[test]
    fn numbers_are_the_same_before_and_after_registering() {
        let table = InodeTable::new(0);
        let identity = Identity::directory(ROOT, b"x");
        let foretold = table.number(identity);
        assert_eq!(directory(&table, b"x").ino, foretold);
        assert_eq!(table.number(identity), foretold);
    }

    #[test]
    fn colliding_identities_get_slots_of_their_own() {
        let table = InodeTable::new(0);
        let one = Identity::directory(ROOT, b"x");
        let other = Identity {
            check: one.check ^ 1,
            ..one
        };
        let make = |identity| move || Inode::new(identity, ROOT, InodeTarget::Control, 0, 0);
        let a = table.remember(one, None, |_| true, make(one)).unwrap().ino;
        let b = table
            .remember(other, None, |_| true, make(other))
            .unwrap()
            .ino;
        assert_ne!(a, b);
        // The second keeps its number when the first is forgotten.
        table.forget(a, 1);
        assert_eq!(table.number(other), b);
        assert_eq!(
            table
                .remember(other, None, |_| true, make(other))
                .unwrap()
                .ino,
            b
        );
        // Slot 0 is free again, so seven more fit.
        for n in 2..=8 {
            let next = Identity {
                check: one.check ^ n,
                ..one
            };
            let found = table.remember(next, None, |_| true, make(next));
            assert_eq!(found.is_some(), n <= 8, "slot {n}");
        }
        let ninth = Identity {
            check: one.check ^ 99,
            ..one
        };
        assert!(table.remember(ninth, None, |_| true, make(ninth)).is_none());
    }

    #[test]
    fn an_inode_that_is_something_else_now_is_retired() {
        let table = InodeTable::new(0);
        let old = directory(&table, b"d");
        let identity = Identity::directory(ROOT, b"d");
        let new = table
            .remember(
                identity,
                None,
                |_| false,
                || Inode::new(identity, ROOT, InodeTarget::Control, 0, 0),
            )
            .unwrap();
        assert_ne!(old.ino, new.ino);
        assert_eq!(table.find(identity), Some(new.ino));
    }

    #[test]
    fn a_retired_directory_is_not_found_again_but_goes_on_serving() {
        let table = InodeTable::new(0);
        let old = directory(&table, b"d");
        table.retire(old.ino, None);
        assert_eq!(table.find(Identity::directory(ROOT, b"d")), None);
        let new = directory(&table, b"d");
        assert_ne!(old.ino, new.ino);
        assert!(table.with(old.ino, |_| ()).is_some());
        // Even after the old one is gone, the new one keeps its number.
        table.forget(old.ino, 1);
        assert_eq!(directory(&table, b"d").ino, new.ino);
    }

    #[test]
    fn a_pinned_inode_counts_until_it_is_forgotten_or_shown_again() {
        let oid = |n: u8| Oid::from_bytes(&[n; 20]).unwrap();
        let shown = Repo::new(crate::fs::namespace::tests::entry("h/x", oid(0), 1)).unwrap();
        let before = shown.pinned();
        let table = InodeTable::new(0);
        let named = NamedEntry {
            entry: Entry {
                name: b"f",
                kind: EntryKind::File,
                oid: oid(1),
                size: 1,
            },
            generations: GenerationRef::Constant(1),
        };
        let identity = Identity::entry(ROOT, &named);
        let file = |repo: &Arc<Repo>| InodeTarget::entry(&named, repo);
        let look_up = |repo: &Arc<Repo>| {
            let make = || Inode::new(identity, ROOT, file(repo), 1, 0);
            let found = table.remember(identity, Some(repo), |_| true, make);
            found.unwrap().ino
        };
        let named = || -> Vec<Oid> {
            let in_use = table.pinned().list().unwrap();
            in_use.into_iter().flat_map(|used| used.oids).collect()
        };
        let ino = look_up(&shown);
        assert_eq!(named(), []);
        for _ in 0..2 {
            table.pin(ino, &before);
            assert_eq!(
                named(),
                [oid(1)],
                "counted once, however often it is pinned"
            );
        }
        // A later commit shows the same content at the same name, which takes it back.
        assert_eq!(look_up(&shown), ino);
        assert_eq!(named(), []);
        table.pin(ino, &before);
        // A lookup in a directory that is pinned itself does not.
        assert_eq!(look_up(&before), ino);
        table.forget(ino, 2);
        assert_eq!(named(), [oid(1)]);
        table.forget(ino, 1);
        assert_eq!(named(), []);
        // One that is made in a pinned directory counts from the start.
        look_up(&before);
        assert_eq!(named(), [oid(1)]);
    }
}
