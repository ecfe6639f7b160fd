//! Directory records of a repository, and walks over the closure of a root tree; see
//! [`super::blob_walk`] for the one that pauses.

use std::collections::HashSet;

use bytes::Bytes;
use heed::RoTxn;
use monofs_model::{EntryKind, Error, Oid, Result, TreeRecord};

use super::store::{RepoReader, RepoStore, RepoTables, TXN_BYTES};
use crate::env::{TxnError, TxnResult, put_changed};

impl RepoStore {
    /// Stores directory records. Verifies nothing: callers parse and verify first.
    pub fn put_trees(&self, batch: &[(Oid, Bytes)]) -> Result<()> {
        for part in parts(batch, |(_, record)| record.len()) {
            self.env
                .write("put directory records", |wtxn| -> TxnResult<()> {
                    for (oid, record) in part {
                        put_changed(self.tables.trees, wtxn, oid.as_bytes(), record)?;
                    }
                    Ok(())
                })?;
        }
        Ok(())
    }
}

/// Cuts a batch so that each part has about [`TXN_BYTES`].
pub(super) fn parts<T>(batch: &[T], bytes_of: impl Fn(&T) -> usize) -> impl Iterator<Item = &[T]> {
    let mut rest = batch;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut bytes = 0;
        let within = rest.iter().take_while(|item| {
            let fits = bytes < TXN_BYTES;
            bytes += bytes_of(item);
            fits
        });
        let (part, after) = rest.split_at(within.count());
        rest = after;
        Some(part)
    })
}

impl RepoReader<'_> {
    /// The directory record of a tree.
    pub fn tree(&self, oid: &Oid) -> Result<Option<&[u8]>> {
        self.store
            .tables
            .trees
            .get(&self.txn, oid.as_bytes())
            .map_err(|e| self.error("read a directory record", e))
    }

    /// Whether a directory record is held. A damaged database holds nothing.
    pub fn has_tree(&self, oid: &Oid) -> bool {
        matches!(self.tree(oid), Ok(Some(_)))
    }

    /// Directory records that the closure of `root` lacks, at most `limit`: what a refresh must
    /// send. Below a tree that is missing nothing is known, so ask again after putting these.
    pub fn missing_trees(&self, root: &Oid, limit: usize) -> Result<Vec<Oid>> {
        let mut missing = Vec::new();
        self.closure(root, |step| {
            if let TreeVisit::Missing(oid) = step {
                missing.push(oid);
            }
            Ok(missing.len() < limit)
        })?;
        Ok(missing)
    }

    /// Walks every distinct tree below `root`, parents first; `visit` says whether to go on. A
    /// record that does not parse is `Corrupt`, a missing one `NotHeld`.
    pub fn walk_trees(
        &self,
        root: &Oid,
        mut visit: impl FnMut(&Oid, &TreeRecord) -> Result<bool>,
    ) -> Result<()> {
        self.closure(root, |step| match step {
            TreeVisit::Missing(oid) => Err(missing_tree(root, &oid).into()),
            TreeVisit::Tree(oid, record) => Ok(visit(&oid, record)?),
        })
    }

    fn closure(
        &self,
        root: &Oid,
        visit: impl FnMut(TreeVisit<'_>) -> TxnResult<bool>,
    ) -> Result<()> {
        let walked = walk(
            self.store.tables,
            &self.txn,
            root,
            &mut HashSet::new(),
            visit,
        );
        walked.map_err(|e| self.store.env.txn_error("walk directory records", e))
    }
}

/// What [`walk`] shows its visitor.
pub(super) enum TreeVisit<'a> {
    Tree(Oid, &'a TreeRecord),
    Missing(Oid),
}

/// The error for a directory record that a closure lacks.
pub(super) fn missing_tree(root: &Oid, oid: &Oid) -> Error {
    Error::not_held(format!("tree {oid} below the root tree {root} is missing"))
}

/// Walks the distinct trees below `root` that are not in `seen` and adds them to it; iterative, so
/// depth costs heap alone. `visit` says whether to go on.
pub(super) fn walk(
    tables: RepoTables,
    txn: &RoTxn<'_>,
    root: &Oid,
    seen: &mut HashSet<Oid>,
    mut visit: impl FnMut(TreeVisit<'_>) -> TxnResult<bool>,
) -> TxnResult<()> {
    let mut stack = Vec::new();
    if seen.insert(*root) {
        stack.push(*root);
    }
    while let Some(oid) = stack.pop() {
        // A record that is missing is the visitor's to judge; one that does not parse ends the walk.
        let parsed = match tables.trees.get(txn, oid.as_bytes())? {
            None => {
                if !visit(TreeVisit::Missing(oid))? {
                    return Ok(());
                }
                continue;
            }
            Some(bytes) => TreeRecord::parse(Bytes::copy_from_slice(bytes)),
        };
        let record = parsed
            .map_err(|e| TxnError::Model(Error::corrupt(format!("tree {oid}: {}", e.message))))?;
        if !visit(TreeVisit::Tree(oid, &record))? {
            return Ok(());
        }
        // Reversed, so that the first directory is popped first and keys come in the order they
        // were put.
        let first = stack.len();
        stack.extend(
            record
                .iter()
                .filter(|e| e.kind == EntryKind::Directory && seen.insert(e.oid))
                .map(|e| e.oid),
        );
        stack[first..].reverse();
    }
    Ok(())
}
