//! Which node holds how much of all copies, and what the loss of one would do: one pass over the
//! catalogue, page by page, on a thread that may block.

use std::collections::{BTreeMap, HashMap};

use monofs_api::placement::{Loss, LossTarget, NamedNode, NodeShare, PlacementDocument, ZoneShare};
use monofs_api::said;
use monofs_model::placement::{Candidate, PlacementKey, Placer};
use monofs_model::{ClusterView, Error, NodeId, Repository, Result};

use crate::site::Site;

/// Entries looked at while the catalogue cannot change.
const PAGE: usize = 1000;

/// Copies and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct HeldSum {
    copies: u64,
    bytes: u64,
}

impl HeldSum {
    fn add(&mut self, bytes: u64) {
        self.copies += 1;
        self.bytes += bytes;
    }

    /// As what `node` would be given.
    fn gained(&self, node: &NodeId) -> LossTarget {
        LossTarget {
            node: NamedNode::new(node.to_string()),
            copies: self.copies,
            bytes: self.bytes,
        }
    }
}

/// Which node holds how much now, and what would be if `without` were not there. Errors: the router
/// stops.
pub(crate) async fn survey(site: &Site, without: Option<NodeId>) -> Result<PlacementDocument> {
    let _place = site
        .surveys
        .acquire()
        .await
        .map_err(|_| Error::unavailable("this router stops"))?;
    let state = site.router.clone();
    let work = tokio::task::spawn_blocking(move || {
        let view = state.fleet.members.view();
        let candidates = state.fleet.members.placement_nodes();
        let mut survey = Survey::new(&view, candidates, without);
        let mut after = String::new();
        loop {
            let page = state.control.catalog.page("", &after, PAGE);
            let Some(last) = page.last() else {
                return survey.finish();
            };
            after = last.path.to_string();
            page.iter().for_each(|entry| survey.look(entry));
        }
    });
    work.await
        .map_err(|e| Error::internal(format!("the survey of copies ended early: {e}")))
}

struct Survey<'a> {
    view: &'a ClusterView,
    candidates: Vec<Candidate>,
    repositories: u64,
    held: HashMap<NodeId, HeldSum>,
    loss: Option<LossSurvey>,
}

/// What would be without a node.
struct LossSurvey {
    node: NodeId,
    /// Of the nodes that are left and should hold copies, in the order of their tags.
    left: Vec<NodeId>,
    placer: Placer,
    lost: HeldSum,
    below: u64,
    without_copy: u64,
    targets: HashMap<NodeId, HeldSum>,
}

impl<'a> Survey<'a> {
    fn new(view: &'a ClusterView, candidates: Vec<Candidate>, without: Option<NodeId>) -> Self {
        let loss = without.map(|node| {
            let left: Vec<&Candidate> = candidates
                .iter()
                .filter(|candidate| candidate.id != node)
                .collect();
            LossSurvey {
                placer: Placer::new(
                    left.iter()
                        .enumerate()
                        .map(|(tag, candidate)| (tag as u32, *candidate)),
                ),
                left: left.iter().map(|candidate| candidate.id.clone()).collect(),
                node,
                lost: HeldSum::default(),
                below: 0,
                without_copy: 0,
                targets: HashMap::new(),
            }
        });
        Self {
            view,
            candidates,
            repositories: 0,
            held: HashMap::new(),
            loss,
        }
    }

    fn look(&mut self, entry: &Repository) {
        let Some(snapshot) = &entry.snapshot else {
            return;
        };
        self.repositories += 1;
        for holder in &entry.holders {
            self.held
                .entry(holder.clone())
                .or_default()
                .add(snapshot.bytes);
        }
        if let Some(loss) = &mut self.loss
            && entry.holders.contains(&loss.node)
        {
            loss.look(self.view, entry, snapshot.bytes);
        }
    }

    fn finish(self) -> PlacementDocument {
        let all = self
            .held
            .values()
            .fold(HeldSum::default(), |sum, held| HeldSum {
                copies: sum.copies + held.copies,
                bytes: sum.bytes + held.bytes,
            });
        let weights: f64 = self
            .candidates
            .iter()
            .map(|candidate| candidate.weight)
            .sum();
        let mut zones: BTreeMap<&str, ZoneShare> = BTreeMap::new();
        let mut nodes = Vec::new();
        for member in self.view.nodes() {
            let held = self.held.get(&member.id).copied().unwrap_or_default();
            let zone = zones.entry(&member.zone).or_insert_with(|| ZoneShare {
                zone: said(&member.zone),
                nodes: 0,
                copies: 0,
                bytes: 0,
            });
            (zone.nodes, zone.copies, zone.bytes) = (
                zone.nodes + 1,
                zone.copies + held.copies,
                zone.bytes + held.bytes,
            );
            let wanted = self
                .candidates
                .iter()
                .find(|candidate| candidate.id == member.id);
            nodes.push(NodeShare {
                node: NamedNode::new(member.id.to_string()),
                zone: said(&member.zone),
                weight: member.weight,
                state: member.state.into(),
                copies: held.copies,
                bytes: held.bytes,
                share: if all.copies == 0 {
                    0.0
                } else {
                    held.copies as f64 / all.copies as f64
                },
                share_wanted: wanted
                    .filter(|_| weights > 0.0)
                    .map_or(0.0, |wanted| wanted.weight / weights),
                disk_used_bytes: member.used_bytes,
                capacity_bytes: (member.capacity_bytes != 0).then_some(member.capacity_bytes),
            });
        }
        PlacementDocument {
            replication_factor: self.view.replication_factor,
            repositories: self.repositories,
            copies: all.copies,
            bytes: all.bytes,
            nodes,
            zones: zones.into_values().collect(),
            without: self.loss.map(LossSurvey::finish),
        }
    }
}

