//! Longer answers of the operator's verbs.

use std::sync::atomic::Ordering;

use monofs_proto::v1;
use monofs_proto::v1::ingest_progress::Phase;
use tonic::Status;

use super::World;

/// What an ingest or refresh that ends well tells.
pub fn steps(done: v1::Repository, unchanged: bool) -> Vec<Result<v1::IngestProgress, Status>> {
    let step = |phase: Phase| v1::IngestProgress {
        phase: phase.into(),
        ..Default::default()
    };
    let fetch = v1::FetchProgress {
        phase: 2,
        objects_done: 10,
        objects_total: 20,
        bytes_done: 2048,
        snapshot: None,
    };
    let replica = v1::ReplicaProgress {
        node_id: "node1".into(),
        trees_done: 2,
        trees_total: 2,
        durable: true,
        ..Default::default()
    };
    let last = v1::IngestProgress {
        repository: Some(done),
        unchanged,
        replicas: vec![replica.clone()],
        fetch: Some(fetch.clone()),
        ..step(Phase::Done)
    };
    vec![
        Ok(step(Phase::Resolving)),
        Ok(v1::IngestProgress {
            fetch: Some(fetch),
            ..step(Phase::Fetching)
        }),
        Ok(v1::IngestProgress {
            replicas: vec![replica],
            ..step(Phase::Adopting)
        }),
        Ok(last),
    ]
}

/// What the node says of itself: everything is filled, and grows.
fn stat(asked: u64) -> v1::StatResponse {
    let mut request_durations = vec![0; 17];
    (request_durations[3], request_durations[9]) = (90 * asked, 10 * asked);
    v1::StatResponse {
        node_id: "node1".into(),
        version: "0.1.0".into(),
        repositories: 2,
        disk_used_bytes: 4096,
        disk_free_bytes: 1 << 30,
        open_stores: 2,
        hydrations_running: 1,
        hydrations_queued: 3,
        trees_served: 5 * asked,
        chunks_served: 6 * asked,
        bytes_served: 77 * asked,
        incarnation: 9,
        request_durations,
        requests_failed: asked,
        chunks_held: 3 * asked,
        chunks_missed: asked,
        other_askers: Vec::new(),
    }
}

/// The same of the fetcher.
fn cache(asked: u64) -> v1::FetcherStatResponse {
    v1::FetcherStatResponse {
        fetcher_id: "fetcher1".into(),
        version: "0.1.0".into(),
        cache_bytes: 1024,
        cache_bytes_max: 2048,
        cached_repositories: 2,
        cache_hits: 3,
        cache_misses: 1,
        fetches_running: 2,
        fetches_done: 10 * asked,
        fetches_failed: 1,
        bytes_fetched: 4096 * asked,
        fetches_waiting: 1,
        other_askers: Vec::new(),
        hosts_paused: Vec::new(),
    }
}

/// A mount that reports, and one that is too old to.
fn clients(asked: u64) -> Vec<v1::ClientStatus> {
    let report = v1::ClientReport {
        cache_bytes: 1 << 20,
        cache_bytes_max: 10 << 30,
        cache_hits: 99,
        cache_misses: 1,
        bytes_fetched: 1000 * asked,
        upcalls: 500 * asked,
        failed: 2,
        lagging: 1,
        resident_bytes: 50 << 20,
    };
    let old = v1::ClientStatus {
        client_id: "old".into(),
        version: "0.0.9".into(),
        mount: "/mnt/\u{1b}[31mold".into(),
        ..Default::default()
    };
    let new = v1::ClientStatus {
        client_id: "laptop".into(),
        version: "0.1.0".into(),
        mount: "/mnt/monofs".into(),
        acked_revision: 40,
        connected_at: 1_700_000_000,
        report: Some(report),
        reported_at: 1_700_000_100 + asked as i64,
        router_id: "router1".into(),
        in_use_snapshots: 2,
        in_use_contents: 7,
    };
    vec![new, old]
}

impl World {
    fn member(&self, id: &str, state: v1::MemberState) -> v1::Member {
        v1::Member {
            id: id.into(),
            state: state.into(),
            address: format!("{id}:9000"),
            external_address: format!("{id}.example.com:9000"),
            weight: 1.0,
            zone: "eu-west".into(),
            version: "0.1.0".into(),
            capacity_bytes: 1 << 40,
            used_bytes: 4096,
            failed_over: self.operations.lock().failed_over(id),
            ..Default::default()
        }
    }

    /// What it says of itself.
    pub fn status_now(&self) -> v1::StatusResponse {
        let asked = 1 + self.asked.fetch_add(1, Ordering::Relaxed);
        let nodes = vec![
            v1::NodeStatus {
                member: Some(self.member("node1", v1::MemberState::Active)),
                stat: Some(stat(asked)),
                error: String::new(),
            },
            v1::NodeStatus {
                member: Some(self.member("node2", v1::MemberState::Down)),
                stat: None,
                error: "connection refused".into(),
            },
        ];
        let mut nodes = nodes;
        if self.crowded {
            nodes.extend((0..129).map(|number| {
                let well = number < 99;
                let (name, state) = if well {
                    ("well", v1::MemberState::Active)
                } else {
                    ("down", v1::MemberState::Down)
                };
                let member = Some(self.member(&format!("{name}{number:03}"), state));
                v1::NodeStatus {
                    member,
                    stat: well.then(|| stat(asked)),
                    error: String::new(),
                }
            }));
        }
        let fetchers = vec![
            v1::FetcherStatus {
                member: Some(self.member("fetcher1", v1::MemberState::Active)),
                stat: Some(cache(asked)),
                error: String::new(),
            },
            v1::FetcherStatus {
                member: Some(self.member("fetcher2", v1::MemberState::Suspect)),
                stat: None,
                error: "no answer".into(),
            },
        ];
        let count = |state| {
            self.repositories
                .lock()
                .iter()
                .filter(|r| r.state() == state)
                .count() as u64
        };
        v1::StatusResponse {
            version: "0.1.0".into(),
            view_number: 12,
            position: Some(v1::Position {
                epoch: "e".into(),
                revision: 40,
            }),
            nodes: if self.trees.is_empty() {
                Vec::new()
            } else {
                nodes
            },
            fetchers: if self.trees.is_empty() {
                Vec::new()
            } else {
                fetchers
            },
            clients: if self.trees.is_empty() {
                Vec::new()
            } else {
                clients(asked)
            },
            repositories_ready: count(v1::RepositoryState::Ready),
            repositories_ingesting: count(v1::RepositoryState::Ingesting),
            replication_factor: 2,
            problems: self.problems.clone(),
            started_at: 1_700_000_000,
            router_id: "router1".into(),
            ..if self.unable {
                v1::StatusResponse::default()
            } else {
                self.operations.lock().status()
            }
        }
    }
}
