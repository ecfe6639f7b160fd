//! Directory records: a Git tree object together with what Git leaves out, the size of each file.
//!
//! A record is encoded once, by the fetcher, and the very same bytes are stored by nodes, sent to
//! clients and read in place from their caches. Layout: the 8 bytes [`MAGIC`] (the last one is the
//! version), then an rkyv archive of [`RecordBody`]: the raw tree object and an index of its entries
//! sorted by plain byte order of the names.
//!
//! Invariants:
//! - the raw tree object hashes to the oid under which the record is kept, so a record proves
//!   itself ([`TreeRecord::verify`]);
//! - a [`TreeRecord`] exists only for bytes that passed [`TreeRecord::parse`]: the index covers
//!   exactly the entries of the tree, names are non-empty, unique, without `/` or NUL, at most 255
//!   bytes, and never `.`, `..` or `.git`.
//!
//! Sizes are the one thing an oid does not prove; they are proved when the blob itself arrives.

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::limits::{NAME_BYTES_MAX, TREE_BYTES_MAX, TREE_ENTRIES_MAX};
use crate::oid::{ObjectFormat, ObjectKind, Oid};

/// First bytes of every record; the last byte is the format version.
pub const MAGIC: [u8; 8] = *b"mfstree\x01";

/// What an entry of a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    File = 0,
    Executable = 1,
    Symlink = 2,
    Directory = 3,
    /// A submodule: its oid is a commit of another repository.
    Submodule = 4,
}

impl EntryKind {
    /// From the mode of a Git tree entry. Legacy group-writable files (100664) are files.
    pub fn from_git_mode(mode: u32) -> Option<Self> {
        match mode & 0o170_000 {
            0o100_000 if mode & 0o111 != 0 => Some(Self::Executable),
            0o100_000 => Some(Self::File),
            0o120_000 => Some(Self::Symlink),
            0o040_000 => Some(Self::Directory),
            0o160_000 => Some(Self::Submodule),
            _ => None,
        }
    }

    fn from_u8(value: u8) -> Option<Self> {
        [
            Self::File,
            Self::Executable,
            Self::Symlink,
            Self::Directory,
            Self::Submodule,
        ]
        .get(value as usize)
        .copied()
    }

    /// Whether the entry's oid names a blob.
    pub fn is_blob(self) -> bool {
        matches!(self, Self::File | Self::Executable | Self::Symlink)
    }
}

/// One entry of a directory, borrowed from its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Raw name bytes; need not be UTF-8.
    pub name: &'a [u8],
    pub kind: EntryKind,
    pub oid: Oid,
    /// Bytes of the file or symlink target; 0 for directories and submodules.
    pub size: u64,
}

/// The archived body of a record.
#[derive(rkyv::Archive, rkyv::Serialize)]
struct RecordBody {
    /// 20 or 32.
    oid_len: u8,
    /// The raw Git tree object.
    tree: Vec<u8>,
    /// One per entry, sorted by name.
    index: Vec<IndexEntry>,
}

#[derive(rkyv::Archive, rkyv::Serialize)]
struct IndexEntry {
    name_start: u32,
    name_len: u16,
    kind: u8,
    size: u64,
}

/// One entry of a raw tree object, as [`parse_git_tree`] yields it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawEntry {
    pub mode: u32,
    /// Where the name starts in the tree object, and its length; the oid follows after one NUL.
    pub name_start: usize,
    pub name_len: usize,
}

