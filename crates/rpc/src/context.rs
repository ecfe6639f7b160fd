//! The actor and the deadline of the request that a task works for, carried over every hop.
//!
//! A request begins where the process is asked from outside, or where a worker of its own starts
//! work ([`begin`], [`begin_by`]), and gets an id there. A server takes over the id that came with
//! a call; calls made meanwhile carry it on, since [`Context::new`] takes it from the task. So one
//! id is in the log of every role that a request reaches. Invariant: work that a request starts in
//! a task or on a thread of its own is wrapped in [`carry`] or [`carried`]; without that its log
//! lines and calls would belong to no request.
//!
//! Verbs that change or reveal something take the [`Actor`], which [`actor`] gives. Every principal
//! is anonymous until authentication exists; it is here from the first day so that rights are one
//! layer.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::Either;
use monofs_model::{Actor, Door, PrincipalName, RequestId};
use tonic::Request;
use tonic::codegen::http::HeaderMap;
use tonic::metadata::MetadataValue;
use tracing::{Instrument, Span, info_span};

/// Metadata key of the request id (16 hexadecimal digits).
pub const REQUEST_ID_KEY: &str = "monofs-request-id";
/// Metadata key of the principal's name.
pub const PRINCIPAL_KEY: &str = "monofs-principal";

tokio::task_local! {
    static CURRENT: Actor;
}

/// The actor of the request that this task works for. Work outside of any request gets an anonymous
/// actor with an id of its own, as a worker of this process.
pub fn actor() -> Actor {
    current().unwrap_or_else(|| new_actor(Door::Worker))
}

/// The id of the request that this task works for.
pub fn request_id() -> Option<RequestId> {
    CURRENT.try_with(|actor| actor.request_id.clone()).ok()
}

/// The actor that the headers of a gRPC call name. A header that is missing or malformed counts as
/// not sent: the request gets a new id, the principal is anonymous.
pub(crate) fn actor_of(headers: &HeaderMap) -> Actor {
    Actor {
        principal: header_text(headers, PRINCIPAL_KEY)
            .and_then(PrincipalName::parse)
            .unwrap_or_else(PrincipalName::anonymous),
        request_id: header_text(headers, REQUEST_ID_KEY)
            .and_then(RequestId::parse)
            .unwrap_or_else(next_request_id),
        door: Door::Grpc,
    }
}

/// Runs `work` for `actor`.
pub(crate) fn scope<F: Future>(actor: Actor, work: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(actor, work)
}

/// Runs `work`, which does not wait, for `actor`.
pub(crate) fn sync_scope<T>(actor: Actor, work: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(actor, work)
}

/// Does `work` as a new request that a worker of this process begins; `doing` names it in the log.
pub fn begin<F: Future>(doing: &'static str, work: F) -> impl Future<Output = F::Output> {
    begin_by(Door::Worker, doing, work)
}

/// Does `work` as a new request that came by `door`; `doing` names it in the log.
pub fn begin_by<F: Future>(
    door: Door,
    doing: &'static str,
    work: F,
) -> impl Future<Output = F::Output> {
    begin_as(new_actor(door), doing, work)
}

/// Does `work` as the request of `actor`, which begins with it.
fn begin_as<F: Future>(
    actor: Actor,
    doing: &'static str,
    work: F,
) -> impl Future<Output = F::Output> {
    let span = info_span!("request", doing, request = actor.request_id.as_str());
    let work = async move {
        tracing::debug!("begins");
        let begun = Instant::now();
        let output = work.await;
        tracing::debug!(took = ?begun.elapsed(), "ended");
        output
    };
    scope(actor, work.instrument(span))
}

/// `work` as part of the request of `actor`, for a task of its own. Where the task that calls this
/// does not work for that request, it begins here; `doing` names it in the log.
pub fn go_on<F: Future>(
    actor: &Actor,
    doing: &'static str,
    work: F,
) -> impl Future<Output = F::Output> + use<F> {
    if current().as_ref() == Some(actor) {
        Either::Left(carry(work))
    } else {
        Either::Right(begin_as(actor.clone(), doing, work))
    }
}

/// `work` as part of the request of the task that calls this, for a task of its own.
pub fn carry<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let work = work.instrument(Span::current());
    match current() {
        Some(actor) => Either::Left(scope(actor, work)),
        None => Either::Right(work),
    }
}

