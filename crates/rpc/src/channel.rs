//! One channel per peer, made lazily and kept alive.
//!
//! tonic's own balancer picks at random and knows no health; callers decide which peer a request
//! goes to (holders in HRW order), so this pool only maps an address to its connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use monofs_model::{Error, Result};
use parking_lot::RwLock;
use tonic::transport::Endpoint;

use crate::measure::Channel;
use crate::metrics::Calls;

/// HTTP/2 windows of one stream and one connection, in bytes; the default of 64 KiB throttles bulk
/// reads.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// See [`STREAM_WINDOW_BYTES`].
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Largest HTTP/2 DATA frame of an answer: with the default of 16 KiB a bulk read takes a third
/// longer, from 256 KiB on it gains nothing more. Another answer on the
/// same connection waits for one frame at most.
pub const DATA_FRAME_BYTES: u32 = 256 << 10;
/// How long a TCP connect may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A peer that is silent this long is asked, and given this long to answer.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// [`KEEP_ALIVE`] of a calm pool.
const CALM_KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Most peers remembered; over it the pool starts afresh (live channels stay with their users).
const PEERS_MAX: usize = 4096;

/// Channels by `host:port`. Cheap to clone; clones share the connections.
#[derive(Clone, Default)]
pub struct ChannelPool {
    peers: Arc<RwLock<HashMap<String, Channel>>>,
    calm: bool,
    calls: Arc<Calls>,
}

impl ChannelPool {
    /// For servers that are not ours and end connections that are pinged often or without a call
    /// (gRPC's default in Go).
    pub fn calm() -> Self {
        Self {
            calm: true,
            ..Self::default()
        }
    }

    /// Connections of its own, for the same peers; what is asked over them counts here.
    pub fn apart(&self) -> Self {
        Self {
            peers: Arc::default(),
            calm: self.calm,
            calls: self.calls.clone(),
        }
    }

    /// What was asked over these connections.
    pub fn calls(&self) -> &Arc<Calls> {
        &self.calls
    }

    /// The channel to `address` (`host:port`). Connects on first use. Errors: `Invalid` for what is
    /// no address.
    pub fn get(&self, address: &str) -> Result<Channel> {
        if let Some(channel) = self.peers.read().get(address) {
            return Ok(channel.clone());
        }
        let mut endpoint = endpoint(address)?;
        if self.calm {
            endpoint = endpoint
                .http2_keep_alive_interval(CALM_KEEP_ALIVE)
                .keep_alive_while_idle(false);
        }
        let channel = Channel::new(endpoint.connect_lazy(), self.calls.clone());
        let mut peers = self.peers.write();
        if peers.len() >= PEERS_MAX {
            peers.clear();
        }
        Ok(peers.entry(address.to_owned()).or_insert(channel).clone())
    }
}

fn endpoint(address: &str) -> Result<Endpoint> {
    let wrong = || {
        Error::invalid(format!(
            "'{}' is not an address, write host:port",
            address.escape_debug()
        ))
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(wrong());
    }
    Ok(Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| wrong())?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(DATA_FRAME_BYTES))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_address_is_refused_at_once() {
        let pool = ChannelPool::default();
        for bad in ["", "host", ":9000", "host:port", "ho st:1"] {
            assert!(pool.get(bad).is_err(), "{bad:?}");
        }
        assert!(pool.get("localhost:9090").is_ok());
    }

    #[tokio::test]
    async fn a_pool_of_its_own_counts_with_the_one_that_it_is_apart_from() {
        let pool = ChannelPool::default();
        let apart = pool.apart();
        assert!(Arc::ptr_eq(pool.calls(), apart.calls()));
        pool.get("localhost:9090").unwrap();
        assert_eq!(pool.peers.read().len(), 1);
        assert_eq!(apart.peers.read().len(), 0);
    }

    #[tokio::test]
    async fn a_pool_remembers_a_bounded_number_of_peers() {
        let pool = ChannelPool::default();
        for port in 1..=PEERS_MAX + 1 {
            pool.get(&format!("localhost:{port}")).unwrap();
            pool.get(&format!("localhost:{port}")).unwrap();
            assert!(pool.peers.read().len() <= PEERS_MAX);
        }
        assert_eq!(pool.peers.read().len(), 1, "it began again");
    }
}
