//! One generation of the cache: an environment with directory records and the places of chunks, and
//! a segment with the chunks.
//!
//! Invariant: an entry of the table of chunks is committed after the segment has the bytes that it
//! tells of, and with it how far the segment's bytes have places.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use heed::{RoTxn, WithoutTls};
use monofs_model::{Oid, Result};

use super::segment::{PLACE_BYTES, Segment};
use crate::env::{
    Durability, EnvOptions, Environment, IfMissing, Table, TxnResult, page_bytes, put_changed,
};
use crate::fault::{io_error, remove_dir};
use crate::repo::ChunkKey;

/// Tells generations apart from those of earlier formats, which had the chunks in the environment:
/// those are dropped.
const KIND: &str = "cache-2";
const PREFIX: &str = "gen-";
/// In the table of the segment: how far its bytes have places (u64, little-endian).
const KEY_END: &[u8] = b"end";
/// Values from about this size on get pages of their own.
const OVERFLOW_BYTES: usize = 2000;
/// Room for a row's key, its header, and half-filled pages.
const ROW_OVERHEAD: u64 = 128;
/// Part of a generation that is left free for LMDB's copies of pages: one in 16.
const SPARE: u64 = 16;

/// Which table a row is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum RowFamily {
    Trees,
    Chunks,
}

/// A row's address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct CacheRow {
    family: RowFamily,
    key: Box<[u8]>,
}

impl CacheRow {
    pub(super) fn tree(oid: &Oid) -> Self {
        Self {
            family: RowFamily::Trees,
            key: oid.as_bytes().into(),
        }
    }

    pub(super) fn chunk(oid: &Oid, chunk: u32) -> Self {
        Self {
            family: RowFamily::Chunks,
            key: ChunkKey::new(oid, chunk).as_bytes().into(),
        }
    }
}

/// About what a row takes on disk.
pub(super) fn row_bytes(row: &CacheRow, value: &[u8]) -> u64 {
    let len = value.len() as u64;
    let value_bytes = match row.family {
        RowFamily::Chunks => len + PLACE_BYTES as u64,
        RowFamily::Trees if value.len() < OVERFLOW_BYTES => len,
        RowFamily::Trees => len.next_multiple_of(page_bytes()),
    };
    value_bytes + ROW_OVERHEAD
}

/// A view of a generation's tables.
pub(super) type GenerationTxn = RoTxn<'static, WithoutTls>;

/// An open generation.
pub(super) struct Generation {
    env: Environment,
    trees: Table,
    chunks: Table,
    ends: Table,
    segment: Segment,
    number: u64,
    bytes_max: u64,
    dir: PathBuf,
}

impl Generation {
    /// Opens generation `number` below `cache`, making it when missing. Its files never exceed
    /// `bytes_max`.
    pub(super) fn open(cache: &Path, number: u64, bytes_max: u64) -> Result<Self> {
        let dir = path(cache, number);
        let bytes_max = bytes_max / page_bytes() * page_bytes();
        let options = EnvOptions {
            map_bytes_min: bytes_max,
            map_bytes_max: bytes_max,
            durability: Durability::System,
        };
        let env = Environment::open(&dir, &options, 4, IfMissing::Create)?;
        let [trees, chunks, ends] =
            env.tables(KIND, ["trees", "chunks", "segment"], IfMissing::Create)?;
        // How far the segment has places; what lies behind that was never committed.
        let kept = {
            let txn = env.read()?;
            let end = ends
                .get(&txn, KEY_END)
                .map_err(|e| env.error("read the end of the segment", e))?;
            end.and_then(|end| end.try_into().ok())
                .map_or(0, u64::from_le_bytes)
        };
        let segment = Segment::open(&dir, kept)?;
        Ok(Self {
            env,
            trees,
            chunks,
            ends,
            segment,
            number,
            bytes_max,
            dir,
        })
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        self.env.disk_bytes() + self.segment.bytes()
    }

    fn has_room(&self, rows: &[(CacheRow, &[u8])]) -> bool {
        let bytes: u64 = rows.iter().map(|(row, value)| row_bytes(row, value)).sum();
        self.env.needed_bytes() + self.segment.bytes() + bytes
            <= self.bytes_max - self.bytes_max / SPARE
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.segment.sync()?;
        self.env.sync()
    }

    /// Removes the files; what is open stays readable until it is dropped.
    pub(super) fn unlink(&self) -> Result<()> {
        remove_dir(&self.dir)
    }

    /// Begins reading; `None` when that fails, which reads as a miss.
    pub(super) fn begin(&self) -> Option<GenerationTxn> {
        self.env
            .read_owned()
            .inspect_err(|e| tracing::warn!("the cache cannot be read: {e}"))
            .ok()
    }

