//! What operators want of the cluster, and the jobs that bring it about. `node1` is active, `node2`
//! is down.

use monofs_model::{Error, Result};
use monofs_proto::v1;
use monofs_proto::v1::job::{Kind, State};
use monofs_proto::v1::node_intent::Kind as Intent;

use super::REPO;

/// When everything here happened.
const SINCE: i64 = 1_700_000_100;

/// The state that routers share.
#[derive(Default)]
pub struct Operations {
    maintenance: Option<v1::Maintenance>,
    intents: Vec<v1::NodeIntent>,
    jobs: Vec<v1::Job>,
    /// How often a job was watched.
    watched: usize,
    removed: Vec<String>,
}

fn job(id: &str, kind: Kind, subject: &str) -> v1::Job {
    v1::Job {
        id: id.into(),
        kind: kind.into(),
        state: State::Running.into(),
        subject: subject.into(),
        reason: "asked for".into(),
        steps_done: 1,
        steps_total: 4,
        bytes_done: 1024,
        bytes_total: 4096,
        started_at: SINCE,
        message: format!("copies {REPO} to node1"),
        last_error: if id.ends_with("bad") {
            "node1: disk is nearly full".into()
        } else {
            String::new()
        },
        router_id: "router1".into(),
        ..Default::default()
    }
}

fn ended(job: v1::Job, state: State) -> v1::Job {
    v1::Job {
        state: state.into(),
        ended_at: SINCE + 60,
        message: "nothing is left to do".into(),
        ..job
    }
}

impl Operations {
    /// The part of the cluster's status that is kept here.
    pub fn status(&self) -> v1::StatusResponse {
        let router = |id: &str, leader| v1::RouterStatus {
            router_id: id.into(),
            address: format!("{id}:9090"),
            http_address: format!("{id}:8080"),
            version: "0.1.0".into(),
            started_at: SINCE,
            leader,
            compares_directories: true,
            nests_repositories: true,
        };
        v1::StatusResponse {
            routers: vec![router("router1", false), router("router2", true)],
            maintenance: self.maintenance.clone(),
            intents: self.intents.clone(),
            audits: vec![v1::NodeAudit {
                node_id: "node1".into(),
                at: SINCE,
                orphans: 1,
                orphan_bytes: 4096,
                orphan_paths: vec!["github.com/org/lost".into()],
                ..Default::default()
            }],
            hosts_paused: vec![v1::HostPause {
                host: "github.com".into(),
                cause: "HTTP 429 Too Many Requests".into(),
                retry_after_ms: 3_600_000,
                next_try_at: SINCE + 3600,
            }],
            kept_snapshots: vec![v1::KeptSnapshot {
                path: "github.com/org/one".into(),
                commit: vec![0xab; 20].into(),
                replaced_at: SINCE,
                until: SINCE + 24 * 3600,
                client_id: "laptop".into(),
                not_applied: false,
            }],
            kept_snapshots_total: 1,
            jobs: self
                .jobs
                .iter()
                .filter(|job| is_open(job))
                .cloned()
                .collect(),
            ..Default::default()
        }
    }

    /// Whether an operator moved reads off the node.
    pub fn failed_over(&self, node_id: &str) -> bool {
        self.intents
            .iter()
            .any(|intent| intent.node_id == node_id && intent.kind() == Intent::Failover)
    }

    fn known(&self, node_id: &str) -> Result<()> {
        let known =
            ["node1", "node2"].contains(&node_id) && !self.removed.iter().any(|id| id == node_id);
        if known {
            Ok(())
        } else {
            Err(Error::not_found(format!("no node is called {node_id}")))
        }
    }

