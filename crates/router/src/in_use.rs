//! Sees to it that what this router's clients still read of replaced snapshots is on the nodes that
//! hold those: contents of a lazy repository may be nowhere but upstream, which may not have them
//! any more when they are read.
//!
//! Each router asks for its own clients. A node that has them says so; one that has not pulls them,
//! and is asked again until it has, with growing pauses. Nothing here decides what is kept
//! ([`crate::readers`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use monofs_control::catalog::RetainedSnapshot;
use monofs_model::limits::CONTENT_REQUEST_ITEMS_MAX;
use monofs_model::{DisplayPath, ErrorKind, Member, Oid, Result};
use tokio_util::sync::CancellationToken;

use crate::parts::Parts;

/// Snapshots that nodes are asked about at the same time.
const SNAPSHOTS_AT_ONCE: usize = 8;
/// Pause before nodes are asked again about one snapshot; doubled with each time.
const AGAIN_FIRST: Duration = Duration::from_secs(2);
const AGAIN_MAX: Duration = Duration::from_secs(300);

/// A snapshot, by path and commit.
type SnapshotKey = (String, Oid);

/// How far the contents in use of one snapshot are.
struct KeptContents {
    contents: BTreeSet<Oid>,
    /// When nodes are asked next; `None`: all of them have them.
    next: Option<Instant>,
    pause: Duration,
}

impl KeptContents {
    fn new(contents: BTreeSet<Oid>, now: Instant) -> Self {
        Self {
            contents,
            next: Some(now),
            pause: AGAIN_FIRST,
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    fn asked(&mut self, answer: &Result<HolderState>, now: Instant) {
        if matches!(answer, Ok(HolderState::Complete)) {
            self.next = None;
            return;
        }
        self.next = Some(now + self.pause);
        self.pause = (self.pause * 2).min(AGAIN_MAX);
    }
}

/// Whether the holders of a snapshot have its contents in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HolderState {
    Complete,
    Pulling,
}

/// Asks until `stop`.
pub(crate) async fn run(state: Arc<Parts>, stop: CancellationToken) {
    let mut known: BTreeMap<SnapshotKey, KeptContents> = BTreeMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(state.config.worker_interval) => {}
        }
        let now = Instant::now();
        take_over(&mut known, contents_in_use(&state), now);
        let mut due = Vec::new();
        for (key, kept) in &known {
            if kept.is_due(now) {
                due.push(ask(
                    &state,
                    key.clone(),
                    kept.contents.iter().copied().collect(),
                ));
            }
        }
        let answers = futures::stream::iter(due)
            .buffer_unordered(SNAPSHOTS_AT_ONCE)
            .collect::<Vec<_>>();
        let Some(answers) = stop.run_until_cancelled(answers).await else {
            return;
        };
        for (key, answer) in answers {
            if let Some(kept) = known.get_mut(&key) {
                kept.asked(&answer, Instant::now());
            }
        }
    }
}

/// What clients of this router named, by snapshot.
fn contents_in_use(state: &Parts) -> BTreeMap<SnapshotKey, BTreeSet<Oid>> {
    let mut named: BTreeMap<SnapshotKey, BTreeSet<Oid>> = BTreeMap::new();
    for used in state.work.watchers.contents_in_use() {
        let contents = named.entry((used.path, used.commit)).or_default();
        contents.extend(used.contents);
    }
    named
}

/// Forgets what is in use no more, and begins anew with what became more.
fn take_over(
    known: &mut BTreeMap<SnapshotKey, KeptContents>,
    in_use: BTreeMap<SnapshotKey, BTreeSet<Oid>>,
    now: Instant,
) {
    known.retain(|key, _| in_use.contains_key(key));
    for (key, contents) in in_use {
        let is_known = |kept: &KeptContents| kept.contents.is_superset(&contents);
        if !known.get(&key).is_some_and(is_known) {
            known.insert(key, KeptContents::new(contents, now));
        }
    }
}

