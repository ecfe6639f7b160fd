//! The `Catalog` service: the watch stream that tells clients the view and every change, and
//! look-ups of the namespace.
//!
//! A client resumes from its position; if that is too old or of another epoch it gets everything
//! again, marked `reset`: the catalogue's shared listing, and then what changed since that was
//! made. A client that knows more than this router (it comes from another one) waits a moment until
//! the router has caught up, and is never shown anything older than it has seen.

pub mod watchers;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use monofs_control::clock;
use monofs_model::{Error, StorageId};
use monofs_proto::v1;
use monofs_proto::v1::watch_request::Message as Said;
use monofs_proto::v1::watch_response::Message;
use monofs_rpc::to_status;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::parts::Parts;
use monofs_control::catalog::no_repository;
use monofs_control::catalog::{CatalogChanges, CatalogListing, CatalogPosition};

/// Something is sent at least this often.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// A client that takes nothing for this long is cut off; it reconnects and resumes.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// How long this router may take to hear what a client has heard from another one.
const CATCH_UP: Duration = Duration::from_secs(3);
/// Most changes in one message.
const CHANGES_MAX: usize = 500;
/// Messages waiting for a slow client.
const QUEUE: usize = 4;
/// Default and largest page of a listing.
const LIST_PAGE: usize = 1000;
const LIST_PAGE_MAX: usize = 10_000;
/// Most rows of times in one answer: as many as are kept.
const TIMES_ROWS_MAX: usize = 64;

pub(crate) struct CatalogService {
    state: Arc<Parts>,
    stop: CancellationToken,
}

impl CatalogService {
    pub fn new(state: Arc<Parts>, stop: CancellationToken) -> Self {
        Self { state, stop }
    }
}

#[tonic::async_trait]
impl v1::catalog_server::Catalog for CatalogService {
    type WatchStream = ReceiverStream<Result<v1::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<v1::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let mut said = request.into_inner();
        let first = tokio::time::timeout(SEND_TIMEOUT, said.next()).await;
        let Ok(Some(Ok(v1::WatchRequest {
            message: Some(Said::Hello(hello)),
        }))) = first
        else {
            return Err(to_status(Error::invalid(
                "watch: the first message must be a hello",
            )));
        };
        let position = hello.resume.clone().map(|p| CatalogPosition {
            epoch: p.epoch,
            revision: p.revision,
        });
        let epoch = self.state.control.catalog.position().epoch;
        let watchers = &self.state.work.watchers;
        let key = watchers.join(&hello, &epoch).map_err(to_status)?;
        let (sink, stream) = mpsc::channel(QUEUE);
        let state = self.state.clone();
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let watch = Watch {
                state: &state,
                key,
                sink,
                position,
                pages: hello.pages,
                greeted: false,
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = watch.run(said) => {}
            }
            state.work.watchers.leave(key);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn resolve(
        &self,
        request: Request<v1::ResolveRequest>,
    ) -> Result<Response<v1::ResolveResponse>, Status> {
        let path = request.into_inner().path;
        let (repository, rest) = self
            .state
            .control
            .catalog
            .resolve(&path)
            .ok_or_else(|| to_status(no_repository(&path)))?;
        Ok(Response::new(v1::ResolveResponse {
            repository: Some(v1::Repository::from(&*repository)),
            rest,
        }))
    }

    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        let request = request.into_inner();
        let limit = page_size(request.page_size);
        let names = self
            .state
            .control
            .catalog
            .names(&request.prefix, &request.page_token, limit);
        let next_page_token = if names.len() == limit {
            names.last().map_or(String::new(), |n| n.0.clone())
        } else {
            String::new()
        };
        let entry =
            |(name, repository): (String, Option<Arc<monofs_model::Repository>>)| v1::ListEntry {
                name,
                repository: repository.map(|repository| v1::Repository::from(&*repository)),
            };
        Ok(Response::new(v1::ListResponse {
            entries: names.into_iter().map(entry).collect(),
            next_page_token,
        }))
    }

    async fn get_times(
        &self,
        request: Request<v1::GetTimesRequest>,
    ) -> Result<Response<v1::GetTimesResponse>, Status> {
        let request = request.into_inner();
        let id = checked_repository(&request).map_err(to_status)?;
        let rows = self.state.control.times.rows(&id, &request.rows).await;
        let rows = rows.map_err(to_status)?;
        Ok(Response::new(v1::GetTimesResponse { rows }))
    }
}

/// The repository that a request for times asks about. Errors: `Invalid`.
fn checked_repository(request: &v1::GetTimesRequest) -> Result<StorageId, Error> {
    if request.rows.len() > TIMES_ROWS_MAX {
        return Err(Error::invalid(format!(
            "more than {TIMES_ROWS_MAX} rows of times in one request; ask for fewer at a time"
        )));
    }
    StorageId::new(&request.storage_id)
}

/// The page size to use for what a request asks.
pub(crate) fn page_size(asked: u32) -> usize {
    if asked == 0 {
        LIST_PAGE
    } else {
        (asked as usize).min(LIST_PAGE_MAX)
    }
}

/// Makes the listing that the first clients will ask for.
pub(crate) async fn prepare(state: Arc<Parts>) {
    if let Err(error) = state.control.catalog.listing().await {
        tracing::warn!(%error, "cannot encode the catalogue ahead");
    }
}

struct Watch<'a> {
    state: &'a Parts,
    key: u64,
    sink: mpsc::Sender<Result<v1::WatchResponse, Status>>,
    position: Option<CatalogPosition>,
    /// The client understands pages.
    pages: bool,
    /// It has been told where the catalogue is, so it knows whether it is up to date.
    greeted: bool,
}

