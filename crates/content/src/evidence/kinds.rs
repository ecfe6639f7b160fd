//! Which kinds of files are being read: what a reader passes over need not be fetched ahead or put
//! into the kernel's cache.
//!
//! A kind is what follows the last dot of a name, or the name itself when it has none: a search in
//! C files reads `.c` and passes over `.h` and `Makefile`. Kinds are counted in a table of hashes;
//! two that share a row are treated as one.
//!
//! A read that reaches us is evidence of its kind. What we put into the kernel's page cache
//! beforehand is read without our knowledge, so only so much is put there on the strength of one
//! such read: then some file is left to be asked for.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64;

const ROWS: usize = 256;
/// A read is evidence for this long.
const EVIDENCE: Duration = Duration::from_secs(2);
/// Most files of a kind that are stored since one of it was read.
const STORED_FILES_MAX: u32 = 512;
/// Most bytes of all kinds that are stored since anything was read.
const STORED_BYTES_MAX: i64 = 32 << 20;
/// A kind of which this many files were fetched ahead ...
const PASSED_FILES: u32 = 32;
/// ... and none read while this many bytes of others were, is passed over by the reader.
const PASSED_BYTES: u64 = 96 << 20;

/// Most large files of a kind that are fetched whole since one was read beyond its first chunk.
const WHOLE_FILES_MAX: u32 = 8;

/// The kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NameKind(u8);

impl NameKind {
    /// The kind that a name says.
    pub fn of(name: &[u8]) -> Self {
        let extension = name
            .iter()
            .rposition(|&byte| byte == b'.')
            .filter(|&at| at > 0)
            .map_or(name, |at| &name[at..]);
        Self(xxh3_64(extension) as u8)
    }
}

/// What is known about one kind.
#[derive(Debug, Default)]
struct KindRow {
    /// Milliseconds since the table was made, plus one; 0: never.
    read: AtomicU64,
    /// Files stored since then.
    stored: AtomicU32,
    /// Files fetched ahead since then, and what had been used of all kinds when that began.
    fetched: AtomicU32,
    used_before: AtomicU64,
    /// Large files that may still be fetched whole.
    whole: AtomicU32,
}

/// What was read lately, by kind.
pub struct ReadKinds {
    began: Instant,
    rows: [KindRow; ROWS],
    /// Bytes that may still be stored before something must be read.
    credit: AtomicI64,
}

impl Default for ReadKinds {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            rows: std::array::from_fn(|_| KindRow::default()),
            credit: AtomicI64::new(0),
        }
    }
}

/// Writes only what changes: many threads say the same here.
macro_rules! settle {
    ($cell:expr, $value:expr) => {
        if $cell.load(Ordering::Relaxed) != $value {
            $cell.store($value, Ordering::Relaxed);
        }
    };
}

impl ReadKinds {
    fn row(&self, kind: NameKind) -> &KindRow {
        &self.rows[kind.0 as usize]
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64 + 1
    }

    /// A file of this kind was asked for.
    pub fn read(&self, kind: NameKind) {
        let row = self.row(kind);
        settle!(row.read, self.now());
        settle!(row.stored, 0);
        settle!(row.fetched, 0);
        settle!(self.credit, STORED_BYTES_MAX);
    }

    /// A file of this kind was read beyond its first chunk: its readers want more than to see what
    /// it is.
    pub fn read_on(&self, kind: NameKind) {
        settle!(self.row(kind).whole, WHOLE_FILES_MAX);
    }

