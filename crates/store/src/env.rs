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

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use heed::types::Bytes;
use heed::{
    CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, MdbError, RoTxn, RwTxn, WithoutTls,
};
use monofs_model::{Error, Result};
use parking_lot::{RwLock, RwLockReadGuard};

use crate::descriptor::close_on_exec;
use crate::fault::{damaged, io_error, lmdb_error, sync_dir};
use crate::structure::{Depth, Meta, Unproved, prove};

/// Bytes to bytes: the codecs are ours.
pub(crate) type Table = Database<'static, Bytes, Bytes>;

/// Version of what is written on disk; newer ones are refused.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// Smallest map: address space, not memory or disk.
pub const MAP_BYTES_MIN: u64 = 64 << 20;
/// The map never grows beyond this.
pub const MAP_BYTES_MAX: u64 = 1 << 40;
/// Read transactions at the same time in one environment.
pub const READERS_MAX: u32 = 510;
/// LMDB's lock file for [`READERS_MAX`] readers: a head and a cache line each.
const LOCK_FILE_BYTES: u64 = 512 * 64;
/// LMDB's data file in an environment's directory.
pub(crate) const DATA_FILE: &str = "data.mdb";
const LOCK_FILE: &str = "lock.mdb";

/// Up to this many branch and leaf pages (a few hundred thousand objects, some milliseconds) are
/// walked at every open.
const PROVE_PAGES_AT_OPEN: u64 = 16_384;
/// How often a walk of a live environment is begun anew because commits overtook it.
const PROOF_ATTEMPTS: u32 = 100;

const META_TABLE: &str = "meta";
const KEY_VERSION: &[u8] = b"format-version";
const KEY_KIND: &[u8] = b"kind";

/// When a commit is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// When it returns (fsync).
    #[default]
    Commit,
    /// When the operating system gets to it: survives the death of the process, not that of the
    /// machine.
    System,
}

/// How environments are opened. The default is right for nodes and routers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvOptions {
    /// The map is at least this large, in bytes.
    pub map_bytes_min: u64,
    /// The map never grows beyond this; reaching it is [`monofs_model::ErrorKind::Full`].
    pub map_bytes_max: u64,
    pub durability: Durability,
}

impl Default for EnvOptions {
    fn default() -> Self {
        Self {
            map_bytes_min: MAP_BYTES_MIN,
            map_bytes_max: MAP_BYTES_MAX,
            durability: Durability::Commit,
        }
    }
}