/// Splits a raw Git tree object into entries, without judging names. Errors:
/// [`crate::ErrorKind::Corrupt`].
pub fn parse_git_tree(tree: &[u8], format: ObjectFormat) -> Result<Vec<RawEntry>> {
    let broken = |at: usize| Error::corrupt(format!("tree object is malformed at byte {at}"));
    if tree.len() > TREE_BYTES_MAX {
        return Err(Error::invalid(format!(
            "a tree object of {} bytes is over the limit of {TREE_BYTES_MAX}",
            tree.len()
        )));
    }
    let mut entries = Vec::new();

    // An entry is its mode in octal digits, a space, its name, a zero byte and the bytes of an id.
    let mut at = 0;
    while at < tree.len() {
        let mut mode: u32 = 0;
        let mode_start = at;
        while *tree.get(at).ok_or_else(|| broken(at))? != b' ' {
            let digit = tree[at].wrapping_sub(b'0');
            if digit > 7 || at - mode_start >= 7 {
                return Err(broken(at));
            }
            mode = mode << 3 | u32::from(digit);
            at += 1;
        }
        let name_start = at + 1;
        let name_len = tree[name_start..]
            .iter()
            .position(|&b| b == 0)
            .ok_or_else(|| broken(name_start))?;

        // The id is passed over. An entry without a mode, or cut off before its end, is malformed.
        at = name_start + name_len + 1 + format.oid_len();
        if at > tree.len() || name_start == mode_start + 1 {
            return Err(broken(name_start));
        }
        entries.push(RawEntry {
            mode,
            name_start,
            name_len,
        });
        if entries.len() > TREE_ENTRIES_MAX {
            return Err(Error::invalid(format!(
                "a directory has more than {TREE_ENTRIES_MAX} entries"
            )));
        }
    }
    Ok(entries)
}

/// Whether a name may appear in a mounted directory. Errors: [`crate::ErrorKind::Invalid`], naming
/// the name.
pub fn check_entry_name(name: &[u8]) -> Result<()> {
    let why = match name {
        b"" => "is empty",
        b"." | b".." => "would name a directory itself or its parent",
        _ if name.eq_ignore_ascii_case(b".git") => "would pass for a Git directory",
        _ if name.len() > NAME_BYTES_MAX => "is longer than 255 bytes",
        _ if name.contains(&b'/') => "contains '/'",
        _ if name.contains(&0) => "contains NUL",
        _ => return Ok(()),
    };
    let shown: String = String::from_utf8_lossy(&name[..name.len().min(64)])
        .escape_debug()
        .collect();
    Err(Error::invalid(format!("tree entry '{shown}' {why}")))
}

/// A validated directory record. Cheap to clone: it shares its bytes.
#[derive(Clone)]
pub struct TreeRecord {
    bytes: Bytes,
}

impl TreeRecord {
    /// Encodes a raw Git tree object; `size_of` gives the byte size of each blob entry by oid.
    /// Errors: what [`parse_git_tree`] and [`check_entry_name`] say, duplicate names, and
    /// `size_of`'s own.
    pub fn encode(
        tree: &[u8],
        format: ObjectFormat,
        mut size_of: impl FnMut(&[u8], EntryKind, Oid) -> Result<u64>,
    ) -> Result<Self> {
        // Each entry is checked and gets its size, which the tree itself does not tell.
        let mut index = Vec::new();
        for raw in parse_git_tree(tree, format)? {
            let name = &tree[raw.name_start..raw.name_start + raw.name_len];
            check_entry_name(name)?;
            let kind = kind_of(tree, &raw)?;
            let size = if kind.is_blob() {
                size_of(name, kind, oid_after(tree, &raw, format)?)?
            } else {
                0
            };
            index.push(IndexEntry {
                name_start: raw.name_start as u32,
                name_len: raw.name_len as u16,
                kind: kind as u8,
                size,
            });
        }

        // Git sorts directories as if their names ended in `/`. The index has the order of the bare
        // names, for searches by name; two equal names then stand side by side.
        let name_of = |e: &IndexEntry| {
            &tree[e.name_start as usize..e.name_start as usize + e.name_len as usize]
        };
        index.sort_by(|a, b| name_of(a).cmp(name_of(b)));
        if let Some(pair) = index
            .windows(2)
            .find(|pair| name_of(&pair[0]) == name_of(&pair[1]))
        {
            let shown = String::from_utf8_lossy(name_of(&pair[0]));
            return Err(Error::invalid(format!(
                "tree entry '{}' appears twice",
                shown.escape_debug()
            )));
        }

        // The record holds the tree unchanged beside its index, so that it still hashes to its id.
        let body = RecordBody {
            oid_len: format.oid_len() as u8,
            tree: tree.to_vec(),
            index,
        };
        let archive = rkyv::to_bytes::<rkyv::rancor::Error>(&body)
            .map_err(|e| Error::internal(format!("encode a directory record: {e}")))?;
        let mut bytes = Vec::with_capacity(MAGIC.len() + archive.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&archive);
        Ok(Self {
            bytes: bytes.into(),
        })
    }

