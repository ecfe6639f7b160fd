//! `status`: the whole cluster on one screen, what is wrong with it and what to type next.

mod screen;

use anyhow::Result;
use monofs_launch::exit::{Code, Failure};
use monofs_proto::v1;
use serde::Serialize;

use crate::findings::{self, Finding, Health, findings, health};
use crate::output::{emit, emit_json};
use crate::session::Session;
use crate::shapes;
use crate::text::time;

const AFTER_HELP: &str = "\
Examples:
  monofs-admin status --router=localhost:9090
  monofs-admin status --router=router1:9090,router2:9090 --format=json
  monofs-admin status --check > /dev/null || echo \"somebody should look\"

The first word is `healthy`, `degraded` (something is wrong, readers are served) or `unhealthy` (readers are not served).
The exit code is 0 whenever a router answers; with --check it is 1 unless the word is `healthy`. `monofs-admin top` is the
same, live.";

/// Show the whole cluster on one screen: what is there, what is wrong, what to do
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct StatusArgs {
    /// Fail (exit code 1) unless the cluster is healthy
    #[arg(long)]
    check: bool,
}

#[derive(Serialize)]
struct Answer {
    health: Health,
    healthy: bool,
    /// What is wrong, one line each.
    problems: Vec<String>,
    /// The same, each with the command to type next.
    findings: Vec<Finding>,
    /// Command lines that lead on from here, each once.
    next: Vec<String>,
    routers: Vec<Router>,
    /// All routers that run, as they know each other; empty = their state store cannot be asked.
    routers_known: Vec<shapes::Router>,
    maintenance: Option<shapes::Maintenance>,
    intents: Vec<shapes::Intent>,
    jobs: Vec<shapes::Job>,
    view_number: u64,
    revision: u64,
    replication_factor: u32,
    repositories: Repositories,
    nodes: Vec<shapes::Node>,
    fetchers: Vec<shapes::Fetcher>,
    clients: Vec<shapes::Client>,
}

/// A router that was asked.
#[derive(Serialize)]
struct Router {
    address: String,
    reachable: bool,
    id: Option<String>,
    version: Option<String>,
    started_at: Option<String>,
    error: Option<String>,
}

#[derive(Serialize)]
struct Repositories {
    ready: u64,
    ingesting: u64,
    failed: u64,
}

pub async fn run(args: StatusArgs, session: &Session) -> Result<()> {
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

async fn ask(session: &Session, address: &str) -> Result<v1::StatusResponse, Failure> {
    let session = Session {
        cluster: session.cluster.only(address),
        interrupt: session.interrupt.clone(),
        format: session.format,
    };
    session.status().await
}

fn reachable(address: &str, status: &v1::StatusResponse) -> Router {
    Router {
        address: address.to_owned(),
        reachable: true,
        id: shapes::some(&status.router_id),
        version: Some(status.version.clone()),
        started_at: time(status.started_at),
        error: None,
    }
}

fn silent(address: &str, failure: &Failure) -> Router {
    Router {
        address: address.to_owned(),
        reachable: false,
        id: None,
        version: None,
        started_at: None,
        error: Some(failure.message.clone()),
    }
}

fn judge(status: &v1::StatusResponse, routers: Vec<Router>) -> Answer {
    let mut findings = findings(status);
    for router in routers.iter().filter(|router| !router.reachable) {
        findings.push(Finding::silent_router(&router.address));
    }
    let health = health(status, &findings);
    Answer {
        health,
        healthy: health == Health::Healthy,
        problems: findings
            .iter()
            .map(|finding| finding.problem.clone())
            .collect(),
        next: findings::next(status, &findings),
        findings,
        routers,
        routers_known: status.routers.iter().map(Into::into).collect(),
        maintenance: status.maintenance.as_ref().map(Into::into),
        intents: status.intents.iter().map(Into::into).collect(),
        jobs: status.jobs.iter().map(Into::into).collect(),
        view_number: status.view_number,
        revision: status
            .position
            .as_ref()
            .map_or(0, |position| position.revision),
        replication_factor: status.replication_factor,
        repositories: Repositories {
            ready: status.repositories_ready,
            ingesting: status.repositories_ingesting,
            failed: status.repositories_failed,
        },
        nodes: status.nodes.iter().map(Into::into).collect(),
        fetchers: status.fetchers.iter().map(Into::into).collect(),
        clients: status.clients.iter().map(Into::into).collect(),
    }
}
