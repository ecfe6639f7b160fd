//! How a node or fetcher joins: it announces itself to a router again and again, and learns the
//! view from the answers.

use std::time::Duration;

use monofs_model::{ClusterView, Member, Result};
use monofs_proto::v1;
use monofs_proto::v1::cluster_client::ClusterClient;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::channel::ChannelPool;
use crate::context::Context;
use crate::status::from_status;

/// Deadline of one heartbeat.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(3);
/// Bounds of the interval that a router may ask for.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_secs(30);
/// Pauses while no router answers: the first one, and the longest.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_LONGEST: Duration = Duration::from_secs(1);

/// Announces `member()` to the first of `routers` that answers, until `stop`; the receiver always
/// has the newest view.
pub fn register(
    pool: ChannelPool,
    routers: Vec<String>,
    member: impl Fn() -> Member + Send + 'static,
    stop: CancellationToken,
) -> watch::Receiver<ClusterView> {
    let (views, receiver) = watch::channel(ClusterView::default());
    let mut registration = Registration {
        pool,
        routers,
        newest_first: 0,
        is_reachable: true,
        retries: Backoff::new(RETRY_FIRST, RETRY_LONGEST),
    };
    tokio::spawn(stop.run_until_cancelled_owned(async move {
        loop {
            let pause = registration.announce(member(), &views).await;
            tokio::time::sleep(pause).await;
        }
    }));
    receiver
}

/// One member's standing with its routers.
struct Registration {
    pool: ChannelPool,
    routers: Vec<String>,
    /// The index of the router that answered last, which is asked first.
    newest_first: usize,
    is_reachable: bool,
    retries: Backoff,
}

impl Registration {
    /// Asks one router after the other until one answers, hands its view to `views`, and returns
    /// how long to wait before the next heartbeat.
    async fn announce(&mut self, member: Member, views: &watch::Sender<ClusterView>) -> Duration {
        let mut failure = None;
        for offset in 0..self.routers.len() {
            let at = (self.newest_first + offset) % self.routers.len();
            match heartbeat(&self.pool, &self.routers[at], member.clone()).await {
                Ok((view, interval)) => {
                    self.answered(at);
                    views.send_if_modified(|seen| {
                        let is_newer = *seen != view;
                        *seen = view;
                        is_newer
                    });
                    return interval.clamp(INTERVAL_MIN, INTERVAL_MAX);
                }
                Err(error) => failure = Some((&self.routers[at], error)),
            }
        }
        // Only the first failure in a row is worth a line in the log.
        if let (Some((router, error)), true) = (failure, self.is_reachable) {
            tracing::warn!(%router, %error, "cannot reach any router; trying again");
        }
        self.is_reachable = false;
        self.retries.next_pause()
    }

    fn answered(&mut self, at: usize) {
        self.newest_first = at;
        self.retries.reset();
        if !self.is_reachable {
            tracing::info!(router = %self.routers[at], "reached a router again");
        }
        self.is_reachable = true;
    }
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use monofs_model::view::Role;
    use monofs_model::{MemberState, NodeId};
    use monofs_proto::v1::cluster_server::{Cluster, ClusterServer};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tonic::service::Routes;
    use tonic::{Request, Response, Status};

    use super::*;

    /// A router that shows one view and passes the members that announce themselves on.
    struct TestRouter {
        view: ClusterView,
        members: mpsc::UnboundedSender<String>,
    }

    #[tonic::async_trait]
    impl Cluster for TestRouter {
        async fn heartbeat(
            &self,
            request: Request<v1::HeartbeatRequest>,
        ) -> std::result::Result<Response<v1::HeartbeatResponse>, Status> {
            let member = request.into_inner().member.unwrap_or_default();
            let _ = self.members.send(member.id);
            Ok(Response::new(v1::HeartbeatResponse {
                view: Some(v1::ClusterView::from(&self.view)),
                interval_ms: 0,
            }))
        }

        async fn report_failure(
            &self,
            _: Request<v1::ReportFailureRequest>,
        ) -> std::result::Result<Response<v1::ReportFailureResponse>, Status> {
            Err(Status::unimplemented("not part of a registration"))
        }

        async fn acknowledged(
            &self,
            _: Request<v1::AcknowledgedRequest>,
        ) -> std::result::Result<Response<v1::AcknowledgedResponse>, Status> {
            Err(Status::unimplemented("not part of a registration"))
        }
    }

    fn member() -> Member {
        Member {
            id: NodeId::new("node-1").unwrap(),
            role: Role::Node,
            address: "host:9000".into(),
            external_address: String::new(),
            weight: 1.0,
            zone: String::new(),
            state: MemberState::Active,
            version: String::new(),
            capacity_bytes: 0,
            used_bytes: 0,
            incarnation: 1,
            share_percent: 100,
            failed_over: false,
        }
    }

    async fn serve_router(
        view: ClusterView,
    ) -> (crate::RunningServer, mpsc::UnboundedReceiver<String>) {
        let (members, announced) = mpsc::unbounded_channel();
        let routes = Routes::new(ClusterServer::new(TestRouter { view, members }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = crate::serve(listener, routes, CancellationToken::new()).unwrap();
        (server, announced)
    }

    /// An address where nothing listens.
    async fn dead_address() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    }

    #[tokio::test]
    async fn a_member_joins_by_the_first_router_that_answers_and_learns_its_view() {
        let view = ClusterView {
            number: 7,
            members: vec![member()],
            replication_factor: 2,
        };
        let (server, mut announced) = serve_router(view.clone()).await;
        let routers = vec![dead_address().await, server.address().to_string()];
        let stop = CancellationToken::new();
        let mut views = register(ChannelPool::default(), routers, member, stop.clone());
        let learned = views.wait_for(|seen| seen.number == 7).await.unwrap();
        assert_eq!(*learned, view);
        drop(learned);
        assert_eq!(announced.recv().await.unwrap(), "node-1");
        assert_eq!(
            announced.recv().await.unwrap(),
            "node-1",
            "it announces itself again and again"
        );
        stop.cancel();
        views
            .changed()
            .await
            .expect_err("after the stop no view can come any more");
    }

    #[tokio::test]
    async fn a_member_without_a_router_keeps_trying_in_bounded_pauses() {
        let (views, _receiver) = watch::channel(ClusterView::default());
        let mut registration = Registration {
            pool: ChannelPool::default(),
            routers: vec![dead_address().await, dead_address().await],
            newest_first: 0,
            is_reachable: true,
            retries: Backoff::new(RETRY_FIRST, RETRY_LONGEST),
        };
        for _ in 0..5 {
            let pause = registration.announce(member(), &views).await;
            assert!(pause >= RETRY_FIRST / 2 && pause <= RETRY_LONGEST);
        }
        assert!(!registration.is_reachable);
    }
}
