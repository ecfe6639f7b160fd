//! Generation trees: for each name of a snapshot, the generation of the catalogue entry in which it
//! last changed. They lie beside the directory records and never in them, so records stay keyed by
//! their tree oids.
//!
//! ```text
//! GenerationRef   Constant(g): everything here and below last changed in g
//!                 Node: the directory's own generation, and the id of its node
//! GenerationNode  one GenerationRef for each entry of the directory's record, in its order
//! ```
//!
//! A file's generation changes with its oid or its mode; a directory's own generation changes when
//! a name in it comes, goes or changes, but not with what is inside its directories. A subtree of
//! one generation is a constant, so a first snapshot has no node, and an update has new nodes for
//! the directories that it changed and those above them ([`update()`]).
//!
//! Invariants: a node has one encoding, and its id is the SHA-256 object id of that encoding as a
//! blob, so the same changes give the same ids wherever they are worked out; nothing in a node is a
//! time.

mod update;

pub use update::{GenerationBase, GenerationParts, GenerationUpdate, UpdateOutcome, update};

use std::collections::HashMap;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::limits::TREE_ENTRIES_MAX;
use crate::oid::{ObjectFormat, ObjectKind, Oid};
use crate::tree::{EntryKind, TreeRecord};

/// First byte of every encoded node: the version of the format.
const VERSION: u8 = 1;
/// Largest generation: its number and a bit for its kind are one integer.
pub const GENERATION_MAX: u64 = u64::MAX >> 1;

/// The generations of a name and of what is below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GenerationRef {
    /// The name and everything below it last changed in this generation.
    Constant(u64),
    /// A directory with names of several generations.
    Node {
        /// When its own names last changed.
        own: u64,
        /// The id of its [`GenerationNode`].
        id: Oid,
    },
}

impl GenerationRef {
    /// The generation in which the name itself last changed.
    pub fn own(&self) -> u64 {
        match self {
            Self::Constant(generation) => *generation,
            Self::Node { own, .. } => *own,
        }
    }

    /// The id of its node, if it has one.
    pub fn node(&self) -> Option<Oid> {
        match self {
            Self::Constant(_) => None,
            Self::Node { id, .. } => Some(*id),
        }
    }

    /// One integer and, for a directory of several generations, the id of its node.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        put_number(out, self.own() << 1 | u64::from(self.node().is_some()));
        if let Self::Node { id, .. } = self {
            out.extend_from_slice(id.as_bytes());
        }
    }

    /// What [`GenerationRef::encode_to`] wrote. Errors: `Corrupt`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut input = NodeReader { rest: bytes };
        let decoded = input.reference()?;
        input.finish()?;
        Ok(decoded)
    }
}

/// The generations of the entries of one directory, by their positions in its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationNode {
    /// Of every entry that is not among the exceptions.
    base: u64,
    /// By position, ascending.
    exceptions: Vec<(u32, GenerationRef)>,
}

impl GenerationNode {
    /// The node of a directory whose entries have these generations, in the order of its record.
    pub fn new(entries: &[GenerationRef]) -> Self {
        // The most frequent constant; of several such, the smallest.
        let mut counts: HashMap<u64, usize> = HashMap::new();
        for entry in entries {
            if let GenerationRef::Constant(generation) = entry {
                *counts.entry(*generation).or_default() += 1;
            }
        }
        let most = counts
            .into_iter()
            .max_by_key(|(generation, count)| (*count, std::cmp::Reverse(*generation)));
        let base = most.map_or(0, |(generation, _)| generation);
        let exceptions = entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| **entry != GenerationRef::Constant(base))
            .map(|(position, entry)| (position as u32, *entry))
            .collect();
        Self { base, exceptions }
    }

    /// The generations of the entry at `position` of the directory's record.
    pub fn get(&self, position: usize) -> GenerationRef {
        let found = self
            .exceptions
            .binary_search_by_key(&position, |(at, _)| *at as usize);
        found.map_or(GenerationRef::Constant(self.base), |at| {
            self.exceptions[at].1
        })
    }

    /// Its own generations, each at least once: of entries that are constants.
    pub fn generations(&self) -> impl Iterator<Item = u64> + '_ {
        let exceptions = self.exceptions.iter().map(|(_, entry)| entry.own());
        std::iter::once(self.base).chain(exceptions)
    }

    /// The ids of the nodes of its directories.
    pub fn children(&self) -> impl Iterator<Item = Oid> + '_ {
        self.exceptions.iter().filter_map(|(_, entry)| entry.node())
    }

    /// Bytes of memory that it takes.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.exceptions.len() * size_of::<(u32, GenerationRef)>()
    }

    /// The one encoding: version, base, number of exceptions, and for each its distance from the
    /// one before and its [`GenerationRef`].
    pub fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        put_number(&mut out, self.base);
        put_number(&mut out, self.exceptions.len() as u64);
        let mut next = 0;
        for (position, entry) in &self.exceptions {
            put_number(&mut out, u64::from(position - next));
            entry.encode_to(&mut out);
            next = position + 1;
        }
        out.into()
    }

    /// The id of an encoded node.
    pub fn id_of(encoded: &[u8]) -> Oid {
        Oid::of(ObjectFormat::Sha256, ObjectKind::Blob, encoded)
    }

    /// Decodes bytes from another process or from disk. Errors: `Corrupt`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut input = NodeReader { rest: bytes };

        // Numbers are bounded before anything is sized by them.
        let [version] = input.take::<1>()?;
        if version != VERSION {
            return Err(Error::corrupt(format!(
                "generation node: version {version} is unknown (this program reads {VERSION})"
            )));
        }
        let base = input.number()?;
        let count = input.number()?;
        if base > GENERATION_MAX || count > TREE_ENTRIES_MAX as u64 {
            return Err(broken("a number is too large"));
        }

        // Positions are sums of distances, so they ascend by themselves. An exception that equals
        // the base would be a second encoding of the same node, and its id another.
        let mut exceptions = Vec::new();
        let mut next = 0u64;
        for _ in 0..count {
            let position = next + input.number()?.min(u64::from(u32::MAX));
            if position >= TREE_ENTRIES_MAX as u64 {
                return Err(broken("a position is too large"));
            }
            let entry = input.reference()?;
            if entry == GenerationRef::Constant(base) {
                return Err(broken("an exception is none"));
            }
            exceptions.push((position as u32, entry));
            next = position + 1;
        }
        input.finish()?;
        Ok(Self { base, exceptions })
    }

    /// [`GenerationNode::decode`], and the proof that these bytes are the node `id`. Errors:
    /// `Corrupt`.
    pub fn decode_verified(bytes: &[u8], id: &Oid) -> Result<Self> {
        id.verify(ObjectKind::Blob, bytes)?;
        Self::decode(bytes)
    }

    /// Whether it can be the node of the directory with this record: it has no entries that the
    /// record lacks, and nodes for directories alone. Errors: `Corrupt`.
    pub fn check_fits(&self, record: &TreeRecord) -> Result<()> {
        for (position, entry) in &self.exceptions {
            let kind = record.get(*position as usize).map(|found| found.kind);
            let fits = match entry {
                GenerationRef::Constant(_) => kind.is_some(),
                GenerationRef::Node { .. } => kind == Some(EntryKind::Directory),
            };
            if !fits {
                return Err(broken("it is not that of the directory"));
            }
        }
        Ok(())
    }
}

