//! Removes what no kept snapshot reaches.
//!
//! Order: rows of snapshots that go, then marking from those that stay, then sweeping in bounded
//! transactions. A crash in between leaves unreachable objects, which the next run removes; never a
//! snapshot with a hole. If anything reachable is missing or damaged, nothing is swept.

use std::collections::HashSet;
use std::ops::Bound;

use heed::types::DecodeIgnore;
use monofs_model::{Oid, Result};

use super::blobs::{ChunkKey, pending_oids};
use super::snapshots::decode;
use super::store::RepoStore;
use super::trees::{TreeVisit, missing_tree, walk};
use crate::env::{ReadTxn, Table, TxnResult};

/// Rows looked at per read transaction, and removed per write transaction.
const SWEEP_ROWS: usize = 4096;

/// What `gc` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GcReport {
    pub snapshots_removed: u64,
    pub trees_removed: u64,
    /// Chunks of blobs.
    pub chunks_removed: u64,
    pub generation_nodes_removed: u64,
    /// Bytes of the values removed. Freed pages are reused; the file does not shrink.
    pub bytes_removed: u64,
}

/// What the snapshots that stay reach.
struct MarkedObjects {
    trees: HashSet<Oid>,
    blobs: HashSet<Oid>,
}

/// Rows that were removed, and the bytes of their values.
#[derive(Default)]
struct SweptRows {
    rows: u64,
    bytes: u64,
}

/// What a look at some rows found.
struct SweepSlice {
    /// Keys to remove.
    gone: Vec<Vec<u8>>,
    /// The last key seen, if there may be more.
    last: Option<Vec<u8>>,
}

impl RepoStore {
    /// Keeps the snapshots of the commits in `keep` and all that they reach, and removes the rest.
    /// Waits for adoptions under way and holds off new ones.
    pub fn gc(&self, keep: &[Oid]) -> Result<GcReport> {
        let _sweep = self.sweep.write();
        let mut report = GcReport {
            snapshots_removed: self.drop_snapshots(keep)?,
            ..GcReport::default()
        };

        // The sweep removes what the remaining snapshots do not reach. A long blob whose writing
        // began after the mark stays, too.
        let marked = self.mark()?;
        let trees = self.sweep_table(self.tables.trees, |key| {
            Ok(marked.trees.contains(&Oid::from_bytes(key)?))
        })?;
        let chunks = self.sweep_table(self.tables.blobs, |key| {
            let (oid, _) = ChunkKey::split(key)?;
            Ok(marked.blobs.contains(&oid) || self.writing.lock().contains(&oid))
        })?;

        // The generations of gone commits are forgotten first, then the nodes that no other commit
        // names go.
        let held: HashSet<Oid> = self.snapshots()?.iter().map(|held| held.commit).collect();
        let nodes = self.mark_generations(&held)?;
        let generations = match self.known_generation_tables() {
            Some(tables) => self.sweep_table(tables.nodes, |key| {
                Ok(nodes.contains(&Oid::from_bytes(key)?))
            })?,
            None => SweptRows::default(),
        };
        report.generation_nodes_removed = generations.rows;
        report.trees_removed = trees.rows;
        report.chunks_removed = chunks.rows;
        report.bytes_removed = trees.bytes + chunks.bytes + generations.bytes;
        Ok(report)
    }

    fn drop_snapshots(&self, keep: &[Oid]) -> Result<u64> {
        let keep: HashSet<&[u8]> = keep.iter().map(Oid::as_bytes).collect();
        self.env.write("drop snapshots", |wtxn| -> TxnResult<u64> {
            let mut gone = Vec::new();
            for row in self.tables.snapshots.iter(wtxn)? {
                let (commit, _) = row?;
                if !keep.contains(commit) {
                    gone.push(commit.to_vec());
                }
            }
            for commit in &gone {
                self.tables.snapshots.delete(wtxn, commit)?;
            }
            Ok(gone.len() as u64)
        })
    }

    fn mark(&self) -> Result<MarkedObjects> {
        let mut marked = MarkedObjects {
            trees: HashSet::new(),
            blobs: pending_oids(self),
        };
        let txn = self.env.read()?;
        self.mark_reachable(&txn, &mut marked)
            .map_err(|e| self.env.txn_error("mark what snapshots reach", e))?;
        Ok(marked)
    }

    /// Adds the trees and blobs that snapshots reach.
    fn mark_reachable(&self, txn: &ReadTxn<'_>, marked: &mut MarkedObjects) -> TxnResult<()> {
        let MarkedObjects { trees, blobs } = marked;
        for row in self.tables.snapshots.iter(txn)? {
            let root = decode(row?.1)?.root;
            walk(self.tables, txn, &root, trees, |visit| match visit {
                TreeVisit::Missing(oid) => Err(missing_tree(&root, &oid).into()),
                TreeVisit::Tree(_, record) => {
                    let entries = record.iter().filter(|entry| entry.kind.is_blob());
                    blobs.extend(entries.map(|entry| entry.oid));
                    Ok(true)
                }
            })?;
        }
        Ok(())
    }

    /// Removes the rows of `table` whose key is not kept.
    fn sweep_table(&self, table: Table, kept: impl Fn(&[u8]) -> Result<bool>) -> Result<SweptRows> {
        let mut swept = SweptRows::default();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let SweepSlice { gone, last } = self.sweep_slice(table, after.as_deref(), &kept)?;
            for part in gone.chunks(SWEEP_ROWS) {
                // The next call that asks for the number of blobs counts them anew.
                let mut held = self.held.lock();
                *held = None;
                let removed = self.env.write("sweep", |wtxn| -> TxnResult<SweptRows> {
                    let mut removed = SweptRows::default();
                    for key in part {
                        if let Some(value) = table.get(wtxn, key)? {
                            removed.bytes += value.len() as u64;
                            table.delete(wtxn, key)?;
                            removed.rows += 1;
                        }
                    }
                    Ok(removed)
                })?;
                swept.rows += removed.rows;
                swept.bytes += removed.bytes;
            }
            match last {
                Some(last) => after = Some(last),
                None => return Ok(swept),
            }
        }
    }

    /// Looks at the next rows after a key.
    fn sweep_slice(
        &self,
        table: Table,
        after: Option<&[u8]>,
        kept: &impl Fn(&[u8]) -> Result<bool>,
    ) -> Result<SweepSlice> {
        let broken = |e| self.env.error("look for unreachable objects", e);
        let txn = self.env.read()?;
        let keys = table.remap_data_type::<DecodeIgnore>();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        // A bounded number of rows, so that the view is short.
        let mut gone = Vec::new();
        let mut last = None;
        for (seen, row) in keys
            .range(&txn, &(from, Bound::Unbounded))
            .map_err(broken)?
            .enumerate()
        {
            let (key, ()) = row.map_err(broken)?;
            if !kept(key)? {
                gone.push(key.to_vec());
            }
            if seen + 1 == SWEEP_ROWS {
                last = Some(key.to_vec());
                break;
            }
        }
        Ok(SweepSlice { gone, last })
    }
}
