//! `status`: the whole cluster on one screen, what is wrong with it and what to type next.

use anyhow::Result;
use monofs_launch::exit::Failure;
use monofs_proto::v1;
use serde::Serialize;

use crate::commands::{Session, fetchers, nodes};
use crate::output::{Mood, Rows, emit, emit_json};
use crate::shapes;
use crate::text::{ago, clean, count, time};

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
    view_number: u64,
    revision: u64,
    replication_factor: u32,
    repositories: Repositories,
    nodes: Vec<shapes::Node>,
    fetchers: Vec<shapes::Fetcher>,
    clients: Vec<Client>,
}

#[derive(Serialize)]
struct Router {
    address: String,
    reachable: bool,
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
    let mut first: Option<v1::StatusResponse> = None;
    let mut failure = None;
    for (address, answer) in session.cluster.routers().iter().zip(asked) {
        match answer {
            Ok(status) => {
                routers.push(reachable(address, &status));
                first = first.or(Some(status));
            }
            Err(error) => {
                routers.push(silent(address, &error));
                failure = failure.or(Some(error));
            }
        }
    }
    let Some(status) = first else {
        // Ask again in the usual order only to say it in the usual words.
        return Err(session
            .status()
            .await
            .err()
            .or(failure)
            .map_or_else(|| anyhow::anyhow!("no router is named"), Into::into));
    };
    let answer = judge(&status, routers);
    if session.json() { emit_json(&answer) } else { emit(&screen(&status, &answer)) }
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
    let (version, started_at) = (Some(status.version.clone()), time(status.started_at));
    Router { address: address.to_owned(), reachable: true, version, started_at, error: None }
}

fn silent(address: &str, failure: &Failure) -> Router {
    let error = Some(failure.message.clone());
    Router { address: address.to_owned(), reachable: false, version: None, started_at: None, error }
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

/// Command lines that lead on from here.
fn next(status: &v1::StatusResponse) -> Vec<String> {
    let active =
        |member: &Option<v1::Member>| member.as_ref().is_some_and(|member| member.state() == v1::MemberState::Active);
    let mut next = Vec::new();
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

fn screen(status: &v1::StatusResponse, answer: &Answer) -> String {
    let mut text = match answer.problems.len() as u64 {
        0 => "healthy\n".to_owned(),
        problems => format!("{}:\n", count(problems, "problem")),
    };
    answer.problems.iter().for_each(|problem| text.push_str(&format!("  ! {}\n", clean(problem))));
    if !answer.next.is_empty() {
        text.push_str("next:\n");
        answer.next.iter().for_each(|line| text.push_str(&format!("  > {line}\n")));
    }
    let Repositories { ready, ingesting, failed } = &answer.repositories;
    text.push_str(&format!("\nrepositories: {ready} ready, {ingesting} being ingested, {failed} failed; "));
    text.push_str(&format!(
        "{} wanted, view {}\n\n",
        count(u64::from(answer.replication_factor), "copy"),
        answer.view_number
    ));
    let mut routers = Rows::new(&["ROUTER", "STATE", "VERSION", "UP FOR"]);
    for router in &answer.routers {
        let state = if router.reachable { ("active", Mood::Good) } else { ("down", Mood::Bad) };
        let up = if router.reachable { ago(status.started_at) } else { "-".to_owned() };
        let version = router.version.clone().unwrap_or_else(|| "-".to_owned());
        routers.row_with([(router.address.as_str(), Mood::Plain), state, (&version, Mood::Plain), (&up, Mood::Plain)]);
    }
    text.push_str(&routers.render());
    text.push('\n');
    text.push_str(&nodes::table(&status.nodes));
    text.push('\n');
    text.push_str(&fetchers::table(&status.fetchers));
    if !status.clients.is_empty() {
        text.push('\n');
        text.push_str(&clients(&status.clients));
    }
    text
}

fn clients(clients: &[v1::ClientStatus]) -> String {
    let mut rows = Rows::new(&["CLIENT", "MOUNT", "VERSION", "CONNECTED"]);
    for client in clients {
        rows.row([&client.client_id, &client.mount, &client.version, &ago(client.connected_at)]);
    }
    rows.render()
}
