//! Verifies a repository: every directory record and blob against its oid, every snapshot's
//! closure.
//!
//! Works in slices, each in its own short read transaction, so that a check of a large repository
//! neither stops the reuse of pages nor delays a resize. What is damaged becomes a problem in the
//! report; an `Err` means that the check itself failed.

use std::collections::HashSet;
use std::ops::Bound;

use bytes::Bytes;
use monofs_model::limits::CHUNK_BYTES;
use monofs_model::oid::ObjectHasher;
use monofs_model::{Error, GenerationNode, GenerationRef, ObjectKind, Oid, Result, TreeRecord};

use super::blobs::ChunkKey;
use super::snapshots::decode;
use super::store::{RepoReader, RepoStore};
use super::trees::{TreeVisit, missing_tree, walk};
use crate::env::{Table, TxnResult};
use crate::frame;

/// Problems kept in a report; the rest is only counted.
pub const PROBLEMS_MAX: usize = 1000;
/// A slice ends after this many rows or value bytes.
const SLICE_ROWS: usize = 1024;
const SLICE_BYTES: usize = 8 << 20;

/// How far a check has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckProgress {
    pub rows_done: u64,
    pub rows_total: u64,
    /// Bytes read from the store.
    pub bytes_done: u64,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckReport {
    pub trees: u64,
    /// Blobs whose oid was recomputed.
    pub blobs: u64,
    /// Raw bytes of those.
    pub bytes: u64,
    pub snapshots: u64,
    /// At most [`PROBLEMS_MAX`], in the order found.
    pub problems: Vec<Error>,
    pub problems_total: u64,
    /// False when the caller stopped it.
    pub complete: bool,
}

impl CheckReport {
    /// Whether everything was looked at and is sound.
    pub fn is_sound(&self) -> bool {
        self.complete && self.problems_total == 0
    }

    fn problem(&mut self, error: Error) {
        self.problems_total += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(error);
        }
    }
}

/// A blob whose chunks are being hashed.
struct BlobHash {
    oid: Oid,
    next: u32,
    size: u64,
    /// `None` once a chunk was found broken; the remaining ones are passed over.
    hasher: Option<ObjectHasher>,
}

impl BlobHash {
    /// A blob of `size` bytes whose chunks are to come.
    fn new(oid: Oid, size: u64) -> Self {
        let hasher = ObjectHasher::new(oid.format(), ObjectKind::Blob, size);
        Self {
            oid,
            next: 0,
            size,
            hasher: Some(hasher),
        }
    }

    /// A blob that is not hashed, of which `chunk` was seen.
    fn passed_over(oid: Oid, chunk: u32) -> Self {
        Self {
            oid,
            next: chunk.saturating_add(1),
            size: 0,
            hasher: None,
        }
    }
}

impl RepoStore {
    /// Verifies everything. `progress` is called after every slice and says whether to go on.
    pub fn check(&self, progress: &mut dyn FnMut(&CheckProgress) -> bool) -> Result<CheckReport> {
        let mut report = CheckReport::default();
        // Nothing is read through the map before its pages are known to be whole.
        if let Some(damage) = self.env.damage()? {
            report.problem(damage);
            report.complete = true;
            return Ok(report);
        }
        let mut state = CheckProgress {
            rows_total: self.rows().unwrap_or(0),
            ..CheckProgress::default()
        };
        if self.check_trees(&mut report, &mut state, progress)?
            && self.check_blobs(&mut report, &mut state, progress)?
        {
            if let Err(e) = self.check_snapshots(&mut report) {
                report.problem(e);
            }
            if let Err(e) = self.check_generations(&mut report) {
                report.problem(e);
            }
            report.complete = true;
        }
        Ok(report)
    }

    fn rows(&self) -> Result<u64> {
        let txn = self.env.read()?;
        let trees = self.tables.trees.len(&txn);
        let blobs = self.tables.blobs.len(&txn);
        let counted = trees.and_then(|trees| Ok(trees + blobs?));
        counted.map_err(|e| self.env.error("count rows", e))
    }

    fn check_trees(
        &self,
        report: &mut CheckReport,
        state: &mut CheckProgress,
        progress: &mut dyn FnMut(&CheckProgress) -> bool,
    ) -> Result<bool> {
        self.slices(
            self.tables.trees,
            report,
            state,
            progress,
            |report, _, key, value| {
                report.trees += 1;
                let record = Oid::from_bytes(key).and_then(|oid| {
                    TreeRecord::parse_verified(Bytes::copy_from_slice(value), &oid).map(drop)
                });
                if let Err(e) = record {
                    report.problem(Error::corrupt(format!("tree {}: {}", hex(key), e.message)));
                }
            },
        )
    }

