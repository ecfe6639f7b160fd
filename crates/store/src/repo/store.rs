//! An open repository: its tables, its facts, the locks of its writers, and views of it.
//!
//! What is done with the tables is in the files beside this one, each with its part of
//! [`RepoStore`] and [`RepoReader`].

use std::collections::HashSet;
use std::path::Path;
use std::sync::OnceLock;

use monofs_model::{Error, Oid, Result};
use parking_lot::{Mutex, RwLock};

use super::meta::RepoMeta;
use crate::env::{EnvOptions, EnvUsage, Environment, IfMissing, ReadTxn, Table, TxnResult};

const KIND: &str = "repository";
const TABLES: [&str; 5] = ["facts", "trees", "blobs", "pending", "snapshots"];
/// Tables that repositories of before them lack until the first row is put.
const GENERATION_TABLES: [&str; 2] = ["generations", "shown"];
/// The key of the repository's facts, in the table of facts.
pub(super) const KEY_META: &[u8] = b"meta";
/// A write transaction takes about this many bytes, so that it stays in memory and other writers
/// get their turn.
pub(super) const TXN_BYTES: usize = 32 << 20;

/// How many objects a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ObjectCounts {
    /// Directory records.
    pub trees: u64,
    /// Blobs that are wholly held.
    pub blobs: u64,
}

/// The tables of a repository; see [`crate::repo`] for what is in them.
#[derive(Clone, Copy)]
pub(super) struct RepoTables {
    pub(super) facts: Table,
    pub(super) trees: Table,
    pub(super) blobs: Table,
    pub(super) pending: Table,
    pub(super) snapshots: Table,
}

/// Generation nodes, and the roots that snapshots name; see [`super::generations`].
#[derive(Clone, Copy)]
pub(super) struct GenerationTables {
    pub(super) nodes: Table,
    pub(super) shown: Table,
}

/// One repository on disk. Shared by reference; readers never wait for writers.
pub struct RepoStore {
    pub(super) env: Environment,
    pub(super) tables: RepoTables,
    generations: OnceLock<GenerationTables>,
    /// Held while those tables are created.
    adding_tables: Mutex<()>,
    /// Blobs wholly held; `None` until they are counted. What adds or removes blobs keeps this
    /// locked over its transaction, so that no count can miss or repeat a change.
    pub(super) held: Mutex<Option<u64>>,
    /// Long blobs that a [`super::LargeWriter`] of this process is writing.
    pub(super) writing: Mutex<HashSet<Oid>>,
    /// Held for reading while a snapshot's closure is being put, for writing by `gc`, which must
    /// not sweep what a snapshot not yet written needs.
    pub(super) sweep: RwLock<()>,
}

impl RepoStore {
    /// Opens the repository in `dir`, creating it with `meta` when missing. An existing one keeps
    /// its facts.
    pub fn open(dir: &Path, meta: &RepoMeta, options: &EnvOptions) -> Result<Self> {
        let store = Self::open_env(dir, options, IfMissing::Create)?;
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
        let store = Self::open_env(dir, options, IfMissing::Fail)?;
        store.meta()?;
        Ok(store)
    }

    fn open_env(dir: &Path, options: &EnvOptions, if_missing: IfMissing) -> Result<Self> {
        let env = Environment::open(dir, options, 16, if_missing)?;
        let [facts, trees, blobs, pending, snapshots] = env.tables(KIND, TABLES, if_missing)?;
        let tables = RepoTables {
            facts,
            trees,
            blobs,
            pending,
            snapshots,
        };

        // The tables of generations exist only in stores that were given one: older stores lack
        // them.
        let generations = OnceLock::new();
        if let Some([nodes, shown]) = env.find_tables(GENERATION_TABLES)? {
            let _ = generations.set(GenerationTables { nodes, shown });
        }
        let store = Self {
            env,
            tables,
            generations,
            adding_tables: Mutex::default(),
            held: Mutex::default(),
            writing: Mutex::default(),
            sweep: RwLock::new(()),
        };

        // What the last process left half written is removed before the store is used.
        store.remove_pending()?;
        Ok(store)
    }

    /// The tables of generations, if a row was ever put.
    pub(super) fn known_generation_tables(&self) -> Option<GenerationTables> {
        self.generations.get().copied()
    }

    /// The tables of generations; created the first time.
    pub(super) fn generation_tables(&self) -> Result<GenerationTables> {
        let _adding = self.adding_tables.lock();
        if let Some(tables) = self.known_generation_tables() {
            return Ok(tables);
        }
        let [nodes, shown] = self.env.add_tables(GENERATION_TABLES)?;
        let tables = GenerationTables { nodes, shown };
        let _ = self.generations.set(tables);
        Ok(tables)
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
    pub fn read(&self) -> Result<RepoReader<'_>> {
        Ok(RepoReader {
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
    pub fn counts(&self) -> Result<ObjectCounts> {
        let mut held = self.held.lock();
        let reader = self.read()?;
        let blobs = match *held {
            Some(blobs) => blobs,
            None => *held.insert(reader.count_blobs()?),
        };
        Ok(ObjectCounts {
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
pub struct RepoReader<'s> {
    pub(super) txn: ReadTxn<'s>,
    pub(super) store: &'s RepoStore,
}

impl RepoReader<'_> {
    /// An error of LMDB as one of the model, with the repository's directory.
    pub(super) fn error(&self, doing: &str, error: heed::Error) -> Error {
        self.store.env.error(doing, error)
    }
}