/// `work` as part of the request of the task that calls this, for a thread that may block.
pub fn carried<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let span = Span::current();
    let actor = current();
    move || match actor {
        Some(actor) => span.in_scope(|| sync_scope(actor, work)),
        None => span.in_scope(work),
    }
}

/// The context of one request, kept over every hop that it causes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    pub actor: Actor,
    /// What is left of the time for the whole request.
    pub deadline: Duration,
}

impl Context {
    /// For calls made on behalf of the request that this task works for, else a new one; each gets
    /// this much time.
    pub fn new(deadline: Duration) -> Self {
        Self {
            actor: actor(),
            deadline,
        }
    }

    /// A unary request that carries this context and its deadline.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = self.stream(message);
        request.set_timeout(self.deadline);
        request
    }

    /// A streaming request: carries the context; each message of the answer is awaited with a
    /// deadline instead.
    pub fn stream<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let texts = [
            (REQUEST_ID_KEY, self.actor.request_id.as_str()),
            (PRINCIPAL_KEY, self.actor.principal.as_str()),
        ];
        for (key, text) in texts {
            let value = MetadataValue::try_from(text).expect("visible ASCII is valid metadata");
            request.metadata_mut().insert(key, value);
        }
        request
    }
}

fn current() -> Option<Actor> {
    CURRENT.try_with(Clone::clone).ok()
}

fn new_actor(door: Door) -> Actor {
    Actor::anonymous(next_request_id(), door)
}

fn header_text<'a>(headers: &'a HeaderMap, key: &str) -> Option<&'a str> {
    headers.get(key).and_then(|value| value.to_str().ok())
}

/// An id that no other request has: a hash of the time, the process and a counter.
fn next_request_id() -> RequestId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64);
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    let seed = now ^ u64::from(std::process::id()).rotate_left(40);
    RequestId::from_number(xxhash_rust::xxh3::xxh3_64_with_seed(
        &count.to_le_bytes(),
        seed,
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tasks_threads_and_calls_of_a_request_have_its_actor() {
        let (own, task, thread, sent) = begin_by(Door::Http, "test", async {
            let own = actor();
            let task = tokio::spawn(carry(async { actor() })).await.unwrap();
            let work = carried(|| Context::new(Duration::ZERO).actor);
            let thread = tokio::task::spawn_blocking(work).await.unwrap();
            let sent = Context::new(Duration::from_secs(1)).request(());
            (own, task, thread, sent)
        })
        .await;
        assert_eq!((&own, &own), (&task, &thread));
        assert_eq!(own.door, Door::Http);
        let headers = sent.metadata().clone().into_headers();
        let received = actor_of(&headers);
        assert_eq!(received.request_id, own.request_id);
        assert_eq!(received.principal, own.principal);
        assert_eq!(
            received.door,
            Door::Grpc,
            "the door is the one into the process that received the call"
        );
    }

    #[tokio::test]
    async fn work_outside_of_a_request_gets_an_id_of_its_own() {
        assert_eq!(request_id(), None);
        let outside = actor();
        assert_eq!(outside.door, Door::Worker);
        assert_ne!(outside.request_id, actor().request_id);
        let begun = go_on(&outside, "test", async { actor() }).await;
        assert_eq!(begun, outside, "it begins with the actor that is given");
        let (outer, inner, other) = begin("outer", async {
            let outer = actor();
            let inner = go_on(&outer, "inner", async { actor() }).await;
            let other = go_on(&outside, "other", async { actor() }).await;
            (outer, inner, other)
        })
        .await;
        assert_eq!(outer, inner);
        assert_eq!(other, outside, "never in the name of the task that calls");
    }

    #[test]
    fn malformed_headers_count_as_not_sent() {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID_KEY, "0123456789abcdef".parse().unwrap());
        headers.insert(PRINCIPAL_KEY, "alice".parse().unwrap());
        let named = actor_of(&headers);
        assert_eq!(named.request_id.as_str(), "0123456789abcdef");
        assert_eq!(named.principal.as_str(), "alice");
        for bad in ["", "a b", &"a".repeat(257)] {
            headers.insert(REQUEST_ID_KEY, bad.parse().unwrap());
            headers.insert(PRINCIPAL_KEY, bad.parse().unwrap());
            let unnamed = actor_of(&headers);
            assert_ne!(unnamed.request_id.as_str(), bad);
            assert_eq!(unnamed.principal, PrincipalName::anonymous());
        }
    }
}
