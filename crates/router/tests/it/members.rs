//! Members as operators and other routers see them. The members are announcements only: nothing
//! listens at their addresses.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use monofs_control::seed_catalogue;
use monofs_control::state::{EmbeddedState, StateStore};
use monofs_fleet::settings::StaticMember;
use monofs_model::view::Role;
use monofs_model::{
    Consistency, ContentMode, DisplayPath, NodeId, Oid, RefName, Repository, RepositoryState,
    Snapshot, SourceUrl,
};
use monofs_proto::v1;
use monofs_proto::v1::admin_client::AdminClient;
use monofs_proto::v1::cluster_client::ClusterClient;
use monofs_router::Config;
use monofs_testkit::wait::wait_for_async;
use monofs_web::{RunningRouter, spawn_with};
use tokio::net::TcpListener;
use tonic::transport::Channel;
use tonic::{Code, Status};

const SOON: Duration = Duration::from_secs(20);
/// So long that nobody is down who was heard of once.
const PATIENT: Duration = Duration::from_secs(3600);

struct Router {
    running: RunningRouter,
    admin: AdminClient<Channel>,
    cluster: ClusterClient<Channel>,
}

impl Router {
    async fn start(store: &Arc<EmbeddedState>, change: impl FnOnce(&mut Config)) -> Self {
        let (grpc, http) = (
            TcpListener::bind("127.0.0.1:0").await,
            TcpListener::bind("127.0.0.1:0").await,
        );
        let mut config = Config::new("unused".into());
        config.health_interval = Duration::from_millis(50);
        config.unhealthy_threshold = PATIENT;
        config.worker_interval = Duration::from_millis(50);
        change(&mut config);
        let store: Arc<dyn StateStore> = store.clone();
        let running = spawn_with(config, store, grpc.unwrap(), http.unwrap())
            .await
            .unwrap();
        let address = format!("http://{}", running.address());
        let channel = Channel::from_shared(address)
            .unwrap()
            .connect()
            .await
            .unwrap();
        Self {
            running,
            admin: AdminClient::new(channel.clone()),
            cluster: ClusterClient::new(channel),
        }
    }

    async fn announce(&mut self, member: v1::Member) -> Result<(), Status> {
        let request = v1::HeartbeatRequest {
            member: Some(member),
        };
        self.cluster.heartbeat(request).await.map(drop)
    }

    async fn status(&self) -> v1::StatusResponse {
        self.admin
            .clone()
            .status(v1::StatusRequest::default())
            .await
            .unwrap()
            .into_inner()
    }

    async fn members(&self) -> Vec<v1::Member> {
        self.status()
            .await
            .nodes
            .into_iter()
            .filter_map(|node| node.member)
            .collect()
    }

    /// Waits until a member looks like this.
    async fn wait(&self, what: &str, id: &str, like: impl Fn(&v1::Member) -> bool) -> v1::Member {
        wait_for_async(what, SOON, || async {
            self.members()
                .await
                .into_iter()
                .find(|m| m.id == id && like(m))
        })
        .await
    }

    async fn drain(&mut self, node_id: &str, force: bool) -> Result<bool, Status> {
        let request = v1::DrainRequest {
            node_id: node_id.into(),
            reason: "new disk".into(),
            force,
        };
        self.admin
            .drain(request)
            .await
            .map(|answer| answer.into_inner().unchanged)
    }

    async fn undrain(&mut self, node_id: &str) -> Result<bool, Status> {
        let request = v1::UndrainRequest {
            node_id: node_id.into(),
        };
        self.admin
            .undrain(request)
            .await
            .map(|answer| answer.into_inner().unchanged)
    }

    async fn failover(&mut self, node_id: &str) -> Result<bool, Status> {
        let request = v1::TriggerFailoverRequest {
            node_id: node_id.into(),
            reason: String::new(),
            force: false,
        };
        self.admin
            .trigger_failover(request)
            .await
            .map(|answer| answer.into_inner().unchanged)
    }

