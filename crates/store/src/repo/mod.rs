//! One repository of a node: an LMDB environment with directory records, contents and snapshots.
//!
//! ```text
//! table      key                      value
//! meta       format-version, kind     u32; "repository"
//! facts      "meta"                   RepoMeta
//! trees      tree oid                 directory record
//! blobs      blob oid + u32 chunk     frame
//! pending    blob oid                 u64 size: a long blob that is being written
//! snapshots  commit oid               Snapshot
//! ```
//!
//! Invariants:
//! - a row in `snapshots` is written only when every directory record of its closure is present,
//!   and records are removed only when no snapshot reaches them, so that row is what "durable"
//!   means;
//! - a blob counts as held when its first chunk is present and it is not `pending`; what was
//!   pending at a crash is removed at open;
//! - nothing here verifies oids on the way in: callers do, before they put.
//!
//! Callers: a node's adopt, hydrate and service; the pool opens and closes.

mod blob_walk;
mod blobs;
mod check;
mod gc;
mod snapshots;
mod trees;

use std::collections::HashSet;
use std::path::Path;

use monofs_model::{
    ContentMode, DisplayPath, Error, ObjectFormat, Oid, RefName, Result, SourceUrl, StorageId,
};
use parking_lot::{Mutex, RwLock};

pub use blob_walk::BlobWalk;
pub(crate) use blobs::ChunkKey;
pub use blobs::LargeWriter;
pub use check::{CheckProgress, CheckReport, PROBLEMS_MAX};
pub use gc::GcReport;

use crate::encoding::{Decoder, Encoder};
use crate::env::{EnvOptions, EnvUsage, Environment, ReadTxn, Table, TxnResult};

const KIND: &str = "repository";
const TABLES: [&str; 5] = ["facts", "trees", "blobs", "pending", "snapshots"];
const KEY_META: &[u8] = b"meta";
const META_VERSION: u8 = 1;
/// A write transaction takes about this many bytes, so that it stays in memory and other writers
/// get their turn.
pub(crate) const TXN_BYTES: usize = 32 << 20;

/// What a repository is, next to what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoMeta {
    pub storage_id: StorageId,
    pub path: DisplayPath,
    pub source: SourceUrl,
    pub ref_name: RefName,
    pub content: ContentMode,
    pub format: ObjectFormat,
}

impl RepoMeta {
    fn encode(&self) -> Vec<u8> {
        let mut row = Encoder::new(META_VERSION);
        row.bytes(self.storage_id.as_str().as_bytes());
        row.bytes(self.path.as_str().as_bytes());
        row.bytes(self.source.as_str().as_bytes());
        row.bytes(self.ref_name.as_str().as_bytes());
        row.u8(match self.content {
            ContentMode::Eager => 0,
            ContentMode::Lazy => 1,
        });
        row.u8(self.format.oid_len() as u8);
        row.finish()
    }

    fn decode(row: &[u8]) -> Result<Self> {
        let what = "repository facts";
        let broken = |e: Error| Error::corrupt(format!("{what}: {e}"));
        let mut row = Decoder::new(row, META_VERSION, what)?;
        let meta = Self {
            storage_id: StorageId::new(row.text()?).map_err(broken)?,
            path: DisplayPath::new(row.text()?).map_err(broken)?,
            source: SourceUrl::new(row.text()?).map_err(broken)?,
            ref_name: RefName::new(row.text()?).map_err(broken)?,
            content: match row.u8()? {
                0 => ContentMode::Eager,
                1 => ContentMode::Lazy,
                other => {
                    return Err(Error::corrupt(format!(
                        "{what}: content mode {other} is unknown"
                    )));
                }
            },
            format: match row.u8()? {
                20 => ObjectFormat::Sha1,
                32 => ObjectFormat::Sha256,
                other => {
                    return Err(Error::corrupt(format!(
                        "{what}: object ids of {other} bytes are unknown"
                    )));
                }
            },
        };
        row.finish()?;
        Ok(meta)
    }
}

/// How many objects a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Directory records.
    pub trees: u64,
    /// Blobs that are wholly held.
    pub blobs: u64,
}

#[derive(Clone, Copy)]
struct Tables {
    facts: Table,
    trees: Table,
    blobs: Table,
    pending: Table,
    snapshots: Table,
}

