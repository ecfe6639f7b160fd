//! All nodes: state, use, load. Figures are what each node said when it was last sampled; states
//! are those of now.

use askama::Template;
use monofs_model::{Member, MemberState};
use monofs_proto::v1;

use super::parts::{Bar, State};
use super::shell::Shell;
use super::text::{When, clean, encode_path, number, size};
use monofs_router::parts::Parts;

/// Nodes that are shown; more are a sign to filter by terminal.
const ROWS_MAX: usize = 1000;

struct NodeRow {
    id: String,
    href: String,
    state: State,
    zone: String,
    weight: String,
    repositories: String,
    disk: Option<Bar>,
    hydrations: String,
    version: String,
    address: String,
}

#[derive(Template)]
#[template(path = "nodes.html")]
pub(super) struct NodesPage {
    shell: Shell,
    rows: Vec<NodeRow>,
    more: usize,
    copies: u32,
    sampled: Option<When>,
    router: String,
}

pub(super) fn page(state: &Parts) -> NodesPage {
    let view = state.fleet.members.view();
    let mut nodes: Vec<&Member> = view.nodes().collect();
    // What needs a look comes first.
    nodes.sort_by_key(|node| (urgency(node), node.id.clone()));
    NodesPage {
        shell: Shell::new(state, "Nodes", "/nodes"),
        more: nodes.len().saturating_sub(ROWS_MAX),
        rows: nodes
            .iter()
            .take(ROWS_MAX)
            .map(|node| row(state, node))
            .collect(),
        copies: view.replication_factor,
        sampled: state
            .work
            .history
            .latest()
            .map(|latest| When::at(latest.at)),
        router: clean(&state.control.own.address),
    }
}

fn urgency(node: &Member) -> u8 {
    match node.state {
        MemberState::Down => 0,
        MemberState::Suspect => 1,
        _ if node.failed_over => 2,
        MemberState::Recovering | MemberState::Draining | MemberState::Joining => 3,
        MemberState::Drained => 4,
        MemberState::Active => 5,
    }
}

/// What a node said of itself when it was sampled last.
pub(super) fn said(state: &Parts, node: &Member) -> Option<v1::StatResponse> {
    state
        .work
        .history
        .sampled(|sample| sample.nodes.get(&node.id).cloned().flatten())
        .flatten()
}

/// Of the disk that the repositories lie on.
pub(super) fn disk(node: &Member, stat: &v1::StatResponse) -> Bar {
    let whole = match node.capacity_bytes {
        0 => stat.disk_used_bytes + stat.disk_free_bytes,
        capacity => capacity.min(stat.disk_used_bytes + stat.disk_free_bytes),
    };
    Bar::usage(stat.disk_used_bytes, whole)
}

fn row(state: &Parts, node: &Member) -> NodeRow {
    let stat = said(state, node);
    NodeRow {
        id: clean(node.id.as_str()),
        href: format!("/nodes/{}", encode_path(node.id.as_str())),
        state: State::of_member(node),
        zone: clean(&node.zone),
        weight: weight(node.weight),
        repositories: told(stat.as_ref(), |stat| number(stat.repositories)),
        disk: stat.as_ref().map(|stat| disk(node, stat)),
        hydrations: told(stat.as_ref(), |stat| {
            match (stat.hydrations_running, stat.hydrations_queued) {
                (0, 0) => "none".to_owned(),
                (running, queued) => format!("{running}, {queued} wait"),
            }
        }),
        version: clean(&node.version),
        address: clean(&node.address),
    }
}

/// What a node said, or a dash.
fn told(stat: Option<&v1::StatResponse>, value: fn(&v1::StatResponse) -> String) -> String {
    stat.map_or("–".to_owned(), value)
}

/// A weight without needless digits.
pub(super) fn weight(weight: f64) -> String {
    let text = format!("{weight:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Bytes that a node served, and what of.
pub(super) fn served(stat: &v1::StatResponse) -> String {
    format!(
        "{} in {} directories and {} chunks",
        size(stat.bytes_served),
        number(stat.trees_served),
        number(stat.chunks_served)
    )
}
