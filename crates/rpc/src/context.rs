//! What travels with every request: who asks, a request id for logs, and the deadline.
//!
//! The principal is anonymous until authentication exists; it is here from the first day so that rights are one layer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tonic::Request;
use tonic::metadata::MetadataValue;

/// Metadata key of the request id (16 hexadecimal digits).
pub const REQUEST_ID_KEY: &str = "monofs-request-id";
/// Metadata key of the principal.
pub const PRINCIPAL_KEY: &str = "monofs-principal";
/// The principal of everybody, for now.
pub const ANONYMOUS: &str = "anonymous";

/// The context of one request, kept over every hop that it causes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    pub request_id: String,
    pub principal: String,
    /// What is left of the time for the whole request.
    pub deadline: Duration,
}

impl Context {
    /// A new request with this much time.
    pub fn new(deadline: Duration) -> Self {
        Self { request_id: next_request_id(), principal: ANONYMOUS.to_owned(), deadline }
    }

    /// The context of a request that came in; calls made on its behalf get `deadline`.
    pub fn of<T>(request: &Request<T>, deadline: Duration) -> Self {
        let text = |key: &str| request.metadata().get(key).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Self {
            request_id: text(REQUEST_ID_KEY).filter(|id| id.len() <= 64).unwrap_or_else(next_request_id),
            principal: text(PRINCIPAL_KEY).filter(|name| name.len() <= 256).unwrap_or_else(|| ANONYMOUS.to_owned()),
            deadline,
        }
    }

    /// A unary request that carries this context and its deadline.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = self.stream(message);
        request.set_timeout(self.deadline);
        request
    }

    /// A streaming request: carries the context; each message of the answer is awaited with a deadline instead.
    pub fn stream<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        for (key, value) in [(REQUEST_ID_KEY, &self.request_id), (PRINCIPAL_KEY, &self.principal)] {
            if let Ok(value) = MetadataValue::try_from(value.as_str()) {
                request.metadata_mut().insert(key, value);
            }
        }
        request
    }
}

fn next_request_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    let seed = now ^ u64::from(std::process::id()).rotate_left(40);
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64_with_seed(&count.to_le_bytes(), seed))
}