impl LossSurvey {
    /// Looks at a repository that the node holds.
    fn look(&mut self, view: &ClusterView, entry: &Repository, bytes: u64) {
        let factor = view.replication_factor.max(1) as usize;
        self.lost.add(bytes);
        let kept: Vec<&NodeId> = entry
            .holders
            .iter()
            .filter(|holder| **holder != self.node)
            .collect();
        let serves = |id: &NodeId| {
            view.nodes()
                .any(|node| node.id == *id && node.state.serves())
        };
        self.below += u64::from(kept.len() < factor);
        self.without_copy += u64::from(!kept.iter().any(|id| serves(id)));
        let missing = factor.saturating_sub(kept.len());
        let chosen = self
            .placer
            .replicas(&PlacementKey::from(&entry.storage_id()), factor);
        let targets = chosen
            .iter()
            .filter_map(|ranked| self.left.get(ranked.tag as usize));
        for target in targets.filter(|id| !kept.contains(id)).take(missing) {
            self.targets.entry(target.clone()).or_default().add(bytes);
        }
    }

    fn finish(self) -> Loss {
        let targets = self.targets.iter();
        let mut targets: Vec<LossTarget> = targets.map(|(node, held)| held.gained(node)).collect();
        targets.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.node.cmp(&b.node)));
        Loss {
            node: NamedNode::new(self.node.to_string()),
            copies: self.lost.copies,
            below_copies: self.below,
            without_copy: self.without_copy,
            bytes_to_copy: targets.iter().map(|target| target.bytes).sum(),
            targets,
        }
    }
}

#[cfg(test)]
mod tests {
    use monofs_model::view::Role;
    use monofs_model::{
        Consistency, ContentMode, DisplayPath, Member, MemberState, Oid, RefName, RepositoryState,
        Snapshot, SourceUrl,
    };

    use super::*;

    fn node(id: &str, state: MemberState) -> Member {
        Member {
            id: NodeId::new(id).expect("an id"),
            role: Role::Node,
            address: format!("{id}:1"),
            external_address: String::new(),
            weight: if id == "c" { 2.0 } else { 1.0 },
            zone: if id == "a" { "x".into() } else { String::new() },
            state,
            version: String::new(),
            capacity_bytes: 0,
            used_bytes: 7,
            incarnation: 1,
            share_percent: 100,
            failed_over: false,
        }
    }

    fn repository(path: &str, holders: &[&str], bytes: u64) -> Repository {
        let oid = Oid::from_bytes(&[1; 20]).expect("twenty bytes");
        Repository {
            path: DisplayPath::new(path).expect("a path"),
            source: SourceUrl::new("https://example.com/a/b").expect("a source"),
            ref_name: RefName::new("").expect("HEAD"),
            state: RepositoryState::Ready,
            snapshot: Some(Snapshot {
                commit: oid,
                root: oid,
                commit_time: 0,
                trees: 1,
                blobs: 1,
                bytes,
                submodules: Vec::new(),
                generations: None,
            }),
            generation: 1,
            generation_time: None,
            root_time: None,
            holders: holders
                .iter()
                .map(|id| NodeId::new(id).expect("an id"))
                .collect(),
            content: ContentMode::Eager,
            consistency: Consistency::Eventual,
            created_at: 1,
            refreshed_at: 1,
            last_error: String::new(),
            shadowed_by: None,
        }
    }

    #[test]
    fn the_loss_of_a_node_says_what_is_lost_and_where_it_is_made_again() {
        let members = vec![
            node("a", MemberState::Active),
            node("b", MemberState::Down),
            node("c", MemberState::Active),
            node("d", MemberState::Active),
        ];
        let view = ClusterView {
            number: 1,
            members,
            replication_factor: 2,
        };
        let candidates: Vec<Candidate> = view
            .nodes()
            .filter(|node| node.id.as_str() != "b")
            .map(Into::into)
            .collect();
        let mut survey = Survey::new(&view, candidates, Some(NodeId::new("a").expect("an id")));
        survey.look(&repository("r/1", &["a", "c"], 100));
        survey.look(&repository("r/2", &["a", "b"], 10));
        survey.look(&repository("r/3", &["a"], 1));
        survey.look(&repository("r/4", &["c", "d"], 1000));
        let placement = survey.finish();
        assert_eq!(
            (placement.repositories, placement.copies, placement.bytes),
            (4, 7, 2221)
        );
        let shares: Vec<_> = placement
            .nodes
            .iter()
            .map(|node| (node.copies, node.bytes, node.share_wanted))
            .collect();
        assert_eq!(
            shares,
            [
                (3, 111, 0.25),
                (1, 10, 0.0),
                (2, 1100, 0.5),
                (1, 1000, 0.25)
            ]
        );
        let zones: Vec<_> = placement
            .zones
            .iter()
            .map(|zone| (zone.zone.as_deref(), zone.nodes, zone.copies))
            .collect();
        assert_eq!(zones, [(None, 3, 4), (Some("x"), 1, 3)]);
        let loss = placement.without.expect("it was asked for");
        // r/1 keeps c, r/2 keeps b, which does not serve, r/3 keeps nothing.
        assert_eq!(
            (loss.copies, loss.below_copies, loss.without_copy),
            (3, 3, 2)
        );
        // d takes r/1; c or d takes r/2; both take r/3.
        assert_eq!(loss.bytes_to_copy, 100 + 10 + 2);
        assert_eq!(
            (loss.targets[0].node.node_id.as_str(), loss.targets.len()),
            ("d", 2)
        );
    }
}
