//! Inode numbers: a pure function of what an inode is, so that `readdir` can tell them without
//! registering anything.
//!
//! A file's number depends on its parent, name, kind, oid and the generation in which it last changed:
//! new content is another inode, and so is old content that comes back; the bytes and the time
//! behind a number never change. A directory's number depends on its parent and name only: it
//! stays while its content is switched below it, so that a working directory survives an update.
//!
//! The number is the upper 61 bits of a 128-bit xxh3 of that; the low three bits are a slot, used
//! when two things share the number (a collision, or a directory that vanished and came back while
//! still open). The other 64 bits of the hash, the `check`, tell them apart.

use monofs_content::shown::NamedEntry;
use monofs_model::EntryKind;
use monofs_model::limits::NAME_BYTES_MAX;
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
const SEED: u64 = 0x6d6f_6e6f_6673_0003;

/// What names an inode: the number of its slot 0, and the check that tells colliding ones apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    pub base: Ino,
    pub check: u64,
}

impl Identity {
    /// The identity of a directory, in a repository or above it.
    pub fn directory(parent: Ino, name: &[u8]) -> Self {
        Self::of(parent, EntryKind::Directory as u8, &[], 0, name)
    }

    /// The identity of an entry of a repository's directory.
    pub fn entry(parent: Ino, named: &NamedEntry<'_>) -> Self {
        let NamedEntry { entry, generations } = named;
        match entry.kind {
            EntryKind::Directory => Self::directory(parent, entry.name),
            kind => {
                let generation = generations.own();
                let oid = entry.oid.as_bytes();
                Self::of(parent, kind as u8, oid, generation, entry.name)
            }
        }
    }

    fn of(parent: Ino, kind: u8, oid: &[u8], generation: u64, name: &[u8]) -> Self {
        // Fixed-width fields first and the name last, so that no two inputs have the same bytes.
        let mut input = [0u8; 8 + 2 + 32 + 8 + NAME_BYTES_MAX];
        input[..8].copy_from_slice(&parent.to_le_bytes());
        input[8] = kind;
        input[9] = oid.len() as u8;
        input[10..10 + oid.len()].copy_from_slice(oid);
        let name = &name[..name.len().min(NAME_BYTES_MAX)];
        input[42..50].copy_from_slice(&generation.to_le_bytes());
        input[50..50 + name.len()].copy_from_slice(name);
        let hash = xxh3_128_with_seed(&input[..50 + name.len()], SEED);
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
    use monofs_model::tree::Entry;
    use monofs_model::{GenerationRef, Oid};

    use super::*;

    fn named(name: &[u8], kind: EntryKind, byte: u8, generation: u64) -> NamedEntry<'_> {
        NamedEntry {
            entry: Entry {
                name,
                kind,
                oid: Oid::from_bytes(&[byte; 20]).expect("twenty bytes"),
                size: 1,
            },
            generations: GenerationRef::Constant(generation),
        }
    }

    fn of(parent: Ino, name: &[u8], kind: EntryKind, byte: u8, generation: u64) -> Identity {
        Identity::entry(parent, &named(name, kind, byte, generation))
    }

    #[test]
    fn content_and_generation_change_a_files_number_and_not_a_directorys() {
        let file = of(ROOT, b"a", EntryKind::File, 1, 1);
        assert_eq!(file, of(ROOT, b"a", EntryKind::File, 1, 1));
        for other in [
            of(ROOT, b"a", EntryKind::File, 2, 1),
            of(ROOT, b"a", EntryKind::File, 1, 3),
            of(ROOT, b"a", EntryKind::Executable, 1, 1),
            of(ROOT, b"b", EntryKind::File, 1, 1),
            of(99, b"a", EntryKind::File, 1, 1),
        ] {
            assert_ne!(file, other);
        }
        let directory = of(ROOT, b"a", EntryKind::Directory, 1, 1);
        assert_eq!(directory, of(ROOT, b"a", EntryKind::Directory, 2, 3));
        assert_eq!(directory, Identity::directory(ROOT, b"a"));
    }

    #[test]
    fn numbers_never_move() {
        // Kernel caches do not outlive a mount, but backups and build tools compare inode numbers
        // across mounts.
        assert_eq!(
            Identity::directory(ROOT, b"github.com"),
            Identity::directory(ROOT, b"github.com")
        );
        let golden = of(ROOT, b"README", EntryKind::File, 7, 1);
        assert_eq!(golden.base % SLOTS, 0);
        assert!(golden.base >= RESERVED);
        let long = [b'n'; 255];
        assert_ne!(
            Identity::directory(ROOT, &long),
            Identity::directory(ROOT, &long[..254])
        );
    }
}
