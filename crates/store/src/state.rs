//! The router's embedded state: ordered keys to bytes, every change numbered, changed by
//! compare-and-set.
//!
//! The rules are etcd's, so that one conformance suite fits both: a commit that writes gets the
//! next revision; a key carries the revision of its last change; comparing with revision 0 means
//! that the key must be absent.
//!
//! Invariants: a commit happens wholly or not at all, and is on disk when it returns; revisions
//! only grow; the epoch is made once and never changes, so that a restored or replaced database is
//! noticed by its watchers.

use std::fs::File;
use std::io::Read;
use std::ops::Bound;
use std::path::Path;

use monofs_model::{Error, Result};

use crate::env::{EnvOptions, Environment, IfMissing, Table, TxnResult};
use crate::fault::io_error;
use crate::lock::lock_directory;

/// Longest key in bytes (LMDB's bound with long keys, less some room).
pub const KEY_BYTES_MAX: usize = 1900;
/// Largest value in bytes.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

const KIND: &str = "state";
const KEY_REVISION: &[u8] = b"revision";
const KEY_EPOCH: &[u8] = b"epoch";
const REVISION_BYTES: usize = 8;

/// A value and the revision of its last change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    pub value: Vec<u8>,
    pub revision: u64,
}

/// All keys under a prefix, and the revision of the view they come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// In order of their keys.
    pub rows: Vec<(Vec<u8>, Versioned)>,
    pub revision: u64,
}

/// A condition of a commit: `key` was last changed at `revision`; 0 means that it is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    pub key: Vec<u8>,
    pub revision: u64,
}

/// A change of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    Put { key: Vec<u8>, value: Vec<u8> },
    Delete { key: Vec<u8> },
}

/// How a commit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitOutcome {
    /// Done, as this revision.
    Done { revision: u64 },
    /// A condition did not hold; nothing changed.
    Conflict,
}

/// The state of one router. Opened once per directory; a second opener is refused.
pub struct StateEnv {
    env: Environment,
    rows: Table,
    facts: Table,
    epoch: String,
    _lock: File,
}

impl StateEnv {
    /// Opens the state in `dir`, creating it when missing.
    pub fn open(dir: &Path) -> Result<Self> {
        let lock = lock_directory(dir, "router state")?;
        let env = Environment::open(dir, &EnvOptions::default(), 8, IfMissing::Create)?;
        let [rows, facts] = env.tables(KIND, ["rows", "facts"], IfMissing::Create)?;
        // The epoch is made once, when the database is new.
        let epoch = match read_epoch(&env, facts)? {
            Some(epoch) => epoch,
            None => {
                let epoch = random_epoch()?;
                env.write("make the epoch", |wtxn| {
                    Ok(facts.put(wtxn, KEY_EPOCH, epoch.as_bytes())?)
                })?;
                epoch
            }
        };
        Ok(Self {
            env,
            rows,
            facts,
            epoch,
            _lock: lock,
        })
    }

