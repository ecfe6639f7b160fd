//! One running ingest, as those who wait for it see it.

use std::time::Duration;

use monofs_model::{Error, Result};
use monofs_proto::v1;
use monofs_proto::v1::ingest_progress::Phase;
use tokio::sync::watch;
use tokio::time::Instant;

use super::spec::IngestSpec;

/// Progress so far, and the outcome once there is one.
#[derive(Debug, Clone, Default)]
pub struct JobState {
    pub progress: v1::IngestProgress,
    pub outcome: Option<Result<()>>,
}

pub struct Job {
    pub spec: IngestSpec,
    /// Until when it may wait for a host that says "not now"; `None` = it does not wait.
    pub deadline: Option<Instant>,
    state: watch::Sender<JobState>,
}

impl Job {
    /// A job that waits for a host for `patience` in all; `None` = it does not wait.
    pub fn new(spec: IngestSpec, patience: Option<Duration>) -> Self {
        Self {
            spec,
            deadline: patience.map(|patience| Instant::now() + patience),
            state: watch::channel(JobState::default()).0,
        }
    }

    /// Wakes at every step.
    pub fn follow(&self) -> watch::Receiver<JobState> {
        self.state.subscribe()
    }

    /// Whether it waits for a host that said "not now".
    pub fn is_waiting(&self) -> bool {
        self.state.borrow().progress.waiting_for.is_some()
    }

    pub fn update(&self, change: impl FnOnce(&mut v1::IngestProgress)) {
        self.state.send_modify(|state| change(&mut state.progress));
    }

    pub fn phase(&self, phase: Phase) {
        self.update(|progress| progress.set_phase(phase));
    }

    pub fn replica(&self, node_id: &str, change: impl FnOnce(&mut v1::ReplicaProgress)) {
        self.update(|progress| {
            let at = progress
                .replicas
                .iter()
                .position(|replica| replica.node_id == node_id)
                .unwrap_or_else(|| {
                    progress.replicas.push(v1::ReplicaProgress {
                        node_id: node_id.to_owned(),
                        ..Default::default()
                    });
                    progress.replicas.len() - 1
                });
            change(&mut progress.replicas[at]);
        });
    }

    pub fn end(&self, outcome: Result<(), Error>) {
        self.state
            .send_modify(|state| state.outcome = Some(outcome));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::entry;

    #[tokio::test]
    async fn followers_see_every_replica_once_and_the_outcome_last() {
        let job = Job::new(IngestSpec::of_entry(&entry("a/b")), None);
        let mut seen = job.follow();
        job.phase(Phase::Adopting);
        job.replica("n1", |replica| replica.trees_done = 1);
        job.replica("n2", |replica| replica.trees_done = 5);
        job.replica("n1", |replica| replica.durable = true);
        seen.changed().await.expect("the job lives");
        let now = seen.borrow_and_update().clone();
        assert_eq!(now.progress.phase(), Phase::Adopting);
        let replicas: Vec<_> = now.progress.replicas.iter().collect();
        assert_eq!(replicas.len(), 2);
        assert_eq!((replicas[0].trees_done, replicas[0].durable), (1, true));
        assert!(now.outcome.is_none());
        job.end(Err(Error::refused("no")));
        seen.changed().await.expect("the job lives");
        assert!(matches!(seen.borrow().outcome, Some(Err(_))));
    }
}
