//! The watcher's side: finds the mount that a path lies in and asks it what changed. Called by
//! `monofs-client watch`; knows the mount by its files alone.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use monofs_model::{Error, Result};

use super::{ChangeKind, DocumentHead, PathChange};
use crate::fs::identity::ROOT;

/// One watcher.
#[derive(Debug)]
pub struct MountWatch {
    /// Where the mount is.
    root: PathBuf,
    /// What is watched, below the root.
    below: PathBuf,
    position: String,
}

/// What one question brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct WatchAnswer {
    /// With full paths.
    pub changes: Vec<PathChange>,
    /// More may be there already.
    pub has_more: bool,
}

impl MountWatch {
    /// Begins to watch `path`, which need not exist, and everything below it. Errors: `Invalid`
    /// for a path that is in no mount, `Unavailable` for a mount that does not answer.
    pub fn begin(path: &Path) -> Result<Self> {
        // The mount is looked for upwards from the path, which itself need not exist.
        let full =
            full_path(path).map_err(|e| Error::invalid(format!("{}: {e}", path.display())))?;
        let root = full.ancestors().find(|at| is_mount_root(at));
        let root = root.ok_or_else(|| {
            Error::invalid(format!(
                "{} is not in a MonoFS mount; give a path at or below the directory of --mount",
                path.display()
            ))
        })?;

        // The document of changes gives the position from which changes are told.
        let first = std::fs::read(root.join(".monofs/changes"));
        let first = first.and_then(|document| parse(&document)).map_err(|e| {
            Error::unavailable(format!(
                "{}: {e}; is its client older than this one?",
                root.display()
            ))
        })?;
        Ok(Self {
            below: full.strip_prefix(root).unwrap_or(Path::new("")).to_owned(),
            root: root.to_owned(),
            position: first.0.position,
        })
    }

    /// What is watched.
    pub fn path(&self) -> PathBuf {
        self.root.join(&self.below)
    }

    /// Asks what changed since the last question. After an error the same is asked again; a mount
    /// that was made anew meanwhile answers with a reset.
    pub fn poll(&mut self) -> io::Result<WatchAnswer> {
        let name = format!(".monofs/changes-{}", self.position);
        let (head, told) = parse(&std::fs::read(self.root.join(name))?)?;
        self.position = head.position;
        let mut answer = WatchAnswer {
            has_more: !told.is_empty(),
            ..WatchAnswer::default()
        };
        if head.missed {
            use std::os::unix::ffi::OsStrExt;
            let path = self.path();
            let bytes = path.as_os_str().as_bytes();
            answer
                .changes
                .push(PathChange::new(ChangeKind::Reset, bytes, None));
        }
        let watched = told.into_iter().filter(|change| self.is_watched(change));
        answer
            .changes
            .extend(watched.map(|change| change.below(&self.root)));
        Ok(answer)
    }

    /// What is at or below the watched path, or above it: with that it came or went, too.
    fn is_watched(&self, change: &PathChange) -> bool {
        let path = change.to_path();
        path.starts_with(&self.below) || self.below.starts_with(&path)
    }
}

/// `path` without symbolic links, as far as it exists.
fn full_path(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    for at in path.ancestors() {
        if let Ok(full) = at.canonicalize() {
            let rest = path.strip_prefix(at).unwrap_or(Path::new(""));
            // Joining an empty path would add a slash.
            return Ok(match rest.as_os_str().is_empty() {
                true => full,
                false => full.join(rest),
            });
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

fn is_mount_root(at: &Path) -> bool {
    std::fs::metadata(at).is_ok_and(|found| found.ino() == ROOT)
        && at.join(".monofs/status").exists()
}

/// The lines of a document.
fn parse(document: &[u8]) -> io::Result<(DocumentHead, Vec<PathChange>)> {
    let mut lines = document.split(|byte| *byte == b'\n');
    let head = serde_json::from_slice(lines.next().unwrap_or_default())?;
    let changes = lines
        .filter(|line| !line.is_empty())
        .map(serde_json::from_slice)
        .collect::<serde_json::Result<Vec<PathChange>>>()?;
    Ok((head, changes))
}
