//! What operators' tools ask of every server role over HTTP: `/health`, `/ready`, `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use monofs_model::{Error, Result};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::{self, Samples};

/// What a role says about itself.
pub trait Operations: Send + Sync + 'static {
    /// Its name, as `monofs_build_info` shows it.
    fn role(&self) -> &'static str;
    /// Why the role cannot do its work, one line each; empty = it can.
    fn problems(&self) -> Vec<String>;
    /// Adds its counters and gauges. May block.
    fn samples(&self, out: &mut Samples);
}

/// Serves on `listener` until `stop`; returns where.
pub fn serve(
    listener: TcpListener,
    role: Arc<dyn Operations>,
    stop: CancellationToken,
) -> Result<SocketAddr> {
    let address = listener
        .local_addr()
        .map_err(|e| Error::internal(format!("address of a listener: {e}")))?;
    let healthy = role.clone();
    let measured = role;
    let routes = Router::new()
        .route(
            "/health",
            get(move || async move { health(&healthy.problems()) }),
        )
        .route("/ready", get(|| async { "ready\n" }))
        .route(
            "/metrics",
            get(move || exposition(measured.role(), move |out| measured.samples(out))),
        );
    tracing::info!(%address, "metrics and health are served over HTTP");
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
        {
            tracing::error!(%address, %error, "the HTTP server ended");
        }
    });
    Ok(address)
}

/// The answer of `/metrics` of a `role` that adds its samples with `fill`, which may block.
pub async fn exposition(
    role: &'static str,
    fill: impl FnOnce(&mut Samples) + Send + 'static,
) -> Response {
    let made = tokio::task::spawn_blocking(move || metrics::exposition(role, fill)).await;
    match made {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("cannot gather metrics: {error}\n"),
        )
            .into_response(),
    }
}

fn health(problems: &[String]) -> (StatusCode, String) {
    if problems.is_empty() {
        return (StatusCode::OK, "healthy\n".to_owned());
    }
    (
        StatusCode::SERVICE_UNAVAILABLE,
        problems.iter().map(|line| format!("{line}\n")).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_says_what_is_wrong() {
        assert_eq!(health(&[]).0, StatusCode::OK);
        assert_eq!(
            health(&["disk full".into()]),
            (StatusCode::SERVICE_UNAVAILABLE, "disk full\n".into())
        );
    }
}