/// Asks about one snapshot.
async fn ask(
    state: &Parts,
    key: SnapshotKey,
    contents: Vec<Oid>,
) -> (SnapshotKey, Result<HolderState>) {
    let (path, commit) = &key;
    let answer = ask_holders(state, path, commit, &contents).await;
    if let Err(error) = &answer {
        tracing::warn!(path, %commit, %error, "contents that readers hold open cannot be kept yet; \
         trying again");
    }
    (key, answer)
}

/// Asks every holder of a replaced snapshot. Errors: the first of a holder's or the state store's.
async fn ask_holders(
    state: &Parts,
    path: &str,
    commit: &Oid,
    contents: &[Oid],
) -> Result<HolderState> {
    let path = DisplayPath::new(path)?;
    let id = path.storage_id();
    let replaced = state.control.retained.of(Some(&id)).await?;
    let is_it = |retained: &&RetainedSnapshot| retained.snapshot.commit == *commit;
    let retained = replaced.get(&id).and_then(|all| all.iter().find(is_it));
    let Some(retained) = retained else {
        // It is shown again, or not replaced yet as this router sees it.
        return Ok(HolderState::Pulling);
    };
    let view = state.fleet.members.view();
    let holders = view
        .nodes()
        .filter(|node| retained.holders.contains(&node.id));
    let mut all = HolderState::Complete;
    let mut failure = None;
    for node in holders {
        match ask_holder(state, node, retained, contents).await {
            Ok(HolderState::Complete) => {}
            Ok(HolderState::Pulling) => all = HolderState::Pulling,
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or(Ok(all), Err)
}

async fn ask_holder(
    state: &Parts,
    node: &Member,
    retained: &RetainedSnapshot,
    contents: &[Oid],
) -> Result<HolderState> {
    let id = retained.path.storage_id();
    for part in contents.chunks(CONTENT_REQUEST_ITEMS_MAX) {
        let commit = &retained.snapshot.commit;
        match state.fleet.keep_contents(node, &id, commit, part).await {
            Ok(0) => {}
            // The next part is asked for once the node has this one.
            Ok(_) => return Ok(HolderState::Pulling),
            // It is a holder no more.
            Err(error) if error.kind == ErrorKind::NotHeld => {}
            Err(error) => return Err(error.context(format!("node {}", node.id))),
        }
    }
    Ok(HolderState::Complete)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::snapshot;

    fn contents(bytes: &[u8]) -> BTreeSet<Oid> {
        bytes.iter().map(|byte| snapshot(*byte).commit).collect()
    }

    fn key(path: &str) -> SnapshotKey {
        (path.to_owned(), snapshot(1).commit)
    }

    #[test]
    fn nodes_are_asked_again_when_more_is_in_use_and_not_when_less_is() {
        let now = Instant::now();
        let mut known = BTreeMap::new();
        take_over(&mut known, [(key("h/a"), contents(&[1, 2]))].into(), now);
        let kept = known.get_mut(&key("h/a")).expect("known");
        assert!(kept.is_due(now));
        kept.asked(&Ok(HolderState::Complete), now);
        assert!(!kept.is_due(now + AGAIN_MAX));
        take_over(&mut known, [(key("h/a"), contents(&[2]))].into(), now);
        assert!(!known[&key("h/a")].is_due(now + AGAIN_MAX));
        take_over(&mut known, [(key("h/a"), contents(&[2, 3]))].into(), now);
        assert!(known[&key("h/a")].is_due(now));
        take_over(&mut known, BTreeMap::new(), now);
        assert!(known.is_empty());
    }

    #[test]
    fn pauses_grow_while_contents_do_not_come() {
        let now = Instant::now();
        let mut kept = KeptContents::new(contents(&[1]), now);
        for _ in 0..20 {
            kept.asked(&Ok(HolderState::Pulling), now);
        }
        assert_eq!(kept.next, Some(now + AGAIN_MAX));
        let unreachable = monofs_model::Error::unavailable("away");
        kept.asked(&Err(unreachable), now);
        assert_eq!(kept.next, Some(now + AGAIN_MAX));
    }
}
