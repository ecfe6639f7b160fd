//! Counts and durations of HTTP requests, by route.
//!
//! Invariant: labels are bounded: a route is a pattern of ours or "other", a method one of HTTP's
//! or "other".

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use monofs_rpc::metrics::{Durations, Samples};
use parking_lot::Mutex;

/// The label of what is none of ours.
pub(crate) const OTHER: &str = "other";

/// Requests by route and method, since the start.
#[derive(Default)]
pub(crate) struct HttpRequests(Mutex<BTreeMap<(String, &'static str), RouteAnswers>>);

#[derive(Default)]
struct RouteAnswers {
    codes: BTreeMap<u16, u64>,
    took: Arc<Durations>,
}

impl HttpRequests {
    pub fn answered(&self, route: String, method: &'static str, code: u16, took: Duration) {
        let mut all = self.0.lock();
        let of_route = all.entry((route, method)).or_default();
        *of_route.codes.entry(code).or_default() += 1;
        of_route.took.observe(took);
    }

    /// Adds their samples.
    pub fn samples(&self, out: &mut Samples) {
        let all = self.0.lock();
        for ((route, method), answered) in &*all {
            let codes = answered.codes.iter();
            out.counters_by(
                "monofs_http_requests_total",
                "HTTP requests answered, by route and status code.",
                ["route", "method", "code"],
                codes.map(|(code, count)| {
                    (
                        [route.clone(), (*method).to_owned(), code.to_string()],
                        *count,
                    )
                }),
            );
            out.histograms_by(
                "monofs_http_request_duration_seconds",
                "Time until an answer began.",
                ["route", "method"],
                [([route.clone(), (*method).to_owned()], &*answered.took)],
            );
        }
    }
}
