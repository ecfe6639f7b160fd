//! What operators want of nodes: drain and failover, and maintenance of the whole cluster. It is
//! written to the state store, where every router follows it; who carries it out is
//! [`monofs_members::membership`] and the reconciler.
//!
//! Every verb is idempotent: what is so already is answered with `unchanged`.

use monofs_model::{Actor, Error, MemberState, NodeId, Result};
use monofs_proto::v1;
use monofs_proto::v1::job;
use monofs_proto::v1::node_intent::Kind;

use super::asked::asked;
use crate::reconcile::jobs;
use monofs_control::Control;
use monofs_control::clock;
use monofs_members::fleet::Fleet;
use monofs_members::membership;

/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 1000;

/// Drains a node, or without one the whole cluster.
pub async fn drain(
    actor: &Actor,
    control: &Control,
    fleet: &Fleet,
    request: v1::DrainRequest,
) -> Result<v1::DrainResponse> {
    asked(actor, "drain", &request.node_id);
    check_reason(&request.reason)?;
    if !request.node_id.is_empty() {
        let unchanged = want(
            actor,
            control,
            fleet,
            &request.node_id,
            Kind::Drain,
            &request.reason,
            request.force,
        )
        .await?;
        let job_id = job(
            actor,
            control,
            unchanged,
            job::Kind::Drain,
            &request.node_id,
            &request.reason,
        )
        .await?;
        return Ok(v1::DrainResponse { unchanged, job_id });
    }
    let mut unchanged = false;
    let drained = |row: Option<&v1::Maintenance>| {
        unchanged = row.is_some();
        let new = || v1::Maintenance {
            reason: request.reason.clone(),
            since: clock::now(),
        };
        Ok(Some(row.cloned().unwrap_or_else(new)))
    };
    control
        .tables
        .maintenance
        .update(actor, "", drained)
        .await?;
    tracing::info!(reason = request.reason, unchanged, "the cluster is drained");
    Ok(v1::DrainResponse {
        unchanged,
        job_id: String::new(),
    })
}

/// Ends the drain of a node, or without one of the whole cluster.
pub async fn undrain(
    actor: &Actor,
    control: &Control,
    fleet: &Fleet,
    request: v1::UndrainRequest,
) -> Result<v1::UndrainResponse> {
    asked(actor, "undrain", &request.node_id);
    if !request.node_id.is_empty() {
        let unchanged = let_back(actor, control, fleet, &request.node_id, Kind::Drain).await?;
        return Ok(v1::UndrainResponse { unchanged });
    }
    let mut unchanged = false;
    let undrained = |row: Option<&v1::Maintenance>| {
        unchanged = row.is_none();
        Ok(None)
    };
    control
        .tables
        .maintenance
        .update(actor, "", undrained)
        .await?;
    tracing::info!(unchanged, "the cluster is undrained");
    Ok(v1::UndrainResponse { unchanged })
}

/// Moves reads and copies off a node.
pub async fn trigger_failover(
    actor: &Actor,
    control: &Control,
    fleet: &Fleet,
    request: v1::TriggerFailoverRequest,
) -> Result<v1::TriggerFailoverResponse> {
    asked(actor, "trigger failover", &request.node_id);
    check_reason(&request.reason)?;
    let unchanged = want(
        actor,
        control,
        fleet,
        &request.node_id,
        Kind::Failover,
        &request.reason,
        request.force,
    )
    .await?;
    let job_id = job(
        actor,
        control,
        unchanged,
        job::Kind::Failover,
        &request.node_id,
        &request.reason,
    )
    .await?;
    Ok(v1::TriggerFailoverResponse { unchanged, job_id })
}

/// The id of the job that moves the copies off: a new one, or if nothing new is wanted the one that
/// runs, if any.
async fn job(
    actor: &Actor,
    control: &Control,
    unchanged: bool,
    kind: job::Kind,
    node_id: &str,
    reason: &str,
) -> Result<String> {
    let job = match jobs::running(control, kind, node_id) {
        None if unchanged => None,
        None => Some(jobs::open(actor, control, kind, node_id, reason).await?),
        running => running,
    };
    Ok(job.map_or(String::new(), |job| job.id))
}

/// Lets a node back that was failed over.
pub async fn clear_failover(
    actor: &Actor,
    control: &Control,
    fleet: &Fleet,
    request: v1::ClearFailoverRequest,
) -> Result<v1::ClearFailoverResponse> {
    asked(actor, "clear failover", &request.node_id);
    let unchanged = let_back(actor, control, fleet, &request.node_id, Kind::Failover).await?;
    Ok(v1::ClearFailoverResponse { unchanged })
}

