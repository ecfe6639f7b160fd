//! The directory of run files: of this user alone, and gone at the next start of the machine where
//! the system has such directories.
//!
//! Invariant: what is read or deleted on the word of a run file was written by the same user, since
//! no other can write into this directory.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What a private directory lets its owner do, and nobody else.
const PRIVATE: u32 = 0o700;

/// Where the run files of this user are: in `$XDG_RUNTIME_DIR`, else in `/run/user/UID`, else in
/// `/tmp/monofs-UID`. It may not exist yet.
pub(crate) fn path() -> PathBuf {
    let uid = rustix::process::getuid().as_raw();
    let given = std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty());
    let usual = PathBuf::from(format!("/run/user/{uid}"));
    // `su` keeps the variable of the user before, whose directory is not ours.
    given
        .map(PathBuf::from)
        .into_iter()
        .chain([usual])
        .find(|directory| is_of(directory, uid))
        .map_or_else(
            || PathBuf::from(format!("/tmp/monofs-{uid}")),
            |directory| directory.join("monofs"),
        )
}

/// Makes the directory, or sees that the one that is there is private. Errors: it is another
/// user's, a link, or no directory can be made there.
pub(crate) fn make(path: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(PRIVATE).create(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    check(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(PRIVATE))
}

/// Refuses a directory that another user could have filled.
pub(crate) fn check(path: &Path) -> io::Result<()> {
    let uid = rustix::process::getuid().as_raw();
    if !is_of(path, uid) {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it is not a directory of this user",
        ));
    }
    Ok(())
}

/// Whether this is a directory, and no link to one, that the user owns and others cannot write to.
fn is_of(path: &Path, uid: u32) -> bool {
    std::fs::symlink_metadata(path)
        .is_ok_and(|found| found.is_dir() && found.uid() == uid && found.mode() & 0o022 == 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_others_could_have_filled_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let made = parent.path().join("made");
        make(&made).unwrap();
        assert_eq!(made.metadata().unwrap().mode() & 0o777, PRIVATE);
        make(&made).unwrap();

        let link = parent.path().join("link");
        std::os::unix::fs::symlink(&made, &link).unwrap();
        assert!(make(&link).is_err());
        std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(check(&made).is_err());
    }
}
