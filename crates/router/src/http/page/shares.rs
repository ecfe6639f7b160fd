//! How the copies lie on the nodes, against what placement wants, and what the loss of a node would do. Arithmetic over the
//! whole catalogue, kept for a moment so that many who look cost as much as one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use monofs_model::placement::{Candidate, PlacementKey, Placer};
use monofs_model::{NodeId, Repository, RepositoryState, Result};
use tokio::sync::Mutex;

use super::Pages;
use super::repositories::all;
use crate::RouterState;

/// How long what was worked out is shown.
const KEPT: Duration = Duration::from_secs(3);
/// Results that are kept: one for each node that is asked about.
const KEPT_MAX: usize = 16;

/// Copies and their raw bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub copies: u64,
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.copies += 1;
        self.bytes += bytes;
    }
}

/// What one node has and should have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Share {
    /// Recorded on it.
    pub held: Amount,
    /// Placement wants it there.
    pub wanted: Amount,
    /// It would be given, if the node that is asked about were lost.
    pub gains: Amount,
}

/// What a node's loss would do to the repositories that are ready.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Loss {
    /// They would have one copy less.
    pub touched: u64,
    /// Of those, they would have none: nobody else holds them.
    pub gone: u64,
    /// To be made again, elsewhere.
    pub again: Amount,
    /// Of those, nobody could take them.
    pub homeless: u64,
}

/// All shares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shares {
    pub nodes: BTreeMap<NodeId, Share>,
    pub loss: Loss,
}

/// What was worked out last, by the node whose loss was asked about.
#[derive(Default)]
pub(super) struct Cached(Mutex<Vec<(Option<NodeId>, Instant, Arc<Shares>)>>);

/// The shares now, or a moment ago. Errors: those of [`Pages::scan`].
pub(super) async fn now(pages: &Pages, lost: Option<&NodeId>) -> Result<Arc<Shares>> {
    // Held while it is worked out, so that one serves all who wait.
    let mut kept = pages.shares.0.lock().await;
    kept.retain(|(_, at, _)| at.elapsed() < KEPT);
    if let Some((.., shares)) = kept.iter().find(|(of, ..)| of.as_ref() == lost) {
        return Ok(shares.clone());
    }
    let of = lost.cloned();
    let shares = Arc::new(pages.scan(move |state| work_out(state, of.as_ref())).await?);
    if kept.len() < KEPT_MAX {
        kept.push((lost.cloned(), Instant::now(), shares.clone()));
    }
    Ok(shares)
}

fn work_out(state: &RouterState, lost: Option<&NodeId>) -> Shares {
    let copies = state.members.view().replication_factor.max(1) as usize;
    shares(&state.members.placement_nodes(), copies, lost, all(state))
}

/// The shares of `entries` on `candidates`; `lost`: the node whose loss is asked about.
fn shares(
    candidates: &[Candidate],
    copies: usize,
    lost: Option<&NodeId>,
    entries: impl Iterator<Item = Arc<Repository>>,
) -> Shares {
    let numbered = || (0..).zip(candidates);
    let now = Placer::new(numbered());
    let then = lost.map(|lost| Placer::new(numbered().filter(|(_, candidate)| candidate.id != *lost)));
    let id = |tag: u32| &candidates[tag as usize].id;
    let mut shares = Shares::default();
    for entry in entries {
        let Some(snapshot) = entry.snapshot.as_ref().filter(|_| entry.state == RepositoryState::Ready) else { continue };
        let key = PlacementKey::of_number(entry.storage_id().number());
        for holder in &entry.holders {
            shares.nodes.entry(holder.clone()).or_default().held.add(snapshot.bytes);
        }
        for ranked in now.replicas(&key, copies) {
            shares.nodes.entry(id(ranked.tag).clone()).or_default().wanted.add(snapshot.bytes);
        }
        let (Some(lost), Some(then)) = (lost, &then) else { continue };
        if !entry.holders.contains(lost) {
            continue;
        }
        let left = entry.holders.len() - 1;
        shares.loss.touched += 1;
        shares.loss.gone += u64::from(left == 0);
        let mut missing = copies.saturating_sub(left);
        for ranked in then.replicas(&key, copies) {
            if missing > 0 && !entry.holders.contains(id(ranked.tag)) {
                missing -= 1;
                shares.loss.again.add(snapshot.bytes);
                shares.nodes.entry(id(ranked.tag).clone()).or_default().gains.add(snapshot.bytes);
            }
        }
        shares.loss.homeless += u64::from(missing > 0);
    }
    shares
}

