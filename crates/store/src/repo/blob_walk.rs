//! One walk over the blobs of a snapshot that can pause: between two steps it holds no view of the
//! database, so writers put what is missing while it waits.
//!
//! Invariants: every entry of every distinct directory record is looked at once, so the whole walk
//! is linear in them, however many steps it takes; memory is that of the distinct directories, not
//! of the files.
//!
//! Callers: a node's hydrator, its count of what is hydrated, and its comparison with a peer.

use std::collections::HashSet;
use std::ops::Range;

use bytes::Bytes;
use monofs_model::{EntryKind, Error, Oid, Result, TreeRecord};

use super::store::RepoReader;
use super::trees::missing_tree;

/// Where a walk over the blobs below one root tree is.
pub struct BlobWalk {
    root: Oid,
    /// Directories seen and not begun, the next one last.
    waiting: Vec<Oid>,
    seen: HashSet<Oid>,
    /// The directory that a step stopped in, and its next entry.
    paused: Option<(Oid, usize)>,
}

impl BlobWalk {
    /// A walk that has not begun.
    pub fn new(root: Oid) -> Self {
        Self {
            root,
            waiting: vec![root],
            seen: HashSet::from([root]),
            paused: None,
        }
    }

    /// Goes on until `limit` missing blobs were found or the walk ends; nothing more to come means
    /// the end. A blob that two directories name comes once per step at most, and again in a later
    /// step if it is still missing then. Errors: `NotHeld` when a directory record is missing,
    /// `Corrupt` when one does not parse.
    pub fn next_missing(
        &mut self,
        reader: &RepoReader<'_>,
        limit: usize,
    ) -> Result<Vec<(Oid, u64)>> {
        let mut missing = Vec::new();
        let mut named = HashSet::new();
        self.step(reader, |oid, size| {
            if !named.contains(oid) && !reader.has_blob(oid) {
                named.insert(*oid);
                missing.push((*oid, size));
            }
            missing.len() < limit.max(1)
        })?;
        Ok(missing)
    }

    /// Looks at up to `limit` more files and hands over the blobs (and sizes) of those that are
    /// held, as often as they are named. Gives whether there may be more. Errors: those of
    /// [`BlobWalk::next_missing`].
    pub fn next_held(
        &mut self,
        reader: &RepoReader<'_>,
        limit: usize,
        mut held: impl FnMut(&Oid, u64),
    ) -> Result<bool> {
        let mut left = limit.max(1);
        self.step(reader, |oid, size| {
            if reader.has_blob(oid) {
                held(oid, size);
            }
            left -= 1;
            left > 0
        })
    }

    /// Hands each blob's id and size to `visit` until that says stop; gives whether there may be
    /// more.
    fn step(
        &mut self,
        reader: &RepoReader<'_>,
        mut visit: impl FnMut(&Oid, u64) -> bool,
    ) -> Result<bool> {
        while let Some((oid, from)) = self
            .paused
            .take()
            .or_else(|| self.waiting.pop().map(|oid| (oid, 0)))
        {
            let bytes = reader
                .tree(&oid)?
                .ok_or_else(|| missing_tree(&self.root, &oid))?;
            let record = TreeRecord::parse(Bytes::copy_from_slice(bytes))
                .map_err(|e| Error::corrupt(format!("tree {oid}: {}", e.message)))?;
            if from == 0 {
                self.note_directories(&record);
            }
            if let Some(stopped) = visit_blobs(&record, from..record.len(), &mut visit) {
                self.paused = Some((oid, stopped + 1));
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reversed, so that the first directory is the next one and blobs come in the order of the
    /// tree.
    fn note_directories(&mut self, record: &TreeRecord) {
        let first = self.waiting.len();
        let directories = record
            .iter()
            .filter(|entry| entry.kind == EntryKind::Directory)
            .map(|entry| entry.oid);
        self.waiting
            .extend(directories.filter(|oid| self.seen.insert(*oid)));
        self.waiting[first..].reverse();
    }
}

/// The entry at which `visit` said stop.
fn visit_blobs(
    record: &TreeRecord,
    range: Range<usize>,
    visit: &mut impl FnMut(&Oid, u64) -> bool,
) -> Option<usize> {
    range
        .filter_map(|index| record.get(index).map(|entry| (index, entry)))
        .filter(|(_, entry)| entry.kind.is_blob())
        .find(|(_, entry)| !visit(&entry.oid, entry.size))
        .map(|(index, _)| index)
}