    fn check_blobs(
        &self,
        report: &mut CheckReport,
        state: &mut CheckProgress,
        progress: &mut dyn FnMut(&CheckProgress) -> bool,
    ) -> Result<bool> {
        let mut hashing: Option<BlobHash> = None;
        let mut raw = Vec::new();
        let went_on = self.slices(
            self.tables.blobs,
            report,
            state,
            progress,
            |report, reader, key, value| {
                if let Err(e) = check_chunk(report, reader, &mut hashing, &mut raw, key, value) {
                    report.problem(Error::corrupt(format!("blob {}: {}", hex(key), e.message)));
                }
            },
        )?;
        if went_on {
            finish_blob(report, hashing);
        }
        Ok(went_on)
    }

    /// Calls `each` for every row of `table`; gives whether `progress` let it come to the end.
    /// Damage of LMDB's own structure ends the table as a problem.
    fn slices(
        &self,
        table: Table,
        report: &mut CheckReport,
        state: &mut CheckProgress,
        progress: &mut dyn FnMut(&CheckProgress) -> bool,
        mut each: impl FnMut(&mut CheckReport, &RepoReader<'_>, &[u8], &[u8]),
    ) -> Result<bool> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            // A slice begins behind the last row of the one before, in a view of its own.
            let reader = self.read()?;
            let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let range = match table.range(&reader.txn, &(from, Bound::Unbounded)) {
                Ok(range) => range,
                Err(e) => {
                    report.problem(self.env.error("check", e));
                    return Ok(true);
                }
            };
            // It ends with the table, with damage, or when it is large enough.
            let mut rows = 0;
            let mut bytes = 0;
            let mut last = None;
            for row in range {
                let (key, value) = match row {
                    Ok(row) => row,
                    Err(e) => {
                        report.problem(self.env.error("check", e));
                        last = None;
                        break;
                    }
                };
                each(report, &reader, key, value);
                rows += 1;
                bytes += value.len();
                last = Some(key);
                if rows >= SLICE_ROWS || bytes >= SLICE_BYTES {
                    break;
                }
            }
            // The caller may stop between two slices, while no view is open.
            state.rows_done += rows as u64;
            state.bytes_done += bytes as u64;
            let ended = last.is_none() || (rows < SLICE_ROWS && bytes < SLICE_BYTES);
            after = last.map(<[u8]>::to_vec);
            drop(reader);
            if !progress(state) {
                return Ok(false);
            }
            if ended {
                return Ok(true);
            }
        }
    }

    fn check_snapshots(&self, report: &mut CheckReport) -> Result<()> {
        let reader = self.read()?;
        let mut seen = HashSet::new();
        let broken = |e| self.env.error("check snapshots", e);
        for row in self.tables.snapshots.iter(&reader.txn).map_err(broken)? {
            let (commit, row) = row.map_err(broken)?;
            // A row that cannot be read is one problem; its closure is not looked at.
            report.snapshots += 1;
            let root = match decode(row) {
                Ok(snapshot) => snapshot.root,
                Err(e) => {
                    report.problem(Error::corrupt(format!(
                        "snapshot {}: {}",
                        hex(commit),
                        e.message
                    )));
                    continue;
                }
            };
            // Trees that an earlier snapshot reached were checked with it.
            let walked = walk(
                self.tables,
                &reader.txn,
                &root,
                &mut seen,
                |step| -> TxnResult<bool> {
                    match step {
                        TreeVisit::Missing(oid) => report.problem(missing_tree(&root, &oid)),
                        TreeVisit::Tree(oid, record) => check_sizes(report, &reader, &oid, record)?,
                    }
                    Ok(true)
                },
            );
            if let Err(e) = walked {
                report.problem(self.env.txn_error("check snapshots", e));
            }
        }
        Ok(())
    }
}

