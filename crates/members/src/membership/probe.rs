//! Probes: every member in parallel, each at its own pace, so that one that hangs delays nobody
//! else's.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use monofs_model::view::Role;
use monofs_model::{Error, Member, NodeId, Result};
use monofs_proto::v1;
use monofs_proto::v1::fetcher_client::FetcherClient;
use monofs_rpc::{Context, from_status, within};
use tokio::task::JoinSet;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::fleet::Fleet;
use monofs_fleet::members::{MemberEvent, TrackedMember};

/// Deadline of one probe; less if members are down sooner.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// How often members are probed, and the silence after which one is down.
#[derive(Debug, Clone, Copy)]
pub struct ProbePace {
    pub interval: Duration,
    pub threshold: Duration,
}

/// The probes under way: one of a member at most.
#[derive(Default)]
pub(super) struct Prober {
    running: JoinSet<(NodeId, MemberEvent)>,
    busy: HashSet<NodeId>,
}

impl Prober {
    /// Begins a probe, unless one of this member is under way.
    pub fn start(&mut self, fleet: &Arc<Fleet>, pace: ProbePace, known: &TrackedMember) {
        let member = known.member.clone();
        if !self.busy.insert(member.id.clone()) {
            return;
        }
        // One that was named on the command line may be another than was thought, or never announce
        // itself.
        let identify = known.fixed.is_some() && known.announced.is_none();
        let fleet = fleet.clone();
        self.running.spawn(async move {
            let limit = PROBE_TIMEOUT.min(pace.threshold);
            let event = match within(limit, "probe", probe(&fleet, &member, identify, limit)).await
            {
                Ok(event) => event,
                Err(error) => {
                    tracing::debug!(id = %member.id, %error, "probe failed");
                    fleet.members.seen.failed(&member.id, &error.message);
                    MemberEvent::Failed(member.id.clone())
                }
            };
            (member.id, event)
        });
    }

    /// What the next probe that ends has found; waits for ever when none is under way.
    pub async fn next(&mut self) -> MemberEvent {
        loop {
            match self.running.join_next().await {
                Some(Ok((id, event))) => {
                    self.busy.remove(&id);
                    return event;
                }
                Some(Err(error)) => {
                    // Whose it was is not known: let all of them be probed again.
                    tracing::error!(%error, "a probe ended without an answer");
                    self.busy.clear();
                }
                None => std::future::pending().await,
            }
        }
    }
}

async fn probe(
    fleet: &Fleet,
    member: &Member,
    identify: bool,
    limit: Duration,
) -> Result<MemberEvent> {
    // The health service answers whether the member serves at all.
    let channel = fleet.channels.get(&member.address)?;
    let context = Context::new(limit);
    let request = context.request(HealthCheckRequest {
        service: String::new(),
    });
    let answer = HealthClient::new(channel.clone())
        .check(request)
        .await
        .map_err(from_status)?;
    match answer.into_inner().status() {
        ServingStatus::Serving => {}
        other => {
            return Err(Error::unavailable(format!(
                "{} says {}",
                member.id,
                other.as_str_name()
            )));
        }
    }

    // Who answers at the address is asked only when it has to be identified.
    if !identify {
        return Ok(MemberEvent::Answered(member.id.clone()));
    }
    let (id, incarnation, version) = match member.role {
        Role::Node => {
            let request = context.request(v1::StatRequest::default());
            let stat = fleet
                .node_client(member)?
                .stat(request)
                .await
                .map_err(from_status)?
                .into_inner();
            (stat.node_id, stat.incarnation, stat.version)
        }
        Role::Fetcher => {
            let request = context.request(v1::FetcherStatRequest::default());
            let stat = FetcherClient::new(channel)
                .stat(request)
                .await
                .map_err(from_status)?
                .into_inner();
            (stat.fetcher_id, 0, stat.version)
        }
    };
    Ok(MemberEvent::Identified {
        asked: member.id.clone(),
        id: NodeId::new(&id)?,
        incarnation,
        version,
    })
}
