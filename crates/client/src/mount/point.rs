//! The directory to mount on: refused with a reason unless it can be used, and left as it was.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use monofs_model::{Error, Result};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustix::mount::UnmountFlags;

/// Checks the mount point and returns its full path. A mount that a dead client left there is
/// cleared away.
pub fn prepare(path: &Path) -> Result<PathBuf> {
    let at = path.display();
    match std::fs::metadata(path).and_then(|_| answers(path)) {
        Err(e) if is_stale(&e) => clear(path)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(Error::invalid(format!(
                "mount point {at} does not exist; make it with 'mkdir -p {at}'"
            )));
        }
        Err(e) => return Err(Error::refused(format!("mount point {at}: {e}"))),
        Ok(_) => {}
    }

    // A directory that nothing would be hidden in.
    let path = path
        .canonicalize()
        .map_err(|e| Error::refused(format!("mount point {at}: {e}")))?;
    if !path.is_dir() {
        return Err(Error::invalid(format!(
            "mount point {at} is not a directory"
        )));
    }
    if is_mount_root(&path) {
        return Err(Error::refused(format!(
            "mount point {at} is busy: a file system is mounted there already"
        )));
    }
    let mut entries =
        std::fs::read_dir(&path).map_err(|e| Error::refused(format!("mount point {at}: {e}")))?;
    if entries.next().is_some() {
        return Err(Error::refused(format!(
            "mount point {at} is not empty; what is in it would be hidden"
        )));
    }
    Ok(path)
}

/// Takes away the mount that a dead client left at `path`; returns whether there was one. A mount
/// that answers is left alone, whoever's it is.
pub fn clear_if_dead(path: &Path) -> Result<bool> {
    match answers(path) {
        Err(e) if is_stale(&e) => clear(path).map(|()| true),
        _ => Ok(false),
    }
}

fn clear(path: &Path) -> Result<()> {
    let at = path.display();
    tracing::warn!(mount = %at, "clearing away the mount that a client left when it died");
    detach(path).map_err(|e| {
        Error::refused(format!(
            "{at}: a dead mount is in the way: {e}; run 'fusermount3 -uz {at}'"
        ))
    })
}

/// Takes the mount away. When it is busy it goes all the same: processes that use it get errors
/// from then on, as they would when this process ends.
pub fn release(path: &Path, unmounter: &mut fuser::SessionUnmounter) -> Result<()> {
    let at = path.display();
    let Err(error) = unmounter.unmount() else {
        return Ok(());
    };
    if error.raw_os_error() == Some(libc::EINVAL) {
        // It is not mounted any more.
        return Ok(());
    }
    tracing::info!(mount = %at, %error, "still in use: taking it away from its users");
    // FORCE ends the connection, so that no request is waited for; DETACH takes the name away.
    let forced = rustix::mount::unmount(path, UnmountFlags::FORCE | UnmountFlags::DETACH);
    forced
        .map_err(io::Error::from)
        .or_else(|_| detach(path))
        .map_err(|e| Error::refused(format!("unmount {at}: {e}; run 'fusermount3 -uz {at}'")))
}

/// Asks the file system itself: the attributes of a dead mount may still be in the kernel's cache,
/// its figures never are.
fn answers(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::statvfs(path).map(drop)?)
}

fn is_stale(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOTCONN)
}

fn detach(path: &Path) -> io::Result<()> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH) {
        // Only root may; other users ask the helper that mounted it.
        Err(rustix::io::Errno::PERM) => {
            let done = Command::new("fusermount3")
                .args(["-u", "-z", "--"])
                .arg(path)
                .output()?;
            match done.status.success() {
                true => Ok(()),
                false => Err(io::Error::other(
                    String::from_utf8_lossy(&done.stderr).trim().to_owned(),
                )),
            }
        }
        result => Ok(result?),
    }
}

/// Whether a file system is mounted exactly here. Kernels before Linux 5.8 do not say.
fn is_mount_root(path: &Path) -> bool {
    let stat = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::empty());
    stat.is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use monofs_model::ErrorKind;

    use super::*;

    #[test]
    fn wrong_mount_points_are_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let missing = prepare(&dir.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind, ErrorKind::Invalid);
        assert!(missing.message.contains("mkdir -p"), "{missing}");
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(
            prepare(&file)
                .unwrap_err()
                .message
                .contains("not a directory")
        );
        let full = prepare(dir.path()).unwrap_err();
        assert_eq!(full.kind, ErrorKind::Refused);
        assert!(full.message.contains("not empty"), "{full}");
        assert!(
            prepare(Path::new("/proc"))
                .unwrap_err()
                .message
                .contains("busy")
        );
        let empty = dir.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        assert_eq!(prepare(&empty).unwrap(), empty.canonicalize().unwrap());
    }
}