impl RepoStore {
    /// Every generation node against its id, and that the trees which snapshots name have no hole.
    fn check_generations(&self, report: &mut CheckReport) -> Result<()> {
        // A store that never had generations has nothing to check.
        let Some(tables) = self.known_generation_tables() else {
            return Ok(());
        };
        let reader = self.read()?;
        let broken = |e| self.env.error("check generations", e);

        // Each node has to decode, and its bytes have to hash to its id.
        for row in tables.nodes.iter(&reader.txn).map_err(broken)? {
            let (key, value) = row.map_err(broken)?;
            let node = Oid::from_bytes(key)
                .and_then(|id| GenerationNode::decode_verified(value, &id).map(drop));
            if let Err(e) = node {
                let id = hex(key);
                report.problem(Error::corrupt(format!(
                    "generation node {id}: {}",
                    e.message
                )));
            }
        }

        // Each tree of generations that is noted for a snapshot has to have all of its nodes.
        for row in tables.shown.iter(&reader.txn).map_err(broken)? {
            let (key, value) = row.map_err(broken)?;
            let root = GenerationRef::decode(value)?;
            for id in reader.missing_generation_nodes(&root)? {
                report.problem(Error::corrupt(format!(
                    "generation node {id} of snapshot {} is missing",
                    hex(key)
                )));
            }
        }
        Ok(())
    }
}

/// The sizes in a directory record are the one thing its oid does not prove; the blobs that are
/// held do.
fn check_sizes(
    report: &mut CheckReport,
    reader: &RepoReader<'_>,
    oid: &Oid,
    record: &TreeRecord,
) -> Result<()> {
    for entry in record.iter().filter(|entry| entry.kind.is_blob()) {
        let Some(first) = reader.chunk(&entry.oid, 0)? else {
            continue;
        };
        let (Ok(found), expected) = (frame::raw_len(first), frame::chunk_len(entry.size, 0)) else {
            continue;
        };
        if found != expected {
            let name = String::from_utf8_lossy(entry.name);
            report.problem(Error::corrupt(format!(
                "tree {oid}: '{}' is said to have {} bytes, its blob {} disagrees",
                name.escape_debug(),
                entry.size,
                entry.oid
            )));
        }
    }
    Ok(())
}

/// Adds a chunk to the hash of its blob. The first chunk of a blob ends the one before, and a chunk
/// that does not follow is a gap. Errors: what is wrong with this chunk; the rest of its blob is
/// passed over then.
fn check_chunk(
    report: &mut CheckReport,
    reader: &RepoReader<'_>,
    hashing: &mut Option<BlobHash>,
    raw: &mut Vec<u8>,
    key: &[u8],
    value: &[u8],
) -> Result<()> {
    let (oid, chunk) = ChunkKey::split(key)?;
    let goes_on = hashing
        .as_ref()
        .is_some_and(|h| h.oid == oid && h.next == chunk);
    if !goes_on {
        // Another blob begins.
        finish_blob(report, hashing.take());
        if chunk != 0 {
            *hashing = Some(BlobHash::passed_over(oid, chunk));
            return Err(Error::corrupt(format!(
                "the chunk before number {chunk} is missing"
            )));
        }
        let pending = reader.is_pending(&oid);
        if pending.map_err(|e| reader.error("check", e))? {
            *hashing = Some(BlobHash::passed_over(oid, chunk));
            return Ok(());
        }
        *hashing = Some(BlobHash::new(oid, size_of(reader, &oid)?));
    }
    // The chunk counts as seen whether it is sound or not.
    let Some(current) = hashing.as_mut() else {
        return Ok(());
    };
    current.next = chunk.saturating_add(1);
    let Some(hasher) = current.hasher.as_mut() else {
        return Ok(());
    };
    raw.clear();
    match frame::decode_into(value, raw) {
        Ok(()) => hasher.update(raw),
        Err(e) => {
            current.hasher = None;
            return Err(e);
        }
    }
    Ok(())
}

/// Compares the hash of a blob whose chunks were all seen with its id.
fn finish_blob(report: &mut CheckReport, hashing: Option<BlobHash>) {
    let Some(BlobHash {
        oid,
        size,
        hasher: Some(hasher),
        ..
    }) = hashing
    else {
        return;
    };
    report.blobs += 1;
    report.bytes += size;
    if hasher.finish() != oid {
        report.problem(Error::corrupt(format!(
            "blob {oid}: the bytes do not match the object id"
        )));
    }
}

/// Raw bytes of a blob, from the number of its last chunk and that chunk's length.
fn size_of(reader: &RepoReader<'_>, oid: &Oid) -> Result<u64> {
    let end = ChunkKey::new(oid, u32::MAX);
    let last = reader
        .store
        .tables
        .blobs
        .get_lower_than_or_equal_to(&reader.txn, end.as_bytes());
    let Some((key, value)) = last.map_err(|e| reader.error("check", e))? else {
        return Ok(0);
    };
    let (_, chunk) = ChunkKey::split(key)?;
    Ok(u64::from(chunk) * CHUNK_BYTES as u64 + frame::raw_len(value)? as u64)
}

/// An oid for a message, from a key that may be damaged.
fn hex(key: &[u8]) -> String {
    key.iter()
        .take(32)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
