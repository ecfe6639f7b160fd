//! Which paths changed, for programs that watch the mount: the kernel reports no inotify event for
//! what another machine changed.
//!
//! ```text
//! catalog::apply --a flip, after the kernel was told--> queue -> diff (compares the two commits)
//!                                                                  |
//! .monofs/changes-POSITION <-- lines after a position <-- ChangeLog+
//! ```
//!
//! A watcher asks for the document of its position again and again ([`reader`]), and the answer
//! names the next position. Commits are compared only while a watcher has asked within the
//! [`LEASE`].
//!
//! Invariants: queue and log are bounded; a watcher that missed something, or whose position is of
//! an earlier mount, is told so and never gets a list with a hole.

pub mod diff;
pub mod reader;

use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use monofs_model::{Oid, Repository};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// How long after its last question a watcher counts as one.
pub const LEASE: Duration = Duration::from_secs(30);
/// Lines that are kept for watchers, and their bytes.
const LINES_MAX: usize = 65_536;
const LINE_BYTES_MAX: usize = 16 << 20;
/// Changed repositories that may wait to be compared.
const QUEUE_MAX: usize = 4096;
/// A document ends after the line that reaches this.
const DOCUMENT_BYTES: usize = 1 << 20;

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    Added,
    Modified,
    Removed,
    /// Anything at or below the path may have changed.
    Reset,
}

impl ChangeKind {
    /// The word that people and programs read.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Modified => "modified",
            Self::Removed => "removed",
            Self::Reset => "reset",
        }
    }
}

/// One changed path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathChange {
    pub change: ChangeKind,
    /// Bytes that are no UTF-8 are replaced; then `path_bytes` is there.
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_bytes: Option<Vec<u8>>,
    /// The commit that is shown now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

impl PathChange {
    /// A change of the path that `bytes` are.
    pub fn new(change: ChangeKind, bytes: &[u8], commit: Option<String>) -> Self {
        let path = String::from_utf8_lossy(bytes).into_owned();
        let is_text = path.as_bytes() == bytes;
        Self {
            change,
            path,
            path_bytes: (!is_text).then(|| bytes.to_vec()),
            commit,
        }
    }

    /// The path, exactly.
    pub fn to_path(&self) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        let bytes = self.path_bytes.as_deref().unwrap_or(self.path.as_bytes());
        PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
    }

    /// The same change with its path below `root`.
    fn below(self, root: &Path) -> Self {
        use std::os::unix::ffi::OsStrExt;
        let path = root.join(self.to_path());
        Self::new(self.change, path.as_os_str().as_bytes(), self.commit)
    }
}

/// How much of the log of one mount a watcher has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangePosition {
    /// Another number for each mount.
    instance: u64,
    /// Lines told so far, and holes.
    told: u64,
}

impl fmt::Display for ChangePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.instance, self.told)
    }
}

impl FromStr for ChangePosition {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (instance, told) = text.split_once('-').ok_or(())?;
        Ok(Self {
            instance: u64::from_str_radix(instance, 16).map_err(|_| ())?,
            told: told.parse().map_err(|_| ())?,
        })
    }
}

/// The first line of a document.
#[derive(Debug, Serialize, Deserialize)]
struct DocumentHead {
    /// To ask for next.
    position: String,
    /// Something was lost since the position that was asked for.
    missed: bool,
}

/// A repository that changed in a way that readers see.
#[derive(Debug)]
pub enum RepositoryChange {
    Came(Arc<str>, Oid),
    Went(Arc<str>),
    Flipped {
        was: Arc<Repository>,
        is: Arc<Repository>,
    },
}

/// Whether watchers are to be told of a change that is about to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watching {
    Watched,
    Unwatched,
}

/// What changed since the mount began, as far as it is kept.
pub struct ChangeLog {
    instance: u64,
    state: Mutex<LogState>,
    queued: Notify,
}

