//! The frames of a generation: one file that is only appended to. Where each frame stands in it is
//! told by the generation's table.
//!
//! Frames are written in the order and in the pieces in which they arrive, which costs the kernel a
//! fraction of what LMDB's single pages do, and lie in the order in which they were read first.
//! They are read with `pread`: a file that was cut off is a miss, where a memory map would kill the
//! process.
//!
//! Invariant: a place is handed out for bytes that were written, and nothing else is ever written
//! there: an append begins after everything that has a place, even where a file has lost its end.
//! What was appended without its places having been kept is overwritten by the next append, or,
//! after the death of the process, never referred to.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use monofs_model::Result;

use crate::fault::io_error;
use crate::frame::FRAME_BYTES_MAX;

const FILE: &str = "frames";
/// Bytes handed to the kernel at once.
const WRITE_BYTES: usize = 256 << 10;
/// Bytes of a [`Place`] in a table.
pub(super) const PLACE_BYTES: usize = 12;

/// Where a frame stands: offset (u64) and length in bytes (u32), little-endian.
pub(super) type Place = [u8; PLACE_BYTES];

fn place(offset: u64, len: usize) -> Place {
    let mut place = [0; PLACE_BYTES];
    place[..8].copy_from_slice(&offset.to_le_bytes());
    place[8..].copy_from_slice(&(len as u32).to_le_bytes());
    place
}

pub(super) struct Segment {
    file: File,
    path: PathBuf,
    /// Bytes that have places. More may follow, of an append that was given up.
    end: AtomicU64,
}

impl Segment {
    /// Opens the file in `dir`, making it when missing. `kept` is the last end that was kept.
    pub(super) fn open(dir: &Path, kept: u64) -> Result<Self> {
        let path = dir.join(FILE);
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let measured =
            opened.and_then(|file| file.metadata().map(|metadata| (file, metadata.len())));
        let (file, len) = measured.map_err(|e| io_error(&path, "open", &e))?;
        Ok(Self {
            file,
            path,
            end: AtomicU64::new(len.max(kept)),
        })
    }

    /// Bytes that have places.
    pub(super) fn bytes(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Writes frames after the end. Gives their places and the new end, for [`Segment::keep`]. One
    /// caller at a time.
    pub(super) fn append<'f>(
        &self,
        frames: impl Iterator<Item = &'f [u8]>,
    ) -> Result<(Vec<Place>, u64)> {
        let mut end = self.bytes();
        let mut places = Vec::new();
        let write = || {
            (&self.file).seek(SeekFrom::Start(end))?;
            let mut out = BufWriter::with_capacity(WRITE_BYTES, &self.file);
            for frame in frames {
                out.write_all(frame)?;
                places.push(place(end, frame.len()));
                end += frame.len() as u64;
            }
            out.flush()
        };
        write().map_err(|e| io_error(&self.path, "append", &e))?;
        Ok((places, end))
    }

    /// The places that an append gave were committed.
    pub(super) fn keep(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }

    /// The frame at a place; `None` when it is not (wholly) there.
    pub(super) fn read(&self, place: &[u8]) -> Option<Bytes> {
        let (offset, len) = place.split_first_chunk::<8>()?;
        let (offset, len) = (
            u64::from_le_bytes(*offset),
            u32::from_le_bytes(len.try_into().ok()?) as usize,
        );
        // A damaged table must not make us allocate what no file holds.
        if len > FRAME_BYTES_MAX {
            return None;
        }
        let mut frame = vec![0; len];
        match self.file.read_exact_at(&mut frame, offset) {
            Ok(()) => Some(frame.into()),
            Err(e) => {
                tracing::warn!(path = %self.path.display(), "the cache cannot be read: {e}");
                None
            }
        }
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.file
            .sync_data()
            .map_err(|e| io_error(&self.path, "sync", &e))
    }
}
