//! Server-sent events: a bounded number of listeners, each with a short queue, cut off when it does
//! not take what is sent.
//!
//! Source: <https://html.spec.whatwg.org/multipage/server-sent-events.html>.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};
use monofs_model::Error;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::error::HttpError;
use crate::site::{LISTENERS_MAX, Site};

/// Events that wait for a slow listener.
const QUEUE: usize = 4;
/// A listener that takes nothing for this long is cut off; browsers come again by themselves.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Something is sent at least this often, so that proxies and browsers know that the stream lives.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// One event.
pub(super) struct Event {
    name: &'static str,
    data: Arc<str>,
}

impl Event {
    /// An event with a document. Errors: it cannot be written as JSON.
    pub fn new(name: &'static str, data: &impl Serialize) -> Result<Self, Error> {
        let data = serde_json::to_string(data)
            .map_err(|e| Error::internal(format!("event {name}: {e}")))?;
        Ok(Self::of_text(name, data.into()))
    }

    /// An event with a document that is JSON already, on one line.
    pub fn of_text(name: &'static str, data: Arc<str>) -> Self {
        Self { name, data }
    }

    fn bytes(&self) -> Bytes {
        format!("event: {}\ndata: {}\n\n", self.name, self.data).into()
    }
}

/// Answers with `events` until they end, the listener is gone or too slow, or the router stops. An
/// error is the last event, called `failed`. Errors: `Full` when there are too many listeners.
pub(super) fn answer<S>(site: &Site, events: S) -> Result<Response, HttpError>
where
    S: Stream<Item = Result<Event, Error>> + Send + 'static,
{
    let place = site.listeners.clone().try_acquire_owned().map_err(|_| {
        Error::full(format!(
            "{LISTENERS_MAX} listeners are connected to this router; close some, or ask another \
             router"
        ))
    })?;
    let (sink, stream) = mpsc::channel::<Bytes>(QUEUE);
    let stop = site.router.work.stop.clone();
    tokio::spawn(async move {
        let _place = place;
        let pumping = pump(events, &sink);
        tokio::select! {
            () = stop.cancelled() => {}
            () = sink.closed() => {}
            () = pumping => {}
        }
    });
    let body = Body::from_stream(ReceiverStream::new(stream).map(Ok::<_, Infallible>));
    // The last one is for nginx, which otherwise holds events back.
    let headers = [
        (header::CONTENT_TYPE.as_str(), "text/event-stream"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
    ];
    Ok((headers, body).into_response())
}

async fn pump(events: impl Stream<Item = Result<Event, Error>>, sink: &mpsc::Sender<Bytes>) {
    let mut events = std::pin::pin!(events);
    loop {
        let (bytes, last) = match tokio::time::timeout(HEARTBEAT, events.next()).await {
            Err(_) => (Bytes::from_static(b": here\n\n"), false),
            Ok(None) => return,
            Ok(Some(Ok(event))) => (event.bytes(), false),
            Ok(Some(Err(error))) => {
                match Event::new("failed", &HttpError::from(error).document()) {
                    Ok(event) => (event.bytes(), true),
                    Err(_) => return,
                }
            }
        };
        let sent = tokio::time::timeout(SEND_TIMEOUT, sink.send(bytes)).await;
        if last || !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}
