//! The status as one screen of text.

use monofs_proto::v1;

use super::{Answer, Repositories};
use crate::commands::{fetchers, jobs, nodes};
use crate::output::{Mood, Rows};
use crate::shapes::intent_kind;
use crate::text::{ago, clean, count};

/// The screen.
pub fn text(status: &v1::StatusResponse, answer: &Answer) -> String {
    let mut text = match answer.problems.len() as u64 {
        0 => "healthy\n".to_owned(),
        problems => format!("{}:\n", count(problems, "problem")),
    };
    answer.problems.iter().for_each(|problem| text.push_str(&format!("  ! {}\n", clean(problem))));
    if !answer.next.is_empty() {
        text.push_str("next:\n");
        answer.next.iter().for_each(|line| text.push_str(&format!("  > {line}\n")));
    }
    text.push_str(&wanted(status));
    let Repositories { ready, ingesting, failed } = &answer.repositories;
    text.push_str(&format!("\nrepositories: {ready} ready, {ingesting} being ingested, {failed} failed; "));
    text.push_str(&format!(
        "{} wanted, view {}\n\n",
        count(u64::from(answer.replication_factor), "copy"),
        answer.view_number
    ));
    text.push_str(&routers(status, answer));
    text.push('\n');
    text.push_str(&nodes::table(&status.nodes));
    text.push('\n');
    text.push_str(&fetchers::table(&status.fetchers));
    if !status.jobs.is_empty() {
        text.push('\n');
        text.push_str(&jobs::table(&status.jobs));
    }
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

/// What operators want: of the whole cluster, and of single nodes.
fn wanted(status: &v1::StatusResponse) -> String {
    let mut text = String::new();
    if let Some(maintenance) = &status.maintenance {
        let (reason, since) = (clean(&maintenance.reason), ago(maintenance.since));
        text.push_str(&format!("\nmaintenance for {since}: {reason}; nobody fails over and nothing moves\n"));
    }
    if !status.intents.is_empty() {
        let mut rows = Rows::new(&["WANTED", "NODE", "SINCE", "FORCED", "REASON"]);
        for intent in &status.intents {
            let forced = if intent.force { "yes" } else { "no" };
            rows.row([intent_kind(intent.kind()), &intent.node_id, &ago(intent.since), forced, &intent.reason]);
        }
        text.push('\n');
        text.push_str(&rows.render());
    }
    text
}

/// The routers as they know each other, with what became of asking them; then those that only the command line names.
fn routers(status: &v1::StatusResponse, answer: &Answer) -> String {
    let mut rows = Rows::new(&["ROUTER", "ADDRESS", "STATE", "ROLE", "VERSION", "UP FOR"]);
    let active = ("active".to_owned(), Mood::Good);
    let plain = |text: &str| (text.to_owned(), Mood::Plain);
    for router in &status.routers {
        let role = if router.leader { "leader" } else { "follower" };
        let up = ago(router.started_at);
        let [id, address, version] = [&router.router_id, &router.address, &router.version].map(|text| plain(text));
        rows.row_with([id, address, active.clone(), plain(role), version, plain(&up)]);
    }
    let known = |id: &str| status.routers.iter().any(|router| router.router_id == id);
    for router in answer.routers.iter().filter(|router| !router.id.as_deref().is_some_and(known)) {
        let state = if router.reachable { active.clone() } else { ("no answer".to_owned(), Mood::Bad) };
        let [id, version] = [&router.id, &router.version].map(|text| plain(text.as_deref().unwrap_or("-")));
        rows.row_with([id, plain(&router.address), state, plain("-"), version, plain(&ago(router.started))]);
    }
    rows.render()
}
