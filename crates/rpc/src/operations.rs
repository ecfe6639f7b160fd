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

    // Health is about the role and may fail; ready only means that the process answers.
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

    // The server runs beside the role: when it fails, the role goes on, and the log says so.
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
#[allow(clippy::unwrap_used)]
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

    struct TestRole(Vec<String>);

    impl Operations for TestRole {
        fn role(&self) -> &'static str {
            "test"
        }

        fn problems(&self) -> Vec<String> {
            self.0.clone()
        }

        fn samples(&self, out: &mut Samples) {
            out.gauge("test_files", "Files.", 3_u64);
        }
    }

    /// The answers of a role with these problems to `/health`, `/ready` and `/metrics`.
    async fn answers(problems: &[&str]) -> [String; 3] {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let problems = problems.iter().map(|line| (*line).to_owned()).collect();
        let stop = CancellationToken::new();
        let address = serve(listener, Arc::new(TestRole(problems)), stop.clone()).unwrap();
        let mut answers = ["/health", "/ready", "/metrics"].map(str::to_owned);
        for answer in &mut answers {
            let request = format!("GET {answer} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            answer.clear();
            stream.read_to_string(answer).await.unwrap();
        }
        stop.cancel();
        answers
    }

    #[tokio::test]
    async fn a_healthy_role_says_so_and_tells_its_samples() {
        let [health, ready, told] = answers(&[]).await;
        assert!(health.starts_with("HTTP/1.1 200 ") && health.ends_with("healthy\n"));
        assert!(ready.starts_with("HTTP/1.1 200 ") && ready.ends_with("ready\n"));
        assert!(told.contains(metrics::CONTENT_TYPE), "{told}");
        assert!(told.contains("\ntest_files 3\n"), "{told}");
        assert!(told.contains("monofs_build_info{role=\"test\""), "{told}");
    }

    #[tokio::test]
    async fn a_role_with_problems_names_each_and_stays_reachable() {
        let [health, ready, metrics] = answers(&["the disk is full", "no router answers"]).await;
        assert!(health.starts_with("HTTP/1.1 503 "), "{health}");
        assert!(health.ends_with("the disk is full\nno router answers\n"));
        assert!(ready.starts_with("HTTP/1.1 200 ") && metrics.starts_with("HTTP/1.1 200 "));
    }
}