/// One repository on disk. Shared by reference; readers never wait for writers.
pub struct RepoStore {
    env: Environment,
    tables: Tables,
    /// Blobs wholly held, once somebody asked. Whoever adds or removes blobs holds it over the
    /// transaction, so that no count can miss or repeat a change.
    held: Mutex<Option<u64>>,
    /// Long blobs that a [`LargeWriter`] of this process is writing.
    writing: Mutex<HashSet<Oid>>,
    /// Held for reading while a snapshot's closure is being put, for writing by `gc`, which must
    /// not sweep what a snapshot not yet written needs.
    sweep: RwLock<()>,
}

impl RepoStore {
    /// Opens the repository in `dir`, creating it with `meta` when missing. An existing one keeps
    /// its facts.
    pub fn open(dir: &Path, meta: &RepoMeta, options: &EnvOptions) -> Result<Self> {
        let store = Self::open_env(dir, options, true)?;
        if store.find_meta()?.is_none() {
            store.set_meta(meta)?;
        }
        Ok(store)
    }

    /// Opens the repository in `dir`. Errors: `NotFound` when there is none, `Corrupt` when it is
    /// damaged.
    pub fn open_existing(dir: &Path) -> Result<Self> {
        Self::open_existing_with(dir, &EnvOptions::default())
    }

    /// [`RepoStore::open_existing`] with options.
    pub fn open_existing_with(dir: &Path, options: &EnvOptions) -> Result<Self> {
        let store = Self::open_env(dir, options, false)?;
        store.meta()?;
        Ok(store)
    }

    fn open_env(dir: &Path, options: &EnvOptions, create: bool) -> Result<Self> {
        let env = Environment::open(dir, options, 16, create)?;
        let [facts, trees, blobs, pending, snapshots] = env.tables(KIND, TABLES, create)?;
        let tables = Tables {
            facts,
            trees,
            blobs,
            pending,
            snapshots,
        };
        let store = Self {
            env,
            tables,
            held: Mutex::default(),
            writing: Mutex::default(),
            sweep: RwLock::new(()),
        };
        store.remove_pending()?;
        Ok(store)
    }

    /// The repository's facts.
    pub fn meta(&self) -> Result<RepoMeta> {
        self.find_meta()?.ok_or_else(|| {
            Error::corrupt(format!(
                "{}: the repository's facts are missing",
                self.env.dir().display()
            ))
        })
    }

    fn find_meta(&self) -> Result<Option<RepoMeta>> {
        let txn = self.env.read()?;
        let row = self
            .tables
            .facts
            .get(&txn, KEY_META)
            .map_err(|e| self.env.error("read the facts", e))?;
        row.map(RepoMeta::decode).transpose()
    }

    /// Replaces the repository's facts.
    pub fn set_meta(&self, meta: &RepoMeta) -> Result<()> {
        let row = meta.encode();
        self.env.write("write the facts", |wtxn| -> TxnResult<()> {
            self.tables.facts.put(wtxn, KEY_META, &row)?;
            Ok(())
        })
    }

    /// Begins reading: one consistent view. Keep it short and do not write on the same thread
    /// meanwhile.
    pub fn read(&self) -> Result<Reader<'_>> {
        Ok(Reader {
            txn: self.env.read()?,
            store: self,
        })
    }

    /// Bytes of the data file.
    pub fn disk_bytes(&self) -> u64 {
        self.env.disk_bytes()
    }

    /// How full the environment is.
    pub fn usage(&self) -> EnvUsage {
        self.env.usage()
    }

    /// How many objects are held. The first call since the repository was opened walks the keys of
    /// all blobs, and writers wait for it; later ones are immediate.
    pub fn counts(&self) -> Result<Counts> {
        let mut held = self.held.lock();
        let reader = self.read()?;
        let blobs = match *held {
            Some(blobs) => blobs,
            None => *held.insert(reader.count_blobs()?),
        };
        Ok(Counts {
            trees: reader.count_trees()?,
            blobs,
        })
    }

    /// Tells an open repository that its directory was renamed.
    pub(crate) fn moved_to(&mut self, dir: &Path) {
        self.env.moved_to(dir);
    }

    /// Where the repository lives.
    pub fn dir(&self) -> &Path {
        self.env.dir()
    }
}

/// One consistent view of a repository; what it returns points into the map.
pub struct Reader<'s> {
    txn: ReadTxn<'s>,
    store: &'s RepoStore,
}

impl Reader<'_> {
    fn error(&self, doing: &str, error: heed::Error) -> Error {
        self.store.env.error(doing, error)
    }
}