impl Watch<'_> {
    /// Until the client is gone.
    async fn run(mut self, mut said: Streaming<v1::WatchRequest>) {
        let mut view = self.state.fleet.members.subscribe();
        let mut changed = self.state.control.catalog.changed();
        view.mark_changed();
        changed.mark_changed();
        let welcome = v1::WatchWelcome { exceptions: true };
        if self.send(Message::Welcome(welcome)).await.is_err() {
            return;
        }
        loop {
            let sent = tokio::select! {
                biased;
                message = said.next() => match message {
                    Some(Ok(message)) => { self.hear(message); Ok(()) }
                    _ => return,
                },
                Ok(()) = view.changed() => {
                    let view = v1::ClusterView::from(&*view.borrow_and_update());
                    self.send(Message::View(view)).await
                }
                Ok(()) = changed.changed() => {
                    changed.mark_unchanged();
                    self.send_changes().await
                }
                () = tokio::time::sleep(HEARTBEAT) => self.send(Message::Heartbeat(v1::WatchHeartbeat {})).await,
            };
            if sent.is_err() {
                return;
            }
        }
    }

    fn hear(&self, message: v1::WatchRequest) {
        let watchers = &self.state.work.watchers;
        match message.message {
            Some(Said::Ack(position)) => {
                let epoch = self.state.control.catalog.position().epoch;
                watchers.acknowledge(self.key, &position, &epoch);
            }
            Some(Said::InUse(in_use)) => watchers.uses(self.key, &in_use),
            Some(Said::Report(report)) => watchers.reported(self.key, report),
            // Something from a newer client.
            Some(Said::Hello(_)) | None => {}
        }
    }

    /// Waits until this router is where the client is. Err: it cannot get there.
    async fn catch_up(&self) -> Result<(), ()> {
        let ours = self.state.control.catalog.position();
        let ahead = self
            .position
            .as_ref()
            .filter(|p| p.epoch == ours.epoch && p.revision > ours.revision);
        let Some(CatalogPosition { revision, .. }) = ahead else {
            return Ok(());
        };
        let mut applied = self.state.control.shared.applied();
        let wait = applied.wait_for(|applied| applied >= revision);
        // After that it has another past than the client, which its state store gave it: a backup
        // was restored.
        if matches!(tokio::time::timeout(CATCH_UP, wait).await, Ok(Ok(_)))
            || *self.state.control.shared.reachable().borrow()
        {
            return Ok(());
        }
        let behind = "this router knows less than you do and cannot reach the state store; ask \
         another router";
        let _ = self
            .sink
            .send(Err(to_status(Error::unavailable(behind))))
            .await;
        Err(())
    }

    async fn send_changes(&mut self) -> Result<(), ()> {
        self.catch_up().await?;
        let catalog = &self.state.control.catalog;
        let mut tell = !self.greeted;
        let changes = loop {
            if let Some(changes) = self
                .position
                .as_ref()
                .and_then(|position| catalog.changes_since(position))
            {
                break changes;
            }
            // It can happen twice only if the log overflows while a listing is sent.
            let listing = match catalog.listing().await {
                Ok(listing) => listing,
                Err(error) => {
                    let _ = self.sink.send(Err(to_status(error))).await;
                    return Err(());
                }
            };
            self.send_listing(&listing).await?;
            self.position = Some(listing.position.clone());
            tell = true;
        };
        self.greeted = true;
        self.send_delta(changes, tell && self.pages).await
    }

    /// Everything as of the listing's position.
    async fn send_listing(&self, listing: &CatalogListing) -> Result<(), ()> {
        let last = listing.pages.len() - 1;
        for (number, page) in listing.pages.iter().enumerate() {
            let mut delta = v1::CatalogDelta {
                position: Some(wire(&listing.position)),
                reset: number == 0,
                // Who does not understand pages gathers the listing without regard to the order of
                // what is in it.
                complete: !self.pages && number == last,
                ..Default::default()
            };
            if self.pages {
                delta.page = page.clone();
            } else {
                let page = v1::CatalogPage::decode(page.clone());
                delta.upserts = page.expect("encoded by this process").upserts;
            }
            self.send(Message::Delta(delta)).await?;
        }
        Ok(())
    }

    /// What changed; `always`: also if nothing did.
    async fn send_delta(&mut self, changes: CatalogChanges, always: bool) -> Result<(), ()> {
        let CatalogChanges {
            upserts,
            mut removed,
            position,
        } = changes;
        if always || !upserts.is_empty() || !removed.is_empty() {
            let mut parts = upserts.chunks(CHANGES_MAX).peekable();
            loop {
                let part = parts.next().unwrap_or_default();
                let complete = parts.peek().is_none();
                let delta = v1::CatalogDelta {
                    position: Some(wire(&position)),
                    complete,
                    upserts: part
                        .iter()
                        .map(|repository| v1::Repository::from(&**repository))
                        .collect(),
                    removed_paths: std::mem::take(&mut removed),
                    ..Default::default()
                };
                self.send(Message::Delta(delta)).await?;
                if complete {
                    break;
                }
            }
        }
        self.position = Some(position);
        Ok(())
    }

    async fn send(&self, message: Message) -> Result<(), ()> {
        let message = Ok(v1::WatchResponse {
            message: Some(message),
            router_time_ms: clock::now_ms(),
        });
        match tokio::time::timeout(SEND_TIMEOUT, self.sink.send(message)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(()),
        }
    }
}

fn wire(position: &CatalogPosition) -> v1::Position {
    v1::Position {
        epoch: position.epoch.clone(),
        revision: position.revision,
    }
}

#[cfg(test)]
mod tests;
