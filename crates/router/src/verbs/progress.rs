//! The progress of an ingest as its caller sees it: the job until it ends, then the hydration if
//! that was asked for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use monofs_model::{DisplayPath, Error, Result};
use monofs_proto::v1;
use monofs_proto::v1::ingest_progress::Phase;
use monofs_rpc::{context, to_status};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::ingest::Job;
use crate::parts::Parts;
use crate::status;
use monofs_control::Control;
use monofs_members::fleet::Fleet;

/// Messages waiting for a slow caller.
pub(crate) const QUEUE: usize = 16;
/// How often hydration is looked at while somebody waits for it.
const HYDRATION_POLL: Duration = Duration::from_millis(250);
/// Hydration that makes no progress for this long ends the wait with an error.
const HYDRATION_STALL: Duration = Duration::from_secs(120);
/// So does a holder that does not answer for this long.
const HYDRATION_SILENCE: Duration = Duration::from_secs(300);

pub(crate) type Progress = ReceiverStream<Result<v1::IngestProgress, Status>>;

/// Until when the progress of an ingest is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgressEnd {
    /// Readers see the commit.
    Published,
    /// All holders have all contents, too.
    Hydrated,
}

/// The progress of a job until it ends, and then of the hydration if asked for.
pub(crate) fn follow(state: Arc<Parts>, job: Arc<Job>, end: ProgressEnd) -> Progress {
    let (sink, stream) = mpsc::channel(QUEUE);
    tokio::spawn(context::carry(async move {
        let mut seen = job.follow();
        let mut last = loop {
            let now = seen.borrow_and_update().clone();
            if let Some(outcome) = now.outcome {
                if let Err(error) = outcome {
                    let _ = sink.send(Err(to_status(error))).await;
                    return;
                }
                break now.progress;
            }
            if sink.send(Ok(now.progress)).await.is_err() || seen.changed().await.is_err() {
                return;
            }
        };
        if end == ProgressEnd::Hydrated
            && let Err(error) = hydrated(
                &state.control,
                &state.fleet,
                &job.spec.path,
                &mut last,
                &sink,
            )
            .await
        {
            let _ = sink.send(Err(to_status(error))).await;
            return;
        }
        last.set_phase(Phase::Done);
        let _ = sink.send(Ok(last)).await;
    }));
    ReceiverStream::new(stream)
}

/// Waits until every holder has all contents. Errors: `Unavailable` when nothing moves any more.
pub(super) async fn hydrated(
    control: &Control,
    fleet: &Fleet,
    path: &DisplayPath,
    progress: &mut v1::IngestProgress,
    sink: &mpsc::Sender<Result<v1::IngestProgress, Status>>,
) -> Result<()> {
    progress.set_phase(Phase::Hydrating);
    let mut patience = Patience::new(tokio::time::Instant::now());
    loop {
        let entry = control.catalog.require(path.as_str())?;
        let replicas = status::replicas(fleet, &entry)
            .await
            .into_iter()
            .filter(|replica| replica.holder);
        progress.replicas = replicas.map(|replica| patience.see(replica)).collect();
        let seen = &progress.replicas;
        if seen
            .iter()
            .all(|replica| replica.error.is_empty() && replica.blobs_done == replica.blobs_total)
        {
            return Ok(());
        }
        patience.check(tokio::time::Instant::now())?;
        if sink.send(Ok(progress.clone())).await.is_err() {
            return Ok(());
        }
        tokio::time::sleep(HYDRATION_POLL).await;
    }
}

/// Tells hydration that stands still from a node that does not answer, which may well work: the
/// figures last seen stand until it does, and it is given more time.
struct Patience {
    seen: HashMap<String, v1::ReplicaProgress>,
    /// A figure changed.
    moved: tokio::time::Instant,
    /// All holders answered.
    answered: tokio::time::Instant,
    changed: bool,
    /// The last error of a look: a node that did not answer.
    silent: Option<String>,
    /// The last error that a node told of its hydration.
    told: Option<String>,
}