    /// The value of `key`.
    pub fn get(&self, key: &[u8]) -> Result<Option<Versioned>> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Ok(None);
        }
        let txn = self.env.read()?;
        let row = self
            .rows
            .get(&txn, key)
            .map_err(|e| self.env.error("read state", e))?;
        row.map(decode_row).transpose()
    }

    /// All keys that start with `prefix`, in order; an empty prefix means all.
    pub fn scan(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Versioned)>> {
        self.scan_at(prefix).map(|scan| scan.rows)
    }

    /// [`StateEnv::scan`] and the revision at which the view was taken, of one transaction.
    pub fn scan_at(&self, prefix: &[u8]) -> Result<Scan> {
        // LMDB knows no empty keys, not even as a bound.
        let from = if prefix.is_empty() {
            Bound::Unbounded
        } else {
            Bound::Included(prefix)
        };
        let wanted = |key: &[u8]| key.starts_with(prefix);
        if prefix.len() <= KEY_BYTES_MAX {
            self.scan_ranges(&[from], wanted)
        } else {
            self.scan_ranges(&[], wanted)
        }
    }

    /// All keys but those that start with `prefix` (not empty, and not ending with 0xff), which are
    /// not read.
    pub fn scan_without(&self, prefix: &[u8]) -> Result<Scan> {
        let mut behind = prefix.to_vec();
        if let Some(last) = behind.last_mut() {
            *last = last.saturating_add(1);
        }
        let ranges = [Bound::Unbounded, Bound::Included(behind.as_slice())];
        self.scan_ranges(&ranges, |key| !key.starts_with(prefix))
    }

    /// The rows from each of these bounds on, as long as their keys are `wanted`.
    fn scan_ranges(&self, from: &[Bound<&[u8]>], wanted: impl Fn(&[u8]) -> bool) -> Result<Scan> {
        let broken = |e| self.env.error("scan state", e);
        let txn = self.env.read()?;
        let revision = decode_revision(self.facts.get(&txn, KEY_REVISION).map_err(broken)?)?;
        let mut rows: Vec<(Vec<u8>, Versioned)> = Vec::new();
        for from in from {
            // Without a gap between them, the first range has read the second one.
            if let (Bound::Included(from), Some((last, _))) = (from, rows.last())
                && last.as_slice() >= *from
            {
                break;
            }
            for row in self
                .rows
                .range(&txn, &(*from, Bound::Unbounded))
                .map_err(broken)?
            {
                let (key, row) = row.map_err(broken)?;
                if !wanted(key) {
                    break;
                }
                rows.push((key.to_vec(), decode_row(row)?));
            }
        }
        Ok(Scan { rows, revision })
    }

    /// Applies all `writes` if all `compares` hold, in one transaction. Without writes it only
    /// compares.
    pub fn commit(&self, compares: &[Compare], writes: &[Write]) -> Result<CommitOutcome> {
        for write in writes {
            check_write(write)?;
        }
        self.env
            .write("commit state", |wtxn| -> TxnResult<CommitOutcome> {
                // All conditions hold before the first write.
                for compare in compares {
                    let found = match compare.key.len() {
                        1..=KEY_BYTES_MAX => self
                            .rows
                            .get(wtxn, &compare.key)?
                            .map(decode_row)
                            .transpose()?,
                        _ => None,
                    };
                    if found.map_or(0, |row| row.revision) != compare.revision {
                        return Ok(CommitOutcome::Conflict);
                    }
                }
                let mut revision = decode_revision(self.facts.get(wtxn, KEY_REVISION)?)?;
                if writes.is_empty() {
                    return Ok(CommitOutcome::Done { revision });
                }
                // All rows of a commit carry its revision.
                revision += 1;
                for write in writes {
                    match write {
                        Write::Put { key, value } => {
                            let row = [&revision.to_be_bytes()[..], value].concat();
                            self.rows.put(wtxn, key, &row)?;
                        }
                        Write::Delete { key } => {
                            self.rows.delete(wtxn, key)?;
                        }
                    }
                }
                self.facts
                    .put(wtxn, KEY_REVISION, &revision.to_be_bytes())?;
                Ok(CommitOutcome::Done { revision })
            })
    }

    /// The revision of the last commit that wrote; 0 when there was none.
    pub fn revision(&self) -> Result<u64> {
        let txn = self.env.read()?;
        decode_revision(
            self.facts
                .get(&txn, KEY_REVISION)
                .map_err(|e| self.env.error("read the revision", e))?,
        )
    }

    /// The random id that this database got when it was made: 32 hexadecimal digits.
    pub fn epoch(&self) -> String {
        self.epoch.clone()
    }

    /// Bytes of the data file.
    pub fn disk_bytes(&self) -> u64 {
        self.env.disk_bytes()
    }
}

fn check_write(write: &Write) -> Result<()> {
    let (key, value_len) = match write {
        Write::Put { key, value } => (key, value.len()),
        Write::Delete { key } => (key, 0),
    };
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(Error::invalid(format!(
            "a state key has 1 to {KEY_BYTES_MAX} bytes, not {}",
            key.len()
        )));
    }
    if value_len > VALUE_BYTES_MAX {
        return Err(Error::invalid(format!(
            "a state value has at most {VALUE_BYTES_MAX} bytes, not {value_len}"
        )));
    }
    Ok(())
}

fn decode_row(row: &[u8]) -> Result<Versioned> {
    let (revision, value) = row
        .split_first_chunk::<REVISION_BYTES>()
        .ok_or_else(|| Error::corrupt("state: a row is too short for its revision"))?;
    Ok(Versioned {
        value: value.to_vec(),
        revision: u64::from_be_bytes(*revision),
    })
}

fn decode_revision(row: Option<&[u8]>) -> Result<u64> {
    match row {
        None => Ok(0),
        Some(raw) => raw
            .try_into()
            .map(u64::from_be_bytes)
            .map_err(|_| Error::corrupt("state: the revision is malformed")),
    }
}

fn read_epoch(env: &Environment, facts: Table) -> Result<Option<String>> {
    let txn = env.read()?;
    let epoch = facts
        .get(&txn, KEY_EPOCH)
        .map_err(|e| env.error("read the epoch", e))?;
    Ok(epoch.map(|raw| String::from_utf8_lossy(raw).into_owned()))
}

fn random_epoch() -> Result<String> {
    let path = Path::new("/dev/urandom");
    let mut raw = [0u8; 16];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut raw));
    read.map_err(|e| io_error(path, "read", &e))?;
    Ok(raw.iter().map(|byte| format!("{byte:02x}")).collect())
}
