//! Who is in the cluster and in what state: fed by probes, heartbeats and clients' reports.
//!
//! Invariants: [`step`] is a pure function of when a member was last heard of; the view's number grows at every change
//! that placement or readers can see, also over restarts of the router.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::join_all;
use monofs_model::view::Role;
use monofs_model::{ClusterView, Error, Member, MemberState, NodeId, Result};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::RouterState;
use crate::config::Config;

/// Most members; another one is refused.
const MEMBERS_MAX: usize = 10_000;
/// Deadline of one probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

struct Tracked {
    member: Member,
    /// It came (back), perhaps without what it held.
    audit: bool,
    /// `None` = never.
    heard: Option<Instant>,
}

pub(crate) struct Members {
    tracked: Mutex<BTreeMap<NodeId, Tracked>>,
    view: watch::Sender<ClusterView>,
    threshold: Duration,
    probe_now: Notify,
}

/// The state after `silence` (`None` = never heard of).
///
/// ```text
///  joining --heard--> active --half the threshold--> suspect --threshold--> down
///                       ^------------------------- heard -------------------|
/// ```
fn step(silence: Option<Duration>, threshold: Duration) -> MemberState {
    match silence {
        None => MemberState::Joining,
        Some(silence) if silence <= threshold / 2 => MemberState::Active,
        Some(silence) if silence <= threshold => MemberState::Suspect,
        Some(_) => MemberState::Down,
    }
}

impl Members {
    pub fn new(config: &Config) -> Result<Self> {
        let tracked: BTreeMap<NodeId, Tracked> = config
            .members
            .iter()
            .map(|fixed| {
                let member = Member {
                    id: fixed.id.clone(),
                    role: fixed.role,
                    address: fixed.address.clone(),
                    external_address: fixed.external_address.clone(),
                    weight: fixed.weight,
                    zone: fixed.zone.clone(),
                    state: MemberState::Joining,
                    version: String::new(),
                    capacity_bytes: 0,
                    used_bytes: 0,
                    incarnation: 0,
                    share_percent: 100,
                    failed_over: false,
                };
                (fixed.id.clone(), Tracked { member, heard: None, audit: true })
            })
            .collect();
        if tracked.len() != config.members.len() {
            return Err(Error::invalid("two members have the same id"));
        }
        let first = ClusterView {
            // Milliseconds, so that a restarted router goes on above the numbers that it gave before.
            number: crate::clock::now() as u64 * 1000,
            members: tracked.values().map(|t| t.member.clone()).collect(),
            replication_factor: config.replication_factor,
        };
        Ok(Self {
            tracked: Mutex::new(tracked),
            view: watch::channel(first).0,
            threshold: config.unhealthy_threshold,
            probe_now: Notify::new(),
        })
    }

    /// The view as it is now.
    pub fn view(&self) -> ClusterView {
        self.view.borrow().clone()
    }

    /// Wakes at every change of the view.
    pub fn subscribe(&self) -> watch::Receiver<ClusterView> {
        self.view.subscribe()
    }

    /// A member announced itself. Errors: `Full`.
    pub fn announced(&self, mut member: Member) -> Result<()> {
        let mut tracked = self.lock();
        if tracked.len() >= MEMBERS_MAX && !tracked.contains_key(&member.id) {
            return Err(Error::full(format!("the cluster has {MEMBERS_MAX} members already")));
        }
        if let Some(known) = tracked.get(&member.id) {
            if known.member.address != member.address {
                tracing::warn!(id = %member.id, was = %known.member.address, is = %member.address, "member moved, or two members share an id");
            }
            if member.external_address.is_empty() {
                member.external_address.clone_from(&known.member.external_address);
            }
        } else {
            tracing::info!(id = %member.id, address = %member.address, "member joined");
        }
        let known = tracked.get(&member.id);
        let audit = known.is_none_or(|known| known.audit || known.member.incarnation != member.incarnation);
        member.state = known.map_or(MemberState::Joining, |known| known.member.state);
        tracked.insert(member.id.clone(), Tracked { member, heard: Some(Instant::now()), audit });
        self.publish(tracked);
        Ok(())
    }

    /// A probe was answered.
    fn answered(&self, id: &NodeId) {
        let mut tracked = self.lock();
        if let Some(known) = tracked.get_mut(id) {
            known.heard = Some(Instant::now());
        }
        self.publish(tracked);
    }

    /// The active nodes that came (back) since they were taken from here last.
    pub fn take_audits(&self) -> Vec<Member> {
        let mut tracked = self.lock();
        let due = |known: &&mut Tracked| {
            known.audit && known.member.role == Role::Node && known.member.state == MemberState::Active
        };
        let take = |known: &mut Tracked| {
            known.audit = false;
            known.member.clone()
        };
        tracked.values_mut().filter(due).map(take).collect()
    }