impl Patience {
    fn new(now: tokio::time::Instant) -> Self {
        Self {
            seen: HashMap::new(),
            moved: now,
            answered: now,
            changed: false,
            silent: None,
            told: None,
        }
    }

    /// Takes in what one holder said, or that it said nothing.
    fn see(&mut self, replica: v1::ReplicaStatus) -> v1::ReplicaProgress {
        let node_id = replica.node_id;
        let Some(held) = replica.held.filter(|_| replica.error.is_empty()) else {
            self.silent = Some(format!("{node_id}: {}", replica.error));
            let last = self.seen.get(&node_id).cloned();
            let last = last.unwrap_or_else(|| v1::ReplicaProgress {
                node_id,
                ..Default::default()
            });
            return v1::ReplicaProgress {
                error: replica.error,
                ..last
            };
        };
        if !held.last_error.is_empty() {
            self.told = Some(format!("{node_id}: {}", held.last_error));
        }
        let now = v1::ReplicaProgress {
            node_id: node_id.clone(),
            trees_done: held.trees,
            trees_total: held.trees,
            blobs_done: held.hydrated_blobs,
            blobs_total: held.total_blobs,
            durable: true,
            error: held.last_error,
        };
        let before = self.seen.insert(node_id, now.clone());
        self.changed |= before.is_none_or(|before| before.blobs_done != now.blobs_done);
        now
    }

    /// Ends a look at all holders. Errors: `Unavailable` after [`HYDRATION_STALL`] without a change
    /// while all answer, or [`HYDRATION_SILENCE`] without an answer of all.
    fn check(&mut self, now: tokio::time::Instant) -> Result<()> {
        let silent = self.silent.take();
        if std::mem::take(&mut self.changed) {
            (self.moved, self.told) = (now, None);
        }
        let goes_on = "it goes on in the background";
        if let Some(why) = silent {
            // Time without an answer is not time without progress.
            if now - self.answered > HYDRATION_SILENCE {
                let message = format!(
                    "published, but a node does not say how far its hydration is ({why}); {goes_on}"
                );
                return Err(Error::unavailable(message));
            }
            self.moved = now;
            return Ok(());
        }
        self.answered = now;
        if now - self.moved > HYDRATION_STALL {
            let why = self
                .told
                .as_ref()
                .map_or(String::new(), |why| format!(" ({why})"));
            return Err(Error::unavailable(format!(
                "published, but hydration makes no progress{why}; {goes_on}"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(done: u64, error: &str) -> v1::ReplicaStatus {
        let held = v1::HeldRepository {
            hydrated_blobs: done,
            total_blobs: 10,
            ..Default::default()
        };
        let held = error.is_empty().then_some(held);
        v1::ReplicaStatus {
            node_id: "n".into(),
            holder: true,
            held,
            error: error.into(),
        }
    }

    #[test]
    fn a_node_that_is_slow_to_answer_is_no_hydration_that_stands_still() {
        let start = tokio::time::Instant::now();
        let mut patience = Patience::new(start);
        patience.see(replica(3, ""));
        patience.check(start).expect("it begins");
        let silent = patience.see(replica(0, "Timeout expired"));
        assert_eq!(
            (silent.blobs_done, silent.blobs_total),
            (3, 10),
            "the last figures stand"
        );
        patience
            .check(start + HYDRATION_STALL * 2)
            .expect("it may work all the time");
        patience.see(replica(3, ""));
        patience
            .check(start + HYDRATION_STALL * 3 - Duration::from_secs(1))
            .expect("it answers again");
        patience.see(replica(3, ""));
        let stalled = patience
            .check(start + HYDRATION_STALL * 4)
            .expect_err("now it stands still");
        assert!(stalled.message.contains("makes no progress"), "{stalled}");
        patience.see(replica(0, "Timeout expired"));
        let silent = patience
            .check(start + HYDRATION_STALL * 4 + HYDRATION_SILENCE * 2)
            .expect_err("it is gone");
        assert!(silent.message.contains("n: Timeout expired"), "{silent}");
    }
}