#[derive(Default)]
struct LogState {
    /// Encoded, each with its end of line; the last one has the number `told`.
    lines: VecDeque<Bytes>,
    line_bytes: usize,
    told: u64,
    queue: VecDeque<RepositoryChange>,
    asked: Option<Instant>,
}

impl LogState {
    /// From here on every watcher that is behind has missed something.
    fn lose(&mut self) {
        self.lines.clear();
        self.line_bytes = 0;
        self.told += 1;
    }

    fn push(&mut self, line: Bytes) {
        self.line_bytes += line.len();
        self.lines.push_back(line);
        self.told += 1;
        while self.lines.len() > LINES_MAX || self.line_bytes > LINE_BYTES_MAX {
            let dropped = self.lines.pop_front().map_or(0, |line| line.len());
            self.line_bytes -= dropped;
        }
    }
}

impl Default for ChangeLog {
    fn default() -> Self {
        Self {
            instance: RandomState::new().build_hasher().finish(),
            state: Mutex::default(),
            queued: Notify::new(),
        }
    }
}

impl ChangeLog {
    /// Whether a watcher has asked within the lease. To be called before a change is made, so that
    /// one that comes in between is told that it missed something.
    pub fn watching(&self) -> Watching {
        let asked = self.state.lock().asked;
        match asked.is_some_and(|asked| asked.elapsed() < LEASE) {
            true => Watching::Watched,
            false => Watching::Unwatched,
        }
    }

    /// Takes in changes of which the kernel has been told. What does not fit is missed.
    pub fn note(&self, changes: impl IntoIterator<Item = RepositoryChange>) {
        let mut state = self.state.lock();
        for change in changes {
            if state.queue.len() >= QUEUE_MAX {
                state.queue.clear();
                state.lose();
                break;
            }
            state.queue.push_back(change);
        }
        drop(state);
        self.queued.notify_one();
    }

    /// Something changed that no watcher asked about.
    pub fn skip(&self) {
        let mut state = self.state.lock();
        state.queue.clear();
        state.lose();
    }

    /// The next repository that changed.
    async fn next(&self) -> RepositoryChange {
        loop {
            let queued = self.queued.notified();
            let next = self.state.lock().queue.pop_front();
            match next {
                Some(change) => return change,
                None => queued.await,
            }
        }
    }

    /// Adds lines for watchers.
    fn tell(&self, changes: &[PathChange]) {
        let lines = changes.iter().map(encoded);
        let mut state = self.state.lock();
        lines.for_each(|line| state.push(line));
    }

    /// What was told since `position`, as lines of JSON: the head, then one for each path. Without
    /// a position only where the log is now. Counts as a question of a watcher.
    pub fn document(&self, position: Option<ChangePosition>) -> Bytes {
        let mut state = self.state.lock();
        state.asked = Some(Instant::now());
        let now = state.told;
        let oldest = now - state.lines.len() as u64;
        let known = position
            .map(|seen| (seen.instance == self.instance && seen.told <= now).then_some(seen.told));
        let (from, missed) = match known {
            None => (now, false),
            Some(Some(told)) if told >= oldest => (told, false),
            Some(_) => (now, true),
        };

        // As many lines as fit.
        let mut text = Vec::new();
        let mut told = from;
        for line in state.lines.iter().skip((from - oldest) as usize) {
            text.extend_from_slice(line);
            told += 1;
            if text.len() >= DOCUMENT_BYTES {
                break;
            }
        }
        drop(state);
        let position = ChangePosition {
            instance: self.instance,
            told,
        };
        let mut document = encoded(&DocumentHead {
            position: position.to_string(),
            missed,
        })
        .to_vec();
        document.append(&mut text);
        document.into()
    }
}