    async fn clear(&mut self, node_id: &str) -> Result<bool, Status> {
        let request = v1::ClearFailoverRequest {
            node_id: node_id.into(),
        };
        self.admin
            .clear_failover(request)
            .await
            .map(|answer| answer.into_inner().unchanged)
    }

    async fn remove(&mut self, member_id: &str) -> Result<(), Status> {
        let request = v1::RemoveMemberRequest {
            member_id: member_id.into(),
        };
        self.admin.remove_member(request).await.map(drop)
    }

    async fn stop(self) {
        self.running.shutdown(Duration::from_secs(5)).await;
    }
}

fn member(id: &str, role: v1::Role) -> v1::Member {
    v1::Member {
        id: id.into(),
        role: role.into(),
        address: format!(
            "127.0.0.1:{}",
            1 + id.bytes().map(u16::from).sum::<u16>() % 500
        ),
        weight: 1.0,
        state: v1::MemberState::Active.into(),
        version: "test".into(),
        incarnation: 7,
        ..Default::default()
    }
}

fn node(id: &str) -> v1::Member {
    member(id, v1::Role::Node)
}

fn held_by(path: &str, holders: &[&str]) -> Repository {
    let oid = |byte| Oid::from_bytes(&[byte; 20]).unwrap();
    Repository {
        path: DisplayPath::new(path).unwrap(),
        source: SourceUrl::new("https://forge.example/x.git").unwrap(),
        ref_name: RefName::new("main").unwrap(),
        state: RepositoryState::Ready,
        snapshot: Some(Snapshot {
            commit: oid(1),
            root: oid(2),
            commit_time: 1,
            trees: 1,
            blobs: 1,
            bytes: 1,
            submodules: vec![],
            generations: None,
        }),
        generation: 1,
        generation_time: None,
        root_time: None,
        holders: holders.iter().map(|id| NodeId::new(id).unwrap()).collect(),
        content: ContentMode::Lazy,
        consistency: Consistency::Eventual,
        created_at: 0,
        refreshed_at: 0,
        last_error: String::new(),
        shadowed_by: None,
    }
}

async fn store(dir: &Path) -> Arc<EmbeddedState> {
    Arc::new(EmbeddedState::open(dir.to_owned()).await.unwrap())
}

/// The answer is an error of this kind that says this.
#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, says: &str) {
    let status = answer.expect_err("must be refused");
    assert!(
        status.code() == code && status.message().contains(says),
        "{status:?} does not say '{says}'"
    );
}

#[tokio::test]
async fn what_is_wanted_of_nodes_is_shared_idempotent_and_survives_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let (mut first, mut second) = (
        Router::start(&store, |_| {}).await,
        Router::start(&store, |_| {}).await,
    );
    for id in ["n1", "n2", "n3"] {
        first.announce(node(id)).await.unwrap();
    }
    second
        .wait("the other router knows who registered", "n3", |_| true)
        .await;
    assert!(!first.drain("n1", false).await.unwrap());
    assert!(first.drain("n1", false).await.unwrap(), "it was so already");
    first
        .wait("n1 drains", "n1", |m| {
            m.state() == v1::MemberState::Draining || m.state() == v1::MemberState::Drained
        })
        .await;
    // Nothing is on it.
    first
        .wait("n1 is empty", "n1", |m| {
            m.state() == v1::MemberState::Drained
        })
        .await;
    assert!(
        second
            .status()
            .await
            .intents
            .iter()
            .any(|intent| intent.node_id == "n1" && intent.reason == "new disk")
    );

    refused(
        first.failover("n1").await,
        Code::FailedPrecondition,
        "`monofs-admin undrain --node=n1` first",
    );
    refused(
        second.clear("n1").await,
        Code::FailedPrecondition,
        "is being drained (new disk)",
    );
    refused(
        first.remove("n1").await,
        Code::FailedPrecondition,
        "stop it first",
    );
    first.stop().await;
    second.stop().await;

    let mut again = Router::start(&store, |_| {}).await;
    let n1 = again
        .members()
        .await
        .into_iter()
        .find(|member| member.id == "n1")
        .unwrap();
    assert_eq!(
        (n1.state(), n1.version.as_str()),
        (v1::MemberState::Suspect, "test"),
        "known, and not heard of yet"
    );
    again.announce(node("n1")).await.unwrap();
    again
        .wait("n1 is drained still", "n1", |m| {
            m.state() == v1::MemberState::Drained
        })
        .await;
    assert!(!again.undrain("n1").await.unwrap());
    assert!(again.undrain("n1").await.unwrap(), "it was so already");
    again
        .wait("n1 must be asked what it holds", "n1", |m| {
            m.state() == v1::MemberState::Recovering
        })
        .await;
    again.stop().await;
}

