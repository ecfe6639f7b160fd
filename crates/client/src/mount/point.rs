//! The directory to mount on: refused with a reason unless it can be used, and left as it was.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use monofs_model::{Error, Result};
use rustix::mount::UnmountFlags;

/// Checks the mount point and returns its full path. A mount that a dead client left there is
/// cleared away.
pub fn prepare(path: &Path) -> Result<PathBuf> {
    let at = path.display();
    match std::fs::metadata(path).and_then(|_| answers(path)) {
        Err(e) if is_stale(&e) => {
            tracing::warn!(mount = %at, "clearing away the mount that a client left when it died");
            detach(path).map_err(|e| {
                Error::refused(format!(
                    "{at}: a dead mount is in the way: {e}; run 'fusermount3 -uz {at}'"
                ))
            })?;
        }
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
    if let Some(kind) = mounted_kind(&path) {
        return Err(Error::refused(format!(
            "mount point {at} is busy: a {kind} file system is mounted there already"
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

/// The type of the file system mounted exactly here, if any.
fn mounted_kind(path: &Path) -> Option<String> {
    let table = std::fs::read("/proc/self/mountinfo").ok()?;
    kind_at(&table, path)
}

/// Looks a mount point up in the text of `/proc/self/mountinfo` (see `proc_pid_mountinfo(5)`):
/// field 5 is the mount point with blanks and backslashes in octal, the first one after the
/// separate dash the type.
fn kind_at(table: &[u8], path: &Path) -> Option<String> {
    use std::os::unix::ffi::OsStrExt;
    table.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let at = unescape(fields.nth(4)?);
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        (at == path.as_os_str().as_bytes()).then(|| String::from_utf8_lossy(kind).into_owned())
    })
}

fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [byte, after @ ..] = rest {
        let octal = after
            .get(..3)
            .filter(|digits| *byte == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match octal {
            Some(digits) => {
                plain.push(digits.iter().fold(0u8, |value, digit| {
                    value.wrapping_mul(8).wrapping_add(digit - b'0')
                }));
                rest = &after[3..];
            }
            None => {
                plain.push(*byte);
                rest = after;
            }
        }
    }
    plain
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

    #[test]
    fn mount_points_with_blanks_are_found() {
        let table = b"36 35 98:0 / /a\\040b rw,noatime master:1 - ext4 /dev/sda1 rw\n37 35 0:5 / \
         /x rw - fuse.monofs monofs rw\n";
        assert_eq!(kind_at(table, Path::new("/a b")).as_deref(), Some("ext4"));
        assert_eq!(
            kind_at(table, Path::new("/x")).as_deref(),
            Some("fuse.monofs")
        );
        assert_eq!(kind_at(table, Path::new("/a")), None);
    }
}
