//! One request for content: asked of one replica after the other, hedged, until all of it is in the
//! cache or the deadline is over.

use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use monofs_model::{Error, ErrorKind, Repository, Result};
use monofs_proto::v1;
use monofs_rpc::context::Context;
use tokio::time::Instant;

use super::hedge::{HANGS_AFTER, HEDGE_AFTER_MAX, RequestClass};
use super::need::ContentRequest;
use super::outage::Outage;
use super::peer::{Attempt, AttemptReason, PeerReader};
use super::progress::RequestProgress;
use super::replicas::ReplicaCandidate;
use crate::repo::Repo;
use crate::spawner::Spawner;
use crate::want::Demand;

/// Pause before all replicas are asked again.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Reads from the replicas of a repository.
pub(super) struct ReplicaReader {
    pub peer: PeerReader,
    outage: Outage,
    spawner: Spawner,
}

impl ReplicaReader {
    /// Reads with `peer`; reports of failures are tasks of `spawner`.
    pub fn new(peer: PeerReader, spawner: Spawner) -> Self {
        Self {
            peer,
            outage: Outage::default(),
            spawner,
        }
    }

    /// Gets what `progress` needs. While a reader waits for it, failures of all replicas are
    /// retried until the deadline.
    pub async fn fetch(
        &self,
        repo: &Repo,
        request: &ContentRequest,
        progress: &RequestProgress,
        demand: Demand,
    ) -> Result<()> {
        let deadline = Instant::now() + self.peer.timeout;
        // Ends with this request, also if that panics or is given up.
        let _closure = request
            .is_closure()
            .then(|| self.peer.closures.begin(repo.storage_id()));
        loop {
            let Err(error) = self.race(repo, request, progress, demand, deadline).await else {
                return Ok(());
            };
            let is_retried = demand == Demand::Awaited
                && error.kind == ErrorKind::Unavailable
                && !self
                    .outage
                    .lasts(self.peer.timeout, Instant::now().into_std())
                && Instant::now() + RETRY_AFTER < deadline;
            if !is_retried {
                tracing::debug!(repo = %repo.storage_id(), %error, "content could not be had");
                return Err(error);
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// Asks every candidate at most once, the next one as soon as one fails or none delivers.
    async fn race(
        &self,
        repo: &Repo,
        request: &ContentRequest,
        progress: &RequestProgress,
        demand: Demand,
        deadline: Instant,
    ) -> Result<()> {
        let entry = repo.entry();
        let class = request.class(demand);
        let now = Instant::now().into_std();
        let candidates = self.peer.replicas.candidates(&entry, class, now);
        let mut stall = StallWatch::new(progress, self.hedge_after(&candidates, class, demand));
        let mut waiting = candidates.into_iter();
        let mut running = FuturesUnordered::new();
        let mut last = Error::unavailable("no node or router is known to ask");
        let mut next = Some(AttemptReason::Turn);
        let mut is_reached = false;
        self.peer.hedging.request();
        loop {
            // The next candidate's turn has come.
            if let Some(reason) = next.take()
                && let Some(candidate) = waiting.next()
            {
                let attempt = Attempt {
                    repo,
                    entry: &entry,
                    request,
                    class,
                    progress,
                    reason,
                };
                running.push(self.peer.attempt(candidate, attempt));
            }
            if running.is_empty() {
                self.note_end(is_reached);
                return Err(last);
            }

            // An attempt ends, nothing arrives for a while, or the time is up.
            tokio::select! {
                Some((candidate, outcome)) = running.next() => {
                    is_reached |= self.judge(&candidate, &outcome);
                    match outcome {
                        Ok(()) if progress.is_complete() => {
                            self.outage.answered();
                            return Ok(());
                        }
                        Ok(()) => last = lacks_something(&candidate),
                        Err(error) => last = more_telling(last, error, &candidate),
                    }
                    next = Some(AttemptReason::Turn);
                }
                () = tokio::time::sleep(stall.wait) => {
                    if let Some(candidate) = waiting.as_slice().first()
                        && stall.is_stalled(progress)
                        && self.may_hedge(candidate, demand, &stall)
                    {
                        next = Some(AttemptReason::Hedge { arrivals: progress.arrivals() });
                    }
                }
                () = tokio::time::sleep_until(deadline), if !progress.is_complete() => {
                    self.note_end(is_reached);
                    return Err(self.too_late(&entry));
                }
            }
        }
    }

    fn too_late(&self, entry: &Repository) -> Error {
        let limit = self.peer.timeout;
        Error::unavailable(format!(
            "content of {}: no answer within {limit:?}",
            entry.path
        ))
    }

    /// When the second of the candidates is asked too. Early only if it is another node: a router
    /// would ask the same one.
    fn hedge_after(
        &self,
        candidates: &[ReplicaCandidate],
        class: RequestClass,
        demand: Demand,
    ) -> Duration {
        match candidates {
            [first, second, ..]
                if first.node.is_some() && second.node.is_some() && first.node != second.node =>
            {
                self.peer.hedging.delay(class, demand)
            }
            _ => HEDGE_AFTER_MAX,
        }
    }

    /// Whether a candidate may be asked while others have not answered.
    fn may_hedge(&self, candidate: &ReplicaCandidate, demand: Demand, stall: &StallWatch) -> bool {
        // A router would ask the same nodes: what is fetched ahead can wait for them as well.
        let is_useful = demand == Demand::Awaited || candidate.node.is_some();
        stall.is_hanging() || (is_useful && self.peer.hedging.take())
    }

    /// A request ended without all that it needed.
    fn note_end(&self, is_reached: bool) {
        if is_reached {
            self.outage.answered();
        } else {
            self.outage.unanswered(Instant::now().into_std());
        }
    }

    /// Learns from how an attempt ended. True: the peer was reached.
    fn judge(&self, candidate: &ReplicaCandidate, outcome: &Result<()>) -> bool {
        let replicas = &self.peer.replicas;
        let error = match outcome {
            Ok(()) => None,
            Err(e) if matches!(e.kind, ErrorKind::NotHeld | ErrorKind::NotFound) => None,
            Err(error) => Some(error),
        };
        let Some(error) = error else {
            replicas.answered(candidate);
            return true;
        };
        self.peer.counters.calls_failed.one();
        if let Some(node) = replicas.failed(candidate) {
            let address = &candidate.address;
            tracing::warn!(%node, address, %error, "a replica failed; asking another");
            self.report(node.to_string(), error);
        }
        error.kind != ErrorKind::Unavailable
    }

    /// Tells a router that a node failed, so that it looks at once. Best effort: the first router
    /// that takes it.
    fn report(&self, member_id: String, error: &Error) {
        let failure = v1::ReportFailureRequest {
            member_id,
            error_kind: error.kind.as_str().to_owned(),
            detail: error.message.clone(),
        };
        // Only what it needs: the cache must be free as soon as the mount has ended.
        let replicas = self.peer.replicas.clone();
        let channels = self.peer.channels.clone();
        let timeout = self.peer.timeout;
        self.spawner.spawn(async move {
            for router in replicas.reporters() {
                let Ok(channel) = channels.get(&router) else {
                    continue;
                };
                let request = Context::new(timeout).request(failure.clone());
                let mut client = v1::cluster_client::ClusterClient::new(channel);
                match client.report_failure(request).await {
                    Ok(_) => return replicas.reported_to(&router),
                    Err(error) => {
                        tracing::debug!(router, %error, "a report of a failure was not taken")
                    }
                }
            }
        });
    }
}

fn lacks_something(candidate: &ReplicaCandidate) -> Error {
    Error::not_held(format!("{} does not hold all of it", candidate.address))
}

/// Of the error so far and that of `candidate`, the one to tell: that a peer could not be reached
/// says more than that another one does not hold it.
fn more_telling(last: Error, error: Error, candidate: &ReplicaCandidate) -> Error {
    if last.kind == ErrorKind::Unavailable && error.kind == ErrorKind::NotHeld {
        last
    } else {
        error.context(&candidate.address)
    }
}

/// Notices that nothing arrives any more.
struct StallWatch {
    /// How long to wait before looking.
    wait: Duration,
    arrivals: u64,
    since: Instant,
}

impl StallWatch {
    fn new(progress: &RequestProgress, wait: Duration) -> Self {
        Self {
            wait,
            arrivals: progress.arrivals(),
            since: Instant::now(),
        }
    }

    /// Whether nothing has arrived since the last look, and something is still wanted.
    fn is_stalled(&mut self, progress: &RequestProgress) -> bool {
        self.wait = HEDGE_AFTER_MAX;
        let arrivals = progress.arrivals();
        if arrivals != self.arrivals {
            self.arrivals = arrivals;
            self.since = Instant::now();
            return false;
        }
        !progress.is_exhausted()
    }

    fn is_hanging(&self) -> bool {
        self.since.elapsed() >= HANGS_AFTER
    }
}
