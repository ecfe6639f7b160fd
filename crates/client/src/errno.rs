//! Error kinds as the kernel's error numbers: the only place of the client that translates them.

use monofs_model::{Error, ErrorKind};

/// An error number of the operating system, such as `ENOENT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    pub const NOENT: Errno = Errno(libc::ENOENT);
    pub const IO: Errno = Errno(libc::EIO);
    pub const STALE: Errno = Errno(libc::ESTALE);
    pub const NOTDIR: Errno = Errno(libc::ENOTDIR);
    pub const ISDIR: Errno = Errno(libc::EISDIR);
    pub const INVAL: Errno = Errno(libc::EINVAL);
    pub const NODATA: Errno = Errno(libc::ENODATA);
    pub const NAMETOOLONG: Errno = Errno(libc::ENAMETOOLONG);
}

impl From<&Error> for Errno {
    /// What a reader is told when content cannot be had.
    ///
    /// Content that no replica holds any more belongs to a snapshot that outlived its grace:
    /// `ESTALE`. Everything that may get better by itself is `EIO`.
    fn from(error: &Error) -> Errno {
        match error.kind {
            ErrorKind::NotFound | ErrorKind::NotHeld => Errno::STALE,
            ErrorKind::Refused => Errno(libc::EACCES),
            ErrorKind::Invalid
            | ErrorKind::Unavailable
            | ErrorKind::Corrupt
            | ErrorKind::Full
            | ErrorKind::Internal => Errno::IO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lost_snapshots_are_stale_and_nothing_invents_a_missing_file() {
        for kind in ErrorKind::ALL {
            let errno = Errno::from(&Error::new(kind, ""));
            assert_ne!(
                errno,
                Errno::NOENT,
                "{kind}: a failure must never look like a missing file"
            );
            assert_eq!(
                errno == Errno::STALE,
                matches!(kind, ErrorKind::NotFound | ErrorKind::NotHeld),
                "{kind}"
            );
        }
    }
}