fn check_reason(reason: &str) -> Result<()> {
    if reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control) {
        return Err(Error::invalid(format!(
            "a reason is one line of at most {REASON_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

/// Records that copies shall leave a node; returns whether that was so already. Errors: `NotFound`;
/// `Refused` when something else is wanted of it, it cannot be known yet what it holds, or too few
/// nodes would be left.
async fn want(
    actor: &Actor,
    control: &Control,
    fleet: &Fleet,
    node_id: &str,
    kind: Kind,
    reason: &str,
    force: bool,
) -> Result<bool> {
    let view = fleet.members.view();
    let node = membership::node(&view, node_id)?;
    if node.state == MemberState::Joining {
        return Err(Error::refused(format!(
            "{node_id} is joining and holds nothing; when it shall not join, stop it instead"
        )));
    }
    let left = membership::placeable(&view)
        .iter()
        .filter(|other| other.id != node.id)
        .count();
    let copies = view.replication_factor.max(1) as usize;
    let mut unchanged = false;
    let wanted = |row: Option<&v1::NodeIntent>| {
        unchanged = false;
        match row {
            Some(row) if row.kind() == kind => {
                unchanged = row.force || !force;
                Ok(Some(v1::NodeIntent {
                    force: row.force || force,
                    ..row.clone()
                }))
            }
            Some(row) => Err(Error::refused(other_intent(row))),
            None if left < copies && !force => Err(Error::refused(format!(
                "without {node_id} there are {left} active nodes for {copies} copies: add a node \
                 first, or go on with --force"
            ))),
            None => Ok(Some(v1::NodeIntent {
                node_id: node_id.to_owned(),
                kind: kind.into(),
                reason: reason.to_owned(),
                since: clock::now(),
                force,
                emptied: false,
            })),
        }
    };
    control
        .tables
        .intents
        .update(actor, node_id, wanted)
        .await?;
    tracing::info!(
        node = node_id,
        kind = kind.as_str_name(),
        reason,
        unchanged,
        "copies shall leave a node"
    );
    Ok(unchanged)
}

/// Takes back what was wanted of a node; returns whether nothing was. Errors: `NotFound`; `Refused`
/// when something else is.
async fn let_back(
    actor: &Actor,
    control: &Control,
    fleet: &Fleet,
    node_id: &str,
    kind: Kind,
) -> Result<bool> {
    let Some(row) = control.tables.intents.get(node_id) else {
        membership::node(&fleet.members.view(), node_id)?;
        return Ok(true);
    };
    if row.kind() != kind {
        return Err(Error::refused(other_intent(&row)));
    }
    // First: nobody may take it for complete in between.
    fleet
        .members
        .fell_behind(actor, &NodeId::new(node_id)?)
        .await?;
    let back = |row: Option<&v1::NodeIntent>| match row {
        Some(row) if row.kind() != kind => Err(Error::refused(other_intent(row))),
        _ => Ok(None),
    };
    control.tables.intents.update(actor, node_id, back).await?;
    tracing::info!(node = node_id, "a node is let back");
    Ok(false)
}

fn other_intent(row: &v1::NodeIntent) -> String {
    let id = &row.node_id;
    let reason = &row.reason;
    let why = if reason.is_empty() {
        String::new()
    } else {
        format!(" ({reason})")
    };
    match row.kind() {
        Kind::Failover => format!(
            "{id} is failed over{why}, which moves its copies off too; `monofs-admin \
             clear-failover --node-id={id}` first"
        ),
        _ => format!("{id} is being drained{why}; `monofs-admin undrain --node={id}` first"),
    }
}

#[cfg(test)]
mod tests {
    use monofs_model::ErrorKind;
    use monofs_model::view::Role;

    use super::*;
    use crate::fixture::{TestRouter, actor, member};

    fn drain_of(node: &str, force: bool) -> v1::DrainRequest {
        v1::DrainRequest {
            node_id: node.into(),
            reason: "new disk".into(),
            force,
        }
    }

    fn failover_of(node: &str) -> v1::TriggerFailoverRequest {
        v1::TriggerFailoverRequest {
            node_id: node.into(),
            reason: String::new(),
            force: false,
        }
    }

    async fn three_nodes() -> TestRouter {
        let router = TestRouter::start().await;
        for id in ["n1", "n2", "n3"] {
            router.node(id).await;
        }
        router
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_drain_is_recorded_once_with_its_job_and_taken_back() {
        let router = three_nodes().await;
        let (control, fleet) = (&router.parts().control, &router.parts().fleet);
        let first = drain(actor(), control, fleet, drain_of("n1", false)).await;
        let first = first.expect("drained");
        assert!(!first.unchanged && !first.job_id.is_empty());
        let again = drain(actor(), control, fleet, drain_of("n1", false)).await;
        let again = again.expect("drained already");
        assert_eq!((again.unchanged, again.job_id), (true, first.job_id));
        // Force is added to a drain that runs, and is not taken away again.
        let forced = drain(actor(), control, fleet, drain_of("n1", true)).await;
        assert!(!forced.expect("forced now").unchanged);
        let kept = drain(actor(), control, fleet, drain_of("n1", false)).await;
        assert!(kept.expect("still forced").unchanged);
        assert!(
            control
                .tables
                .intents
                .get("n1")
                .is_some_and(|row| row.force)
        );
        let back = v1::UndrainRequest {
            node_id: "n1".into(),
        };
        let undone = undrain(actor(), control, fleet, back.clone())
            .await
            .expect("back");
        assert!(!undone.unchanged);
        // It may have missed something, so it is caught up before reads return.
        assert!(
            control
                .tables
                .audits
                .get("n1")
                .is_some_and(|row| row.behind)
        );
        let undone = undrain(actor(), control, fleet, back)
            .await
            .expect("back already");
        assert!(undone.unchanged);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_drain_that_leaves_too_few_nodes_needs_force() {
        let router = TestRouter::start().await;
        router.node("n1").await;
        router.node("n2").await;
        let (control, fleet) = (&router.parts().control, &router.parts().fleet);
        let refused = drain(actor(), control, fleet, drain_of("n1", false)).await;
        let refused = refused.expect_err("one node is left for two copies");
        assert_eq!(refused.kind, ErrorKind::Refused);
        assert!(refused.message.contains("--force"), "{refused}");
        assert!(control.tables.intents.get("n1").is_none());
        drain(actor(), control, fleet, drain_of("n1", true))
            .await
            .expect("forced");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn drain_and_failover_of_one_node_exclude_each_other() {
        let router = three_nodes().await;
        let (control, fleet) = (&router.parts().control, &router.parts().fleet);
        let failed_over = trigger_failover(actor(), control, fleet, failover_of("n1")).await;
        failed_over.expect("failed over");
        let refused = drain(actor(), control, fleet, drain_of("n1", false)).await;
        let refused = refused.expect_err("it is failed over");
        assert!(refused.message.contains("clear-failover"), "{refused}");
        let undrained = undrain(
            actor(),
            control,
            fleet,
            v1::UndrainRequest {
                node_id: "n1".into(),
            },
        )
        .await;
        assert_eq!(undrained.expect_err("not drained").kind, ErrorKind::Refused);
        let clear = v1::ClearFailoverRequest {
            node_id: "n1".into(),
        };
        let cleared = clear_failover(actor(), control, fleet, clear)
            .await
            .expect("cleared");
        assert!(!cleared.unchanged);
        drain(actor(), control, fleet, drain_of("n1", false))
            .await
            .expect("drained now");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_no_node_cannot_be_drained() {
        let router = three_nodes().await;
        let (control, fleet) = (&router.parts().control, &router.parts().fleet);
        let fetcher = member("f1", Role::Fetcher, "127.0.0.1:9");
        fleet.members.announced(fetcher).await.expect("admitted");
        let unknown = drain(actor(), control, fleet, drain_of("n9", false)).await;
        assert_eq!(unknown.expect_err("unknown").kind, ErrorKind::NotFound);
        let fetcher = drain(actor(), control, fleet, drain_of("f1", false)).await;
        assert_eq!(fetcher.expect_err("a fetcher").kind, ErrorKind::Refused);
        for reason in ["two\nlines".to_owned(), "x".repeat(REASON_BYTES_MAX + 1)] {
            let request = v1::DrainRequest {
                reason,
                ..drain_of("n1", false)
            };
            let invalid = drain(actor(), control, fleet, request).await;
            assert_eq!(invalid.expect_err("no reason").kind, ErrorKind::Invalid);
        }
        assert!(control.tables.intents.list().is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn maintenance_of_the_cluster_keeps_its_first_reason() {
        let router = TestRouter::start().await;
        let (control, fleet) = (&router.parts().control, &router.parts().fleet);
        let first = drain(actor(), control, fleet, drain_of("", false)).await;
        assert!(!first.expect("drained").unchanged);
        let second = v1::DrainRequest {
            reason: "another".into(),
            ..drain_of("", false)
        };
        assert!(
            drain(actor(), control, fleet, second)
                .await
                .expect("already")
                .unchanged
        );
        let row = control.tables.maintenance.get("").expect("a row");
        assert_eq!(row.reason, "new disk");
        let none = v1::UndrainRequest::default();
        let undone = undrain(actor(), control, fleet, none.clone())
            .await
            .expect("over");
        assert!(!undone.unchanged);
        assert!(
            undrain(actor(), control, fleet, none)
                .await
                .expect("over")
                .unchanged
        );
    }
}
