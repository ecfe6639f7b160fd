//! One process per directory: an advisory lock on a file in it, gone with the process however that
//! ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use monofs_model::{Error, Result};

use crate::fault::io_error;

const LOCK_FILE: &str = "LOCK";
/// How long a holder may take to go. One that is just ending still has it, and so has, for a
/// moment, a program that was started meanwhile: it inherits the lock until it has become another
/// program.
const HOLDER_GOES: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Creates `dir` if need be and locks it; the lock lives as long as the file. Errors: `Refused`
/// while another process, or another place in this one, holds it and keeps it for a second. `what`
/// names the directory's use in that error.
pub(crate) fn lock_directory(dir: &Path, what: &str) -> Result<File> {
    fs::create_dir_all(dir).map_err(|e| io_error(dir, "create directory", &e))?;
    let path = dir.join(LOCK_FILE);
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let mut file = opened.map_err(|e| io_error(&path, "open", &e))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if begun.elapsed() < HOLDER_GOES => {
                std::thread::sleep(LOOK_EVERY)
            }
            Err(TryLockError::WouldBlock) => return Err(in_use(dir, what, file)),
            Err(TryLockError::Error(e)) => return Err(io_error(&path, "lock", &e)),
        }
    }
    // For the other process's error message alone, so a failure does not matter.
    let _ = file
        .set_len(0)
        .and_then(|()| write!(file, "{}", std::process::id()));
    Ok(file)
}

fn in_use(dir: &Path, what: &str, file: File) -> Error {
    let mut holder = String::new();
    let _ = file.take(16).read_to_string(&mut holder);
    let holder = holder
        .trim()
        .parse::<u32>()
        .map_or_else(|_| "another process".into(), |pid| format!("process {pid}"));
    let dir = dir.display();
    Error::refused(format!(
        "{dir}: the {what} is in use by {holder}; stop that one or give another directory"
    ))
}