    /// Records what is wanted of a node: whether it was wanted already, and the job.
    fn want(
        &mut self,
        node_id: String,
        kind: Intent,
        reason: String,
        force: bool,
    ) -> Result<(bool, String)> {
        self.known(&node_id)?;
        if self
            .intents
            .iter()
            .any(|intent| intent.node_id == node_id && intent.kind() == kind)
        {
            return Ok((true, String::new()));
        }
        if node_id == "node1" && !force {
            return Err(Error::refused(
                "without node1, 1 repository would have fewer than 2 copies",
            ));
        }
        let (id, work) = match kind {
            Intent::Failover => (format!("failover-{node_id}"), Kind::Failover),
            _ => (format!("drain-{node_id}"), Kind::Drain),
        };
        self.jobs.push(job(&id, work, &node_id));
        self.intents.retain(|intent| intent.node_id != node_id);
        self.intents.push(v1::NodeIntent {
            node_id,
            kind: kind.into(),
            reason,
            since: SINCE,
            force,
            emptied: false,
        });
        Ok((false, id))
    }

    /// Takes a wish back; whether there was none.
    fn unwant(&mut self, node_id: &str, kind: Intent) -> Result<bool> {
        self.known(node_id)?;
        let before = self.intents.len();
        self.intents
            .retain(|intent| intent.node_id != node_id || intent.kind() != kind);
        Ok(self.intents.len() == before)
    }

    pub fn drain(&mut self, request: v1::DrainRequest) -> Result<v1::DrainResponse> {
        if request.node_id.is_empty() {
            let unchanged = self.maintenance.is_some();
            self.maintenance.get_or_insert(v1::Maintenance {
                reason: request.reason,
                since: SINCE,
            });
            return Ok(v1::DrainResponse {
                unchanged,
                job_id: String::new(),
            });
        }
        let (unchanged, job_id) = self.want(
            request.node_id,
            Intent::Drain,
            request.reason,
            request.force,
        )?;
        Ok(v1::DrainResponse { unchanged, job_id })
    }

    pub fn undrain(&mut self, request: v1::UndrainRequest) -> Result<v1::UndrainResponse> {
        let unchanged = match request.node_id.as_str() {
            "" => self.maintenance.take().is_none(),
            node_id => self.unwant(node_id, Intent::Drain)?,
        };
        Ok(v1::UndrainResponse { unchanged })
    }

    pub fn trigger_failover(
        &mut self,
        request: v1::TriggerFailoverRequest,
    ) -> Result<v1::TriggerFailoverResponse> {
        let (unchanged, job_id) = self.want(
            request.node_id,
            Intent::Failover,
            request.reason,
            request.force,
        )?;
        Ok(v1::TriggerFailoverResponse { unchanged, job_id })
    }

    pub fn clear_failover(
        &mut self,
        request: v1::ClearFailoverRequest,
    ) -> Result<v1::ClearFailoverResponse> {
        Ok(v1::ClearFailoverResponse {
            unchanged: self.unwant(&request.node_id, Intent::Failover)?,
        })
    }

    pub fn list_failovers(
        &mut self,
        _: v1::ListFailoversRequest,
    ) -> Result<v1::ListFailoversResponse> {
        let down = v1::Failover {
            node_id: "node2".into(),
            state: v1::MemberState::Down.into(),
            reason: "it does not answer".into(),
            since: SINCE,
            repositories: 2,
            targets: vec![v1::FailoverTarget {
                node_id: "node1".into(),
                repositories: 2,
            }],
        };
        let moved = self
            .intents
            .iter()
            .filter(|intent| intent.kind() == Intent::Failover);
        let moved = moved.map(|intent| v1::Failover {
            node_id: intent.node_id.clone(),
            state: v1::MemberState::Active.into(),
            reason: intent.reason.clone(),
            since: intent.since,
            ..Default::default()
        });
        let failovers = self
            .known("node2")
            .is_ok()
            .then_some(down)
            .into_iter()
            .chain(moved)
            .collect();
        Ok(v1::ListFailoversResponse { failovers })
    }

    pub fn remove_member(
        &mut self,
        request: v1::RemoveMemberRequest,
    ) -> Result<v1::RemoveMemberResponse> {
        self.known(&request.member_id)?;
        if request.member_id == "node1" {
            return Err(Error::refused(
                "node1 is active; only a member that is down or drained can be removed",
            ));
        }
        self.removed.push(request.member_id);
        Ok(v1::RemoveMemberResponse {})
    }