#[tokio::test]
async fn every_wrong_state_has_a_plain_answer() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let mut router = Router::start(&store, |_| {}).await;
    for id in ["n1", "n2"] {
        router.announce(node(id)).await.unwrap();
    }
    router
        .announce(member("f1", v1::Role::Fetcher))
        .await
        .unwrap();
    refused(
        router.drain("nobody", false).await,
        Code::NotFound,
        "no node 'nobody'",
    );
    refused(
        router.undrain("nobody").await,
        Code::NotFound,
        "no node 'nobody'",
    );
    refused(
        router.failover("nobody").await,
        Code::NotFound,
        "no node 'nobody'",
    );
    refused(
        router.clear("nobody").await,
        Code::NotFound,
        "no node 'nobody'",
    );
    refused(
        router.remove("nobody").await,
        Code::NotFound,
        "no member 'nobody'",
    );
    refused(
        router.drain("f1", false).await,
        Code::FailedPrecondition,
        "'f1' is a fetcher",
    );
    refused(
        router.drain("n1", false).await,
        Code::FailedPrecondition,
        "1 active nodes for 2 copies",
    );
    refused(
        router.failover("n1").await,
        Code::FailedPrecondition,
        "go on with --force",
    );
    assert!(
        router.undrain("n1").await.unwrap() && router.clear("n1").await.unwrap(),
        "nothing was wanted of it"
    );
    refused(
        router.remove("n1").await,
        Code::FailedPrecondition,
        "`monofs-admin drain --node=n1`",
    );
    refused(
        router.remove("f1").await,
        Code::FailedPrecondition,
        "f1 is active: stop it first",
    );
    let long = v1::DrainRequest {
        reason: "x".repeat(2000),
        ..Default::default()
    };
    refused(
        router.admin.drain(long).await,
        Code::InvalidArgument,
        "one line of at most",
    );

    assert!(!router.drain("n1", true).await.unwrap());
    refused(
        router.failover("n1").await,
        Code::FailedPrecondition,
        "undrain --node=n1",
    );
    router.announce(node("n3")).await.unwrap();
    router.announce(node("n4")).await.unwrap();
    assert!(!router.failover("n2").await.unwrap());
    assert!(router.failover("n2").await.unwrap(), "it was so already");
    refused(
        router.drain("n2", false).await,
        Code::FailedPrecondition,
        "clear-failover --node-id=n2",
    );
    refused(
        router.undrain("n2").await,
        Code::FailedPrecondition,
        "is failed over",
    );
    router
        .wait("n2 is failed over", "n2", |m| {
            m.failed_over && m.state() == v1::MemberState::Active
        })
        .await;
    let listed = router
        .admin
        .list_failovers(v1::ListFailoversRequest {})
        .await
        .unwrap()
        .into_inner()
        .failovers;
    assert!(
        listed
            .iter()
            .any(|f| f.node_id == "n2" && f.reason.contains("by an operator")),
        "{listed:?}"
    );

    assert!(!router.drain("", false).await.unwrap());
    assert!(router.drain("", false).await.unwrap(), "it was so already");
    refused(
        router.remove("n3").await,
        Code::FailedPrecondition,
        "`monofs-admin undrain` first",
    );
    let problems = router.status().await.problems;
    for says in [
        "the cluster is drained since",
        "n1 is drain",
        "clear-failover --node-id=n2",
    ] {
        assert!(
            problems.iter().any(|problem| problem.contains(says)),
            "{says}: {problems:?}"
        );
    }
    assert!(!router.undrain("").await.unwrap());
    assert!(router.undrain("").await.unwrap(), "it was so already");
    router.stop().await;
}

