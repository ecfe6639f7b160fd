//! Inode numbers: a pure function of what an inode is, so that `readdir` can tell them without
//! registering anything.
//!
//! A file's number depends on its parent, name, kind and oid: new content is another inode, and the
//! bytes behind a number never change. A directory's number depends on its parent and name only: it
//! stays while its content is switched below it, so that a working directory survives an update.
//!
//! The number is the upper 61 bits of a 128-bit xxh3 of that; the low three bits are a slot, used
//! when two things share the number (a collision, or a directory that vanished and came back while
//! still open). The other 64 bits of the hash, the `check`, tell them apart.

use monofs_model::limits::NAME_BYTES_MAX;
use monofs_model::{EntryKind, Oid};
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// An inode number.
pub type Ino = u64;

/// The mount point itself.
pub const ROOT: Ino = 1;
/// The hidden directory `.monofs` below the root.
pub const CONTROL: Ino = 2;
/// First number for the documents below [`CONTROL`]; grows by one with each.
pub const DOCUMENTS: Ino = 16;
/// Numbers below this are never derived from hashes.
const RESERVED: Ino = 1 << 32;
/// Slots behind one hash value.
pub const SLOTS: u64 = 8;
/// Changing it changes every inode number.
const SEED: u64 = 0x6d6f_6e6f_6673_0002;

/// What names an inode: the number of its slot 0, and the check that tells colliding ones apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    pub base: Ino,
    pub check: u64,
}

impl Identity {
    /// The identity of a directory, in a repository or above it.
    pub fn directory(parent: Ino, name: &[u8]) -> Self {
        Self::of(parent, EntryKind::Directory as u8, &[], name)
    }

    /// The identity of an entry of a repository's directory.
    pub fn entry(parent: Ino, name: &[u8], kind: EntryKind, oid: &Oid) -> Self {
        match kind {
            EntryKind::Directory => Self::directory(parent, name),
            _ => Self::of(parent, kind as u8, oid.as_bytes(), name),
        }
    }

    fn of(parent: Ino, kind: u8, oid: &[u8], name: &[u8]) -> Self {
        // Fixed-width fields first and the name last, so that no two inputs have the same bytes.
        let mut input = [0u8; 8 + 2 + 32 + NAME_BYTES_MAX];
        input[..8].copy_from_slice(&parent.to_le_bytes());
        input[8] = kind;
        input[9] = oid.len() as u8;
        input[10..10 + oid.len()].copy_from_slice(oid);
        let name = &name[..name.len().min(NAME_BYTES_MAX)];
        input[42..42 + name.len()].copy_from_slice(name);
        let hash = xxh3_128_with_seed(&input[..42 + name.len()], SEED);
        let mut base = (hash >> 64) as u64 & !(SLOTS - 1);
        if base < RESERVED {
            base |= RESERVED;
        }
        Self {
            base,
            check: hash as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oid(byte: u8) -> Oid {
        Oid::from_bytes(&[byte; 20]).expect("twenty bytes")
    }

    #[test]
    fn content_changes_a_files_number_and_not_a_directorys() {
        let file = |byte| Identity::entry(ROOT, b"a", EntryKind::File, &oid(byte));
        assert_ne!(file(1), file(2));
        let directory = |byte| Identity::entry(ROOT, b"a", EntryKind::Directory, &oid(byte));
        assert_eq!(directory(1), directory(2));
        assert_eq!(directory(1), Identity::directory(ROOT, b"a"));
        assert_ne!(
            file(1),
            Identity::entry(ROOT, b"a", EntryKind::Executable, &oid(1))
        );
        assert_ne!(
            file(1),
            Identity::entry(ROOT, b"b", EntryKind::File, &oid(1))
        );
        assert_ne!(file(1), Identity::entry(99, b"a", EntryKind::File, &oid(1)));
    }

    #[test]
    fn numbers_never_move() {
        // Kernel caches do not outlive a mount, but backups and build tools compare inode numbers
        // across mounts.
        assert_eq!(
            Identity::directory(ROOT, b"github.com"),
            Identity::directory(ROOT, b"github.com")
        );
        let golden = Identity::entry(ROOT, b"README", EntryKind::File, &oid(7));
        assert_eq!(golden.base % SLOTS, 0);
        assert!(golden.base >= RESERVED);
        let long = [b'n'; 255];
        assert_ne!(
            Identity::directory(ROOT, &long),
            Identity::directory(ROOT, &long[..254])
        );
    }
}
