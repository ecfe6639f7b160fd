//! What the kernel is told about an inode and about a name.

use monofs_model::EntryKind;

use super::identity::Ino;

/// Block size reported to programs: the largest read the kernel sends is a good buffer size, 4 KiB
/// is what they expect.
pub const BLOCK_BYTES: u32 = 4096;
/// Nominal size of a directory.
pub(super) const DIRECTORY_BYTES: u64 = 4096;

/// What an inode is to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    Directory,
    File,
    Executable,
    Symlink,
}

impl From<EntryKind> for FileKind {
    fn from(kind: EntryKind) -> Self {
        match kind {
            EntryKind::Directory | EntryKind::Submodule => Self::Directory,
            EntryKind::File => Self::File,
            EntryKind::Executable => Self::Executable,
            EntryKind::Symlink => Self::Symlink,
        }
    }
}

impl FileKind {
    /// Permission bits.
    pub fn permissions(self) -> u16 {
        match self {
            Self::Directory | Self::Executable => 0o755,
            Self::File => 0o644,
            Self::Symlink => 0o777,
        }
    }
}

/// Attributes of an inode; owner and block size are the same for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InodeAttr {
    pub ino: Ino,
    pub kind: FileKind,
    /// In bytes.
    pub size: u64,
    /// Seconds since the epoch; also the time of the last status change.
    pub mtime: i64,
}

impl InodeAttr {
    /// Attributes of which the kernel takes only the number and the kind.
    pub fn bare(ino: Ino, kind: FileKind) -> Self {
        Self {
            ino,
            kind,
            size: 0,
            mtime: 0,
        }
    }
}

/// How long the kernel may believe a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameTrust {
    /// Until it is told otherwise.
    Forever,
    /// For one lookup: it asks again each time.
    Once,
}

/// The answer to a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupAnswer {
    Inode(InodeAttr, NameTrust),
    /// There is no such name; the kernel may remember that.
    Nothing,
}
