//! What operators' tools ask of every server role over HTTP: `/health`, `/ready`, `/metrics`.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use monofs_model::{Error, Result};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What a role says about itself.
pub trait Operations: Send + Sync + 'static {
    /// Why the role cannot do its work, one line each; empty = it can.
    fn problems(&self) -> Vec<String>;
    /// Its counters and gauges.
    fn metrics(&self) -> Vec<Metric>;
}

/// One sample in Prometheus's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// With the unit in it; a name that ends in `_total` is a counter, any other a gauge.
    pub name: &'static str,
    pub help: &'static str,
    pub value: u64,
}

impl Metric {
    /// A sample.
    pub fn new(name: &'static str, help: &'static str, value: u64) -> Self {
        Self { name, help, value }
    }
}

/// Serves on `listener` until `stop`; returns where.
pub fn serve(listener: TcpListener, role: Arc<dyn Operations>, stop: CancellationToken) -> Result<SocketAddr> {
    let address = listener.local_addr().map_err(|e| Error::internal(format!("address of a listener: {e}")))?;
    let (healthy, measured) = (role.clone(), role);
    let routes = Router::new()
        .route("/health", get(move || async move { health(&healthy.problems()) }))
        .route("/ready", get(|| async { "ready\n" }))
        .route("/metrics", get(move || async move { exposition(&measured.metrics()) }));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await {
            tracing::error!(%address, %error, "the HTTP server ended");
        }
    });
    Ok(address)
}

/// The answer of `/metrics`.
pub fn exposition(metrics: &[Metric]) -> impl IntoResponse + use<> {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text(metrics))
}

fn health(problems: &[String]) -> (StatusCode, String) {
    if problems.is_empty() {
        return (StatusCode::OK, "healthy\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, problems.iter().map(|line| format!("{line}\n")).collect())
}

/// Prometheus's text format.
/// Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>.
fn text(metrics: &[Metric]) -> String {
    let mut text = String::new();
    for Metric { name, help, value } in metrics {
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_gauges_are_told_apart() {
        let shown = text(&[Metric::new("a_bytes", "Bytes.", 1), Metric::new("b_total", "Bs.", 2)]);
        assert_eq!(
            shown,
            "# HELP a_bytes Bytes.\n# TYPE a_bytes gauge\na_bytes 1\n# HELP b_total Bs.\n# TYPE b_total counter\nb_total 2\n"
        );
        assert_eq!(health(&[]).0, StatusCode::OK);
        assert_eq!(health(&["disk full".into()]), (StatusCode::SERVICE_UNAVAILABLE, "disk full\n".into()));
    }
}