    /// Validates bytes from another process or from disk. Errors: [`crate::ErrorKind::Corrupt`], or
    /// `Invalid` for names.
    pub fn parse(bytes: Bytes) -> Result<Self> {
        let broken = |what: &str| Error::corrupt(format!("directory record: {what}"));

        // The frame has to be what this version writes, of an object format that it knows.
        let archive = bytes
            .strip_prefix(&MAGIC)
            .ok_or_else(|| broken("wrong magic or version"))?;
        let body = rkyv::access::<ArchivedRecordBody, rkyv::rancor::Error>(archive)
            .map_err(|_| broken("broken archive"))?;
        let format = match body.oid_len {
            20 => ObjectFormat::Sha1,
            32 => ObjectFormat::Sha256,
            _ => return Err(broken("unknown object format")),
        };

        // The index has to say the same as the tree. As many entries as the tree has, in strict
        // order, are all of the tree's, each once.
        let tree = body.tree.as_slice();
        let raw = parse_git_tree(tree, format)?;
        if raw.len() != body.index.len() {
            return Err(broken("the index does not cover the tree"));
        }
        let mut before: Option<&[u8]> = None;
        for entry in body.index.iter() {
            let start = entry.name_start.to_native() as usize;
            let found = raw
                .binary_search_by_key(&start, |r| r.name_start)
                .map_err(|_| broken("the index points astray"))?;
            let name = &tree[start..start + raw[found].name_len];
            check_entry_name(name)?;
            let kind = kind_of(tree, &raw[found])?;
            if raw[found].name_len != entry.name_len.to_native() as usize
                || kind as u8 != entry.kind
            {
                return Err(broken("the index contradicts the tree"));
            }
            if before.is_some_and(|before| before >= name) {
                return Err(broken("the index is not sorted"));
            }
            before = Some(name);
        }
        Ok(Self { bytes })
    }

    /// [`TreeRecord::parse`], and the proof that the record is the tree that `oid` names.
    pub fn parse_verified(bytes: Bytes, oid: &Oid) -> Result<Self> {
        let record = Self::parse(bytes)?;
        record.verify(oid)?;
        Ok(record)
    }

    /// Whether this is the tree that `oid` names. Errors: [`crate::ErrorKind::Corrupt`].
    pub fn verify(&self, oid: &Oid) -> Result<()> {
        oid.verify(ObjectKind::Tree, self.git_tree())
    }

    /// The encoded record, as every tier stores and sends it.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The raw Git tree object.
    pub fn git_tree(&self) -> &[u8] {
        self.body().tree.as_slice()
    }

    /// The object format of the entries' oids.
    pub fn format(&self) -> ObjectFormat {
        if self.body().oid_len == 20 {
            ObjectFormat::Sha1
        } else {
            ObjectFormat::Sha256
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.body().index.len()
    }

    /// Whether the directory is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry at `position` in name order.
    pub fn get(&self, position: usize) -> Option<Entry<'_>> {
        let body = self.body();
        body.index.get(position).map(|entry| entry_at(body, entry))
    }

    /// The entry called `name`: a binary search in place.
    pub fn find(&self, name: &[u8]) -> Option<Entry<'_>> {
        self.get(self.position(name)?)
    }

    /// The position in name order of the entry called `name`.
    pub fn position(&self, name: &[u8]) -> Option<usize> {
        let body = self.body();
        body.index
            .binary_search_by(|entry| name_at(body, entry).cmp(name))
            .ok()
    }

    /// All entries in plain byte order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        let body = self.body();
        body.index.iter().map(|entry| entry_at(body, entry))
    }

    fn body(&self) -> &ArchivedRecordBody {
        // SAFETY: every constructor either built these bytes with rkyv or validated them with
        // `rkyv::access` in `parse`, and `Bytes` never changes. Archived types are unaligned, so
        // any address will do.
        unsafe { rkyv::access_unchecked::<ArchivedRecordBody>(&self.bytes[MAGIC.len()..]) }
    }
}

impl std::fmt::Debug for TreeRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

fn name_at<'a>(body: &'a ArchivedRecordBody, entry: &ArchivedIndexEntry) -> &'a [u8] {
    let start = entry.name_start.to_native() as usize;
    &body.tree[start..start + entry.name_len.to_native() as usize]
}

