//! One LMDB environment: opening, growing the map, guarding against damage, mapping errors.
//!
//! Invariants:
//! - the map is resized only while no transaction of this process lives: every transaction holds
//!   the map gate for reading;
//! - a file is walked with plain reads before it is mapped (see [`crate::structure`]), since damage
//!   would kill the process; one that lacks pages in use is refused;
//! - a file is never shorter than its last used page once it is open, whatever happens in a
//!   transaction.
//!
//! Callers: [`crate::repo`], [`crate::cache`], [`crate::state`]. They lock the directory above, so
//! that one process uses an environment at a time.

mod files;
mod format;
mod options;

use std::cell::RefCell;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use heed::types::Bytes;
use heed::{
    CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, MdbError, RoTxn, RwTxn, WithoutTls,
};
use monofs_model::{Error, Result};
use parking_lot::{RwLock, RwLockReadGuard};

use crate::descriptor::close_on_exec;
use crate::fault::{damaged, io_error, lmdb_error, sync_dir};
use crate::structure::{MetaPage, ProofDepth, ProofError, prove};

pub(crate) use files::page_bytes;
use files::{allocate_lock_file, first_map_bytes, prove_file};
use format::{FORMAT_VERSION, KEY_KIND, KEY_VERSION, META_TABLE, check_format};
pub(crate) use options::{DATA_FILE, IfMissing};
pub use options::{Durability, EnvOptions, EnvUsage, READERS_MAX};

/// Bytes to bytes: the codecs are ours.
pub(crate) type Table = Database<'static, Bytes, Bytes>;

/// How often a walk of a live environment is begun anew because commits overtook it.
const PROOF_ATTEMPTS: u32 = 100;

/// What went wrong in a transaction: LMDB's own, which may be cured by growing the map, or ours.
#[derive(Debug)]
pub(crate) enum TxnError {
    Lmdb(heed::Error),
    Model(Error),
}

impl From<heed::Error> for TxnError {
    fn from(error: heed::Error) -> Self {
        Self::Lmdb(error)
    }
}

impl From<Error> for TxnError {
    fn from(error: Error) -> Self {
        Self::Model(error)
    }
}

pub(crate) type TxnResult<T> = std::result::Result<T, TxnError>;

thread_local! {
    /// Environments (by address) of which this thread holds read transactions.
    static HELD: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// A read transaction: one consistent view. Keep it short, since it stops the reuse of pages, and
/// never across a wait.
pub(crate) struct ReadTxn<'e> {
    // Order matters: the transaction ends before the gate opens.
    txn: RoTxn<'e, WithoutTls>,
    _gate: RwLockReadGuard<'e, ()>,
    env: &'e Environment,
}

impl<'e> std::ops::Deref for ReadTxn<'e> {
    type Target = RoTxn<'e, WithoutTls>;

    fn deref(&self) -> &Self::Target {
        &self.txn
    }
}

impl Drop for ReadTxn<'_> {
    fn drop(&mut self) {
        HELD.with_borrow_mut(|held| {
            if let Some(at) = held
                .iter()
                .rposition(|&address| address == self.env.address())
            {
                held.swap_remove(at);
            }
        });
    }
}

/// An open environment.
pub(crate) struct Environment {
    env: Env<WithoutTls>,
    /// Held for reading by every transaction, for writing by a resize.
    gate: RwLock<()>,
    file: File,
    dir: PathBuf,
    map_bytes_max: u64,
    durability: Durability,
}

