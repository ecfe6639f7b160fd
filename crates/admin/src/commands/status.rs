//! `status`: the whole cluster on one screen, what is wrong with it and what to type next.

mod screen;

use anyhow::Result;
use monofs_api::commands::{ClusterStatus, RouterAsked};
use monofs_api::{Health, Time, said};
use monofs_launch::exit::{Code, Failure};
use monofs_proto::v1;

use crate::findings::{self, findings, health, silent_router};
use crate::output::{emit, emit_json};
use crate::session::CommandSession;

const AFTER_HELP: &str = "\
Examples:
  monofs-admin status --router=localhost:9090
  monofs-admin status --router=router1:9090,router2:9090 --format=json
  monofs-admin status --check > /dev/null || echo \"it needs a look\"

The first word is `healthy`, `degraded` (something is wrong, readers are served) or `unhealthy`
(readers are not served). The exit code is 0 whenever a router answers; with --check it is 1 unless
the word is `healthy`. `monofs-admin top` is the same, live.";

/// Show the whole cluster on one screen: what is there, what is wrong, what to do
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct StatusArgs {
    /// Fail (exit code 1) unless the cluster is healthy
    #[arg(long)]
    check: bool,
}

pub async fn run(args: StatusArgs, session: &CommandSession) -> Result<()> {
    let asked = futures::future::join_all(
        session
            .cluster
            .routers()
            .iter()
            .map(|address| ask(session, address)),
    )
    .await;
    let mut routers = Vec::new();
    let mut best: Option<v1::StatusResponse> = None;
    let mut failure = None;
    for (address, answer) in session.cluster.routers().iter().zip(asked) {
        match answer {
            Ok(status) => {
                routers.push(reachable(address, &status));
                // A router that knows the others has its state store: it knows more.
                if best
                    .as_ref()
                    .is_none_or(|best| best.routers.is_empty() && !status.routers.is_empty())
                {
                    best = Some(status);
                }
            }
            Err(error) => {
                routers.push(silent(address, &error));
                failure = failure.or(Some(error));
            }
        }
    }
    let Some(status) = best else {
        // Ask again in the usual order only to say it in the usual words.
        return Err(session
            .status()
            .await
            .err()
            .or(failure)
            .map_or_else(|| anyhow::anyhow!("no router is named"), Into::into));
    };
    let answer = judge(&status, routers);
    if session.json() {
        emit_json(&answer)?;
    } else {
        emit(&screen::text(&status, &answer))?;
    }
    if args.check && answer.health != Health::Healthy {
        return Err(Failure::new(
            Code::Failed,
            format!("the cluster is {}", answer.health.word()),
        )
        .hint("`monofs-admin status` shows why and what to type")
        .into());
    }
    Ok(())
}

async fn ask(session: &CommandSession, address: &str) -> Result<v1::StatusResponse, Failure> {
    let session = CommandSession {
        cluster: session.cluster.only(address),
        interrupt: session.interrupt.clone(),
        format: session.format,
    };
    session.status().await
}

fn reachable(address: &str, status: &v1::StatusResponse) -> RouterAsked {
    RouterAsked {
        address: address.to_owned(),
        reachable: true,
        id: said(&status.router_id),
        version: Some(status.version.clone()),
        started_at: Time::known(status.started_at),
        error: None,
    }
}

fn silent(address: &str, failure: &Failure) -> RouterAsked {
    RouterAsked {
        address: address.to_owned(),
        reachable: false,
        id: None,
        version: None,
        started_at: None,
        error: Some(failure.message.clone()),
    }
}

/// What the answer of the router that knows most says about the cluster.
fn judge(status: &v1::StatusResponse, routers: Vec<RouterAsked>) -> ClusterStatus {
    let mut findings = findings(status);
    let silent = routers.iter().filter(|router| !router.reachable);
    findings.extend(silent.map(|router| silent_router(&router.address)));
    let health = health(status, &findings);
    let next = findings::next(status, &findings);
    ClusterStatus::new(status, health, findings, next, routers)
}
