//! The tables of a cluster, each with the prefix of its keys.

use std::sync::Arc;

use monofs_proto::v1;

use super::follow::{SharedState, StateFollower};
use super::table::StateTable;

/// The tables of a cluster.
pub struct StateTables {
    /// By member id: as it last announced itself; state, use of disk and share are not kept here.
    pub members: Arc<StateTable<v1::Member>>,
    /// By node id.
    pub intents: Arc<StateTable<v1::NodeIntent>>,
    /// One row without a name, while the cluster is drained.
    pub maintenance: Arc<StateTable<v1::Maintenance>>,
    /// By node id.
    pub audits: Arc<StateTable<v1::NodeAudit>>,
    /// By job id.
    pub jobs: Arc<StateTable<v1::Job>>,
    /// By router id; held by each router while it runs.
    pub routers: Arc<StateTable<v1::RouterStatus>>,
    /// One row without a name, held by the leader.
    pub leader: Arc<StateTable<v1::RouterStatus>>,
    /// By display path; held by the router that works on it.
    pub claims: Arc<StateTable<v1::PathClaim>>,
}

impl StateTables {
    /// Empty ones; they fill when `shared` is started with their followers.
    pub fn new(shared: &Arc<SharedState>) -> Self {
        Self {
            members: StateTable::new(shared, "member/"),
            intents: StateTable::new(shared, "intent/"),
            maintenance: StateTable::new(shared, "maintenance/"),
            audits: StateTable::new(shared, "audit/"),
            jobs: StateTable::new(shared, "job/"),
            routers: StateTable::new(shared, "router/"),
            leader: StateTable::new(shared, "leader/"),
            claims: StateTable::new(shared, "ingest/"),
        }
    }

    /// All of them, to be followed.
    pub fn followers(&self) -> Vec<Arc<dyn StateFollower>> {
        vec![
            self.members.clone(),
            self.intents.clone(),
            self.maintenance.clone(),
            self.audits.clone(),
            self.jobs.clone(),
            self.routers.clone(),
            self.leader.clone(),
            self.claims.clone(),
        ]
    }
}
