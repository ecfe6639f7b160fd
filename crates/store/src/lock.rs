//! One process per directory: an advisory lock on a file in it, gone with the process however that
//! ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use monofs_model::{Error, Result};

use crate::fault::io_error;

const LOCK_FILE: &str = "LOCK";
/// How long a lock that is held is waited for. A process that is just ending still holds its lock,
/// and so does, for a moment, a child that it started: the child inherits the file until it has
/// become another program.
const HOLDER_WAIT: Duration = Duration::from_secs(1);
/// Pause between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

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
            Err(TryLockError::WouldBlock) if begun.elapsed() < HOLDER_WAIT => {
                std::thread::sleep(RETRY_PAUSE)
            }
            Err(TryLockError::WouldBlock) => return Err(in_use(dir, what, file)),
            Err(TryLockError::Error(e)) => return Err(io_error(&path, "lock", &e)),
        }
    }
    // Another process names this id in its error message; a failure to write it does not matter.
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use monofs_model::ErrorKind;

    use super::*;

    #[test]
    fn a_second_lock_is_refused_and_names_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("made/when/missing");
        let held = lock_directory(&at, "thing").unwrap();
        let error = lock_directory(&at, "thing").unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused);
        let holder = format!("the thing is in use by process {}", std::process::id());
        assert!(error.message.contains(&holder), "{error}");
        drop(held);
        lock_directory(&at, "thing").unwrap();
    }

    #[test]
    fn a_holder_that_is_just_ending_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock_directory(dir.path(), "thing").unwrap();
        let (begun, begins) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                begins.recv().unwrap();
                drop(held);
            });
            begun.send(()).unwrap();
            lock_directory(dir.path(), "thing").unwrap();
        });
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "in the way").unwrap();
        let error = lock_directory(&file.join("below"), "thing").unwrap_err();
        assert!(error.message.contains("create directory"), "{error}");
    }
}
