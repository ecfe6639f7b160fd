//! Rate, errors and durations of requests by method: those that a server was asked, or those that a
//! caller made.
//!
//! Invariants: every request that begins ends once, as "cancelled" when its caller left before its
//! end; methods that are not of our protocol are one method "other", so that no peer can make up
//! labels.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use monofs_proto::v1::METHODS;
use tonic::Code;

use super::durations::Durations;
use super::samples::Samples;

/// The services that every server has besides its own.
const SHARED: [(&str, &str); 3] = [
    ("grpc.health.v1.Health", "Check"),
    ("grpc.health.v1.Health", "Watch"),
    (
        "grpc.reflection.v1.ServerReflection",
        "ServerReflectionInfo",
    ),
];
const OTHER: (&str, &str) = ("other", "other");

/// Names of the codes, in gRPC's order.
const CODES: [&str; 17] = [
    "ok",
    "cancelled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
];

/// Where a method is in a table, by its path.
static PLACES: LazyLock<HashMap<String, usize>> = LazyLock::new(|| {
    let paths = methods().map(|(service, method)| format!("/{service}/{method}"));
    paths.enumerate().map(|(at, path)| (path, at)).collect()
});

fn methods() -> impl Iterator<Item = (&'static str, &'static str)> {
    METHODS.into_iter().chain(SHARED)
}

/// Whether `path` is a method of a service that we know.
pub(crate) fn is_known(path: &str) -> bool {
    PLACES.contains_key(path)
}

/// Requests by method, since the start.
#[derive(Debug)]
pub struct Calls(Box<[MethodCalls]>);

#[derive(Debug)]
struct MethodCalls {
    name: [&'static str; 2],
    in_flight: AtomicU64,
    ended: [AtomicU64; CODES.len()],
    took: Durations,
}

impl Default for Calls {
    fn default() -> Self {
        let method = |(service, method)| MethodCalls {
            name: [service, method],
            in_flight: AtomicU64::new(0),
            ended: Default::default(),
            took: Durations::default(),
        };
        Self(methods().chain([OTHER]).map(method).collect())
    }
}

/// The requests of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallTotals {
    /// As [`Durations::counts`].
    pub durations: Vec<u64>,
    /// Those that the server failed; not those that were wrong, cancelled, or about what it does
    /// not hold.
    pub failed: u64,
}

impl Calls {
    /// A request for the method at `path` (`/service/method`) begins.
    pub fn begin(self: &Arc<Self>, path: &str) -> Call {
        let at = PLACES.get(path).copied().unwrap_or(self.0.len() - 1);
        self.0[at].in_flight.fetch_add(1, Ordering::Relaxed);
        Call {
            calls: self.clone(),
            at,
            begun: Instant::now(),
            code: None,
        }
    }

    /// The requests for all methods of `service`.
    pub fn totals(&self, service: &str) -> CallTotals {
        let mut totals = CallTotals {
            durations: Durations::default().counts(),
            failed: 0,
        };
        for method in self.0.iter().filter(|method| method.name[0] == service) {
            totals
                .durations
                .iter_mut()
                .zip(method.took.counts())
                .for_each(|(sum, count)| *sum += count);
            let ended = method.ended.iter().enumerate();
            let failed = ended.filter(|(code, _)| is_failure(Code::from(*code as i32)));
            totals.failed += failed
                .map(|(_, count)| count.load(Ordering::Relaxed))
                .sum::<u64>();
        }
        totals
    }

    /// Adds them as those that this server was asked.
    pub fn served(&self, out: &mut Samples) {
        out.counters_by(
            "monofs_rpc_requests_total",
            "Requests that ended, by gRPC code; cancelled = nobody waited for the end.",
            ["service", "method", "code"],
            self.by_code(),
        );
        out.histograms_by(
            "monofs_rpc_request_duration_seconds",
            "Time until a request ended; of a stream, until its last message was taken.",
            ["service", "method"],
            self.seen().map(|method| (method.name, &method.took)),
        );
        out.gauges_by(
            "monofs_rpc_requests_in_flight",
            "Requests being answered.",
            ["service", "method"],
            self.seen()
                .map(|method| (method.name, method.in_flight.load(Ordering::Relaxed))),
        );
    }

    /// Adds them as those that this process made of others.
    pub fn made(&self, out: &mut Samples) {
        out.counters_by(
            "monofs_rpc_calls_total",
            "Calls to other processes that ended, by gRPC code; cancelled = given up here.",
            ["service", "method", "code"],
            self.by_code(),
        );
        out.histograms_by(
            "monofs_rpc_call_duration_seconds",
            "Time until a call to another process ended; of a stream, until its last message came.",
            ["service", "method"],
            self.seen().map(|method| (method.name, &method.took)),
        );
    }

    /// The methods that were asked for.
    fn seen(&self) -> impl Iterator<Item = &MethodCalls> {
        let ended = |method: &MethodCalls| {
            method
                .ended
                .iter()
                .any(|count| count.load(Ordering::Relaxed) > 0)
        };
        self.0
            .iter()
            .filter(move |method| method.in_flight.load(Ordering::Relaxed) > 0 || ended(method))
    }

    fn by_code(&self) -> impl Iterator<Item = ([&'static str; 3], u64)> {
        self.0.iter().flat_map(|method| {
            let [service, name] = method.name;
            let ended = CODES.into_iter().zip(&method.ended);
            let counts = ended
                .map(move |(code, count)| ([service, name, code], count.load(Ordering::Relaxed)));
            counts.filter(|(_, count)| *count > 0)
        })
    }
}

/// Whether a request that ended with this code is one that the server failed.
fn is_failure(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// A request under way; it ends when this is dropped.
#[derive(Debug)]
pub struct Call {
    calls: Arc<Calls>,
    at: usize,
    begun: Instant,
    code: Option<Code>,
}

impl Call {
    /// How it will have ended; without this it was cancelled.
    pub fn ends(&mut self, code: Code) {
        self.code = Some(code);
    }

    /// How it ended, as far as was said.
    pub(crate) fn code(&self) -> Option<Code> {
        self.code
    }

    /// When it began.
    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let method = &self.calls.0[self.at];
        method.took.observe(self.begun.elapsed());
        method.ended[self.code.unwrap_or(Code::Cancelled) as usize].fetch_add(1, Ordering::Relaxed);
        method.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_methods_are_one_and_what_was_not_asked_is_not_shown() {
        let calls = Arc::new(Calls::default());
        calls.begin("/monofs.v1.Content/GetBlobs").ends(Code::Ok);
        calls.begin("/made/Up").ends(Code::Unimplemented);
        calls.begin("/made/Up2").ends(Code::Unimplemented);
        drop(calls.begin("/monofs.v1.Content/GetTrees"));
        let mut failed = calls.begin("/monofs.v1.Content/GetTrees");
        failed.ends(Code::Unavailable);
        drop(failed);
        let shown: Vec<_> = calls.by_code().collect();
        assert_eq!(
            shown,
            [
                (["monofs.v1.Content", "GetTrees", "cancelled"], 1),
                (["monofs.v1.Content", "GetTrees", "unavailable"], 1),
                (["monofs.v1.Content", "GetBlobs", "ok"], 1),
                (["other", "other", "unimplemented"], 2),
            ]
        );
        let totals = calls.totals("monofs.v1.Content");
        assert_eq!(
            (totals.durations.iter().sum::<u64>(), totals.failed),
            (3, 1)
        );
        let waiting = calls.begin("/monofs.v1.Node/Stat");
        assert_eq!(calls.seen().count(), 4);
        drop(waiting);
    }
}
