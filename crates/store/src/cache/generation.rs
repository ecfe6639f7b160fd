//! One generation of the cache: an environment with directory records and chunks, whose map is its bound.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use heed::{RoTxn, RwTxn, WithoutTls};
use monofs_model::{Oid, Result};

use crate::env::{Durability, EnvOptions, Environment, Table, TxnResult, page_bytes, put_changed};
use crate::fault::io_error;
use crate::pool::remove_dir;
use crate::repo::ChunkKey;

const KIND: &str = "cache";
const PREFIX: &str = "gen-";
/// Values from about this size on get pages of their own.
const OVERFLOW_BYTES: usize = 2000;
/// Room for a row's key, its header, and half-filled pages.
const ROW_OVERHEAD: u64 = 128;
/// Part of a generation that is left free for LMDB's own pages and copies: one in 16.
const SPARE: u64 = 16;

/// Which table a row is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Family {
    Trees,
    Chunks,
}

/// A row's address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Row {
    family: Family,
    key: Box<[u8]>,
}

impl Row {
    pub(super) fn tree(oid: &Oid) -> Self {
        Self { family: Family::Trees, key: oid.as_bytes().into() }
    }

    pub(super) fn chunk(oid: &Oid, chunk: u32) -> Self {
        Self { family: Family::Chunks, key: ChunkKey::new(oid, chunk).as_bytes().into() }
    }
}

/// About what a row takes on disk.
pub(super) fn row_bytes(value: &[u8]) -> u64 {
    let len = value.len() as u64;
    if value.len() < OVERFLOW_BYTES { len + ROW_OVERHEAD } else { len.next_multiple_of(page_bytes()) + ROW_OVERHEAD }
}

pub(super) struct Generation {
    env: Environment,
    trees: Table,
    chunks: Table,
    number: u64,
    bytes_max: u64,
    dir: PathBuf,
}

impl Generation {
    /// Opens generation `number` below `cache`, making it when missing. Its file never exceeds `bytes_max`.
    pub(super) fn open(cache: &Path, number: u64, bytes_max: u64) -> Result<Self> {
        let dir = path(cache, number);
        let bytes_max = bytes_max / page_bytes() * page_bytes();
        let options = EnvOptions { map_bytes_min: bytes_max, map_bytes_max: bytes_max, durability: Durability::System };
        let env = Environment::open(&dir, &options, 4, true)?;
        let [trees, chunks] = env.tables(KIND, ["trees", "chunks"], true)?;
        Ok(Self { env, trees, chunks, number, bytes_max, dir })
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        self.env.disk_bytes()
    }

    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.env.needed_bytes() + bytes <= self.bytes_max - self.bytes_max / SPARE
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.env.sync()
    }

    /// Removes the files; what is mapped stays readable until it is dropped.
    pub(super) fn unlink(&self) -> Result<()> {
        remove_dir(&self.dir)
    }

    /// Begins reading; `None` when that fails, which reads as a miss.
    pub(super) fn begin(&self) -> Option<RoTxn<'static, WithoutTls>> {
        self.env.read_owned().inspect_err(|e| tracing::warn!("the cache cannot be read: {e}")).ok()
    }

    pub(super) fn get<'t>(
        &self,
        txn: Option<&'t RoTxn<'static, WithoutTls>>,
        family: Family,
        key: &[u8],
    ) -> Option<&'t [u8]> {
        let found = self.table(family).get(txn?, key);
        found.inspect_err(|e| tracing::warn!(dir = %self.dir.display(), "the cache cannot be read: {e}")).ok()?
    }

    /// Puts all rows in one transaction; false when the generation is full, and then nothing was put.
    pub(super) fn put(&self, rows: &[(Row, &[u8])]) -> Result<bool> {
        let done = self.env.write_fixed("fill the cache", |wtxn| self.put_rows(wtxn, rows));
        Ok(done?.is_some())
    }

    fn put_rows(&self, wtxn: &mut RwTxn<'_>, rows: &[(Row, &[u8])]) -> TxnResult<()> {
        for (row, value) in rows {
            put_changed(self.table(row.family), wtxn, &row.key, value)?;
        }
        Ok(())
    }

    /// Copies rows that `to` lacks, at most about `bytes_max` of them. Gives how many were copied and which were not reached.
    /// A full target ends the copy.
    pub(super) fn copy_to(&self, to: &Generation, rows: HashSet<Row>, bytes_max: usize) -> Result<(u64, Vec<Row>)> {
        let txn = self.begin();
        let mut bytes = 0;
        let mut batch = Vec::new();
        let mut left = Vec::new();
        for row in rows {
            if bytes >= bytes_max {
                left.push(row);
                continue;
            }
            if let Some(value) = self.get(txn.as_ref(), row.family, &row.key) {
                bytes += value.len();
                batch.push((row, value));
            }
        }
        let needed = batch.iter().map(|(_, value)| row_bytes(value)).sum();
        if batch.is_empty() || !to.has_room(needed) {
            return Ok((0, left));
        }
        let done = to.env.write_fixed("promote in the cache", |wtxn| -> TxnResult<u64> {
            let mut copied = 0;
            for (row, value) in &batch {
                if to.table(row.family).get(wtxn, &row.key)?.is_none() {
                    to.table(row.family).put(wtxn, &row.key, value)?;
                    copied += 1;
                }
            }
            Ok(copied)
        })?;
        Ok((done.unwrap_or(0), left))
    }

    fn table(&self, family: Family) -> Table {
        match family {
            Family::Trees => self.trees,
            Family::Chunks => self.chunks,
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
        numbers.extend(name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|n| n.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

pub(super) fn remove(cache: &Path, number: u64) -> Result<()> {
    remove_dir(&path(cache, number))
}

pub(super) fn remove_all(cache: &Path) -> Result<()> {
    list(cache)?.into_iter().try_for_each(|number| remove(cache, number))
}
