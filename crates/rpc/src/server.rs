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

/// Binds `address`; port 0 picks a free one. Errors: `Refused` where another process listens
/// there, else `Unavailable`; both name the address.
pub async fn bind(address: &str) -> Result<TcpListener> {
    let address = if address.starts_with(':') {
        format!("0.0.0.0{address}")
    } else {
        address.to_owned()
    };
    TcpListener::bind(&address)
        .await
        .map_err(|e| match e.kind() {
            std::io::ErrorKind::AddrInUse => Error::refused(format!(
                "listen on {address}: another process listens there; end it, or choose another port"
            )),
            _ => Error::unavailable(format!("listen on {address}: {e}")),
        })
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

    async fn answer_of(address: SocketAddr, request: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn health_of(
        address: SocketAddr,
    ) -> tonic_health::pb::health_check_response::ServingStatus {
        let channel = crate::ChannelPool::default()
            .get(&address.to_string())
            .unwrap();
        tonic_health::pb::health_client::HealthClient::new(channel)
            .check(tonic_health::pb::HealthCheckRequest::default())
            .await
            .unwrap()
            .into_inner()
            .status()
    }

    #[tokio::test]
    async fn a_server_says_that_it_is_ready_once_its_role_is() {
        use tonic_health::pb::health_check_response::ServingStatus as Answer;
        let listener = bind("127.0.0.1:0").await.unwrap();
        let server = serve(listener, Routes::default(), CancellationToken::new()).unwrap();
        server.set_health(ServingStatus::NotServing).await;
        assert_eq!(health_of(server.address()).await, Answer::NotServing);
        server.announce_ready().await;
        assert_eq!(health_of(server.address()).await, Answer::Serving);
        server.shutdown(Duration::from_secs(10)).await;
    }

    #[tokio::test]
    async fn a_server_that_was_shut_down_has_given_its_port_back() {
        let stop = CancellationToken::new();
        let listener = bind("127.0.0.1:0").await.unwrap();
        let server = serve(listener, Routes::default(), stop.clone()).unwrap();
        let address = server.address();
        assert_eq!(
            bind(&address.to_string()).await.unwrap_err().kind,
            monofs_model::ErrorKind::Refused
        );
        server.shutdown(Duration::from_secs(10)).await;
        bind(&address.to_string()).await.expect("the port is free");
    }

    #[tokio::test]
    async fn a_server_ends_by_its_token_too() {
        let stop = CancellationToken::new();
        let listener = bind("127.0.0.1:0").await.unwrap();
        let mut server = serve(listener, Routes::default(), stop.clone()).unwrap();
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(10), server.ended())
            .await
            .expect("it ends");
    }

    #[tokio::test]
    async fn a_load_balancer_may_probe_with_plain_http() {
        let listener = bind("127.0.0.1:0").await.unwrap();
        let server = serve(listener, Routes::default(), CancellationToken::new()).unwrap();
        let probe = "GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let answer = answer_of(server.address(), probe).await;
        assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
    }
}