    /// Whether a large file of this kind should be fetched whole, not only its first chunk; if so,
    /// it is taken for fetched.
    pub fn fetch_whole(&self, kind: NameKind) -> bool {
        let whole = &self.row(kind).whole;
        let taken = whole.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(1)
        });
        taken.is_ok()
    }

    /// Whether a file of this kind may be put into the kernel's page cache unasked.
    pub fn may_store(&self, kind: NameKind) -> bool {
        let row = self.row(kind);
        let read = row.read.load(Ordering::Relaxed);
        read > 0
            && self.now().saturating_sub(read) < EVIDENCE.as_millis() as u64
            && row.stored.load(Ordering::Relaxed) < STORED_FILES_MAX
            && self.credit.load(Ordering::Relaxed) > 0
    }

    /// A file was put there.
    pub fn stored(&self, kind: NameKind, bytes: u64) {
        self.row(kind).stored.fetch_add(1, Ordering::Relaxed);
        self.credit.fetch_sub(bytes as i64, Ordering::Relaxed);
    }

    /// Whether a walk should fetch a file of this kind ahead. `used`: bytes of all kinds that were
    /// fetched ahead and used.
    pub fn worth_fetching(&self, kind: NameKind, used: u64) -> bool {
        let row = self.row(kind);
        let fetched = row.fetched.load(Ordering::Relaxed);
        if fetched == 0 {
            row.used_before.store(used, Ordering::Relaxed);
        }
        let passed = used.saturating_sub(row.used_before.load(Ordering::Relaxed));
        fetched < PASSED_FILES || passed < PASSED_BYTES
    }

    /// A file was fetched ahead.
    pub fn fetched(&self, kind: NameKind) {
        self.row(kind).fetched.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_kinds() {
        assert_eq!(NameKind::of(b"a.c"), NameKind::of(b"b.x.c"));
        assert_ne!(NameKind::of(b"a.c"), NameKind::of(b"a.h"));
        assert_eq!(NameKind::of(b".c"), NameKind::of(b".c"));
        assert_eq!(NameKind::of(b"Makefile"), NameKind::of(b"Makefile"));
        assert_ne!(NameKind::of(b"Makefile"), NameKind::of(b"Kconfig"));
        NameKind::of(b"");
    }

    #[test]
    fn nothing_is_stored_without_evidence_and_not_much_with_it() {
        let (kinds, c, h) = (
            ReadKinds::default(),
            NameKind::of(b"a.c"),
            NameKind::of(b"a.h"),
        );
        assert!(!kinds.may_store(c));
        kinds.read(c);
        assert!(!kinds.may_store(h));
        for _ in 0..STORED_FILES_MAX {
            assert!(kinds.may_store(c));
            kinds.stored(c, 10);
        }
        assert!(!kinds.may_store(c));
        kinds.read(c);
        kinds.stored(c, STORED_BYTES_MAX as u64);
        assert!(!kinds.may_store(c));
        kinds.read(c);
        assert!(kinds.may_store(c));
    }

    #[test]
    fn a_kind_that_the_reader_passes_over_is_no_longer_fetched_until_it_is_read() {
        let (kinds, h) = (ReadKinds::default(), NameKind::of(b"a.h"));
        for _ in 0..PASSED_FILES {
            assert!(kinds.worth_fetching(h, PASSED_BYTES));
            kinds.fetched(h);
        }
        // The reader may not have come to them yet.
        assert!(kinds.worth_fetching(h, 2 * PASSED_BYTES - 1));
        assert!(!kinds.worth_fetching(h, 2 * PASSED_BYTES));
        kinds.read(h);
        assert!(kinds.worth_fetching(h, 2 * PASSED_BYTES));
    }

    #[test]
    fn large_files_are_fetched_whole_while_their_readers_read_on() {
        let (kinds, c, bin) = (
            ReadKinds::default(),
            NameKind::of(b"a.c"),
            NameKind::of(b"a.bin"),
        );
        kinds.read(bin);
        kinds.read_on(c);
        assert!(!kinds.fetch_whole(bin));
        assert!((0..WHOLE_FILES_MAX).all(|_| kinds.fetch_whole(c)));
        assert!(!kinds.fetch_whole(c));
        kinds.read_on(c);
        assert!(kinds.fetch_whole(c));
    }
}