impl Environment {
    /// Opens the environment in `dir`; `if_missing` may create the directory and an empty
    /// environment.
    pub(crate) fn open(
        dir: &Path,
        options: &EnvOptions,
        tables_max: u32,
        if_missing: IfMissing,
    ) -> Result<Self> {
        let create = if_missing == IfMissing::Create;
        if create {
            fs::create_dir_all(dir).map_err(|e| io_error(dir, "create directory", &e))?;
        }
        let file_bytes = match fs::metadata(dir.join(DATA_FILE)) {
            Ok(metadata) => metadata.len(),
            Err(e) if e.kind() == io::ErrorKind::NotFound && create => 0,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(Error::not_found(format!(
                    "{}: no database here",
                    dir.display()
                )));
            }
            Err(e) => return Err(io_error(dir, "look at the data file", &e)),
        };
        if file_bytes > 0 {
            prove_file(dir)?;
        } else if !create {
            return Err(Error::corrupt(damaged(dir, "it is empty")));
        }
        let free_descriptor = allocate_lock_file(dir)?;
        let map_bytes = first_map_bytes(file_bytes, options);
        let mut open = EnvOpenOptions::new().read_txn_without_tls();
        open.map_size(map_bytes)
            .max_dbs(tables_max)
            .max_readers(READERS_MAX);
        if options.durability == Durability::System {
            // SAFETY: without a sync only a crash of the machine can tear the file, and the one
            // user of this mode, the cache, then wipes it (see `cache::marker`).
            unsafe { open.flags(EnvFlags::NO_SYNC) };
        }
        // SAFETY: the file is changed through LMDB alone: the directory belongs to this program,
        // and callers lock it against a second process.
        let env = unsafe { open.open(dir) }.map_err(|e| lmdb_error(dir, "open", e))?;
        let file = env
            .try_clone_inner_file()
            .map_err(|e| lmdb_error(dir, "open", e))?;
        close_on_exec(&file, free_descriptor);
        let this = Self {
            env,
            gate: RwLock::new(()),
            file,
            dir: dir.to_owned(),
            map_bytes_max: options.map_bytes_max,
            durability: options.durability,
        };
        this.cover_last_page();
        this.env
            .clear_stale_readers()
            .map_err(|e| lmdb_error(dir, "clear stale readers", e))?;
        Ok(this)
    }

    /// Opens `names`, or creates them if `if_missing` says so, and checks kind and format version.
    pub(crate) fn tables<const N: usize>(
        &self,
        kind: &str,
        names: [&str; N],
        if_missing: IfMissing,
    ) -> Result<[Table; N]> {
        if let Some(tables) = self.open_tables(kind, names)? {
            return Ok(tables);
        }
        if if_missing == IfMissing::Fail {
            let dir = self.dir.display();
            return Err(Error::corrupt(format!(
                "{dir}: the database was never completed; remove it and fetch it again"
            )));
        }
        self.create_tables(kind, names)
    }

    /// Opens tables that came to the format later; `None`: this environment has none of them yet.
    pub(crate) fn find_tables<const N: usize>(
        &self,
        names: [&str; N],
    ) -> Result<Option<[Table; N]>> {
        let _gate = self.gate.read();
        let rtxn = self
            .env
            .read_txn()
            .map_err(|e| self.error("open tables", e))?;
        let opened = self
            .env
            .open_databases_and_commit(rtxn, |opener, rtxn| -> TxnResult<_> {
                let mut tables = Vec::with_capacity(N);
                for name in names {
                    tables.extend(opener.open_database::<Bytes, Bytes>(rtxn, Some(name))?);
                }
                Ok(match <[_; N]>::try_from(tables) {
                    Ok(tables) => CommitOrAbort::Commit(tables),
                    Err(_) => CommitOrAbort::Abort(()),
                })
            });
        Ok(opened
            .map_err(|e| self.txn_error("open tables", e))?
            .commit())
    }

    /// Opens tables that came to the format later, and creates them where they are missing.
    pub(crate) fn add_tables<const N: usize>(&self, names: [&str; N]) -> Result<[Table; N]> {
        let _gate = self.gate.read();
        let wtxn = self
            .env
            .write_txn()
            .map_err(|e| self.error("create tables", e))?;
        let created = self
            .env
            .create_databases_and_commit(wtxn, |opener, wtxn| -> TxnResult<_> {
                let mut tables = Vec::with_capacity(N);
                for name in names {
                    tables.push(opener.create_database::<Bytes, Bytes>(wtxn, Some(name))?);
                }
                let tables: [_; N] = tables
                    .try_into()
                    .unwrap_or_else(|_| unreachable!("one table was pushed per name"));
                Ok(CommitOrAbort::<_, ()>::Commit(tables))
            });
        let created = created.map_err(|e| self.txn_error("create tables", e))?;
        Ok(created.commit().expect("the closure never aborts"))
    }

    fn open_tables<const N: usize>(
        &self,
        kind: &str,
        names: [&str; N],
    ) -> Result<Option<[Table; N]>> {
        let _gate = self.gate.read();
        let rtxn = self
            .env
            .read_txn()
            .map_err(|e| self.error("open tables", e))?;
        // All handles or none: LMDB keeps them when the transaction commits.
        let opened = self
            .env
            .open_databases_and_commit(rtxn, |opener, rtxn| -> TxnResult<_> {
                let Some(meta) = opener.open_database::<Bytes, Bytes>(rtxn, Some(META_TABLE))?
                else {
                    return Ok(CommitOrAbort::Abort(()));
                };
                check_format(
                    &self.dir,
                    kind,
                    meta.get(rtxn, KEY_KIND)?,
                    meta.get(rtxn, KEY_VERSION)?,
                )?;
                let mut tables = Vec::with_capacity(N);
                for name in names {
                    let Some(table) = opener.open_database::<Bytes, Bytes>(rtxn, Some(name))?
                    else {
                        return Err(Error::corrupt(format!(
                            "{}: table '{name}' is missing",
                            self.dir.display()
                        ))
                        .into());
                    };
                    tables.push(table);
                }
                let tables: [_; N] = tables
                    .try_into()
                    .unwrap_or_else(|_| unreachable!("one table was pushed per name"));
                Ok(CommitOrAbort::Commit(tables))
            });
        Ok(opened
            .map_err(|e| self.txn_error("open tables", e))?
            .commit())
    }

    fn create_tables<const N: usize>(&self, kind: &str, names: [&str; N]) -> Result<[Table; N]> {
        let _gate = self.gate.read();
        let wtxn = self
            .env
            .write_txn()
            .map_err(|e| self.error("create tables", e))?;
        let created = self
            .env
            .create_databases_and_commit(wtxn, |opener, wtxn| -> TxnResult<_> {
                let meta = opener.create_database::<Bytes, Bytes>(wtxn, Some(META_TABLE))?;
                meta.put(wtxn, KEY_KIND, kind.as_bytes())?;
                meta.put(wtxn, KEY_VERSION, &FORMAT_VERSION.to_be_bytes())?;
                let mut tables = Vec::with_capacity(N);
                for name in names {
                    tables.push(opener.create_database::<Bytes, Bytes>(wtxn, Some(name))?);
                }
                let tables: [_; N] = tables
                    .try_into()
                    .unwrap_or_else(|_| unreachable!("one table was pushed per name"));
                Ok(CommitOrAbort::<_, ()>::Commit(tables))
            });
        let created = created.map_err(|e| self.txn_error("create tables", e))?;
        if self.durability == Durability::Commit {
            // The commit made the file durable, but not its name.
            sync_dir(&self.dir)?;
        }
        Ok(created.commit().expect("the closure never aborts"))
    }

    /// Passes the gate for one transaction.
    fn enter(&self) -> RwLockReadGuard<'_, ()> {
        // A thread that already reads must not queue behind a resize that waits for it.
        if self.is_held() {
            self.gate.read_recursive()
        } else {
            self.gate.read()
        }
    }

    /// Whether this thread holds a read transaction.
    fn is_held(&self) -> bool {
        HELD.with_borrow(|held| held.contains(&self.address()))
    }

    /// Begins a read transaction. Never waits for writers, only for a resize of the map.
    pub(crate) fn read(&self) -> Result<ReadTxn<'_>> {
        let gate = self.enter();
        let txn = self
            .env
            .read_txn()
            .map_err(|e| self.error("begin reading", e))?;
        HELD.with_borrow_mut(|held| held.push(self.address()));
        Ok(ReadTxn {
            txn,
            _gate: gate,
            env: self,
        })
    }

    /// A read transaction that owns its environment and passes no gate: only for environments that
    /// never call [`Environment::write`], which may resize.
    pub(crate) fn read_owned(&self) -> Result<RoTxn<'static, WithoutTls>> {
        self.env
            .clone()
            .static_read_txn()
            .map_err(|e| self.error("begin reading", e))
    }

    /// Runs one write transaction. When the map is full it grows and `body` runs again from the
    /// start.
    pub(crate) fn write<T>(
        &self,
        doing: &str,
        mut body: impl FnMut(&mut RwTxn<'_>) -> TxnResult<T>,
    ) -> Result<T> {
        loop {
            let seen = self.env.info().map_size;
            match self.write_once(&mut body) {
                Err(TxnError::Lmdb(heed::Error::Mdb(MdbError::MapFull))) => {
                    self.grow(doing, seen)?
                }
                Err(error) => return Err(self.txn_error(doing, error)),
                Ok(value) => return Ok(value),
            }
        }
    }

    /// [`Environment::write`] that reports a full map instead of growing it.
    pub(crate) fn write_fixed<T>(
        &self,
        doing: &str,
        mut body: impl FnMut(&mut RwTxn<'_>) -> TxnResult<T>,
    ) -> Result<Option<T>> {
        match self.write_once(&mut body) {
            Ok(value) => Ok(Some(value)),
            Err(TxnError::Lmdb(heed::Error::Mdb(MdbError::MapFull))) => Ok(None),
            Err(error) => Err(self.txn_error(doing, error)),
        }
    }

    fn write_once<T>(&self, body: &mut impl FnMut(&mut RwTxn<'_>) -> TxnResult<T>) -> TxnResult<T> {
        let _gate = self.enter();
        let mut wtxn = self.env.write_txn()?;
        let value = body(&mut wtxn)?;
        wtxn.commit()?;
        self.cover_last_page();
        Ok(value)
    }

    fn grow(&self, doing: &str, seen: usize) -> Result<()> {
        if self.is_held() {
            return Err(Error::internal(format!(
                "{doing}: the map must grow, but this thread still reads from it"
            )));
        }
        let _gate = self.gate.write();
        if self.env.info().map_size > seen {
            return Ok(());
        }
        let wanted = (seen as u64).saturating_mul(2).min(self.map_bytes_max);
        if wanted <= seen as u64 {
            let dir = self.dir.display();
            return Err(Error::full(format!(
                "{dir}: {doing}: the database reached its bound of {seen} bytes"
            )));
        }
        // SAFETY: every transaction of this process holds the gate for reading, and it is held for
        // writing here.
        unsafe { self.env.resize(wanted as usize) }.map_err(|e| self.error("grow the map", e))?;
        tracing::debug!(dir = %self.dir.display(), map_bytes = wanted, "map grown");
        Ok(())
    }

    /// LMDB does not write pages that a transaction allocated and gave up again, so the file may
    /// end before the last page. Allocation only ever lengthens a file, so it cannot cut off what
    /// another writer has just appended.
    fn cover_last_page(&self) {
        let needed = self.needed_bytes();
        let Ok(metadata) = self.file.metadata() else {
            return;
        };
        let have = metadata.len();
        if have < needed {
            let flags = rustix::fs::FallocateFlags::empty();
            if let Err(e) = rustix::fs::fallocate(&self.file, flags, have, needed - have) {
                tracing::warn!(dir = %self.dir.display(), "cannot lengthen the data file to its \
                 last page: {e}");
            }
        }
    }

    /// Walks the tables as one read transaction sees them, however many pages that takes. `None`
    /// means that they are whole.
    pub(crate) fn damage(&self) -> Result<Option<Error>> {
        for _ in 0..PROOF_ATTEMPTS {
            let txn = self.read()?;
            let proved = match MetaPage::read(&self.file, Some(txn.id() as u64)) {
                // Two commits later the meta page of this view is overwritten, though not its
                // tables.
                Ok(None) => continue,
                Ok(Some(meta)) => prove(&self.file, &meta, ProofDepth::Everything),
                Err(e) => Err(e),
            };
            return match proved {
                Ok(_) => Ok(None),
                Err(ProofError::Damage(found)) => {
                    Ok(Some(Error::corrupt(damaged(&self.dir, &found.to_string()))))
                }
                Err(ProofError::Io(e)) => Err(io_error(&self.dir, "read the data file", &e)),
            };
        }
        Err(Error::unavailable(format!(
            "{}: too busy to be checked; try again",
            self.dir.display()
        )))
    }

    /// Bytes up to the end of the last used page.
    pub(crate) fn needed_bytes(&self) -> u64 {
        let page = u64::from(self.env.unnamed_database_stat().page_size);
        (self.env.info().last_page_number as u64 + 1) * page
    }

    /// How full it is.
    pub(crate) fn usage(&self) -> EnvUsage {
        let info = self.env.info();
        EnvUsage {
            map_bytes: info.map_size as u64,
            used_bytes: self.needed_bytes(),
            readers: u64::from(info.number_of_readers),
        }
    }

    /// Bytes of the data file.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    /// Writes everything committed to disk.
    pub(crate) fn sync(&self) -> Result<()> {
        self.env.force_sync().map_err(|e| self.error("sync", e))
    }

    /// Tells an open environment that its directory was renamed.
    pub(crate) fn moved_to(&mut self, dir: &Path) {
        self.dir = dir.to_owned();
    }

    /// The environment's directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// An error of LMDB as one of the model, with this environment's directory.
    pub(crate) fn error(&self, doing: &str, error: heed::Error) -> Error {
        lmdb_error(&self.dir, doing, error)
    }

    /// What ended a transaction, as an error of the model.
    pub(crate) fn txn_error(&self, doing: &str, error: TxnError) -> Error {
        match error {
            TxnError::Lmdb(error) => self.error(doing, error),
            TxnError::Model(error) => error,
        }
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }
}

/// Puts a row unless the very same bytes are there: content-addressed rows mostly are, and
/// rewriting them would copy pages. Gives whether anything was written.
pub(crate) fn put_changed(
    table: Table,
    wtxn: &mut RwTxn<'_>,
    key: &[u8],
    value: &[u8],
) -> heed::Result<bool> {
    if table.get(wtxn, key)? == Some(value) {
        return Ok(false);
    }
    table.put(wtxn, key, value)?;
    Ok(true)
}