    /// An audit of this node could not be done.
    pub fn audit_again(&self, id: &NodeId) {
        if let Some(known) = self.lock().get_mut(id) {
            known.audit = true;
        }
    }

    /// Somebody saw a member fail: look at once.
    pub fn reported(&self) {
        self.probe_now.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, Tracked>> {
        self.tracked.lock().expect("no holder of this lock panics")
    }

    /// Recomputes states and publishes the view if anything that matters changed.
    fn publish(&self, mut tracked: std::sync::MutexGuard<'_, BTreeMap<NodeId, Tracked>>) {
        for known in tracked.values_mut() {
            let state = step(known.heard.map(|at| at.elapsed()), self.threshold);
            if state != known.member.state {
                tracing::info!(id = %known.member.id, from = known.member.state.as_str(), to = state.as_str(), "member state");
                known.audit |= state == MemberState::Active;
                known.member.state = state;
            }
        }
        let members: Vec<Member> = tracked.values().map(|t| t.member.clone()).collect();
        // Sent under the lock, so that two changes cannot overtake each other.
        self.view.send_if_modified(|view| {
            let same = view.members.len() == members.len()
                && view.members.iter().zip(&members).all(|(a, b)| matters_alike(a, b));
            view.members = members;
            view.number += u64::from(!same);
            !same
        });
    }
}

/// Whether two states of a member are the same to placement and readers (use of disk is not).
fn matters_alike(a: &Member, b: &Member) -> bool {
    Member { used_bytes: 0, ..a.clone() } == Member { used_bytes: 0, ..b.clone() }
}

/// Probes every member, in parallel, until `stop`.
pub(crate) async fn probe(state: Arc<RouterState>, stop: CancellationToken) {
    loop {
        let members = state.members.view().members;
        join_all(members.iter().map(|member| async {
            match probe_one(&state, member).await {
                Ok(()) => state.members.answered(&member.id),
                Err(error) => tracing::debug!(id = %member.id, %error, "probe failed"),
            }
        }))
        .await;
        state.members.publish(state.members.lock());
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(state.config.health_interval) => {}
            () = state.members.probe_now.notified() => {}
        }
    }
}

async fn probe_one(state: &RouterState, member: &Member) -> Result<()> {
    let mut client = HealthClient::new(state.channels.get(&member.address)?);
    let request = monofs_rpc::Context::new(PROBE_TIMEOUT).request(HealthCheckRequest { service: String::new() });
    let answer = monofs_rpc::within(PROBE_TIMEOUT, "health probe", async {
        client.check(request).await.map_err(monofs_rpc::from_status)
    });
    match answer.await?.into_inner().status() {
        ServingStatus::Serving => Ok(()),
        other => Err(Error::unavailable(format!("{} says {}", member.id, other.as_str_name()))),
    }
}

/// The nodes that new copies may be placed on, as placement sees them.
pub(crate) fn placeable(view: &ClusterView) -> Vec<monofs_model::placement::Candidate> {
    view.nodes().filter(|member| member.state.accepts()).map(Into::into).collect()
}

/// The node called `id`. Errors: `NotFound`.
pub(crate) fn node<'a>(view: &'a ClusterView, id: &str) -> Result<&'a Member> {
    let found = view.members.iter().find(|member| member.role == Role::Node && member.id.as_str() == id);
    found.ok_or_else(|| Error::not_found(format!("no node '{}'; `monofs-admin nodes` lists them", id.escape_debug())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_decides_the_state() {
        let threshold = Duration::from_secs(6);
        let after = |secs| step(Some(Duration::from_secs(secs)), threshold);
        assert_eq!(step(None, threshold), MemberState::Joining);
        assert_eq!(
            [after(0), after(3), after(4), after(6), after(7)],
            [MemberState::Active, MemberState::Active, MemberState::Suspect, MemberState::Suspect, MemberState::Down,]
        );
    }

    fn member(id: &str, used_bytes: u64) -> Member {
        Member {
            id: NodeId::new(id).expect("valid"),
            role: Role::Node,
            address: "127.0.0.1:1".into(),
            external_address: String::new(),
            weight: 1.0,
            zone: String::new(),
            state: MemberState::Active,
            version: String::new(),
            capacity_bytes: 0,
            used_bytes,
            incarnation: 0,
            share_percent: 100,
            failed_over: false,
        }
    }

    #[test]
    fn the_view_number_grows_only_when_something_matters() {
        let members = Members::new(&Config::new("/nowhere".into())).expect("no members yet");
        members.announced(member("a", 1)).expect("room");
        let first = members.view().number;
        members.announced(member("a", 2)).expect("room");
        assert_eq!((members.view().number, members.view().members[0].used_bytes), (first, 2));
        members.announced(member("b", 1)).expect("room");
        assert_eq!(members.view().number, first + 1);
    }
}
