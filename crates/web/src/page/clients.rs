//! Mounts that are connected, to all routers: what they said of themselves, and how far behind they
//! are.

use askama::Template;
use monofs_proto::v1;
use serde::Deserialize;

use super::answer::ASK_TIMEOUT;
use super::parts::Bar;
use super::shell::Shell;
use super::text::{When, clean, number, percent, size};
use monofs_router::parts::Parts;
use monofs_router::status;

/// Clients on one page.
const PAGE: usize = 100;

/// The query of the page.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ClientsQuery {
    q: String,
    page: String,
}

struct ClientRow {
    id: String,
    mount: String,
    version: String,
    connected: When,
    through: String,
    /// It has not acknowledged all that readers see: where it is, and where the catalogue is.
    behind: Option<(u64, u64)>,
    report: Option<Report>,
}

struct Report {
    at: When,
    cache: Bar,
    hit_ratio: String,
    fetched: String,
    upcalls: String,
    failed: u64,
    lagging: u64,
    resident: String,
}

#[derive(Template)]
#[template(path = "clients.html")]
pub(super) struct ClientsPage {
    shell: Shell,
    rows: Vec<ClientRow>,
    q: String,
    range: String,
    before: Option<String>,
    next: Option<String>,
    /// Routers whose clients are not here, with why.
    missing: Vec<String>,
    router: String,
}

pub(super) async fn page(state: &Parts, asked: &ClientsQuery) -> ClientsPage {
    let revision = *state.control.catalog.changed().borrow();
    let filter = asked.q.trim().to_lowercase();
    let (mut clients, missing) = connected(state).await;
    clients.retain(|client| {
        let text =
            format!("{} {} {}", client.client_id, client.mount, client.version).to_lowercase();
        text.contains(&filter)
    });
    // Who is furthest behind comes first.
    clients.sort_by(|a, b| {
        (a.acked_revision, &a.client_id, a.connected_at).cmp(&(
            b.acked_revision,
            &b.client_id,
            b.connected_at,
        ))
    });
    let page = asked.page.parse::<usize>().unwrap_or(1).max(1);
    let from = (page.saturating_sub(1))
        .saturating_mul(PAGE)
        .min(clients.len());
    let to = (from + PAGE).min(clients.len());
    ClientsPage {
        shell: Shell::new(state, "Clients", "/clients"),
        rows: clients[from..to]
            .iter()
            .map(|client| row(client, revision))
            .collect(),
        q: asked.q.clone(),
        range: format!(
            "{} to {} of {}",
            number((from + 1).min(to) as u64),
            number(to as u64),
            number(clients.len() as u64)
        ),
        before: (from > 0).then(|| url(&asked.q, page - 1)),
        next: (to < clients.len()).then(|| url(&asked.q, page + 1)),
        missing,
        router: clean(&state.control.own.address),
    }
}

fn url(filter: &str, page: usize) -> String {
    let filter = monofs_api::percent::percent_encoded(filter.as_bytes());
    format!("/clients?q={filter}&page={page}")
}

/// The clients of all routers, and whose could not be asked.
async fn connected(state: &Parts) -> (Vec<v1::ClientStatus>, Vec<String>) {
    match tokio::time::timeout(ASK_TIMEOUT, status::clients(state)).await {
        Ok(told) => {
            let missing = told
                .missing
                .iter()
                .map(|(router, error)| clean(&format!("{router}: {error}")));
            (told.clients, missing.collect())
        }
        Err(_) => {
            let late = format!("a router did not answer within {} s", ASK_TIMEOUT.as_secs());
            (state.work.watchers.list(), vec![late])
        }
    }
}

fn row(client: &v1::ClientStatus, revision: u64) -> ClientRow {
    ClientRow {
        id: clean(&client.client_id),
        mount: clean(&client.mount),
        version: clean(&client.version),
        connected: When::at(client.connected_at),
        through: clean(&client.router_id),
        behind: (client.acked_revision < revision).then_some((client.acked_revision, revision)),
        report: client
            .report
            .as_ref()
            .map(|said| report(said, client.reported_at)),
    }
}

fn report(said: &v1::ClientReport, at: i64) -> Report {
    Report {
        at: When::at(at),
        cache: Bar::usage(said.cache_bytes, said.cache_bytes_max),
        hit_ratio: percent(said.cache_hits, said.cache_hits + said.cache_misses)
            .unwrap_or_else(|| "nothing read yet".to_owned()),
        fetched: size(said.bytes_fetched),
        upcalls: number(said.upcalls),
        failed: said.failed,
        lagging: said.lagging,
        resident: size(said.resident_bytes),
    }
}