fn entry_at<'a>(body: &'a ArchivedRecordBody, entry: &ArchivedIndexEntry) -> Entry<'a> {
    let name = name_at(body, entry);
    let oid_start = entry.name_start.to_native() as usize + name.len() + 1;
    Entry {
        name,
        kind: EntryKind::from_u8(entry.kind).expect("the kind was checked against the tree"),
        oid: Oid::from_bytes(&body.tree[oid_start..oid_start + body.oid_len as usize])
            .expect("the length was checked"),
        size: entry.size.to_native(),
    }
}

fn kind_of(tree: &[u8], raw: &RawEntry) -> Result<EntryKind> {
    EntryKind::from_git_mode(raw.mode).ok_or_else(|| {
        let name = String::from_utf8_lossy(&tree[raw.name_start..raw.name_start + raw.name_len]);
        Error::invalid(format!(
            "tree entry '{}' has the unknown mode {:o}",
            name.escape_debug(),
            raw.mode
        ))
    })
}

fn oid_after(tree: &[u8], raw: &RawEntry, format: ObjectFormat) -> Result<Oid> {
    let start = raw.name_start + raw.name_len + 1;
    Oid::from_bytes(&tree[start..start + format.oid_len()])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn git_tree(entries: &[(&str, &[u8], u8)]) -> Vec<u8> {
        let mut tree = Vec::new();
        for (mode, name, oid) in entries {
            tree.extend_from_slice(mode.as_bytes());
            tree.push(b' ');
            tree.extend_from_slice(name);
            tree.push(0);
            tree.extend_from_slice(&[*oid; 20]);
        }
        tree
    }

    fn encode(tree: &[u8]) -> Result<TreeRecord> {
        TreeRecord::encode(tree, ObjectFormat::Sha1, |_, _, oid| {
            Ok(u64::from(oid.as_bytes()[0]))
        })
    }

    #[test]
    fn a_record_keeps_every_entry_and_proves_itself() {
        // Git sorts `a` (a directory) after `a.b`; the index sorts by plain bytes.
        let tree = git_tree(&[
            ("100644", b"a.b", 1),
            ("40000", b"a", 2),
            ("100755", b"x\xff", 3),
            ("160000", b"z", 4),
        ]);
        let record = encode(&tree).unwrap();
        let parsed = TreeRecord::parse(record.bytes().clone()).unwrap();
        let names: Vec<&[u8]> = parsed.iter().map(|e| e.name).collect();
        assert_eq!(names, [&b"a"[..], b"a.b", b"x\xff", b"z"]);
        assert_eq!(parsed.find(b"x\xff").unwrap().kind, EntryKind::Executable);
        assert_eq!(parsed.find(b"a.b").unwrap().size, 1);
        assert_eq!(parsed.find(b"z").unwrap().size, 0);
        assert!(parsed.find(b"b").is_none());
        parsed
            .verify(&Oid::of(ObjectFormat::Sha1, ObjectKind::Tree, &tree))
            .unwrap();
        assert!(
            parsed
                .verify(&Oid::of(ObjectFormat::Sha1, ObjectKind::Tree, b""))
                .is_err()
        );
    }

    #[test]
    fn hostile_trees_are_refused_by_name() {
        let long = [b'n'; 256];
        for name in [&b"."[..], b"..", b".git", b".GiT", b"a/b", &long] {
            let error = encode(&git_tree(&[("100644", name, 1)])).unwrap_err();
            assert_eq!(error.kind, crate::ErrorKind::Invalid, "{error}");
        }
        let twice = encode(&git_tree(&[("100644", b"a", 1), ("40000", b"a", 2)])).unwrap_err();
        assert!(twice.message.contains("appears twice"), "{twice}");
        assert!(encode(&git_tree(&[("100644", &long[..255], 1)])).is_ok());
        assert!(encode(&git_tree(&[("777", b"a", 1)])).is_err());
        assert!(encode(b"100644 a\0short").is_err());
        assert!(encode(b" a\0aaaaaaaaaaaaaaaaaaaa").is_err());
    }

    #[test]
    fn a_record_of_one_tree_does_not_pass_for_another() {
        let one = encode(&git_tree(&[("100644", b"a", 1)])).unwrap();
        let other = git_tree(&[("100644", b"a", 2)]);
        let oid = Oid::of(ObjectFormat::Sha1, ObjectKind::Tree, &other);
        let error = TreeRecord::parse_verified(one.bytes().clone(), &oid).unwrap_err();
        assert_eq!(error.kind, crate::ErrorKind::Corrupt);
    }

    #[test]
    fn a_tree_of_the_other_object_format_is_encoded_too() {
        let mut tree = b"100644 file\0".to_vec();
        tree.extend_from_slice(&[5; 32]);
        let record = TreeRecord::encode(&tree, ObjectFormat::Sha256, |_, _, _| Ok(9)).unwrap();
        assert_eq!(record.format(), ObjectFormat::Sha256);
        let entry = record.get(0).unwrap();
        assert_eq!((entry.name, entry.size), (&b"file"[..], 9));
        assert_eq!(entry.oid.as_bytes(), [5; 32]);
        assert!(encode(&tree).is_err(), "as SHA-1 it is malformed");
    }

    #[test]
    fn an_empty_directory_has_a_record() {
        let record = encode(b"").unwrap();
        assert!(record.is_empty() && record.get(0).is_none() && record.find(b"x").is_none());
        let parsed = TreeRecord::parse(record.bytes().clone()).unwrap();
        assert_eq!(parsed.iter().len(), 0);
        let empty = "4b825dc642cb6eb9a060e54bf8d69288fbee4904".parse().unwrap();
        parsed.verify(&empty).expect("Git's empty tree");
    }

    #[test]
    fn what_the_contents_cannot_be_stops_the_encoding() {
        let tree = git_tree(&[("100644", b"a", 1)]);
        let refused = TreeRecord::encode(&tree, ObjectFormat::Sha1, |name, kind, _| {
            assert_eq!((name, kind), (&b"a"[..], EntryKind::File));
            Err(Error::corrupt("it is missing"))
        });
        assert_eq!(refused.unwrap_err(), Error::corrupt("it is missing"));
    }

    #[test]
    fn modes_of_git_are_kinds_and_others_are_none() {
        for (mode, kind) in [
            (0o100644, EntryKind::File),
            (0o100664, EntryKind::File),
            (0o100755, EntryKind::Executable),
            (0o120000, EntryKind::Symlink),
            (0o040000, EntryKind::Directory),
        ] {
            assert_eq!(EntryKind::from_git_mode(mode), Some(kind), "{mode:o}");
            assert_eq!(kind.is_blob(), kind != EntryKind::Directory);
        }
        for mode in [0, 0o644, 0o060000, 0o140000, u32::MAX] {
            assert_eq!(EntryKind::from_git_mode(mode), None, "{mode:o}");
        }
    }

    proptest! {
        #[test]
        fn every_entry_is_found_by_its_name_and_no_other(
            names in prop::collection::btree_set("[a-c]{1,4}", 0..40), asked in "[a-c]{1,4}"
        ) {
            let entries: Vec<_> = names.iter().map(|name| ("100644", name.as_bytes(), 7)).collect();
            let record = encode(&git_tree(&entries)).unwrap();
            prop_assert_eq!(record.len(), names.len());
            for name in &names {
                prop_assert_eq!(record.find(name.as_bytes()).unwrap().name, name.as_bytes());
            }
            prop_assert_eq!(record.find(asked.as_bytes()).is_some(), names.contains(&asked));
        }

        #[test]
        fn no_bytes_can_make_the_decoder_panic(mut bytes: Vec<u8>, magic: bool) {
            if magic {
                bytes.splice(0..0, MAGIC);
            }
            let _ = TreeRecord::parse(bytes.clone().into());
            let _ = encode(&bytes);
        }

        #[test]
        fn a_flipped_byte_never_passes_verification(at in 0usize..10_000, bit in 0u8..8) {
            let tree = git_tree(&[("100644", b"one", 1), ("40000", b"two", 2), ("120000", b"three", 3)]);
            let oid = Oid::of(ObjectFormat::Sha1, ObjectKind::Tree, &tree);
            let record = encode(&tree).unwrap();
            let mut bytes = record.bytes().to_vec();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            // A flip in a size is the one thing that the oid cannot prove.
            if let Ok(parsed) = TreeRecord::parse_verified(bytes.into(), &oid) {
                prop_assert_eq!(parsed.git_tree(), &tree[..]);
            }
        }
    }
}
