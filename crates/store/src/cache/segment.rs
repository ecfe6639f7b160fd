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
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
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
/// Bytes of a [`FramePlace`] in a table.
pub(super) const PLACE_BYTES: usize = 12;

/// Where a frame stands: offset (u64) and length in bytes (u32), little-endian.
pub(super) type FramePlace = [u8; PLACE_BYTES];

fn place(offset: u64, len: usize) -> FramePlace {
    let mut place = [0; PLACE_BYTES];
    place[..8].copy_from_slice(&offset.to_le_bytes());
    place[8..].copy_from_slice(&(len as u32).to_le_bytes());
    place
}

/// The file of one generation's frames.
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
    ) -> Result<(Vec<FramePlace>, u64)> {
        write_frames(&self.file, self.bytes(), frames)
            .map_err(|e| io_error(&self.path, "append", &e))
    }

    /// Moves the end behind what an append wrote, once the places that it gave are committed.
    pub(super) fn keep(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }

    /// The frame at a place; `None` when it is not (wholly) there.
    pub(super) fn read(&self, place: &[u8]) -> Option<Bytes> {
        let (offset, len) = place.split_first_chunk::<8>()?;
        let offset = u64::from_le_bytes(*offset);
        let len = u32::from_le_bytes(len.try_into().ok()?) as usize;
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

/// Writes frames from `end` on. Gives their places and the new end.
fn write_frames<'f>(
    mut file: &File,
    mut end: u64,
    frames: impl Iterator<Item = &'f [u8]>,
) -> io::Result<(Vec<FramePlace>, u64)> {
    file.seek(SeekFrom::Start(end))?;
    let mut out = BufWriter::with_capacity(WRITE_BYTES, file);
    let mut places = Vec::new();
    for frame in frames {
        out.write_all(frame)?;
        places.push(place(end, frame.len()));
        end += frame.len() as u64;
    }
    out.flush()?;
    Ok((places, end))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const FRAMES: [&[u8]; 3] = [b"first", b"", b"third"];

    #[test]
    fn frames_are_found_at_the_places_that_an_append_gave() {
        let dir = tempfile::tempdir().unwrap();
        let segment = Segment::open(dir.path(), 0).unwrap();
        let (places, end) = segment.append(FRAMES.into_iter()).unwrap();
        segment.keep(end);
        assert_eq!(segment.bytes(), 10);
        for (place, frame) in places.iter().zip(FRAMES) {
            assert_eq!(segment.read(place).unwrap(), frame);
        }
        let reopened = Segment::open(dir.path(), end).unwrap();
        assert_eq!(reopened.read(&places[2]).unwrap(), FRAMES[2]);
    }

    #[test]
    fn an_append_whose_places_were_not_kept_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let segment = Segment::open(dir.path(), 0).unwrap();
        segment.append([&b"given up"[..]].into_iter()).unwrap();
        assert_eq!(segment.bytes(), 0);
        let (places, _) = segment.append([&b"kept"[..]].into_iter()).unwrap();
        assert_eq!(segment.read(&places[0]).unwrap(), &b"kept"[..]);
    }

    #[test]
    fn what_has_a_place_is_not_overwritten_when_the_file_lost_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let segment = Segment::open(dir.path(), 0).unwrap();
        let (lost, end) = segment.append([&b"lost"[..]].into_iter()).unwrap();
        segment.keep(end);
        drop(segment);
        File::options()
            .write(true)
            .open(dir.path().join(FILE))
            .and_then(|file| file.set_len(1))
            .unwrap();
        let segment = Segment::open(dir.path(), end).unwrap();
        assert_eq!(segment.read(&lost[0]), None, "a cut frame is a miss");
        let (next, _) = segment.append([&b"next"[..]].into_iter()).unwrap();
        assert_eq!(segment.read(&next[0]).unwrap(), &b"next"[..]);
        assert_ne!(segment.read(&lost[0]).as_deref(), Some(&b"next"[..]));
    }

    #[test]
    fn places_of_a_damaged_table_are_misses() {
        let dir = tempfile::tempdir().unwrap();
        let segment = Segment::open(dir.path(), 0).unwrap();
        let too_long = place(0, FRAME_BYTES_MAX + 1);
        let beyond = place(u64::MAX - 10, 5);
        for damaged in [&too_long[..], &beyond, &too_long[..11], b""] {
            assert_eq!(segment.read(damaged), None);
        }
    }
}
