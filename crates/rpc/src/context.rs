//! What travels with every request: who asks, a request id for logs, and the deadline.
//!
//! A request begins where somebody outside asks for something ([`begin`]: the kernel, an operator,
//! a clock) and gets an id there. A server takes over the id that came with a call; calls made
//! meanwhile carry it on, since [`Context::new`] takes it from the task. So one id is in the log of
//! every role that a request reaches. Invariant: work that a request starts in a task or on a
//! thread of its own is wrapped in [`carry`] or [`carried`], or its lines and calls would be
//! nobody's.
//!
//! The principal is anonymous until authentication exists; it is here from the first day so that
//! rights are one layer.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::Either;
use tonic::Request;
use tonic::codegen::http::HeaderMap;
use tonic::metadata::MetadataValue;
use tracing::{Instrument, Span, info_span};

/// Metadata key of the request id (16 hexadecimal digits).
pub const REQUEST_ID_KEY: &str = "monofs-request-id";
/// Metadata key of the principal.
pub const PRINCIPAL_KEY: &str = "monofs-principal";
/// The principal of everybody, for now.
pub const ANONYMOUS: &str = "anonymous";
/// Longest id and principal that are taken from a caller.
const ID_BYTES_MAX: usize = 64;
const PRINCIPAL_BYTES_MAX: usize = 256;

tokio::task_local! {
    static CURRENT: Caller;
}

/// Which request a task works for, and who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub request_id: Arc<str>,
    pub principal: Arc<str>,
}

impl Caller {
    fn new() -> Self {
        Self {
            request_id: next_request_id().into(),
            principal: ANONYMOUS.into(),
        }
    }

    /// The caller that a request's headers name. What is not there, or is no id, is made anew.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let text = |key: &str| headers.get(key).and_then(|value| value.to_str().ok());
        let is_id = |id: &&str| {
            (1..=ID_BYTES_MAX).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        let principal = text(PRINCIPAL_KEY)
            .filter(|name| name.len() <= PRINCIPAL_BYTES_MAX)
            .unwrap_or(ANONYMOUS);
        Self {
            request_id: text(REQUEST_ID_KEY)
                .filter(is_id)
                .map_or_else(|| next_request_id().into(), Into::into),
            principal: principal.into(),
        }
    }

    /// Runs `work` for this caller.
    pub(crate) fn scope<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, work)
    }

    /// Runs `work`, which does not wait, for this caller.
    pub(crate) fn sync_scope<T>(self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self, work)
    }
}

fn current() -> Option<Caller> {
    CURRENT.try_with(Clone::clone).ok()
}

/// The id of the request that this task works for.
pub fn request_id() -> Option<Arc<str>> {
    CURRENT.try_with(|caller| caller.request_id.clone()).ok()
}

/// A request that begins here: `work` is done under a new id, which its log lines show.
pub fn begin<F: Future>(doing: &'static str, work: F) -> impl Future<Output = F::Output> {
    let caller = Caller::new();
    let span = info_span!("request", doing, request = &*caller.request_id);
    let work = async move {
        tracing::debug!("begins");
        let begun = std::time::Instant::now();
        let output = work.await;
        tracing::debug!(took = ?begun.elapsed(), "ended");
        output
    };
    caller.scope(work.instrument(span))
}

/// `work` as part of the request of the task that calls this, or as a new one where there is none;
/// for a task of its own.
pub fn go_on<F: Future>(doing: &'static str, work: F) -> impl Future<Output = F::Output> {
    match current() {
        Some(_) => Either::Left(carry(work)),
        None => Either::Right(begin(doing, work)),
    }
}

/// `work` as part of the request of the task that calls this, for a task of its own.
pub fn carry<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let work = work.instrument(Span::current());
    match current() {
        Some(caller) => Either::Left(caller.scope(work)),
        None => Either::Right(work),
    }
}

/// `work` as part of the request of the task that calls this, for a thread that may block.
pub fn carried<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let (span, caller) = (Span::current(), current());
    move || {
        let work = || span.in_scope(work);
        match caller {
            Some(caller) => caller.sync_scope(work),
            None => work(),
        }
    }
}

/// The context of one request, kept over every hop that it causes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    pub request_id: String,
    pub principal: String,
    /// What is left of the time for the whole request.
    pub deadline: Duration,
}

impl Context {
    /// For calls made on behalf of the request that this task works for, else a new one; each gets
    /// this much time.
    pub fn new(deadline: Duration) -> Self {
        let Caller {
            request_id,
            principal,
        } = current().unwrap_or_else(Caller::new);
        Self {
            request_id: request_id.to_string(),
            principal: principal.to_string(),
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
        for (key, value) in [
            (REQUEST_ID_KEY, &self.request_id),
            (PRINCIPAL_KEY, &self.principal),
        ] {
            if let Ok(value) = MetadataValue::try_from(value.as_str()) {
                request.metadata_mut().insert(key, value);
            }
        }
        request
    }
}

fn next_request_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos() as u64);
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    let seed = now ^ u64::from(std::process::id()).rotate_left(40);
    format!(
        "{:016x}",
        xxhash_rust::xxh3::xxh3_64_with_seed(&count.to_le_bytes(), seed)
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_carry_the_id_of_the_request_that_they_are_made_for() {
        let ids = begin("test", async {
            let own = Context::new(Duration::ZERO).request_id;
            let task = tokio::spawn(carry(async { Context::new(Duration::ZERO).request_id }))
                .await
                .unwrap();
            let work = carried(|| Context::new(Duration::ZERO).request_id);
            (own, task, tokio::task::spawn_blocking(work).await.unwrap())
        })
        .await;
        assert_eq!((&ids.0, &ids.0), (&ids.1, &ids.2));
        assert_ne!(
            ids.0,
            Context::new(Duration::ZERO).request_id,
            "outside of it there is another one"
        );
    }

    #[test]
    fn what_is_no_id_is_not_taken_from_a_caller() {
        let named = |id: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID_KEY, id.parse().unwrap());
            Caller::of(&headers).request_id.to_string()
        };
        assert_eq!(named("0123456789abcdef"), "0123456789abcdef");
        for bad in ["", "a b", "a\"b", &"a".repeat(65)] {
            assert_ne!(named(bad), bad);
        }
    }
}
