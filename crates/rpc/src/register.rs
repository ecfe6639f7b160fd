//! How a node or fetcher joins: it announces itself to a router again and again, and learns the
//! view from the answers.

use std::time::Duration;

use monofs_model::{ClusterView, Member, Result};
use monofs_proto::v1;
use monofs_proto::v1::cluster_client::ClusterClient;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::channel::ChannelPool;
use crate::context::Context;
use crate::status::from_status;

/// Deadline of one heartbeat.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause after a failed heartbeat, and the bounds of what a router may ask for.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_secs(30);
const INTERVAL_RETRY: Duration = Duration::from_secs(1);

/// Announces `member()` to the first of `routers` that answers, until `stop`; the receiver always
/// has the newest view.
pub fn register(
    pool: ChannelPool,
    routers: Vec<String>,
    member: impl Fn() -> Member + Send + 'static,
    stop: CancellationToken,
) -> watch::Receiver<ClusterView> {
    let (sender, receiver) = watch::channel(ClusterView::default());
    tokio::spawn(async move {
        let mut reachable = true;
        let mut first = 0;
        while !stop.is_cancelled() {
            let mut pause = INTERVAL_RETRY;
            let mut failure = None;
            for offset in 0..routers.len() {
                let at = (first + offset) % routers.len();
                match heartbeat(&pool, &routers[at], member()).await {
                    Ok((view, interval)) => {
                        (first, failure, pause) =
                            (at, None, interval.clamp(INTERVAL_MIN, INTERVAL_MAX));
                        sender.send_if_modified(|seen| {
                            let newer = *seen != view;
                            *seen = view;
                            newer
                        });
                        break;
                    }
                    Err(error) => failure = Some((&routers[at], error)),
                }
            }
            if let (Some((router, error)), true) = (&failure, reachable) {
                tracing::warn!(%router, %error, "cannot reach any router; trying again");
            } else if failure.is_none() && !reachable {
                tracing::info!(router = %routers[first], "reached a router again");
            }
            reachable = failure.is_none();
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
    });
    receiver
}

async fn heartbeat(
    pool: &ChannelPool,
    router: &str,
    member: Member,
) -> Result<(ClusterView, Duration)> {
    let mut client = ClusterClient::new(pool.get(router)?);
    let request = v1::HeartbeatRequest {
        member: Some(v1::Member::from(&member)),
    };
    let answer = client
        .heartbeat(Context::new(HEARTBEAT_TIMEOUT).request(request))
        .await
        .map_err(from_status)?;
    let answer = answer.into_inner();
    let view = answer
        .view
        .map(ClusterView::try_from)
        .transpose()?
        .unwrap_or_default();
    Ok((view, Duration::from_millis(answer.interval_ms)))
}