/// A line of JSON.
fn encoded(value: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(value).expect("strings, numbers and lists have a JSON form");
    line.push(b'\n');
    line.into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn change(path: &str) -> PathChange {
        PathChange::new(ChangeKind::Modified, path.as_bytes(), None)
    }

    /// The position and `missed` of a document, and the paths in it.
    fn read(document: &Bytes) -> (ChangePosition, bool, Vec<String>) {
        let text = std::str::from_utf8(document).unwrap();
        let mut lines = text.lines();
        let head: DocumentHead = serde_json::from_str(lines.next().unwrap()).unwrap();
        let paths = lines
            .map(|line| serde_json::from_str::<PathChange>(line).unwrap().path)
            .collect();
        (head.position.parse().unwrap(), head.missed, paths)
    }

    #[test]
    fn a_watcher_gets_each_line_once_and_in_order() {
        let log = ChangeLog::default();
        log.tell(&[change("before")]);
        let (position, missed, paths) = read(&log.document(None));
        assert_eq!((missed, paths.len()), (false, 0));
        log.tell(&[change("a"), change("b")]);
        let (position, missed, paths) = read(&log.document(Some(position)));
        assert_eq!((missed, paths), (false, vec!["a".into(), "b".into()]));
        let (_, missed, paths) = read(&log.document(Some(position)));
        assert_eq!((missed, paths.len()), (false, 0));
    }

    #[test]
    fn one_that_fell_behind_or_knew_another_mount_is_told_that_it_missed_something() {
        let log = ChangeLog::default();
        let (start, _, _) = read(&log.document(None));
        let many: Vec<PathChange> = (0..=LINES_MAX).map(|n| change(&n.to_string())).collect();
        log.tell(&many);
        let (position, missed, paths) = read(&log.document(Some(start)));
        assert_eq!((missed, paths.len()), (true, 0));
        assert!(!read(&log.document(Some(position))).1);
        log.skip();
        assert!(read(&log.document(Some(position))).1);
        let (elsewhere, _, _) = read(&ChangeLog::default().document(None));
        assert!(read(&log.document(Some(elsewhere))).1);
    }

    #[test]
    fn a_document_is_bounded_and_the_next_one_goes_on_where_it_ended() {
        let log = ChangeLog::default();
        let (mut position, ..) = read(&log.document(None));
        let long = "x".repeat(4000);
        let many: Vec<PathChange> = (0..1000).map(|n| change(&format!("{n}/{long}"))).collect();
        log.tell(&many);
        let mut seen = Vec::new();
        loop {
            let document = log.document(Some(position));
            assert!(document.len() < DOCUMENT_BYTES + 2 * long.len());
            let (next, missed, mut paths) = read(&document);
            assert!(!missed);
            if paths.is_empty() {
                break;
            }
            seen.append(&mut paths);
            position = next;
        }
        assert!(seen.iter().eq(many.iter().map(|change| &change.path)));
    }

    #[test]
    fn the_queue_is_bounded_and_what_it_loses_is_told() {
        let log = ChangeLog::default();
        let (position, ..) = read(&log.document(None));
        assert_eq!(log.watching(), Watching::Watched);
        let went = || RepositoryChange::Went("h/r".into());
        log.note((0..=QUEUE_MAX).map(|_| went()));
        assert!(log.state.lock().queue.len() <= QUEUE_MAX);
        assert!(read(&log.document(Some(position))).1);
    }

    #[test]
    fn paths_that_are_no_text_are_told_exactly() {
        let odd: &[u8] = b"h/r/odd-\xff";
        let change = PathChange::new(ChangeKind::Added, odd, None);
        let line = encoded(&change);
        let back: PathChange = serde_json::from_slice(&line).unwrap();
        assert_eq!(back, change);
        let path = back.below(Path::new("/mnt")).to_path();
        assert_eq!(
            path.as_os_str().as_encoded_bytes(),
            b"/mnt/h/r/odd-\xff".as_slice()
        );
        assert!(!String::from_utf8_lossy(&encoded(&self::change("a"))).contains("path_bytes"));
    }
}
