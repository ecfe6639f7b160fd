//! Longer answers of the operator's verbs.

use monofs_proto::v1;
use monofs_proto::v1::ingest_progress::Phase;
use tonic::Status;

use super::World;

/// What an ingest or refresh that ends well tells.
pub fn steps(done: v1::Repository, unchanged: bool) -> Vec<Result<v1::IngestProgress, Status>> {
    let step = |phase: Phase| v1::IngestProgress { phase: phase.into(), ..Default::default() };
    let fetch = v1::FetchProgress { phase: 2, objects_done: 10, objects_total: 20, bytes_done: 2048, snapshot: None };
    let replica = v1::ReplicaProgress {
        node_id: "node1".into(),
        trees_done: 2,
        trees_total: 2,
        durable: true,
        ..Default::default()
    };
    let last =
        v1::IngestProgress { repository: Some(done), unchanged, replicas: vec![replica.clone()], ..step(Phase::Done) };
    vec![
        Ok(step(Phase::Resolving)),
        Ok(v1::IngestProgress { fetch: Some(fetch), ..step(Phase::Fetching) }),
        Ok(v1::IngestProgress { replicas: vec![replica], ..step(Phase::Adopting) }),
        Ok(last),
    ]
}

impl World {
    /// What it says of itself.
    pub fn status_now(&self) -> v1::StatusResponse {
        let member = |id: &str, state: v1::MemberState| v1::Member {
            id: id.into(),
            state: state.into(),
            address: format!("{id}:9000"),
            weight: 1.0,
            version: "0.1.0".into(),
            failed_over: self.operations.lock().unwrap().failed_over(id),
            ..Default::default()
        };
        let stat = v1::StatResponse { repositories: 2, disk_used_bytes: 4096, bytes_served: 77, ..Default::default() };
        let node = |id: &str, state, stat, error: &str| v1::NodeStatus {
            member: Some(member(id, state)),
            stat,
            error: error.into(),
        };
        let nodes = vec![
            node("node1", v1::MemberState::Active, Some(stat), ""),
            node("node2", v1::MemberState::Down, None, "connection refused"),
        ];
        let cache = v1::FetcherStatResponse {
            cache_bytes: 1024,
            cache_bytes_max: 2048,
            cache_hits: 3,
            cache_misses: 1,
            ..Default::default()
        };
        let fetcher = v1::FetcherStatus {
            member: Some(member("fetcher1", v1::MemberState::Active)),
            stat: Some(cache),
            error: String::new(),
        };
        let count = |state| self.repositories.lock().unwrap().iter().filter(|r| r.state() == state).count() as u64;
        v1::StatusResponse {
            version: "0.1.0".into(),
            view_number: 12,
            position: Some(v1::Position { epoch: "e".into(), revision: 40 }),
            nodes: if self.trees.is_empty() { Vec::new() } else { nodes },
            fetchers: if self.trees.is_empty() { Vec::new() } else { vec![fetcher] },
            repositories_ready: count(v1::RepositoryState::Ready),
            repositories_ingesting: count(v1::RepositoryState::Ingesting),
            replication_factor: 2,
            problems: self.problems.clone(),
            started_at: 1_700_000_000,
            router_id: "router1".into(),
            ..if self.unable { v1::StatusResponse::default() } else { self.operations.lock().unwrap().status() }
        }
    }
}
