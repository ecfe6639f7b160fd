//! How much of a directory is fetched with one of its files: more as long as it is used, less when
//! it is not.
//!
//! Invariant: between [`BYTES_MIN`] and [`BYTES_MAX`]. A program that reads files here and there
//! soon has little fetched unasked; one that reads whole directories gets them whole.

/// Least bytes fetched with one file of a directory.
const BYTES_MIN: u64 = 64 << 10;
/// Most bytes fetched with one file of a directory.
const BYTES_MAX: u64 = 8 << 20;
/// Bytes before anything is known.
const BYTES_FIRST: u64 = 2 << 20;

/// How the files of a directory are being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectoryReading {
    /// None of them was missed lately.
    Begins,
    /// Another one was missed a moment ago, so too little was fetched with it.
    GoesOn,
}

/// The window of a mount.
#[derive(Debug)]
pub struct SiblingWindow {
    bytes: u64,
    /// Bytes that were fetched unasked the last time, and bytes used since the start at that time.
    fetched: u64,
    used: u64,
}

impl Default for SiblingWindow {
    fn default() -> Self {
        Self {
            bytes: BYTES_FIRST,
            fetched: 0,
            used: 0,
        }
    }
}

impl SiblingWindow {
    /// Most bytes to fetch now, `used` being the bytes used so far of all that was fetched unasked.
    /// Call [`SiblingWindow::fetched`] with what it came to.
    pub fn next(&mut self, used: u64, reading: DirectoryReading) -> u64 {
        let goes_on = reading == DirectoryReading::GoesOn;
        let used_since = used.saturating_sub(self.used);
        if goes_on || self.fetched > 0 {
            let grows = goes_on || used_since * 2 >= self.fetched;
            self.bytes = if grows {
                self.bytes * 2
            } else {
                self.bytes / 2
            };
            self.bytes = self.bytes.clamp(BYTES_MIN, BYTES_MAX);
        }
        self.used = used;
        self.bytes
    }

    /// So many bytes are being fetched unasked.
    pub fn fetched(&mut self, bytes: u64) {
        self.fetched = bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `rounds` directories of 1 MiB, of each of which `share` percent are used.
    fn after(window: &mut SiblingWindow, rounds: u64, share: u64) -> u64 {
        let mut used = window.used;
        let mut last = 0;
        for _ in 0..rounds {
            last = window.next(used, DirectoryReading::Begins);
            let fetched = last.min(1 << 20);
            window.fetched(fetched);
            used += fetched * share / 100;
        }
        last
    }

    #[test]
    fn waste_shrinks_it_and_use_lets_it_grow_again() {
        let mut window = SiblingWindow::default();
        assert_eq!(after(&mut window, 1, 0), BYTES_FIRST);
        assert_eq!(after(&mut window, 20, 5), BYTES_MIN);
        assert_eq!(after(&mut window, 20, 90), BYTES_MAX);
    }

    #[test]
    fn directories_without_other_files_tell_nothing() {
        let mut window = SiblingWindow::default();
        for _ in 0..10 {
            assert_eq!(window.next(0, DirectoryReading::Begins), BYTES_FIRST);
            window.fetched(0);
        }
    }

    #[test]
    fn a_directory_whose_next_file_is_too_large_for_it_lets_it_grow() {
        let mut window = SiblingWindow::default();
        after(&mut window, 20, 0);
        window.fetched(0);
        assert_eq!(window.next(0, DirectoryReading::Begins), BYTES_MIN);
        assert_eq!(window.next(0, DirectoryReading::GoesOn), 2 * BYTES_MIN);
    }
}