fn broken(what: &str) -> Error {
    Error::corrupt(format!("generation node: {what}"))
}

/// Appends a number, seven bits a byte, the lowest first.
fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads an encoded node.
struct NodeReader<'a> {
    rest: &'a [u8],
}

impl NodeReader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or_else(|| broken("it ends early"))?;
        self.rest = rest;
        Ok(*head)
    }

    /// A number in its shortest form.
    fn number(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take::<1>()?;
            let bits = u64::from(byte & 0x7f);
            let is_last = byte & 0x80 == 0;
            if (shift == 63 && bits > 1) || (is_last && bits == 0 && shift > 0) {
                break;
            }
            value |= bits << shift;
            if is_last {
                return Ok(value);
            }
        }
        Err(broken("a number is not in its shortest form"))
    }

    fn reference(&mut self) -> Result<GenerationRef> {
        let number = self.number()?;
        let own = number >> 1;
        if number & 1 == 0 {
            return Ok(GenerationRef::Constant(own));
        }
        let id = Oid::from_bytes(&self.take::<32>()?)?;
        Ok(GenerationRef::Node { own, id })
    }

    fn finish(&self) -> Result<()> {
        match self.rest.is_empty() {
            true => Ok(()),
            false => Err(broken("there are bytes after its end")),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refs() -> impl Strategy<Value = GenerationRef> {
        prop_oneof![
            4 => (0u64..4).prop_map(GenerationRef::Constant),
            1 => (0..=GENERATION_MAX).prop_map(GenerationRef::Constant),
            1 => (0..=GENERATION_MAX, any::<[u8; 32]>()).prop_map(|(own, id)| {
                GenerationRef::Node { own, id: Oid::from_bytes(&id).unwrap() }
            }),
        ]
    }

    #[test]
    fn the_encoding_never_moves() {
        let id = Oid::from_bytes(&[9; 32]).unwrap();
        let node = GenerationNode::new(&[
            GenerationRef::Constant(1),
            GenerationRef::Constant(300),
            GenerationRef::Constant(1),
            GenerationRef::Node { own: 1, id },
        ]);
        let mut expected = vec![1, 1, 2, 1, 0xd8, 0x04, 1, 3];
        expected.extend_from_slice(&[9; 32]);
        assert_eq!(node.encode(), expected);
    }

    #[test]
    fn of_two_generations_that_are_as_frequent_the_smaller_is_the_base() {
        let node = GenerationNode::new(&[7, 3, 7, 3].map(GenerationRef::Constant));
        assert_eq!((node.base, node.exceptions.len()), (3, 2));
    }

    proptest! {
        #[test]
        fn a_node_tells_what_it_was_made_of(entries in prop::collection::vec(refs(), 0..40)) {
            let node = GenerationNode::new(&entries);
            let encoded = node.encode();
            let id = GenerationNode::id_of(&encoded);
            let decoded = GenerationNode::decode_verified(&encoded, &id).unwrap();
            prop_assert_eq!(&decoded, &node);
            for (position, entry) in entries.iter().enumerate() {
                prop_assert_eq!(decoded.get(position), *entry);
            }
            let ids: Vec<Oid> = entries.iter().filter_map(GenerationRef::node).collect();
            prop_assert_eq!(decoded.children().collect::<Vec<_>>(), ids);
        }

        #[test]
        fn a_reference_survives_its_encoding(entry in refs()) {
            let mut out = Vec::new();
            entry.encode_to(&mut out);
            prop_assert_eq!(GenerationRef::decode(&out).unwrap(), entry);
        }

        #[test]
        fn bytes_decode_to_what_encodes_to_them_or_to_nothing(mut bytes: Vec<u8>, versioned: bool) {
            if versioned {
                bytes.insert(0, VERSION);
            }
            if let Ok(node) = GenerationNode::decode(&bytes) {
                prop_assert_eq!(node.encode(), bytes);
            }
        }
    }
}
