//! The hidden directory `.monofs`: texts about the mount itself. `status` is listed; `changes` and
//! `changes-POSITION`, which watchers ask for, are not.
//!
//! A document is made when it is looked up and never changes after, like every other file here; its
//! name is never trusted, so each `open` by path gets a new one. The kernel forgets the old ones,
//! and with that they are gone.
//!
//! Nothing here changes with the catalogue, so the switch lock is not taken: a document tells what
//! the catalogue is, and takes that lock itself while it is made.

use std::sync::atomic::Ordering;

use monofs_content::switch_lock::assert_not_held;

use super::Fs;
use super::attr::{InodeAttr, LookupAnswer, NameTrust};
use crate::changes::ChangePosition;

/// The directory's name in the root. Not listed there.
pub const CONTROL_NAME: &[u8] = b".monofs";
/// The status of the mount, as JSON.
pub const STATUS_NAME: &[u8] = b"status";

/// A text below the hidden directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentName {
    Status,
    /// What changed since a position; without one, only where the log of changes is now.
    Changes(Option<ChangePosition>),
}

impl DocumentName {
    fn parse(name: &[u8]) -> Option<Self> {
        if name == STATUS_NAME {
            return Some(Self::Status);
        }
        let rest = std::str::from_utf8(name.strip_prefix(b"changes")?).ok()?;
        if rest.is_empty() {
            return Some(Self::Changes(None));
        }
        let position = rest.strip_prefix('-')?.parse().ok()?;
        Some(Self::Changes(Some(position)))
    }
}

impl Fs {
    /// What `name` in the hidden directory is.
    pub(super) fn lookup_control(&self, name: &[u8]) -> LookupAnswer {
        match DocumentName::parse(name) {
            Some(name) => LookupAnswer::Inode(self.new_document(name), NameTrust::Once),
            None => LookupAnswer::Nothing,
        }
    }

    /// A new document, with one reference.
    pub(super) fn new_document(&self, name: DocumentName) -> InodeAttr {
        assert_not_held("make a document");
        // 2^32 documents before numbers could meet those derived from hashes.
        let ino = self.document_number.fetch_add(1, Ordering::Relaxed);
        self.inodes
            .remember_document(ino, (self.documents)(name), self.now())
    }
}
