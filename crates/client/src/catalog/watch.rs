//! The watch stream: connects to one router after the other, says where this mount is, and passes
//! on what it hears.

use std::sync::Arc;
use std::time::{Duration, Instant};

use monofs_content::content::Content;
use monofs_model::limits::MESSAGE_BYTES_MAX;
use monofs_model::{ClusterView, Error, Result};
use monofs_proto::v1;
use monofs_proto::v1::catalog_client::CatalogClient;
use monofs_proto::v1::watch_request::Message as ToRouter;
use monofs_proto::v1::watch_response::Message as FromRouter;
use monofs_rpc::channel::ChannelPool;
use monofs_rpc::context::Context;
use monofs_rpc::status::from_status;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::ack::{Acknowledger, AppliedPositions, IN_USE_EVERY, MountUse, to_router};
use super::clock::HeardClock;
use super::{CatalogChange, RouterLink};
use crate::fs::Fs;
use crate::status::StatusSource;

/// A router that says nothing for this long is left for another.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Pause before the next attempt, once every router has failed: the first one, doubled with each
/// further one.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often the router is told how the mount is.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// Messages to the router that may wait.
const OUTBOX: usize = 8;
/// Most entries of one listing: the deltas of a listing are gathered before they are applied.
const LISTING_MAX: usize = 1_000_000;
/// Most bytes of the pages of one listing.
const LISTING_BYTES_MAX: usize = 1 << 30;

/// Who this client is to a router.
#[derive(Debug, Clone)]
pub struct ClientIdentity {
    pub client_id: String,
    pub mount: String,
}

/// Follows the catalogue until `stop`.
pub struct CatalogWatch {
    pub routers: Vec<String>,
    pub channels: ChannelPool,
    pub identity: ClientIdentity,
    pub link: Arc<RouterLink>,
    pub fs: Arc<Fs>,
    pub content: Content,
    /// How the mount is.
    pub source: Arc<StatusSource>,
    pub timeout: Duration,
    pub changes: mpsc::Sender<CatalogChange>,
    /// A new view, to be kept on disk.
    pub views: watch::Sender<Option<v1::ClusterView>>,
    /// Positions that were applied.
    pub applied: watch::Receiver<AppliedPositions>,
    /// Rises when every router was tried in vain for the first time.
    pub tried: watch::Sender<bool>,
    /// Rises when a router was heard for the first time.
    pub heard: watch::Sender<bool>,
    pub stop: CancellationToken,
}

