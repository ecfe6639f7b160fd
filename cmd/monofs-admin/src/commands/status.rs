//! `status`: the whole cluster on one screen, what is wrong with it and what to type next.

mod screen;

use anyhow::Result;
use monofs_launch::exit::Failure;
use monofs_proto::v1;
use serde::Serialize;

use crate::commands::Session;
use crate::output::{emit, emit_json};
use crate::shapes;
use crate::text::{shell_word, time};

const AFTER_HELP: &str = "\
Examples:
  monofs-admin status --router=localhost:9090
  monofs-admin status --router=router1:9090,router2:9090 --format=json";

/// Show the whole cluster on one screen: what is there, what is wrong, what to do
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {}

#[derive(Serialize)]
struct Answer {
    healthy: bool,
    problems: Vec<String>,
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
    clients: Vec<Client>,
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
    /// Seconds since the epoch; 0 = not known.
    #[serde(skip)]
    started: i64,
}

#[derive(Serialize)]
struct Repositories {
    ready: u64,
    ingesting: u64,
    failed: u64,
}

#[derive(Serialize)]
struct Client {
    id: String,
    version: String,
    mount: String,
    acknowledged_revision: u64,
    connected_at: Option<String>,
}

pub async fn run(_: Args, session: &Session) -> Result<()> {
    let asked = futures::future::join_all(session.cluster.routers().iter().map(|address| ask(session, address))).await;
    let mut routers = Vec::new();
    let mut best: Option<v1::StatusResponse> = None;
    let mut failure = None;
    for (address, answer) in session.cluster.routers().iter().zip(asked) {
        match answer {
            Ok(status) => {
                routers.push(reachable(address, &status));
                // A router that knows the others has its state store: it knows more.
                if best.as_ref().is_none_or(|best| best.routers.is_empty() && !status.routers.is_empty()) {
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
    if session.json() { emit_json(&answer) } else { emit(&screen::text(&status, &answer)) }
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
        started: status.started_at,
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
        started: 0,
    }
}

fn judge(status: &v1::StatusResponse, routers: Vec<Router>) -> Answer {
    let mut problems = status.problems.clone();
    for router in routers.iter().filter(|router| !router.reachable) {
        problems.push(format!("router {} does not answer: start it, or take it out of --router", router.address));
    }
    Answer {
        healthy: problems.is_empty(),
        next: next(status),
        problems,
        routers,
        routers_known: status.routers.iter().map(Into::into).collect(),
        maintenance: status.maintenance.as_ref().map(Into::into),
        intents: status.intents.iter().map(Into::into).collect(),
        jobs: status.jobs.iter().map(Into::into).collect(),
        view_number: status.view_number,
        revision: status.position.as_ref().map_or(0, |position| position.revision),
        replication_factor: status.replication_factor,
        repositories: Repositories {
            ready: status.repositories_ready,
            ingesting: status.repositories_ingesting,
            failed: status.repositories_failed,
        },
        nodes: status.nodes.iter().map(Into::into).collect(),
        fetchers: status.fetchers.iter().map(Into::into).collect(),
        clients: status.clients.iter().map(client).collect(),
    }
}

fn client(wire: &v1::ClientStatus) -> Client {
    Client {
        id: wire.client_id.clone(),
        version: wire.version.clone(),
        mount: wire.mount.clone(),
        acknowledged_revision: wire.acked_revision,
        connected_at: time(wire.connected_at),
    }
}

/// The command line that takes back what is wanted of a node.
fn end_of(intent: &v1::NodeIntent) -> String {
    let id = shell_word(&intent.node_id);
    match intent.kind() {
        v1::node_intent::Kind::Failover => format!("monofs-admin clear-failover --node-id={id}"),
        v1::node_intent::Kind::Drain | v1::node_intent::Kind::Unspecified => {
            format!("monofs-admin undrain --node={id}")
        }
    }
}

/// Command lines that lead on from here.
fn next(status: &v1::StatusResponse) -> Vec<String> {
    let active =
        |member: &Option<v1::Member>| member.as_ref().is_some_and(|member| member.state() == v1::MemberState::Active);
    let mut next = Vec::new();
    if status.maintenance.is_some() {
        next.push("monofs-admin undrain".to_owned());
    }
    next.extend(status.intents.iter().map(end_of));
    if !status.nodes.iter().any(|node| active(&node.member)) {
        next.push("monofs-node --node-id=ID --router=ROUTER:9090".to_owned());
    }
    if !status.fetchers.iter().any(|fetcher| active(&fetcher.member)) {
        next.push("monofs-fetcher --router=ROUTER:9090".to_owned());
    }
    if status.repositories_failed > 0 {
        next.push("monofs-admin repos".to_owned());
    }
    if status.repositories_ready + status.repositories_ingesting + status.repositories_failed == 0 && next.is_empty() {
        next.push("monofs-admin ingest --source=URL".to_owned());
    }
    next
}
