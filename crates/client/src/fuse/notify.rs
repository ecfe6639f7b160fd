//! What a mounted session tells the kernel unasked: names to drop, contents to keep.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;

use fuser::INodeNo;

use crate::fill::PageCache;
use crate::invalidate::NameCache;

/// The kernel's side of a mounted session.
pub struct SessionNotifier {
    notifier: fuser::Notifier,
    device: OwnedFd,
}

impl SessionNotifier {
    /// `device` is a duplicate of the session's: fuser has no call for dropping all names.
    pub fn new(notifier: fuser::Notifier, device: OwnedFd) -> Self {
        Self { notifier, device }
    }
}

impl PageCache for fuser::Notifier {
    fn store(&self, ino: u64, bytes: &[u8]) -> io::Result<()> {
        self.store(INodeNo(ino), 0, bytes)
    }
}

impl NameCache for SessionNotifier {
    fn drop_name(&self, directory: u64, name: &OsStr) -> io::Result<()> {
        self.notifier.inval_entry(INodeNo(directory), name)
    }

    fn drop_listing(&self, directory: u64) -> io::Result<()> {
        self.notifier.inval_inode(INodeNo(directory), 0, 0)
    }

    fn drop_all_names(&self) -> io::Result<()> {
        // struct fuse_out_header { u32 len; i32 error; u64 unique }, a notification when `unique`
        // is 0; `error` is then FUSE_NOTIFY_INC_EPOCH (linux/uapi/linux/fuse.h, since 6.16).
        const INC_EPOCH: i32 = 8;
        let mut message = [0u8; 16];
        message[..4].copy_from_slice(&16u32.to_ne_bytes());
        message[4..8].copy_from_slice(&INC_EPOCH.to_ne_bytes());
        rustix::io::write(&self.device, &message)?;
        Ok(())
    }
}