impl CatalogWatch {
    /// Runs until stopped.
    pub async fn run(self) {
        // One router after the other; a pause once each of them has failed.
        let mut pause = RETRY_FIRST;
        let mut failed = 0;
        for router in self.routers.iter().cycle() {
            let session = tokio::select! {
                session = self.session(router) => session,
                () = self.stop.cancelled() => return,
            };
            let connected = self.ended(router, session);
            failed = if connected { 0 } else { failed + 1 };
            if connected {
                pause = RETRY_FIRST;
            }
            if failed >= self.routers.len() {
                self.tried.send_replace(true);
                failed = 0;
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = self.stop.cancelled() => return,
                }
                pause = (pause * 2).min(RETRY_MAX);
            }
        }
    }

    /// Notes how a session ended. True: it had been connected.
    fn ended(&self, router: &str, session: Result<()>) -> bool {
        let error = session.err().map_or_else(
            || "the router ended the stream".to_owned(),
            |error| error.to_string(),
        );
        let (connected, failures) = {
            let mut state = self.link.state();
            state.router = None;
            state.failures += 1;
            state.last_error = Some(format!("{router}: {error}"));
            (state.connected_since.take().is_some(), state.failures)
        };
        if failures == 1 || connected {
            tracing::warn!(
                router,
                error,
                "not connected to the router; serving what is known"
            );
        }
        connected
    }

    /// One connection, until it ends.
    async fn session(&self, router: &str) -> Result<()> {
        let channel = self.channels.get(router)?;
        let mut client = CatalogClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let (say, outbox) = mpsc::channel(OUTBOX);
        let resume = self.link.state().received.clone();
        let mount = MountUse {
            fs: self.fs.clone(),
            link: self.link.clone(),
        };
        let (mut acknowledger, applied, in_use) = Acknowledger::begin(mount, self.applied.clone());
        let hello = v1::WatchHello {
            client_id: self.identity.client_id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mount: self.identity.mount.clone(),
            resume,
            pages: true,
            applied,
            in_use,
        };
        // The greeting: the queue is empty and its other end is held below.
        let _ = say.send(to_router(ToRouter::Hello(hello))).await;
        let stream = Context::new(self.timeout).stream(ReceiverStream::new(outbox));
        let opening = tokio::time::timeout(self.timeout, client.watch(stream)).await;
        let answer = opening
            .map_err(|_| Error::unavailable(format!("no answer within {:?}", self.timeout)))?;
        let mut heard = answer.map_err(from_status)?.into_inner();

        // What is heard and what is to be said, until the stream ends.
        let mut listing = CatalogChange::default();
        let mut clock = HeardClock::default();
        let mut in_use_look = tokio::time::interval(IN_USE_EVERY);
        in_use_look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut report = tokio::time::interval(REPORT_EVERY);
        report.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = tokio::time::timeout(SILENCE_MAX, heard.next()) => {
                    let message = message.map_err(|_| silence())?;
                    let Some(message) = message else { return Ok(()) };
                    let message = message.map_err(from_status)?;
                    if let Some(FromRouter::Welcome(welcome)) = &message.message {
                        acknowledger.welcomed(welcome);
                        acknowledger.tell(&say);
                    }
                    listing.clock = clock.hear(message.router_time_ms);
                    self.link.state().clock = listing.clock;
                    self.hear(router, message, &mut listing).await?;
                }
                Ok(()) = acknowledger.reached() => acknowledger.tell(&say),
                _ = in_use_look.tick() => acknowledger.tell(&say),
                _ = report.tick() => {
                    if let Some(report) = self.source.report() {
                        // Full: the next one says it too.
                        let _ = say.try_send(to_router(ToRouter::Report(report)));
                    }
                }
            }
        }
    }

    async fn hear(
        &self,
        router: &str,
        message: v1::WatchResponse,
        listing: &mut CatalogChange,
    ) -> Result<()> {
        self.heard_from(router);
        match message.message {
            Some(FromRouter::View(view)) => {
                let known = ClusterView::try_from(view.clone())
                    .map_err(|error| error.context("cluster view"))?;
                self.content.replicas().set_view(known);
                self.views.send_replace(Some(view));
            }
            Some(FromRouter::Delta(delta)) => {
                let complete = delta.complete;
                listing.add(delta);
                let (page_bytes, entries) = listing.size();
                if page_bytes > LISTING_BYTES_MAX || entries > LISTING_MAX {
                    return Err(Error::full(format!(
                        "a catalogue of more than {LISTING_BYTES_MAX} bytes or {LISTING_MAX} \
                         changes"
                    )));
                }
                if complete {
                    let change = std::mem::take(listing).checked().await?;
                    let position = change.position.clone();
                    if self.changes.send(change).await.is_err() {
                        return Err(Error::unavailable("the mount is going away"));
                    }
                    self.link.state().received = position;
                }
            }
            // A greeting, a heartbeat, or something from a newer router.
            Some(FromRouter::Welcome(_) | FromRouter::Heartbeat(_)) | None => {}
        }
        Ok(())
    }

    fn heard_from(&self, router: &str) {
        self.heard
            .send_if_modified(|heard| !std::mem::replace(heard, true));
        let is_first = {
            let mut state = self.link.state();
            let now = Instant::now();
            state.last_message = Some(now);
            let is_first = state.connected_since.is_none();
            if is_first {
                state.connected_since = Some(now);
                state.router = Some(router.to_owned());
                state.failures = 0;
            }
            is_first
        };
        if is_first {
            tracing::info!(router, "following the catalogue");
        }
    }
}

fn silence() -> Error {
    Error::unavailable(format!("silent for {SILENCE_MAX:?}"))
}
