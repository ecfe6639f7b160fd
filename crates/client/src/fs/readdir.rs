//! Directory listings.
//!
//! A position in a listing is `version << 32 | index`: which version of the directory is being
//! listed, and how far. A listing that began before a switch goes on in the version it began with;
//! its names are then not to be trusted by the kernel beyond this listing. Index 0 is `.`, 1 is
//! `..`.

use std::sync::Arc;

use monofs_model::TreeRecord;

use super::control::STATUS_NAME;
use super::identity::{CONTROL, Identity, Ino, ROOT};
use super::lookup::Directory;
use super::namespace::{Namespace, at_version};
use super::{Attr, FileKind, Fs, Trust};
use crate::errno::Errno;
use crate::repo::Repo;
use crate::want::Outcome;

/// `.` and `..` come before the names.
const DOTS: u64 = 2;

/// One name of a listing.
#[derive(Debug)]
pub struct DirItem<'a> {
    pub name: &'a [u8],
    pub ino: Ino,
    pub kind: FileKind,
    /// Where to go on after this name.
    pub next: u64,
    /// With attributes asked for: they, and how long the name may be believed. Never for `.` and
    /// `..`.
    pub attr: Option<(Attr, Trust)>,
}

/// Takes names until it says that it is full; the name it refuses was not taken.
pub trait Sink {
    /// True: full, `item` was not taken.
    fn is_full_for(&mut self, item: &DirItem<'_>) -> bool;
}

impl<F: FnMut(&DirItem<'_>) -> bool> Sink for F {
    fn is_full_for(&mut self, item: &DirItem<'_>) -> bool {
        self(item)
    }
}

impl Fs {
    /// Lists the directory `ino` from `position` on. `with_attributes` takes one reference to each
    /// inode that the sink accepted.
    pub fn readdir(
        &self,
        ino: Ino,
        position: u64,
        with_attributes: bool,
        sink: &mut dyn Sink,
    ) -> Outcome<()> {
        let version = (position >> 32) as u32;
        let listing = Listing {
            fs: self,
            ino,
            with_attributes,
            index: position & u64::from(u32::MAX),
        };
        if ino == CONTROL {
            return listing.control(sink);
        }
        let world = self.world();
        match self.directory(ino)? {
            Directory::Control | Directory::Submodule => listing.dots(1, sink).map(|_| ()),
            Directory::Namespace(path) => listing.namespace(&world, &path, version, sink),
            Directory::Tree {
                repo,
                tree,
                version: current,
            } => {
                if position == 0 || version == current {
                    let record = self.record(&repo, &tree, ino)?;
                    return listing.tree(&repo, &record, current, None, sink);
                }
                let past = self
                    .inodes
                    .with(ino, |inode| inode.tree_at(version))
                    .flatten()
                    .ok_or(Errno::STALE)?;
                let (record, now) = (
                    self.record(&repo, &past, ino)?,
                    self.record(&repo, &tree, ino)?,
                );
                listing.tree(&repo, &record, version, Some(&now), sink)
            }
        }
    }
}

/// One call of `readdir`.
struct Listing<'a> {
    fs: &'a Fs,
    ino: Ino,
    with_attributes: bool,
    index: u64,
}

