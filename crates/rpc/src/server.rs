//! Every gRPC server: limits, keep-alive, health, reflection, measuring and a shutdown that ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use monofs_model::{Error, Result};
use monofs_proto::v1::FILE_DESCRIPTOR_SET;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::channel::{CONNECTION_WINDOW_BYTES, KEEP_ALIVE, STREAM_WINDOW_BYTES};
use crate::measure::MeasureLayer;
use crate::metrics::Calls;

/// Most concurrent streams of one connection.
const STREAMS_PER_CONNECTION_MAX: u32 = 4096;

/// A server that runs; dropping it does not stop it, [`RunningServer::shutdown`] does.
pub struct RunningServer {
    address: SocketAddr,
    stop: CancellationToken,
    health: HealthReporter,
    task: JoinHandle<()>,
}

impl RunningServer {
    /// Where it listens (the real port, also when 0 was asked for).
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells the health service (service name "") that the role can do its work.
    pub async fn announce_ready(&self) {
        self.set_health(ServingStatus::Serving).await;
    }

    pub(crate) async fn set_health(&self, status: ServingStatus) {
        self.health.set_service_status("", status).await;
    }

    /// Stops accepting, lets running requests end for `limit`, then cuts what is left.
    pub async fn shutdown(mut self, limit: Duration) {
        self.set_health(ServingStatus::NotServing).await;
        self.stop.cancel();
        if tokio::time::timeout(limit, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }

    /// Waits until the server ends by itself (its listener failed) or is shut down through the
    /// token.
    pub async fn ended(&mut self) {
        let _ = (&mut self.task).await;
    }
}

/// Binds `address`; port 0 picks a free one. Errors: `Unavailable`, naming the address.
pub async fn bind(address: &str) -> Result<TcpListener> {
    let address = if address.starts_with(':') {
        format!("0.0.0.0{address}")
    } else {
        address.to_owned()
    };
    TcpListener::bind(&address)
        .await
        .map_err(|e| Error::unavailable(format!("listen on {address}: {e}")))
}

/// What to tell others about where a listener is: the host's name stands for every address.
pub fn announced(listening: SocketAddr) -> String {
    if !listening.ip().is_unspecified() {
        return listening.to_string();
    }
    let host = crate::host::name();
    let host = if host.is_empty() { "127.0.0.1" } else { &host };
    format!("{host}:{}", listening.port())
}

/// Serves `routes` with health and reflection on `listener` until `stop` is cancelled.
pub fn serve(
    listener: TcpListener,
    routes: Routes,
    stop: CancellationToken,
) -> Result<RunningServer> {
    serve_counted(listener, routes, Arc::default(), stop)
}

/// [`serve`], with what is asked of it counted in `calls`.
pub fn serve_counted(
    listener: TcpListener,
    routes: Routes,
    calls: Arc<Calls>,
    stop: CancellationToken,
) -> Result<RunningServer> {
    let address = listener
        .local_addr()
        .map_err(|e| Error::internal(format!("address of a listener: {e}")))?;
    let (health, health_service) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|e| Error::internal(format!("gRPC reflection: {e}")))?;
    let routes = routes.add_service(health_service).add_service(reflection);
    let server = tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        // For probes of load balancers; gRPC itself is HTTP/2.
        .accept_http1(true)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .layer(MeasureLayer(calls))
        .add_routes(routes);
    let stopped = stop.clone();
    let task = tokio::spawn(async move {
        if let Err(error) = server
            .serve_with_incoming_shutdown(incoming(listener), stopped.cancelled())
            .await
        {
            tracing::error!(%address, %error, "the gRPC server ended");
        }
    });
    Ok(RunningServer {
        address,
        stop,
        health,
        task,
    })
}

/// Connections without Nagle's algorithm, which tonic sets on listeners of its own only: with it,
/// an answer in more than one piece waits for the client's delayed acknowledgement, 40 ms.
fn incoming(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[test]
    fn every_address_is_announced_as_the_name_of_the_host() {
        assert_eq!(announced("10.0.0.1:9000".parse().unwrap()), "10.0.0.1:9000");
        let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(
            announced("[::]:9000".parse().unwrap()),
            format!("{}:9000", kernel.trim())
        );
    }

    #[tokio::test]
    async fn accepted_connections_do_not_wait_to_fill_packets() {
        let listener = bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, server) = tokio::join!(tokio::net::TcpStream::connect(address), async {
            incoming(listener).next().await
        });
        assert!(client.is_ok() && server.unwrap().unwrap().nodelay().unwrap());
    }
}
