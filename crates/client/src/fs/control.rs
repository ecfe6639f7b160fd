//! The hidden directory `.monofs`: texts about the mount itself.
//!
//! A document is made when it is looked up and never changes after, like every other file here; its
//! name is never trusted, so each `open` by path gets a new one. The kernel forgets the old ones,
//! and with that they are gone.
//!
//! Nothing here changes with the catalogue, so the switch lock is not taken: a document tells what
//! the catalogue is, and takes that lock itself while it is made.

use std::sync::atomic::Ordering;

use super::Fs;
use super::attr::{InodeAttr, LookupAnswer, NameTrust};
use crate::switch_lock::assert_not_held;

/// The directory's name in the root. Not listed there.
pub const CONTROL_NAME: &[u8] = b".monofs";
/// The status of the mount, as JSON.
pub const STATUS_NAME: &[u8] = b"status";

impl Fs {
    /// What `name` in the hidden directory is.
    pub(super) fn lookup_control(&self, name: &[u8]) -> LookupAnswer {
        if name == STATUS_NAME {
            LookupAnswer::Inode(self.new_document(), NameTrust::Once)
        } else {
            LookupAnswer::Nothing
        }
    }

    /// A new status document, with one reference.
    pub(super) fn new_document(&self) -> InodeAttr {
        assert_not_held("make a document");
        // 2^32 documents before numbers could meet those derived from hashes.
        let ino = self.document_number.fetch_add(1, Ordering::Relaxed);
        self.inodes
            .remember_document(ino, (self.documents)(), self.now())
    }
}
