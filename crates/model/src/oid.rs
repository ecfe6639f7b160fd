//! Git object ids of both object formats, and the hashing that verifies objects against them.
//!
//! Source: Git's `Documentation/technical/hash-function-transition` — an id is the digest of
//! `"<kind> <size>\0" + bytes`.

use std::fmt;
use std::str::FromStr;

use sha1::Digest;

use crate::error::{Error, Result};

/// The object format of a repository: which digest names its objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectFormat {
    Sha1,
    Sha256,
}

impl ObjectFormat {
    /// Length of an id in bytes.
    pub const fn oid_len(self) -> usize {
        match self {
            ObjectFormat::Sha1 => 20,
            ObjectFormat::Sha256 => 32,
        }
    }
}

/// The kind of a Git object, as spelt in its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    Blob,
    Tree,
    Commit,
    Tag,
}

impl ObjectKind {
    /// The word in the object's header.
    pub const fn as_str(self) -> &'static str {
        match self {
            ObjectKind::Blob => "blob",
            ObjectKind::Tree => "tree",
            ObjectKind::Commit => "commit",
            ObjectKind::Tag => "tag",
        }
    }
}

/// The id of a Git object: 20 bytes (SHA-1) or 32 (SHA-256).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Oid {
    len: u8,
    bytes: [u8; 32],
}

impl Oid {
    /// From raw digest bytes; the length decides the format.
    pub fn from_bytes(raw: &[u8]) -> Result<Self> {
        if raw.len() != 20 && raw.len() != 32 {
            return Err(Error::invalid(format!(
                "an object id has 20 or 32 bytes, not {}",
                raw.len()
            )));
        }
        let mut bytes = [0; 32];
        bytes[..raw.len()].copy_from_slice(raw);
        Ok(Self {
            len: raw.len() as u8,
            bytes,
        })
    }

    /// The digest bytes, 20 or 32 of them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }

    /// The object format this id belongs to.
    pub fn format(&self) -> ObjectFormat {
        if self.len == 20 {
            ObjectFormat::Sha1
        } else {
            ObjectFormat::Sha256
        }
    }

    /// The id of an object of `kind` with these bytes.
    pub fn of(format: ObjectFormat, kind: ObjectKind, bytes: &[u8]) -> Self {
        let mut hasher = ObjectHasher::new(format, kind, bytes.len() as u64);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Whether `bytes` are the object of `kind` that this id names.
    pub fn verify(&self, kind: ObjectKind, bytes: &[u8]) -> Result<()> {
        if Self::of(self.format(), kind, bytes) == *self {
            Ok(())
        } else {
            Err(Error::corrupt(format!(
                "{} {self}: the bytes do not match the object id",
                kind.as_str()
            )))
        }
    }
}

/// Hashes one object in pieces, so that no role needs to hold a large one whole.
pub enum ObjectHasher {
    #[doc(hidden)]
    Sha1(sha1::Sha1),
    #[doc(hidden)]
    Sha256(sha2::Sha256),
}

impl ObjectHasher {
    /// Starts an object of `kind` that will have `size` bytes.
    pub fn new(format: ObjectFormat, kind: ObjectKind, size: u64) -> Self {
        let header = format!("{} {size}\0", kind.as_str());
        let mut hasher = match format {
            ObjectFormat::Sha1 => Self::Sha1(sha1::Sha1::new()),
            ObjectFormat::Sha256 => Self::Sha256(sha2::Sha256::new()),
        };
        hasher.update(header.as_bytes());
        hasher
    }

    /// Adds the next bytes of the object.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(hasher) => hasher.update(bytes),
            Self::Sha256(hasher) => hasher.update(bytes),
        }
    }

    /// The id of everything added.
    pub fn finish(self) -> Oid {
        let mut bytes = [0; 32];
        let len = match self {
            Self::Sha1(hasher) => {
                bytes[..20].copy_from_slice(&hasher.finalize());
                20
            }
            Self::Sha256(hasher) => {
                bytes.copy_from_slice(&hasher.finalize());
                32
            }
        };
        Oid { len, bytes }
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Oid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::invalid(format!(
                "'{text}' is not a full object id (40 or 64 hexadecimal digits)"
            ))
        };
        if (text.len() != 40 && text.len() != 64) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self {
            len: (text.len() / 2) as u8,
            bytes,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ids_equal_those_of_git() {
        // `printf hello | git hash-object --stdin`, in both formats.
        let sha1 = Oid::of(ObjectFormat::Sha1, ObjectKind::Blob, b"hello");
        assert_eq!(sha1.to_string(), "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0");
        let empty = Oid::of(ObjectFormat::Sha256, ObjectKind::Tree, b"");
        assert_eq!(
            empty.to_string(),
            "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321"
        );
        assert_eq!(sha1.to_string().parse::<Oid>().unwrap(), sha1);
        assert!(sha1.verify(ObjectKind::Blob, b"hellp").is_err());
        assert!("b6fc".parse::<Oid>().is_err());
        assert!("é".repeat(20).parse::<Oid>().is_err());
    }

    #[test]
    fn ids_survive_their_text_and_other_lengths_are_refused() {
        for format in [ObjectFormat::Sha1, ObjectFormat::Sha256] {
            let oid = Oid::of(format, ObjectKind::Blob, b"some bytes");
            assert_eq!(oid.to_string().len(), 2 * format.oid_len());
            assert_eq!(oid.to_string().parse::<Oid>().unwrap(), oid);
            assert_eq!(Oid::from_bytes(oid.as_bytes()).unwrap(), oid);
            assert_eq!(oid.format(), format);
        }
        for length in [0, 19, 21, 31, 33, 64] {
            assert!(Oid::from_bytes(&vec![1; length]).is_err(), "{length}");
            assert!("0".repeat(2 * length).parse::<Oid>().is_err(), "{length}");
        }
        assert!("g".repeat(40).parse::<Oid>().is_err());
    }

    #[test]
    fn bytes_are_hashed_the_same_whole_and_in_pieces_and_the_kind_counts() {
        let bytes = b"0123456789".repeat(1000);
        for format in [ObjectFormat::Sha1, ObjectFormat::Sha256] {
            let whole = Oid::of(format, ObjectKind::Blob, &bytes);
            let mut hasher = ObjectHasher::new(format, ObjectKind::Blob, bytes.len() as u64);
            bytes.chunks(37).for_each(|piece| hasher.update(piece));
            assert_eq!(hasher.finish(), whole);
            whole.verify(ObjectKind::Blob, &bytes).unwrap();
            let error = whole.verify(ObjectKind::Tree, &bytes).unwrap_err();
            assert_eq!(error.kind, crate::ErrorKind::Corrupt);
            assert!(whole.verify(ObjectKind::Blob, &bytes[1..]).is_err());
        }
    }
}
