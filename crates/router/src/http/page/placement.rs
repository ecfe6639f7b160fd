//! The picture of who holds how much, by zone and weight, and what the loss of a node would do.

use askama::Template;
use monofs_model::{Member, NodeId, Result};
use serde::Deserialize;

use super::Pages;
use super::nodes::weight;
use super::parts::State;
use super::shares::{self, Share, Shares};
use super::shell::Shell;
use super::text::{clean, count, encode_path, size};
use crate::browse::percent_encoded;
use crate::membership;

/// Nodes in the picture; the table below has as many.
const NODES_MAX: usize = 200;

/// Of the picture, in its own units.
const BAR_LEFT: f64 = 190.0;
const BAR_WIDTH: f64 = 520.0;
const ROW_HEIGHT: f64 = 30.0;
const ZONE_HEIGHT: f64 = 34.0;

/// The query of the page.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    /// The node whose loss is asked about.
    without: String,
}

/// A row of the picture and of the table.
struct Row {
    id: String,
    href: String,
    /// What its loss would do.
    loss_href: String,
    zone: String,
    state: State,
    weight: String,
    held: String,
    wanted: String,
    gains: Option<String>,
    lost: bool,
    drawn: Drawn,
}

/// Places in the picture.
struct Drawn {
    y: String,
    text_y: String,
    held: String,
    gains_x: String,
    gains: String,
    wanted_x: String,
    label_x: String,
    mark_end: String,
    bar_y: String,
}

struct Zone {
    name: String,
    y: String,
    about: String,
}

/// What a loss would do, line by line.
struct LossShown {
    id: String,
    lines: Vec<(&'static str, String)>,
}

#[derive(Template)]
#[template(path = "placement.html")]
pub(super) struct Page {
    shell: Shell,
    zones: Vec<Zone>,
    rows: Vec<Row>,
    more: usize,
    height: String,
    copies: u32,
    loss: Option<LossShown>,
    words: String,
}

/// Errors: `NotFound` for a node that is none.
pub(super) async fn page(pages: &Pages, asked: &Asked) -> Result<Page> {
    let state = &pages.state;
    let view = state.members.view();
    let lost = match asked.without.as_str() {
        "" => None,
        id => Some(membership::node(&view, id)?.id.clone()),
    };
    let shares = shares::now(pages, lost.as_ref()).await?;
    let mut nodes: Vec<&Member> = view.nodes().collect();
    nodes.sort_by(|a, b| (&a.zone, &a.id).cmp(&(&b.zone, &b.id)));
    let more = nodes.len().saturating_sub(NODES_MAX);
    nodes.truncate(NODES_MAX);
    let (zones, rows, height) = draw(&nodes, &shares, lost.as_ref());
    let words = rows.iter().map(|row| format!("{} holds {}, wanted {}", row.id, row.held, row.wanted));
    Ok(Page {
        shell: Shell::new(state, "Placement", "/placement"),
        words: words.collect::<Vec<_>>().join("; "),
        zones,
        rows,
        more,
        height: format!("{height:.0}"),
        copies: view.replication_factor,
        loss: lost.map(|lost| loss(&lost, &shares)),
    })
}

fn draw(nodes: &[&Member], shares: &Shares, lost: Option<&NodeId>) -> (Vec<Zone>, Vec<Row>, f64) {
    let of = |node: &Member| shares.nodes.get(&node.id).copied().unwrap_or_default();
    let most = nodes.iter().map(|node| of(node)).map(|share| (share.held.bytes + share.gains.bytes).max(share.wanted.bytes));
    let most = most.max().unwrap_or(0).max(1) as f64;
    let (mut zones, mut rows, mut y) = (Vec::new(), Vec::new(), 0.0);
    let mut zone: Option<&str> = None;
    for node in nodes {
        if zone != Some(node.zone.as_str()) {
            zone = Some(&node.zone);
            let inside = nodes.iter().filter(|other| other.zone == node.zone);
            let held = inside.clone().map(|node| of(node).held.bytes).sum();
            zones.push(Zone {
                name: if node.zone.is_empty() { "no zone".to_owned() } else { format!("zone {}", clean(&node.zone)) },
                y: format!("{:.0}", y + 22.0),
                about: format!("{}, {}", count(inside.count() as u64, "node"), size(held)),
            });
            y += ZONE_HEIGHT;
        }
        rows.push(row(node, of(node), lost == Some(&node.id), y, most));
        y += ROW_HEIGHT;
    }
    (zones, rows, y.max(ROW_HEIGHT) + 6.0)
}

fn row(node: &Member, share: Share, lost: bool, y: f64, most: f64) -> Row {
    let width = |bytes: u64| bytes as f64 / most * BAR_WIDTH;
    let end = BAR_LEFT + width(share.held.bytes + share.gains.bytes);
    let wanted = BAR_LEFT + width(share.wanted.bytes);
    let amount = |amount: shares::Amount| format!("{} in {}", size(amount.bytes), count(amount.copies, "copy"));
    Row {
        id: clean(node.id.as_str()),
        href: format!("/nodes/{}", encode_path(node.id.as_str())),
        loss_href: format!("/placement?without={}", percent_encoded(node.id.as_str().as_bytes())),
        zone: clean(&node.zone),
        state: State::of_member(node),
        weight: weight(node.weight),
        held: amount(share.held),
        wanted: amount(share.wanted),
        gains: (share.gains.copies > 0).then(|| amount(share.gains)),
        lost,
        drawn: Drawn {
            y: format!("{y:.0}"),
            text_y: format!("{:.0}", y + 16.0),
            bar_y: format!("{:.0}", y + 3.0),
            held: format!("{:.1}", width(share.held.bytes)),
            gains_x: format!("{:.1}", BAR_LEFT + width(share.held.bytes)),
            gains: format!("{:.1}", width(share.gains.bytes)),
            wanted_x: format!("{wanted:.1}"),
            label_x: format!("{:.1}", end.max(wanted) + 8.0),
            mark_end: format!("{:.0}", y + 25.0),
        },
    }
}

fn loss(lost: &NodeId, shares: &Shares) -> LossShown {
    let loss = &shares.loss;
    let gone = match loss.gone {
        0 => "none: each of them is held by somebody else, too".to_owned(),
        gone => format!("{} cannot be read until it is back, or they are ingested again", count(gone, "repository")),
    };
    let mut lines = vec![
        ("Touched", format!("{} would have one copy less", count(loss.touched, "repository"))),
        ("Not readable", gone),
        ("Made again", format!("{} of {}, after --rebalance-delay", count(loss.again.copies, "copy"), size(loss.again.bytes))),
    ];
    if loss.homeless > 0 {
        let lacking = format!("{} would stay short of copies: too few nodes are left", count(loss.homeless, "repository"));
        lines.push(("Short of copies", lacking));
    }
    LossShown { id: clean(lost.as_str()), lines }
}
