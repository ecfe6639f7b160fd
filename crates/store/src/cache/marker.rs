//! Whether the cache on disk can be trusted: it is written without syncs, so a crash of the machine
//! may tear it.
//!
//! While a cache is open, a file holds the machine's boot id; a clean close syncs and removes it.
//! Found at open with another boot id, the machine went down in between. With the same one, only
//! the process died (`kill -9`), and what it wrote is in the page cache, whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use monofs_model::Result;

use crate::fault::io_error;

const MARKER_FILE: &str = "boot";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

fn boot_id() -> Result<String> {
    let path = Path::new(BOOT_ID);
    fs::read_to_string(path)
        .map(|id| id.trim().to_owned())
        .map_err(|e| io_error(path, "read", &e))
}

/// Whether the machine has run since the cache was opened last, or it was closed cleanly.
pub(super) fn is_trusted(dir: &Path) -> Result<bool> {
    let path = dir.join(MARKER_FILE);
    match fs::read_to_string(&path) {
        Ok(found) => Ok(found == boot_id()?),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Ok(false),
        Err(e) => Err(io_error(&path, "read", &e)),
    }
}

/// Marks the cache as open. Durable when it returns, so before the first write to a generation.
pub(super) fn write(dir: &Path) -> Result<()> {
    let path = dir.join(MARKER_FILE);
    let id = boot_id()?;
    let written = File::create(&path)
        .and_then(|mut file| file.write_all(id.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| File::open(dir)?.sync_all());
    written.map_err(|e| io_error(&path, "write", &e))
}

/// Marks the cache as closed cleanly.
pub(super) fn remove(dir: &Path) -> Result<()> {
    let path = dir.join(MARKER_FILE);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error(&path, "remove", &e)),
        _ => Ok(()),
    }
}