    /// The record of a directory.
    pub(super) fn tree<'t>(&self, txn: &'t GenerationTxn, oid: &Oid) -> Option<&'t [u8]> {
        self.get(self.trees, txn, oid.as_bytes())
    }

    pub(super) fn has_chunk(&self, txn: &GenerationTxn, oid: &Oid, chunk: u32) -> bool {
        self.get(self.chunks, txn, ChunkKey::new(oid, chunk).as_bytes())
            .is_some()
    }

    /// The frame of a chunk.
    pub(super) fn chunk(&self, txn: &GenerationTxn, oid: &Oid, chunk: u32) -> Option<Bytes> {
        self.segment
            .read(self.get(self.chunks, txn, ChunkKey::new(oid, chunk).as_bytes())?)
    }

    /// What a row stands for.
    fn value<'t>(&self, txn: &'t GenerationTxn, row: &CacheRow) -> Option<Cow<'t, [u8]>> {
        let stored = self.get(self.table(row.family), txn, &row.key)?;
        match row.family {
            RowFamily::Trees => Some(Cow::Borrowed(stored)),
            RowFamily::Chunks => Some(Cow::Owned(self.segment.read(stored)?.into())),
        }
    }

    fn get<'t>(&self, table: Table, txn: &'t GenerationTxn, key: &[u8]) -> Option<&'t [u8]> {
        let found = table.get(txn, key);
        found
            .inspect_err(
                |e| tracing::warn!(dir = %self.dir.display(), "the cache cannot be read: {e}"),
            )
            .ok()?
    }

    /// Puts all rows in one transaction; false when the generation is full, and then nothing was
    /// put. Chunks come to stand in the order in which they are given; one that is there already
    /// stands twice from then on.
    pub(super) fn put(&self, rows: &[(CacheRow, &[u8])]) -> Result<bool> {
        if !self.has_room(rows) {
            return Ok(false);
        }
        // The frames are written first: a place is committed only for bytes that are there.
        let frames = rows
            .iter()
            .filter(|(row, _)| row.family == RowFamily::Chunks)
            .map(|(_, frame)| *frame);
        let (places, end) = self.segment.append(frames)?;
        // In the table a chunk's row is its place.
        let mut places = places.iter();
        let mut entries: Vec<(&CacheRow, &[u8])> = Vec::with_capacity(rows.len());
        for (row, value) in rows {
            match row.family {
                RowFamily::Trees => entries.push((row, value)),
                RowFamily::Chunks => {
                    entries.push((row, places.next().expect("one place for each frame")))
                }
            }
        }
        // In the order of the tables: neighbours share pages, and each page is found and copied
        // once.
        entries.sort_unstable_by_key(|(row, _)| *row);
        let done = self
            .env
            .write_fixed("fill the cache", |wtxn| -> TxnResult<()> {
                for (row, value) in &entries {
                    match row.family {
                        RowFamily::Trees => drop(put_changed(self.trees, wtxn, &row.key, value)?),
                        RowFamily::Chunks => self.chunks.put(wtxn, &row.key, value)?,
                    }
                }
                put_changed(self.ends, wtxn, KEY_END, &end.to_le_bytes())?;
                Ok(())
            })?;
        if done.is_some() {
            self.segment.keep(end);
        }
        Ok(done.is_some())
    }

    /// Copies rows that `to` lacks, at most about `bytes_max` of them. Gives how many were copied
    /// and which were not reached. A full target ends the copy.
    pub(super) fn copy_to(
        &self,
        to: &Generation,
        rows: HashSet<CacheRow>,
        bytes_max: usize,
    ) -> Result<(u64, Vec<CacheRow>)> {
        let (Some(from_txn), Some(to_txn)) = (self.begin(), to.begin()) else {
            return Ok((0, Vec::new()));
        };
        // Rows are gathered from this generation up to the bound.
        let mut bytes = 0;
        let mut batch = Vec::new();
        let mut left = Vec::new();
        for row in rows {
            if bytes >= bytes_max {
                left.push(row);
                continue;
            }
            if to.get(to.table(row.family), &to_txn, &row.key).is_none()
                && let Some(value) = self.value(&from_txn, &row)
            {
                bytes += value.len();
                batch.push((row, value));
            }
        }
        // They are put in one transaction.
        let batch: Vec<(CacheRow, &[u8])> = batch
            .iter()
            .map(|(row, value)| (row.clone(), &value[..]))
            .collect();
        let copied = !batch.is_empty() && to.put(&batch)?;
        Ok((if copied { batch.len() as u64 } else { 0 }, left))
    }

    fn table(&self, family: RowFamily) -> Table {
        match family {
            RowFamily::Trees => self.trees,
            RowFamily::Chunks => self.chunks,
        }
    }
}

fn path(cache: &Path, number: u64) -> PathBuf {
    cache.join(format!("{PREFIX}{number}"))
}

/// Numbers of the generations on disk, ascending.
pub(super) fn list(cache: &Path) -> Result<Vec<u64>> {
    let broken = |e: io::Error| io_error(cache, "list", &e);
    let mut numbers = Vec::new();
    for entry in fs::read_dir(cache).map_err(broken)? {
        let name = entry.map_err(broken)?.file_name();
        numbers.extend(
            name.to_str()
                .and_then(|name| name.strip_prefix(PREFIX))
                .and_then(|n| n.parse::<u64>().ok()),
        );
    }
    numbers.sort_unstable();
    Ok(numbers)
}

pub(super) fn remove(cache: &Path, number: u64) -> Result<()> {
    remove_dir(&path(cache, number))
}

pub(super) fn remove_all(cache: &Path) -> Result<()> {
    list(cache)?
        .into_iter()
        .try_for_each(|number| remove(cache, number))
}
