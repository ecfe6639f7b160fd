//! Counts and times the requests of the HTTP side, by route, and gives each an id that the calls
//! made for it carry.
//!
//! Invariant: labels are bounded: a route is a pattern of ours or "other", a method one of HTTP's
//! or "other".

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use monofs_rpc::context;
use monofs_rpc::metrics::{Durations, Samples};

use crate::RouterState;

const OTHER: &str = "other";

/// Requests by route and method, since the start.
#[derive(Default)]
pub(crate) struct HttpRequests(Mutex<BTreeMap<(String, &'static str), Answered>>);

#[derive(Default)]
struct Answered {
    codes: BTreeMap<u16, u64>,
    took: Arc<Durations>,
}

impl HttpRequests {
    fn answered(&self, route: String, method: &'static str, code: u16, took: Duration) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_route = all.entry((route, method)).or_default();
        *of_route.codes.entry(code).or_default() += 1;
        of_route.took.observe(took);
    }

    /// Adds their samples.
    pub fn samples(&self, out: &mut Samples) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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

fn name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => OTHER,
    }
}

/// Answers a request, as a request with an id of its own.
pub(crate) async fn measure(
    State(state): State<Arc<RouterState>>,
    request: Request,
    next: Next,
) -> Response {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or(OTHER, MatchedPath::as_str)
        .to_owned();
    let (method, begun) = (name(request.method()), Instant::now());
    let response = context::begin("http", next.run(request)).await;
    state
        .http_requests
        .answered(route, method, response.status().as_u16(), begun.elapsed());
    response
}
