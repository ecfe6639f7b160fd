//! Readers of large files: while one reads on from where it left off, the chunks that follow are
//! fetched ahead of it, more each time.
//!
//! A reader that jumps gets nothing ahead until it goes on from where it jumped to.

use std::collections::HashMap;

use monofs_model::Oid;
use monofs_store::frame::chunk_count;
use parking_lot::Mutex;

use monofs_content::want::Span;

/// Largest window of a sequential read of a large file, in chunks.
const WINDOW_CHUNKS_MAX: u32 = 16;
/// Most large files whose reading is followed.
const FILES_MAX: usize = 256;

/// How one large file is being read, in chunks.
#[derive(Debug, Clone, Copy)]
struct FileStream {
    /// The chunk that comes next if the reading is sequential.
    next: u32,
    /// Chunks requested so far end here.
    requested: u32,
    /// Chunks that are to be ahead of the reader.
    window: u32,
}

/// The large files that are being read.
#[derive(Debug, Default)]
pub(super) struct FileStreams(Mutex<HashMap<Oid, FileStream>>);

impl FileStreams {
    /// Chunks of a large file were read. If the reading is sequential, says which following chunks
    /// to fetch now.
    pub fn follow(&self, read: &Span) -> Option<Span> {
        let chunks = u32::try_from(chunk_count(read.size)).unwrap_or(u32::MAX);
        let end = read.first + read.count;
        let mut streams = self.0.lock();
        if streams.len() >= FILES_MAX && !streams.contains_key(&read.blob) {
            streams.clear();
        }
        let fresh = FileStream {
            next: 0,
            requested: end,
            window: 1,
        };
        let stream = streams.entry(read.blob).or_insert(fresh);
        if read.first != stream.next && end != stream.next {
            // A jump: start over from here, and fetch nothing ahead until the reading goes on.
            *stream = FileStream { next: end, ..fresh };
            return None;
        }

        // The reading goes on: ask again when half of the window is used up.
        stream.next = end;
        if stream.requested.saturating_sub(end) > stream.window / 2 || end >= chunks {
            return None;
        }
        let first = stream.requested.max(end);
        stream.window = (stream.window * 2).min(WINDOW_CHUNKS_MAX);
        let last = end.saturating_add(stream.window).min(chunks);
        stream.requested = last;
        let count = last.saturating_sub(first);
        (count > 0).then_some(Span {
            blob: read.blob,
            size: read.size,
            first,
            count,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use monofs_model::limits::CHUNK_BYTES;

    use super::*;

    const CHUNKS: u32 = 100;

    fn chunk(file: u32, first: u32) -> Span {
        let mut id = [0; 20];
        id[..4].copy_from_slice(&file.to_be_bytes());
        Span {
            blob: Oid::from_bytes(&id).unwrap(),
            size: u64::from(CHUNKS) * CHUNK_BYTES as u64,
            first,
            count: 1,
        }
    }

    /// First and last chunk that are fetched when this one is read.
    fn ahead(streams: &FileStreams, file: u32, first: u32) -> Option<(u32, u32)> {
        let span = streams.follow(&chunk(file, first))?;
        Some((span.first, span.first + span.count - 1))
    }

    #[test]
    fn a_sequential_reader_gets_each_chunk_once_in_windows_that_double() {
        let streams = FileStreams::default();
        let mut requested = Vec::new();
        for first in 0..CHUNKS {
            requested.extend(ahead(&streams, 1, first));
        }
        assert_eq!(requested[..4], [(1, 2), (3, 5), (6, 11), (12, 23)]);
        let gapless = requested.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0);
        assert!(gapless, "{requested:?}");
        assert_eq!(requested.last().unwrap().1, CHUNKS - 1);
        let longest = requested.iter().map(|(first, last)| last - first + 1).max();
        assert!(longest.unwrap() <= WINDOW_CHUNKS_MAX);
    }

    #[test]
    fn a_reader_that_jumps_gets_nothing_until_it_goes_on() {
        let streams = FileStreams::default();
        ahead(&streams, 1, 0);
        for place in [50, 10, 70, 30] {
            assert_eq!(ahead(&streams, 1, place), None);
        }
        assert_eq!(ahead(&streams, 1, 31), Some((32, 33)));
    }

    #[test]
    fn reading_a_chunk_in_several_requests_is_no_jump() {
        let streams = FileStreams::default();
        assert_eq!(ahead(&streams, 1, 0), Some((1, 2)));
        assert_eq!(ahead(&streams, 1, 0), None);
        assert_eq!(ahead(&streams, 1, 1), Some((3, 5)));
    }

    #[test]
    fn the_files_that_are_followed_are_bounded() {
        let streams = FileStreams::default();
        for file in 0..3 * FILES_MAX as u32 {
            ahead(&streams, file, 0);
        }
        assert!(streams.0.lock().len() <= FILES_MAX);
    }
}
