//! Answers of [`crate::fs`] in fuser's words.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, Generation, INodeNo};

use crate::errno::Errno;
use crate::fs::attr::{BLOCK_BYTES, FileKind, InodeAttr, LookupAnswer, NameTrust};
use crate::fs::readdir::{DirItem, ListingMode};
use crate::mount::context::FileOwner;

/// As good as for ever: what changes is announced.
pub(super) const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// An error number in fuser's type.
pub(super) fn errno(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.0)
}

/// The attributes that the kernel gets for an inode.
pub(super) fn file_attr(owner: FileOwner, attr: &InodeAttr) -> FileAttr {
    let seconds = Duration::from_secs(attr.mtime.unsigned_abs());
    let time: SystemTime = if attr.mtime < 0 {
        UNIX_EPOCH - seconds
    } else {
        UNIX_EPOCH + seconds
    };
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: file_type(attr.kind),
        perm: attr.kind.permissions(),
        // For a directory, 1 means "not counted": a wrong count makes `find` skip subdirectories.
        nlink: 1,
        uid: owner.uid,
        gid: owner.gid,
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Directory => FileType::Directory,
        FileKind::File | FileKind::Executable => FileType::RegularFile,
        FileKind::Symlink => FileType::Symlink,
    }
}

fn time_to_live(trust: NameTrust) -> Duration {
    match trust {
        NameTrust::Forever => FOREVER,
        NameTrust::Once => Duration::ZERO,
    }
}

/// Answers a lookup.
pub(super) fn reply_entry(
    owner: FileOwner,
    answer: Result<LookupAnswer, Errno>,
    reply: fuser::ReplyEntry,
) {
    match answer {
        Ok(LookupAnswer::Inode(attr, trust)) => {
            reply.entry_with_ttls(
                &FOREVER,
                &time_to_live(trust),
                &file_attr(owner, &attr),
                Generation(0),
            );
        }
        Ok(LookupAnswer::Nothing) => {
            // Number zero: there is no such name, and the kernel may remember that.
            let nothing = InodeAttr::bare(0, FileKind::File);
            reply.entry(&FOREVER, &file_attr(owner, &nothing), Generation(0));
        }
        Err(error) => reply.error(errno(error)),
    }
}

/// Answers a request for the value, or for the names, of extended attributes. `size`: bytes that
/// the program has room for; 0 asks how many are needed.
pub(super) fn reply_xattr(value: Result<Vec<u8>, Errno>, size: u32, reply: fuser::ReplyXattr) {
    match value {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(fuser::Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(errno(error)),
    }
}

/// The reply to a listing: with the attributes of each name, or without.
pub(super) trait ListingReply: Send + 'static {
    const MODE: ListingMode;

    /// True: the reply is full, and the name was not taken.
    fn add(&mut self, owner: FileOwner, item: &DirItem<'_>) -> bool;
    /// Sends the names that were taken.
    fn ok(self);
    fn error(self, errno: fuser::Errno);
}

impl ListingReply for fuser::ReplyDirectory {
    const MODE: ListingMode = ListingMode::Names;

    fn add(&mut self, _: FileOwner, item: &DirItem<'_>) -> bool {
        let name = OsStr::from_bytes(item.name);
        fuser::ReplyDirectory::add(
            self,
            INodeNo(item.ino),
            item.next,
            file_type(item.kind),
            name,
        )
    }

    fn ok(self) {
        fuser::ReplyDirectory::ok(self);
    }

    fn error(self, errno: fuser::Errno) {
        fuser::ReplyDirectory::error(self, errno);
    }
}

impl ListingReply for fuser::ReplyDirectoryPlus {
    const MODE: ListingMode = ListingMode::WithAttributes;

    fn add(&mut self, owner: FileOwner, item: &DirItem<'_>) -> bool {
        // The kernel ignores attributes and lifetime of `.` and `..`.
        let dots = InodeAttr::bare(item.ino, item.kind);
        let (attr, trust) = item.attr.unwrap_or((dots, NameTrust::Once));
        fuser::ReplyDirectoryPlus::add(
            self,
            INodeNo(item.ino),
            item.next,
            OsStr::from_bytes(item.name),
            &time_to_live(trust),
            &file_attr(owner, &attr),
            Generation(0),
        )
    }

    fn ok(self) {
        fuser::ReplyDirectoryPlus::ok(self);
    }

    fn error(self, errno: fuser::Errno) {
        fuser::ReplyDirectoryPlus::error(self, errno);
    }
}
