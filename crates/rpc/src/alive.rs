//! Tells a peer that works from one that is gone without having said so: stopped, cut off, or its
//! machine lost.
//!
//! A connection to such a peer stays open, and keep-alive needs ten seconds to notice. So a
//! caller that waits for a silent peer asks its health service meanwhile, over a connection of its
//! own, since the first one may be full of data that is not read yet. A peer that is slow answers
//! that at once and is waited for.

use std::future::Future;
use std::time::Duration;

use monofs_model::{Error, ErrorKind, Result};
use tonic::Request;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::channel::ChannelPool;
use crate::status::from_status;

/// Silence after which the peer is asked whether it is there; as long again after each time that it
/// was.
pub const SILENT_AFTER: Duration = Duration::from_millis(300);
/// How long it may take to say so. A machine that is busy answers within this.
pub const PROBE_TIMEOUT: Duration = Duration::from_millis(700);

/// Waits for `answer` of the peer at `address` for as long as the peer is there. `probes` holds the
/// connections that peers are asked over, and no others. Errors: those of `answer`; `Unavailable`
/// when the peer is gone.
pub async fn while_alive<T>(
    probes: &ChannelPool,
    address: &str,
    answer: impl Future<Output = Result<T>>,
) -> Result<T> {
    while_heard(probes, address, 1, answer).await
}

/// [`while_alive`] for requests that no other peer can answer: the peer is gone when it leaves
/// `unheard_max` questions in a row unanswered, so a machine that stands still for a moment is
/// waited for.
pub async fn while_heard<T>(
    probes: &ChannelPool,
    address: &str,
    unheard_max: u32,
    answer: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut answer = std::pin::pin!(answer);
    let mut unheard = 0;
    loop {
        if let Ok(result) = tokio::time::timeout(SILENT_AFTER, &mut answer).await {
            return result;
        }
        tokio::select! {
            biased;
            result = &mut answer => return result,
            alive = is_alive(probes, address) => unheard = if alive { 0 } else { unheard + 1 },
        }
        if unheard >= unheard_max {
            return Err(Error::unavailable(format!(
                "{address} is silent and does not say that it is there"
            )));
        }
    }
}

/// Whether the peer answers at all; what it answers is not looked at.
async fn is_alive(probes: &ChannelPool, address: &str) -> bool {
    let Ok(channel) = probes.get(address) else {
        return false;
    };
    let mut request = Request::new(HealthCheckRequest::default());
    request.set_timeout(PROBE_TIMEOUT);
    let mut health = HealthClient::new(channel);
    match tokio::time::timeout(PROBE_TIMEOUT, health.check(request)).await {
        Ok(Ok(_)) => true,
        // A peer that says no is there; the transport says `Unavailable`.
        Ok(Err(status)) => from_status(status).kind != ErrorKind::Unavailable,
        Err(_) => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[tokio::test]
    async fn a_slow_peer_is_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let running = crate::serve(
            listener,
            tonic::service::Routes::default(),
            CancellationToken::new(),
        )
        .unwrap();
        running
            .set_health(tonic_health::ServingStatus::NotServing)
            .await;
        let slow = async {
            tokio::time::sleep(3 * SILENT_AFTER).await;
            Ok(7)
        };
        let probes = ChannelPool::default();
        assert_eq!(
            while_alive(&probes, &running.address().to_string(), slow)
                .await
                .unwrap(),
            7
        );
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_is_given_up_in_a_second() {
        // The kernel takes connections for it that are never read, as with a stopped process.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let from = tokio::time::Instant::now();
        let never = std::future::pending::<Result<()>>();
        let error = while_alive(&ChannelPool::default(), &address, never)
            .await
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert!(
            from.elapsed() < 2 * (SILENT_AFTER + PROBE_TIMEOUT),
            "{:?}",
            from.elapsed()
        );
    }

    #[tokio::test]
    async fn with_patience_it_is_given_up_after_as_many_questions() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let from = tokio::time::Instant::now();
        let never = std::future::pending::<Result<()>>();
        let error = while_heard(&ChannelPool::default(), &address, 2, never)
            .await
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        let each = SILENT_AFTER + PROBE_TIMEOUT;
        assert!(
            (2 * each..4 * each).contains(&from.elapsed()),
            "{:?}",
            from.elapsed()
        );
    }

    #[tokio::test]
    async fn an_answer_in_time_asks_nobody() {
        let answer = std::future::ready(Ok(1));
        assert_eq!(
            while_alive(&ChannelPool::default(), "no address", answer)
                .await
                .unwrap(),
            1
        );
    }
}