/// How full environments are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EnvUsage {
    /// Address space that is mapped.
    pub map_bytes: u64,
    /// Bytes of pages in use, with those that wait to be used again.
    pub used_bytes: u64,
    /// Places for read transactions that were taken at the same time, at most.
    pub readers: u64,
}

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
    /// Opens the environment in `dir`, creating the directory and an empty environment when
    /// `create` is set.
    pub(crate) fn open(
        dir: &Path,
        options: &EnvOptions,
        tables_max: u32,
        create: bool,
    ) -> Result<Self> {
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

    /// Opens `names`, or creates them when `create` is set, and checks kind and format version.
    pub(crate) fn tables<const N: usize>(
        &self,
        kind: &str,
        names: [&str; N],
        create: bool,
    ) -> Result<[Table; N]> {
        if let Some(tables) = self.open_tables(kind, names)? {
            return Ok(tables);
        }
        if !create {
            let dir = self.dir.display();
            return Err(Error::corrupt(format!(
                "{dir}: the database was never completed; remove it and fetch it again"
            )));
        }
        self.create_tables(kind, names)
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
        let opened = self
            .env
            .open_databases_and_commit(rtxn, |opener, rtxn| -> TxnResult<_> {
                let Some(meta) = opener.open_database::<Bytes, Bytes>(rtxn, Some(META_TABLE))?
                else {
                    return Ok(CommitOrAbort::Abort(()));
                };
                self.check_format(
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

    fn check_format(&self, kind: &str, found: Option<&[u8]>, version: Option<&[u8]>) -> Result<()> {
        let dir = self.dir.display();
        if found != Some(kind.as_bytes()) {
            let found = String::from_utf8_lossy(found.unwrap_or_default());
            return Err(Error::refused(format!(
                "{dir}: holds a '{found}' database, not a '{kind}'; give another directory"
            )));
        }
        let version = version
            .and_then(|raw| raw.try_into().ok())
            .map(u32::from_be_bytes)
            .ok_or_else(|| Error::corrupt(format!("{dir}: the format version is missing")))?;
        if version > FORMAT_VERSION {
            return Err(Error::refused(format!(
                "{dir}: format version {version} is newer than this program, which reads up to \
                 {FORMAT_VERSION}; upgrade it"
            )));
        }
        Ok(())
    }

    /// Begins a read transaction. Never waits for writers, only for a resize of the map.
    pub(crate) fn read(&self) -> Result<ReadTxn<'_>> {
        let address = self.address();
        let nested = HELD.with_borrow(|held| held.contains(&address));
        // A thread that already reads must not queue behind a resize that waits for it.
        let gate = if nested {
            self.gate.read_recursive()
        } else {
            self.gate.read()
        };
        let txn = self
            .env
            .read_txn()
            .map_err(|e| self.error("begin reading", e))?;
        HELD.with_borrow_mut(|held| held.push(address));
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
        let nested = HELD.with_borrow(|held| held.contains(&self.address()));
        let _gate = if nested {
            self.gate.read_recursive()
        } else {
            self.gate.read()
        };
        let mut wtxn = self.env.write_txn()?;
        let value = body(&mut wtxn)?;
        wtxn.commit()?;
        self.cover_last_page();
        Ok(value)
    }

    fn grow(&self, doing: &str, seen: usize) -> Result<()> {
        if HELD.with_borrow(|held| held.contains(&self.address())) {
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
            let proved = match Meta::read(&self.file, Some(txn.id() as u64)) {
                // Two commits later the meta page of this view is overwritten, though not its
                // tables.
                Ok(None) => continue,
                Ok(Some(meta)) => prove(&self.file, &meta, Depth::Everything),
                Err(e) => Err(e),
            };
            return match proved {
                Ok(_) => Ok(None),
                Err(Unproved::Damage(found)) => {
                    Ok(Some(Error::corrupt(damaged(&self.dir, &found.to_string()))))
                }
                Err(Unproved::Io(e)) => Err(io_error(&self.dir, "read the data file", &e)),
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
        let (map_bytes, readers) = (info.map_size as u64, u64::from(info.number_of_readers));
        EnvUsage {
            map_bytes,
            used_bytes: self.needed_bytes(),
            readers,
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

    /// An error of LMDB in our words.
    pub(crate) fn error(&self, doing: &str, error: heed::Error) -> Error {
        lmdb_error(&self.dir, doing, error)
    }

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

/// LMDB writes its lock file through a map, page by page as readers come; on a full disk the first
/// write to a page that has no block yet would kill the process (SIGBUS). So all blocks are taken
/// beforehand.
///
/// Gives the number of a descriptor that was free just now: those of the environment come after it.
fn allocate_lock_file(dir: &Path) -> Result<RawFd> {
    let path = dir.join(LOCK_FILE);
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path);
    let file = opened.map_err(|e| io_error(&path, "open", &e))?;
    match rustix::fs::fallocate(
        &file,
        rustix::fs::FallocateFlags::empty(),
        0,
        LOCK_FILE_BYTES,
    ) {
        // Where blocks cannot be taken beforehand there is nothing to do.
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(file.as_raw_fd()),
        Err(e) => Err(io_error(&path, "allocate", &e.into())),
    }
}

fn first_map_bytes(file_bytes: u64, options: &EnvOptions) -> usize {
    let wanted = file_bytes
        .saturating_mul(4)
        .checked_next_power_of_two()
        .unwrap_or(MAP_BYTES_MAX);
    let bounded = wanted
        .max(options.map_bytes_min)
        .min(options.map_bytes_max)
        .max(file_bytes);
    bounded.next_multiple_of(page_bytes()) as usize
}

pub(crate) fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// Walks a data file that is about to be mapped: wholly if that is quick or if the file is shorter
/// than it should be. LMDB leaves free pages at the end unwritten, so only pages in use decide.
fn prove_file(dir: &Path) -> Result<()> {
    let path = dir.join(DATA_FILE);
    let failed = |e: &io::Error| io_error(&path, "read", e);
    let file = File::open(&path).map_err(|e| failed(&e))?;
    let have = file.metadata().map_err(|e| failed(&e))?.len();
    let mut needed = 0;
    let proved = Meta::read(&file, None).and_then(|meta| {
        let meta = meta.expect("no transaction was asked for");
        needed = meta.needed_bytes();
        let depth = Depth::Index {
            pages_max: if have < needed {
                u64::MAX
            } else {
                PROVE_PAGES_AT_OPEN
            },
        };
        prove(&file, &meta, depth)
    });
    match proved {
        Ok(_) => Ok(()),
        Err(Unproved::Io(e)) => Err(failed(&e)),
        Err(Unproved::Damage(_)) if have < needed => Err(Error::corrupt(damaged(
            dir,
            &format!("it was cut off: {have} bytes are left of {needed}"),
        ))),
        Err(Unproved::Damage(found)) => Err(Error::corrupt(damaged(dir, &found.to_string()))),
    }
}
