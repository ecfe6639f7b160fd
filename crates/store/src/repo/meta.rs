//! The facts of a repository and the row that they are kept in.

use monofs_model::{
    ContentMode, DisplayPath, Error, ObjectFormat, RefName, Result, SourceUrl, StorageId,
};

use crate::encoding::{Decoder, Encoder};

const META_VERSION: u8 = 1;

/// What a repository is, next to what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoMeta {
    pub storage_id: StorageId,
    pub path: DisplayPath,
    pub source: SourceUrl,
    pub ref_name: RefName,
    pub content: ContentMode,
    pub format: ObjectFormat,
}

impl RepoMeta {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut row = Encoder::new(META_VERSION);
        row.bytes(self.storage_id.as_str().as_bytes());
        row.bytes(self.path.as_str().as_bytes());
        row.bytes(self.source.as_str().as_bytes());
        row.bytes(self.ref_name.as_str().as_bytes());
        row.u8(match self.content {
            ContentMode::Eager => 0,
            ContentMode::Lazy => 1,
        });
        row.u8(self.format.oid_len() as u8);
        row.finish()
    }

    pub(super) fn decode(row: &[u8]) -> Result<Self> {
        let what = "repository facts";
        let broken = |e: Error| Error::corrupt(format!("{what}: {e}"));
        // The fields stand in the order in which they were written.
        let mut row = Decoder::new(row, META_VERSION, what)?;
        let meta = Self {
            storage_id: StorageId::new(row.text()?).map_err(broken)?,
            path: DisplayPath::new(row.text()?).map_err(broken)?,
            source: SourceUrl::of_record(row.text()?).map_err(broken)?,
            ref_name: RefName::new(row.text()?).map_err(broken)?,
            content: match row.u8()? {
                0 => ContentMode::Eager,
                1 => ContentMode::Lazy,
                other => {
                    return Err(Error::corrupt(format!(
                        "{what}: content mode {other} is unknown"
                    )));
                }
            },
            format: match row.u8()? {
                20 => ObjectFormat::Sha1,
                32 => ObjectFormat::Sha256,
                other => {
                    return Err(Error::corrupt(format!(
                        "{what}: object ids of {other} bytes are unknown"
                    )));
                }
            },
        };
        row.finish()?;
        Ok(meta)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use monofs_model::ErrorKind;
    use proptest::prelude::*;

    use super::*;

    fn facts(content: ContentMode, format: ObjectFormat) -> RepoMeta {
        let path = DisplayPath::new("example.org/org/repo").unwrap();
        RepoMeta {
            storage_id: path.storage_id(),
            path,
            source: SourceUrl::new("https://example.org/org/repo.git").unwrap(),
            ref_name: RefName::new("main").unwrap(),
            content,
            format,
        }
    }

    #[test]
    fn facts_of_every_mode_and_format_round_trip() {
        for content in [ContentMode::Eager, ContentMode::Lazy] {
            for format in [ObjectFormat::Sha1, ObjectFormat::Sha256] {
                let facts = facts(content, format);
                assert_eq!(RepoMeta::decode(&facts.encode()).unwrap(), facts);
            }
        }
    }

    #[test]
    fn modes_and_formats_that_do_not_exist_are_damage() {
        let row = facts(ContentMode::Lazy, ObjectFormat::Sha256).encode();
        // The last two bytes are the mode and the length of object ids.
        for at in [row.len() - 2, row.len() - 1] {
            let mut damaged = row.clone();
            damaged[at] = 99;
            let error = RepoMeta::decode(&damaged).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Corrupt);
            assert!(error.message.contains("99"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_can_make_the_decoder_panic(row: Vec<u8>) {
            let _ = RepoMeta::decode(&row);
        }
    }
}