#[cfg(test)]
mod tests {
    use monofs_model::{DisplayPath, ObjectFormat, ObjectKind, Oid, RefName, Snapshot, SourceUrl, placement};

    use super::*;

    fn node(id: &str) -> NodeId {
        NodeId::new(id).expect("an id")
    }

    fn candidates(weights: &[f64]) -> Vec<Candidate> {
        let candidate = |(n, weight): (usize, &f64)| Candidate {
            id: node(&format!("node{n}")),
            weight: *weight,
            zone: String::new(),
        };
        weights.iter().enumerate().map(candidate).collect()
    }

    fn entry(number: usize, candidates: &[Candidate], copies: usize) -> Arc<Repository> {
        let path = DisplayPath::new(&format!("h/repo{number}")).expect("a path");
        let oid = Oid::of(ObjectFormat::Sha1, ObjectKind::Tree, b"");
        Arc::new(Repository {
            holders: placement::replicas(&path.storage_id(), candidates, copies),
            path,
            source: SourceUrl::new("https://h/repo").expect("a source"),
            ref_name: RefName::new("main").expect("a ref"),
            state: RepositoryState::Ready,
            snapshot: Some(Snapshot {
                commit: oid,
                root: oid,
                commit_time: 0,
                trees: 1,
                blobs: 1,
                bytes: 10,
                submodules: Vec::new(),
            }),
            generation: 1,
            content: Default::default(),
            consistency: Default::default(),
            created_at: 0,
            refreshed_at: 0,
            last_error: String::new(),
        })
    }

    #[test]
    fn what_is_held_is_what_is_wanted_where_nothing_moves() {
        let nodes = candidates(&[1.0, 2.0, 1.0]);
        let entries = (0..300).map(|number| entry(number, &nodes, 2));
        let shares = shares(&nodes, 2, None, entries);
        assert!(shares.nodes.values().all(|share| share.held == share.wanted && share.gains == Amount::default()));
        assert_eq!(shares.nodes.values().map(|share| share.held.copies).sum::<u64>(), 600);
        assert_eq!(shares.loss, Loss::default());
    }

    #[test]
    fn a_loss_is_made_good_by_those_who_do_not_hold_it_yet() {
        let nodes = candidates(&[1.0, 1.0, 1.0]);
        let all = || (0..300).map(|number| entry(number, &nodes, 2));
        let lost = node("node1");
        let told = shares(&nodes, 2, Some(&lost), all());
        let held = told.nodes[&lost].held;
        assert_eq!((told.loss.touched, told.loss.gone, told.loss.again), (held.copies, 0, held));
        assert_eq!(told.nodes[&lost].gains, Amount::default());
        let gains: u64 = told.nodes.values().map(|share| share.gains.copies).sum();
        assert_eq!((gains, told.loss.homeless), (held.copies, 0));
        // With two nodes for two copies nobody can take them, and single copies are gone.
        let two = candidates(&[1.0, 1.0]);
        let told = shares(&two, 2, Some(&lost), (0..10).map(|number| entry(number, &two, 2)));
        assert_eq!((told.loss.again.copies, told.loss.homeless), (0, 10));
        let told = shares(&two, 1, Some(&lost), (0..10).map(|number| entry(number, &two, 1)));
        assert_eq!((told.loss.touched, told.loss.gone), (told.loss.again.copies, told.loss.touched));
    }
}
