//! Errors of the operating system and of LMDB as errors of the model: a kind to act on, where it
//! happened, what to try.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use heed::MdbError;
use monofs_model::{Error, Result};

use crate::env::DATA_FILE;

/// Free space below which a short write is taken for a full disk.
const FULL_BYTES: u64 = 1 << 20;
const WHAT_TO_DO: &str =
    "restore it; what a node or a client holds may also be removed, it is fetched again";

/// The message of a database that must not be used.
pub(crate) fn damaged(dir: &Path, what: &str) -> String {
    format!(
        "{}: {DATA_FILE} is damaged: {what}; {WHAT_TO_DO}",
        dir.display()
    )
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|file| file.sync_all())
        .map_err(|e| io_error(dir, "sync directory", &e))
}

/// Removes a directory with all in it; a missing one is fine.
pub(crate) fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(io_error(dir, "remove directory", &e)),
    }
}

/// An error of the operating system as one of the model.
pub(crate) fn io_error(path: &Path, doing: &str, error: &io::Error) -> Error {
    let line = format!("{}: {doing}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::full(format!("{line}; make room and try again"))
        }
        io::ErrorKind::NotFound => Error::not_found(line),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Error::refused(line),
        _ => Error::internal(line),
    }
}

/// An error of LMDB as one of the model. A short write (EIO) on a full disk is `Full`: LMDB does not tell
/// the two apart.
pub(crate) fn lmdb_error(dir: &Path, doing: &str, error: heed::Error) -> Error {
    let line = format!("{}: {doing}: {error}", dir.display());
    // What the caller can do decides the kind: make room, try again, fetch it anew.
    match error {
        heed::Error::Io(e)
            if e.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
                && disk_is_full(dir) =>
        {
            Error::full(format!(
                "{}: {doing}: the disk is full; make room and try again",
                dir.display()
            ))
        }
        heed::Error::Io(e) => io_error(dir, doing, &e),
        heed::Error::Mdb(
            MdbError::PageNotFound
            | MdbError::Corrupted
            | MdbError::Invalid
            | MdbError::Incompatible
            | MdbError::VersionMismatch,
        ) => Error::corrupt(format!("{line}; the database is damaged: {WHAT_TO_DO}")),
        heed::Error::Mdb(MdbError::MapFull) => Error::full(line),
        heed::Error::Mdb(MdbError::ReadersFull) => Error::unavailable(line),
        heed::Error::EnvAlreadyOpened => Error::unavailable(format!(
            "{dir}: {doing}: it is still being closed; try again",
            dir = dir.display()
        )),
        heed::Error::Mdb(MdbError::BadValSize) => Error::invalid(line),
        heed::Error::Mdb(MdbError::MapResized) => {
            Error::refused(format!("{line}; another process uses the database"))
        }
        _ => Error::internal(line),
    }
}

fn disk_is_full(dir: &Path) -> bool {
    rustix::fs::statvfs(dir)
        .is_ok_and(|stat| stat.f_bavail.saturating_mul(stat.f_frsize) < FULL_BYTES)
}