    pub fn rebalance(&mut self, request: v1::RebalanceRequest) -> Result<v1::RebalanceResponse> {
        if request.path == "no/such" || request.storage_id.starts_with("ff") {
            return Err(Error::not_found("no repository is called that"));
        }
        if request.path == "gitlab.com/a/b/c" {
            return Ok(v1::RebalanceResponse::default());
        }
        if self.maintenance.is_some() && !request.dry_run {
            return Err(Error::refused("the cluster is drained: nothing moves"));
        }
        let copy = v1::PlannedMove {
            kind: v1::planned_move::Kind::Copy.into(),
            path: REPO.into(),
            node_id: "node1".into(),
            from: vec!["node2".into()],
            bytes: 4096,
            reason: "placement wants it there".into(),
        };
        let delete = v1::PlannedMove {
            kind: v1::planned_move::Kind::Delete.into(),
            node_id: "node2".into(),
            from: Vec::new(),
            reason: "one copy too many".into(),
            ..copy.clone()
        };
        let name = request
            .path
            .rsplit('/')
            .next()
            .filter(|name| !name.is_empty())
            .unwrap_or("all");
        let job_id = if request.dry_run {
            String::new()
        } else {
            format!("rebalance-{name}")
        };
        if !request.dry_run {
            self.jobs.push(job(&job_id, Kind::Rebalance, &request.path));
        }
        let (copies_total, deletes_total, bytes_total) = (1, 1, 4096);
        Ok(v1::RebalanceResponse {
            moves: vec![copy, delete],
            copies_total,
            deletes_total,
            bytes_total,
            job_id,
        })
    }

    pub fn list_jobs(&mut self, request: v1::ListJobsRequest) -> Result<v1::ListJobsResponse> {
        let trouble = "node3: no answer for a while".to_owned();
        let old = v1::Job {
            steps_done: 4,
            last_error: trouble,
            ..job("repair-0", Kind::Repair, "node3")
        };
        let old = ended(old, State::Done);
        let open = self
            .jobs
            .iter()
            .filter(|job| request.all || is_open(job))
            .cloned();
        Ok(v1::ListJobsResponse {
            jobs: open.chain(request.all.then_some(old)).collect(),
        })
    }

    fn job(&mut self, id: &str) -> Result<&mut v1::Job> {
        let found = self.jobs.iter_mut().find(|job| job.id == id);
        found.ok_or_else(|| Error::not_found(format!("no job is called {id}")))
    }

    /// What a watcher of the job is told, one after the other. A job called `...-bad` fails, one
    /// called `...-stopped` is cancelled, the first watcher of `...-cut` is told nothing of its
    /// end, and `...-mute` has none.
    pub fn watch_job(&mut self, request: v1::WatchJobRequest) -> Result<Vec<v1::Job>> {
        let running = self.job(&request.id)?.clone();
        self.watched += 1;
        let waiting = v1::Job {
            state: State::Waiting.into(),
            message: "waits for node2".into(),
            ..running.clone()
        };
        let broken = v1::Job {
            last_error: "node1: disk full".into(),
            ..running.clone()
        };
        let all = v1::Job {
            steps_done: 4,
            bytes_done: 4096,
            ..running.clone()
        };
        let last = match request.id.rsplit('-').next() {
            Some("bad") => ended(broken, State::Failed),
            Some("stopped") => ended(running.clone(), State::Cancelled),
            Some("mute") => return Ok(vec![running]),
            Some("cut") if self.watched == 1 => return Ok(vec![running]),
            _ => ended(all, State::Done),
        };
        Ok(vec![running, waiting, last])
    }

    pub fn cancel_job(&mut self, request: v1::CancelJobRequest) -> Result<v1::CancelJobResponse> {
        let job = self.job(&request.id)?;
        if !is_open(job) {
            return Err(Error::refused(format!(
                "job {} has ended already",
                request.id
            )));
        }
        *job = ended(
            v1::Job {
                last_error: "node2: no answer".into(),
                held_back: true,
                ..job.clone()
            },
            State::Cancelled,
        );
        Ok(v1::CancelJobResponse {
            job: Some(job.clone()),
        })
    }
}

fn is_open(job: &v1::Job) -> bool {
    matches!(job.state(), State::Running | State::Waiting)
}
