//! File contents and symlink targets.
//!
//! Contents are kept as frames of one chunk each. A frame is decoded into a buffer of the calling
//! thread, which also remembers the last one: the kernel reads a chunk in several requests. Nothing
//! here ever holds more than two chunks and one reply.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;
use monofs_content::evidence::NameKind;
use monofs_content::repo::Repo;
use monofs_content::want::Span;
use monofs_model::limits::{CHUNK_BYTES, SYMLINK_BYTES_MAX};
use monofs_model::{EntryKind, Oid};
use monofs_store::frame::{self, chunk_len};

use super::Fs;
use super::identity::Ino;
use super::inode::InodeTarget;
use crate::errno::Errno;
use crate::want::{ChunkWant, Miss, Outcome};

/// Largest single read; the kernel's own limit is 1 MiB, or as much as `fs.fuse.max_pages_limit`
/// says.
const READ_BYTES_MAX: u64 = 16 << 20;

/// What a thread decoded last.
#[derive(Default)]
struct DecodeScratch {
    key: Option<(Oid, u32)>,
    raw: Vec<u8>,
    /// A reply that spans chunks.
    joined: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<DecodeScratch> = RefCell::default();
}

/// Bytes of something readable.
enum ReadSource {
    Text(Bytes),
    Blob {
        repo: Arc<Repo>,
        blob: Oid,
        size: u64,
        directory: Ino,
        kind: NameKind,
    },
}

impl Fs {
    /// Gives `take` up to `length` bytes from `offset`: fewer only at the end. For a file of more
    /// than one chunk, returns what was read, so that the caller may have the following chunks
    /// fetched ahead.
    pub fn read(
        &self,
        ino: Ino,
        offset: u64,
        length: u32,
        take: &mut dyn FnMut(&[u8]),
    ) -> Outcome<Option<ChunkWant>> {
        match self.source(ino)? {
            ReadSource::Text(text) => {
                let start = text.len().min(offset as usize);
                let end = text.len().min(start + length as usize);
                take(&text[start..end]);
                Ok(None)
            }
            ReadSource::Blob { size, .. } if offset >= size || length == 0 => {
                take(&[]);
                Ok(None)
            }
            ReadSource::Blob {
                repo,
                blob,
                size,
                directory,
                kind,
            } => {
                // Evidence for what to fetch ahead.
                self.kinds.read(kind);
                let end = size.min(offset + u64::from(length).min(READ_BYTES_MAX));
                let first = (offset / CHUNK_BYTES as u64) as u32;
                let count = ((end - 1) / CHUNK_BYTES as u64) as u32 - first + 1;
                if first > 0 {
                    self.kinds.read_on(kind);
                }
                // The chunks of the range.
                let want = ChunkWant {
                    repo,
                    span: Span {
                        blob,
                        size,
                        first,
                        count,
                    },
                    directory,
                };
                self.read_chunks(&want, offset, end, take)?;
                Ok((size > CHUNK_BYTES as u64).then_some(want))
            }
        }
    }

    /// Gives `take` the target of a symlink.
    pub fn readlink(&self, ino: Ino, take: &mut dyn FnMut(&[u8])) -> Outcome<()> {
        let symlink = self.inodes.with(ino, |inode| match &inode.what {
            InodeTarget::Entry {
                kind: EntryKind::Symlink,
                ..
            } => Ok(inode.size),
            _ => Err(Errno::INVAL),
        });
        match symlink.ok_or(Errno::STALE)?? {
            0 => Err(Errno::INVAL.into()),
            size if size > SYMLINK_BYTES_MAX => Err(Errno::NAMETOOLONG.into()),
            size => self.read_blob(ino, 0, size as u32, take),
        }
    }

    fn read_blob(
        &self,
        ino: Ino,
        offset: u64,
        length: u32,
        take: &mut dyn FnMut(&[u8]),
    ) -> Outcome<()> {
        self.read(ino, offset, length, take).map(|_| ())
    }

    fn source(&self, ino: Ino) -> Outcome<ReadSource> {
        let source = self.inodes.with(ino, |inode| match &inode.what {
            InodeTarget::Document(text) => Ok(ReadSource::Text(text.clone())),
            InodeTarget::Entry {
                kind, oid, repo, ..
            } if kind.is_blob() => Ok(ReadSource::Blob {
                repo: repo.clone(),
                blob: *oid,
                size: inode.size,
                directory: inode.parent,
                kind: inode.name_kind,
            }),
            _ => Err(Errno::ISDIR),
        });
        Ok(source.ok_or(Errno::STALE)??)
    }

    fn read_chunks(
        &self,
        want: &ChunkWant,
        offset: u64,
        end: u64,
        take: &mut dyn FnMut(&[u8]),
    ) -> Outcome<()> {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.joined.clear();
            let span = want.span;
            for index in span.first..span.first + span.count {
                let base = u64::from(index) * CHUNK_BYTES as u64;
                let from = offset.saturating_sub(base) as usize;
                let to = (end - base).min(CHUNK_BYTES as u64) as usize;
                let ready = self.cache.ready(&span.blob, index);
                let raw: &[u8] = match &ready {
                    Some(ready) => ready,
                    None => {
                        self.decode(want, index, scratch)?;
                        &scratch.raw
                    }
                };
                let whole = chunk_len(span.size, u64::from(index));
                if raw.len() != whole {
                    // A directory record may lie about sizes until the content is seen.
                    tracing::warn!(blob = %span.blob, index, "content and directory record \
                     disagree about the size");
                    return Err(Errno::IO.into());
                }
                let piece = raw.get(from..to).ok_or(Errno::IO)?;
                if span.count == 1 {
                    self.marks.used(&span.blob);
                    take(piece);
                } else {
                    scratch.joined.extend_from_slice(piece);
                }
                if to == whole && ready.is_some() {
                    self.cache.was_read(&span.blob, index);
                }
            }
            if span.count > 1 {
                self.marks.used(&span.blob);
                take(&scratch.joined);
            }
            Ok(())
        })
    }

    /// Makes `scratch.raw` the bytes of one chunk.
    fn decode(&self, want: &ChunkWant, index: u32, scratch: &mut DecodeScratch) -> Outcome<()> {
        let blob = want.span.blob;
        let key = (blob, index);
        if scratch.key == Some(key) {
            return Ok(());
        }
        scratch.key = None;
        scratch.raw.clear();
        let decoded = self.cache.with_frame(&blob, index, |frame| {
            frame::decode_into(frame, &mut scratch.raw)
        });
        match decoded {
            None => return Err(Miss::Chunks(want.clone())),
            Some(Err(error)) => {
                // The disk damaged it: what is fetched again takes its place.
                tracing::warn!(%blob, index, %error, "a cached frame is damaged");
                self.cache.distrust(&blob, index);
                return Err(Miss::Chunks(want.clone()));
            }
            Some(Ok(())) => {}
        }
        scratch.key = Some(key);
        Ok(())
    }
}