#[tokio::test]
async fn a_member_that_does_not_come_back_is_down_and_can_be_removed_unless_it_is_the_only_holder()
{
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let entries = [
        held_by("h/both", &["gone", "kept"]),
        held_by("h/only", &["last"]),
    ];
    seed_catalogue(store.clone(), entries.into_iter())
        .await
        .unwrap();
    let witness = Router::start(&store, |_| {}).await;
    let mut router = Router::start(&store, |_| {}).await;
    for id in ["gone", "kept", "last"] {
        router.announce(node(id)).await.unwrap();
    }
    for id in ["gone", "last"] {
        witness.wait("it is recorded", id, |_| true).await;
    }
    router.stop().await;
    witness.stop().await;

    let mut router = Router::start(&store, |config| {
        config.unhealthy_threshold = Duration::from_millis(300)
    })
    .await;
    router
        .wait("it is down", "gone", |m| m.state() == v1::MemberState::Down)
        .await;
    router
        .wait("it is down", "last", |m| m.state() == v1::MemberState::Down)
        .await;
    let listed = router
        .admin
        .list_failovers(v1::ListFailoversRequest {})
        .await
        .unwrap()
        .into_inner()
        .failovers;
    let last = listed
        .iter()
        .find(|failover| failover.node_id == "last")
        .unwrap();
    assert_eq!(
        (last.repositories, last.targets.len()),
        (1, 0),
        "nobody can be asked instead: {last:?}"
    );
    refused(
        router.remove("last").await,
        Code::FailedPrecondition,
        "only holder of 1 repositories, first h/only",
    );
    router.remove("gone").await.unwrap();
    let request = v1::GetRepositoryRequest {
        path: "h/both".into(),
    };
    let entry = router
        .admin
        .get_repository(request)
        .await
        .unwrap()
        .into_inner()
        .repository
        .unwrap();
    assert_eq!(entry.holders, ["kept"]);
    let gone = || async {
        router
            .members()
            .await
            .iter()
            .all(|member| member.id != "gone")
            .then_some(())
    };
    wait_for_async("it is forgotten", SOON, gone).await;
    router.stop().await;
}

#[tokio::test]
async fn members_of_the_command_line_are_there_once_and_are_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let fixed = |id: &str, named, address: String| StaticMember {
        id: NodeId::new(id).unwrap(),
        named,
        role: Role::Node,
        address,
        external_address: "out:1".into(),
        weight: 2.0,
        zone: "eu".into(),
    };
    let members = vec![
        fixed("10.9.9.9", false, node("n1").address),
        fixed("n2", true, node("n2").address),
    ];
    let mut router = Router::start(&store, |config| config.members = members).await;
    router.announce(node("n1")).await.unwrap();
    let n1 = router.wait("n1 takes its place", "n1", |_| true).await;
    assert_eq!(
        (n1.external_address.as_str(), n1.weight, n1.zone.as_str()),
        ("out:1", 2.0, "eu")
    );
    let ids: Vec<_> = router
        .members()
        .await
        .into_iter()
        .map(|member| member.id)
        .collect();
    assert_eq!(ids, ["n1", "n2"]);
    refused(
        router.remove("n1").await,
        Code::FailedPrecondition,
        "named by --nodes",
    );
    let twin = v1::Member {
        address: "127.0.0.1:9".into(),
        incarnation: 8,
        ..node("n3")
    };
    router.announce(node("n3")).await.unwrap();
    refused(
        router.announce(twin).await,
        Code::FailedPrecondition,
        "give every member an id of its own",
    );
    router.stop().await;
}
