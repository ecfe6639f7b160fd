//! Where walks begin: in a repository of which several directories were missed within a short time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use monofs_content::repo::Repo;
use monofs_model::{Oid, StorageId};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::walk::{self, DirectoryVisit, WalkParts};
use super::window::DirectoryReading;

/// A walk is assumed when this many directories were missed within this time.
const WALK_DIRECTORIES: usize = 3;
const WALK_WITHIN: Duration = Duration::from_secs(2);
/// Repositories whose misses are remembered.
const REPOS_MAX: usize = 256;
/// Visits that a walk has not looked at yet; it is not told of more.
const VISITS_MAX: usize = 256;

/// The directories of one repository that were missed lately, and the walk that follows its
/// readers.
#[derive(Default)]
struct RepoTrack {
    missed: VecDeque<(Oid, Instant)>,
    walk: Option<mpsc::Sender<DirectoryVisit>>,
}

impl RepoTrack {
    fn walk(&self) -> Option<&mpsc::Sender<DirectoryVisit>> {
        self.walk.as_ref().filter(|walk| !walk.is_closed())
    }

    /// Remembers a miss in the directory `tree`.
    fn note(&mut self, tree: Oid, now: Instant) -> DirectoryReading {
        self.missed
            .retain(|(_, at)| now.duration_since(*at) < WALK_WITHIN);
        let before = self.missed.len();
        self.missed.retain(|(missed, _)| *missed != tree);
        let reading = if self.missed.len() < before {
            DirectoryReading::GoesOn
        } else {
            DirectoryReading::Begins
        };
        self.missed.push_back((tree, now));
        reading
    }
}

/// All walks of a mount.
pub(super) struct Walks {
    parts: WalkParts,
    tracks: Mutex<HashMap<StorageId, RepoTrack>>,
}

impl Walks {
    /// No walk yet.
    pub fn new(parts: WalkParts) -> Self {
        Self {
            parts,
            tracks: Mutex::default(),
        }
    }

    /// A directory is being listed. Tells the walk that runs in its repository.
    pub fn listed(&self, repo: &StorageId, tree: Oid) {
        if let Some(walk) = self.tracks.lock().get(repo).and_then(RepoTrack::walk) {
            // A walk that is behind is not helped by more.
            let _ = walk.try_send(DirectoryVisit::Listed(tree));
        }
    }

    /// A small file of this directory was not at hand. Starts a walk, or tells the one that runs.
    pub fn missed(&self, repo: &Arc<Repo>, tree: Oid) -> DirectoryReading {
        let (reading, visits) = self.note_miss(repo, tree);
        // Without the lock: a runtime that is ending drops a new task at once.
        if let Some(visits) = visits {
            walk::start(&self.parts, repo.clone(), visits);
        }
        reading
    }

    /// Remembers a miss. Also returns the visits that a walk is to follow, if one is to start.
    fn note_miss(
        &self,
        repo: &Arc<Repo>,
        tree: Oid,
    ) -> (DirectoryReading, Option<mpsc::Receiver<DirectoryVisit>>) {
        let mut tracks = self.tracks.lock();
        if tracks.len() >= REPOS_MAX {
            tracks.retain(|_, track| track.walk().is_some());
        }
        let track = tracks.entry(repo.storage_id().clone()).or_default();
        let reading = track.note(tree, Instant::now());
        if let Some(walk) = track.walk() {
            // A walk that is behind is not helped by more.
            let _ = walk.try_send(DirectoryVisit::Missed(tree));
            return (reading, None);
        }
        if track.missed.len() < WALK_DIRECTORIES {
            return (reading, None);
        }
        let (walk, visits) = mpsc::channel(VISITS_MAX);
        for (tree, _) in track.missed.drain(..) {
            let _ = walk.try_send(DirectoryVisit::Missed(tree));
        }
        track.walk = Some(walk);
        (reading, Some(visits))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn tree(n: u8) -> Oid {
        Oid::from_bytes(&[n; 20]).unwrap()
    }

    #[test]
    fn a_directory_that_is_missed_again_goes_on_until_it_is_forgotten() {
        let mut track = RepoTrack::default();
        let start = Instant::now();
        assert_eq!(track.note(tree(1), start), DirectoryReading::Begins);
        assert_eq!(track.note(tree(2), start), DirectoryReading::Begins);
        assert_eq!(track.note(tree(1), start), DirectoryReading::GoesOn);
        assert_eq!(track.missed.len(), 2, "each directory counts once");
        let later = start + WALK_WITHIN;
        assert_eq!(track.note(tree(1), later), DirectoryReading::Begins);
        assert_eq!(track.missed.len(), 1, "the other one was forgotten");
    }
}
