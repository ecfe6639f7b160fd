//! A reader that times every call, compares every byte with Git, and goes on after an error.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use monofs_model::{ObjectKind, Oid};
use monofs_testkit::ExpectedTree;
use monofs_testkit::model::{ExpectedEntry, ExpectedKind};

/// Bytes of one read, as `cat` and `rg` ask for.
const READ_BYTES: usize = 128 << 10;
/// Errors and differences that are kept.
const SAID_MAX: usize = 20;

/// What one or more readers saw.
#[derive(Debug, Default)]
pub struct Seen {
    pub calls: usize,
    pub bytes: u64,
    /// Calls that failed.
    pub failed: Vec<String>,
    /// Names and bytes that are not Git's.
    pub wrong: Vec<String>,
    /// The longest single call and what it was.
    pub longest: Duration,
    pub longest_at: String,
    pub took: Duration,
}

impl Seen {
    fn timed<T>(
        &mut self,
        what: &str,
        path: &Path,
        call: impl FnOnce() -> std::io::Result<T>,
    ) -> Option<T> {
        let from = Instant::now();
        let result = call();
        let took = from.elapsed();
        self.calls += 1;
        if took > self.longest {
            (self.longest, self.longest_at) = (took, format!("{what} {}", path.display()));
        }
        result
            .inspect_err(|error| {
                note(
                    &mut self.failed,
                    format!("{what} {}: {error} after {took:?}", path.display()),
                )
            })
            .ok()
    }
}

fn note(list: &mut Vec<String>, what: String) {
    if list.len() < SAID_MAX {
        list.push(what);
    }
}

/// A full-tree read in a thread of its own.
pub struct Reader {
    done: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<Seen>,
    total: usize,
}

impl Reader {
    /// Begins to read everything below `at`, in the order of its names.
    pub fn begin(at: PathBuf, expected: Arc<ExpectedTree>) -> Self {
        let done = Arc::<AtomicUsize>::default();
        let total = expected.entries.len();
        let progress = done.clone();
        let thread = std::thread::spawn(move || read_tree(&at, &expected, &progress));
        Self {
            done,
            thread,
            total,
        }
    }

    /// Waits until it has seen this share of the entries.
    #[track_caller]
    pub fn wait_share(&self, share: f64) {
        let wanted = (self.total as f64 * share) as usize;
        monofs_testkit::wait_until(
            "the reader has come so far",
            Duration::from_secs(60),
            || self.done.load(Ordering::Relaxed) >= wanted || self.thread.is_finished(),
        );
    }

    /// Whether it is done.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// What it saw, at the end.
    pub fn join(self) -> Seen {
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Reads every name, attribute and byte.
pub fn read_tree(at: &Path, expected: &ExpectedTree, done: &AtomicUsize) -> Seen {
    let mut seen = Seen::default();
    let from = Instant::now();
    let mut names: BTreeMap<&[u8], usize> = BTreeMap::new();
    for path in expected.entries.keys() {
        let parent = path
            .iter()
            .rposition(|byte| *byte == b'/')
            .map_or(&b""[..], |slash| &path[..slash]);
        *names.entry(parent).or_default() += 1;
    }
    list(&mut seen, at, names.get(&b""[..]).copied().unwrap_or(0));
    for (path, entry) in &expected.entries {
        let full = at.join(OsStr::from_bytes(path));
        match entry.kind {
            ExpectedKind::Directory => list(
                &mut seen,
                &full,
                names.get(path.as_slice()).copied().unwrap_or(0),
            ),
            ExpectedKind::Submodule { .. } => {}
            ExpectedKind::Symlink { .. } => {
                if let Some(target) = seen.timed("readlink", &full, || std::fs::read_link(&full)) {
                    compare(&mut seen, &full, entry, &target.into_os_string().into_vec());
                }
            }
            ExpectedKind::File { size, .. } => file(&mut seen, &full, entry, size),
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    seen.took = from.elapsed();
    seen
}

fn list(seen: &mut Seen, at: &Path, expected: usize) {
    let listing = seen.timed("list", at, || {
        std::fs::read_dir(at)?.collect::<Result<Vec<_>, _>>()
    });
    if let Some(listing) = listing.filter(|listing| listing.len() != expected) {
        note(
            &mut seen.wrong,
            format!(
                "{} lists {} names, not {expected}",
                at.display(),
                listing.len()
            ),
        );
    }
}

fn file(seen: &mut Seen, at: &Path, entry: &ExpectedEntry, size: u64) {
    let Some(meta) = seen.timed("stat", at, || std::fs::symlink_metadata(at)) else {
        return;
    };
    if meta.len() != size {
        note(
            &mut seen.wrong,
            format!("{} has {} bytes, not {size}", at.display(), meta.len()),
        );
    }
    let Some(mut open) = seen.timed("open", at, || std::fs::File::open(at)) else {
        return;
    };
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    let mut piece = vec![0; READ_BYTES];
    loop {
        match seen.timed("read", at, || open.read(&mut piece)) {
            Some(0) => break,
            Some(count) => bytes.extend_from_slice(&piece[..count]),
            None => return,
        }
    }
    seen.bytes += bytes.len() as u64;
    compare(seen, at, entry, &bytes);
}

fn compare(seen: &mut Seen, at: &Path, entry: &ExpectedEntry, bytes: &[u8]) {
    let actual = Oid::of(entry.oid.format(), ObjectKind::Blob, bytes);
    if actual != entry.oid {
        note(
            &mut seen.wrong,
            format!(
                "{}: {} bytes are {actual}, not {}",
                at.display(),
                bytes.len(),
                entry.oid
            ),
        );
    }
}
