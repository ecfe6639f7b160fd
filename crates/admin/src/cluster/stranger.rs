//! What answers at a router's address when it is no router: the usual mistake is another port.

use std::time::Duration;

use monofs_proto::v1;
use monofs_proto::v1::fetcher_client::FetcherClient;
use monofs_proto::v1::node_client::NodeClient;
use monofs_rpc::Channel;
use monofs_rpc::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::text::clean;

/// How long a stranger may take to give itself away.
const PATIENCE: Duration = Duration::from_secs(2);
/// What every server of HTTP answers, whatever it thinks of the path.
const HELLO: &[u8] = b"GET /health HTTP/1.1\r\nHost: monofs\r\nConnection: close\r\n\r\n";

/// What speaks at `address`, where no gRPC could be spoken; `None` = it does not say.
pub async fn language(address: &str) -> Option<&'static str> {
    let talk = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(HELLO).await?;
        let mut first = [0; 7];
        stream.read_exact(&mut first).await?;
        Ok::<_, std::io::Error>(first)
    };
    match tokio::time::timeout(PATIENCE, talk).await {
        Ok(Ok(first)) if first.starts_with(b"HTTP/1.") => {
            Some("it answers HTTP, not gRPC; is that the HTTP port of a router?")
        }
        // A TLS alert: the server takes our greeting for a broken handshake.
        Ok(Ok([0x15, 0x03, ..])) => Some("it speaks TLS; a router is asked without"),
        _ => None,
    }
}

/// Which role serves on a channel that knows gRPC but not the service of routers; `None` = none of
/// ours.
pub async fn role(channel: &Channel) -> Option<String> {
    let context = Context::new(PATIENCE);
    // Nodes and fetchers tell their ids.
    let node = async {
        let answer = NodeClient::new(channel.clone())
            .stat(context.request(v1::StatRequest::default()))
            .await
            .ok()?;
        Some(format!(
            "that is node {}, not a router",
            clean(&answer.into_inner().node_id)
        ))
    };
    let fetcher = async {
        let answer = FetcherClient::new(channel.clone())
            .stat(context.request(v1::FetcherStatRequest::default()))
            .await
            .ok()?;
        Some(format!(
            "that is fetcher {}, not a router",
            clean(&answer.into_inner().fetcher_id)
        ))
    };
    let (node, fetcher) = tokio::join!(node, fetcher);
    node.or(fetcher)
}
