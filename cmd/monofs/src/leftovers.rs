//! What runs that died left behind: a dead mount, a mount point, a temporary directory.
//!
//! Invariants: only what a run file of this user names is touched, and only when its process is
//! known to be dead; a mount that answers is another's by now and stays; a directory in which
//! something is mounted is never deleted.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::run_file::{self, Liveness, RunRecord};

/// How names of temporary directories of runs begin.
pub(crate) const TEMPORARY_PREFIX: &str = "monofs-";

/// Clears away what dead runs of this user left, and returns a line for each thing that went or
/// that could not be taken away.
pub(crate) fn clear() -> Vec<String> {
    let mut told = Vec::new();
    let found = run_file::all().unwrap_or_default();
    for run in found.iter().filter(|run| run.liveness == Liveness::Dead) {
        if clear_run(&run.record, &mut told) {
            run_file::remove(&run.at);
        }
    }
    told
}

/// Whether nothing of a dead run is left.
fn clear_run(record: &RunRecord, told: &mut Vec<String>) -> bool {
    let pid = record.process.pid;
    // The mount first: what is below it is not ours to delete.
    if let Some(mount) = &record.mount {
        match monofs_client::mount::point::clear_if_dead(mount) {
            Ok(true) => told.push(format!(
                "cleared the mount {}, which process {pid} left when it died",
                mount.display()
            )),
            Ok(false) => {}
            Err(error) => {
                told.push(error.message);
                return false;
            }
        }
        if record.made_mount_point {
            // One that is used again is not empty, and stays.
            let _ = std::fs::remove_dir(mount);
        }
    }
    let Some(temporary) = &record.temporary else {
        return true;
    };
    if !is_ours_to_delete(temporary) {
        return true;
    }
    match std::fs::remove_dir_all(temporary) {
        Ok(()) => told.push(format!(
            "cleared the temporary directory {}, which process {pid} left when it died",
            temporary.display()
        )),
        Err(error) => told.push(format!(
            "could not clear the temporary directory {} of process {pid}, which died: {error}",
            temporary.display()
        )),
    }
    !temporary.exists()
}

/// Whether it is a temporary directory of a run, of this user, without a mount in it.
fn is_ours_to_delete(directory: &Path) -> bool {
    let is_named = directory
        .file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with(TEMPORARY_PREFIX));
    let is_own = std::fs::symlink_metadata(directory)
        .is_ok_and(|found| found.is_dir() && found.uid() == rustix::process::getuid().as_raw());
    is_named && is_own && !has_mount(directory)
}

/// Whether something is mounted at or below a directory; true if that cannot be known. The table
/// of mounts writes blanks, tabs, line ends and backslashes as octal numbers. Source: proc(5),
/// `/proc/PID/mountinfo`.
fn has_mount(directory: &Path) -> bool {
    let Ok(table) = std::fs::read_to_string("/proc/self/mountinfo") else {
        return true;
    };
    let mut mounts = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|at| {
            at.replace("\\040", " ")
                .replace("\\011", "\t")
                .replace("\\012", "\n")
                .replace("\\134", "\\")
        });
    mounts.any(|at| Path::new(&at).starts_with(directory))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The record of a run that died.
    fn record_of(temporary: &Path) -> RunRecord {
        let mut record = RunRecord::new(temporary).unwrap();
        record.temporary = Some(temporary.to_owned());
        record
    }

    #[test]
    fn only_a_temporary_directory_of_a_run_is_deleted() {
        let parent = tempfile::tempdir().unwrap();
        let mut told = Vec::new();
        for (name, stays) in [("monofs-abc", false), ("work", true)] {
            let directory = parent.path().join(name);
            std::fs::create_dir_all(directory.join("data")).unwrap();
            assert!(clear_run(&record_of(&directory), &mut told));
            assert_eq!(directory.exists(), stays, "{name}");
        }
        assert_eq!(told.len(), 1, "{told:?}");
    }

    #[test]
    fn a_link_in_place_of_the_directory_is_not_followed() {
        let parent = tempfile::tempdir().unwrap();
        let kept = parent.path().join("kept");
        std::fs::create_dir(&kept).unwrap();
        let link = parent.path().join("monofs-link");
        std::os::unix::fs::symlink(&kept, &link).unwrap();
        assert!(clear_run(&record_of(&link), &mut Vec::new()));
        assert!(kept.exists());
    }

    #[test]
    fn mounts_are_seen_at_and_below_a_directory() {
        assert!(has_mount(Path::new("/")) && has_mount(Path::new("/proc")));
        let empty = tempfile::tempdir().unwrap();
        assert!(!has_mount(empty.path()));
    }
}
