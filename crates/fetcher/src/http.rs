//! `/health`, `/ready` and `/metrics` over HTTP, for probes and Prometheus.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::flights::Flights;

/// Serves until `stop` is cancelled.
pub async fn serve(listener: TcpListener, flights: Arc<Flights>, stop: CancellationToken) {
    let ok = || async { "ok\n" };
    let metrics =
        move || async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4")], metrics(&flights)).into_response() };
    let routes = Router::new().route("/health", get(ok)).route("/ready", get(ok)).route("/metrics", get(metrics));
    if let Err(error) = axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await {
        tracing::error!(%error, "the HTTP server ended");
    }
}

/// The counters in Prometheus's text format.
fn metrics(flights: &Flights) -> String {
    let (cache, counters) = (&flights.cache, &flights.counters);
    let mut text = String::new();
    let mut add = |name: &str, kind: &str, help: &str, value: u64| {
        let name = format!("monofs_fetcher_{name}");
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}")
            .expect("a String takes everything");
    };
    add("cache_bytes", "gauge", "Bytes of disk that the cache takes.", cache.disk_bytes());
    add("cache_bytes_max", "gauge", "Bytes of disk that the cache may take.", cache.bytes_max());
    add("cached_repositories", "gauge", "Repositories in the cache.", cache.len() as u64);
    add("fetches_running", "gauge", "Fetches under way or waiting.", flights.running() as u64);
    for (name, help, counter) in [
        ("cache_hits_total", "Fetches answered from the cache.", &counters.hits),
        ("cache_misses_total", "Fetches that had to ask the remote.", &counters.misses),
        ("fetches_total", "Fetches that succeeded.", &counters.done),
        ("fetch_failures_total", "Fetches that failed.", &counters.failed),
        ("fetched_bytes_total", "Bytes received from remotes.", &counters.bytes),
    ] {
        add(name, "counter", help, counter.load(Ordering::Relaxed));
    }
    text
}