impl Listing<'_> {
    /// `.` and `..`. Returns the index of the first name, or `None` when the sink is full.
    fn dots(&self, version: u32, sink: &mut dyn Sink) -> Outcome<Option<u64>> {
        let parent = self
            .fs
            .inodes
            .with(self.ino, |inode| inode.parent)
            .ok_or(Errno::STALE)?;
        for (index, name, ino) in [(0u64, &b"."[..], self.ino), (1, b"..", parent)] {
            if index < self.index {
                continue;
            }
            let item = DirItem {
                name,
                ino,
                kind: FileKind::Directory,
                next: at(version, index + 1),
                attr: None,
            };
            if sink.is_full_for(&item) {
                return Ok(None);
            }
        }
        Ok(Some(self.index.saturating_sub(DOTS)))
    }

    fn control(&self, sink: &mut dyn Sink) -> Outcome<()> {
        if self.dots(1, sink)? == Some(0) {
            let identity = Identity::directory(CONTROL, STATUS_NAME);
            // Its number is another at each lookup; the kernel asks again for the real one.
            let (ino, kind, next) = (identity.base, FileKind::File, at(1, DOTS + 1));
            let attr = self
                .with_attributes
                .then(|| (self.fs.new_document(), Trust::Once));
            let ino = attr.map_or(ino, |(attr, _)| attr.ino);
            let full = sink.is_full_for(&DirItem {
                name: STATUS_NAME,
                ino,
                kind,
                next,
                attr,
            });
            if let (true, Some((attr, _))) = (full, attr) {
                self.fs.inodes.forget(attr.ino, 1);
            }
        }
        Ok(())
    }

    fn namespace(
        &self,
        world: &Namespace,
        path: &str,
        version: u32,
        sink: &mut dyn Sink,
    ) -> Outcome<()> {
        let Some(current) = world.listing(path) else {
            // Still open, but no repository is below it any more.
            debug_assert!(self.ino != ROOT || world.totals().repositories == 0);
            return self.dots(1, sink).map(|_| ());
        };
        let (listing, trust) = match self.index {
            0 => (current.clone(), Trust::Forever),
            _ if version == current.version => (current.clone(), Trust::Forever),
            _ => (
                at_version(current, version).ok_or(Errno::STALE)?,
                Trust::Once,
            ),
        };
        let Some(start) = self.dots(listing.version, sink)? else {
            return Ok(());
        };
        for (n, (name, child)) in listing.from(start as usize).enumerate() {
            let next = at(listing.version, DOTS + start + n as u64 + 1);
            let attr = match self.with_attributes {
                true => Some((
                    self.fs
                        .remember_child(self.ino, path, name.as_bytes(), child)?,
                    trust,
                )),
                false => None,
            };
            let identity = Identity::directory(self.ino, name.as_bytes());
            if self.offer(
                identity,
                name.as_bytes(),
                FileKind::Directory,
                next,
                attr,
                sink,
            ) {
                break;
            }
        }
        Ok(())
    }

    /// Names of a repository's directory. `now` is its current record when `record` is an earlier
    /// one.
    fn tree(
        &self,
        repo: &Arc<Repo>,
        record: &TreeRecord,
        version: u32,
        now: Option<&TreeRecord>,
        sink: &mut dyn Sink,
    ) -> Outcome<()> {
        let Some(start) = self.dots(version, sink)? else {
            return Ok(());
        };
        for (n, entry) in record.iter().enumerate().skip(start as usize) {
            let next = at(version, DOTS + n as u64 + 1);
            let attr = match (self.with_attributes, now) {
                (false, _) => None,
                (true, None) => Some((
                    self.fs.remember_entry(self.ino, repo, &entry)?,
                    Trust::Forever,
                )),
                (true, Some(now)) => {
                    let current = now.find(entry.name);
                    Some((
                        self.fs
                            .remember_past_entry(self.ino, repo, &entry, current.as_ref())?,
                        Trust::Once,
                    ))
                }
            };
            let identity = Identity::entry(self.ino, entry.name, entry.kind, &entry.oid);
            if self.offer(
                identity,
                entry.name,
                FileKind::from(entry.kind),
                next,
                attr,
                sink,
            ) {
                break;
            }
        }
        Ok(())
    }

    /// Gives one name to the sink. True: it is full, and the reference that was taken is given
    /// back.
    fn offer(
        &self,
        identity: Identity,
        name: &[u8],
        kind: FileKind,
        next: u64,
        attr: Option<(Attr, Trust)>,
        sink: &mut dyn Sink,
    ) -> bool {
        let ino = attr.map_or_else(|| self.fs.inodes.number(identity), |(attr, _)| attr.ino);
        let full = sink.is_full_for(&DirItem {
            name,
            ino,
            kind,
            next,
            attr,
        });
        if let (true, Some((attr, _))) = (full, attr) {
            self.fs.inodes.forget(attr.ino, 1);
        }
        full
    }
}

fn at(version: u32, index: u64) -> u64 {
    u64::from(version) << 32 | index
}
