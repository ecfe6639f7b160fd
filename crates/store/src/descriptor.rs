//! Close-on-exec for LMDB's data file.
//!
//! LMDB opens its lock file and its synchronous descriptor close-on-exec, but not the data file
//! itself, and heed does not give that number away. A child process that inherited it would keep
//! the disk space of dropped repositories. So the descriptor is looked for by what it refers to:
//! the kernel gives the lowest free numbers, which makes that two or three looks.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};

/// The search turns to the lower numbers after this many in a row that are not open.
const GAP_MAX: RawFd = 64;

/// Sets close-on-exec on every descriptor of this process that refers to the same file as `file`;
/// the search begins at `from`, the lowest free number before the file was opened, and ends with
/// the first that needed it.
pub(crate) fn close_on_exec(file: &File, from: RawFd) {
    let Some(wanted) = identity(file.as_raw_fd()) else {
        return;
    };
    let mut gap = 0;
    let upwards = (from..).take_while(|&fd| {
        gap = if is_open(fd) { 0 } else { gap + 1 };
        gap < GAP_MAX
    });
    for fd in upwards.chain(0..from) {
        if inherits(fd) && identity(fd) == Some(wanted) {
            // SAFETY: fcntl with F_SETFD touches no memory. Should another thread have closed and
            // reopened the number just now, its file becomes close-on-exec, as every file of this
            // process is meant to be.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
            return;
        }
    }
}

fn flags(fd: RawFd) -> libc::c_int {
    // SAFETY: fcntl with F_GETFD touches no memory and fails on numbers that are not open.
    unsafe { libc::fcntl(fd, libc::F_GETFD) }
}

fn is_open(fd: RawFd) -> bool {
    flags(fd) >= 0
}

fn inherits(fd: RawFd) -> bool {
    let flags = flags(fd);
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

/// Device and inode.
fn identity(fd: RawFd) -> Option<(libc::dev_t, libc::ino_t)> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `stat` has room for what fstat writes, and it is read only after success.
    unsafe { (libc::fstat(fd, stat.as_mut_ptr()) == 0).then(|| stat.assume_init()) }
        .map(|stat| (stat.st_dev, stat.st_ino))
}
