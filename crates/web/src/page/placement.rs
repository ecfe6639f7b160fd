//! The picture of who holds how much, by zone and weight, and what the loss of a node would do.

use std::collections::HashMap;

use askama::Template;
use monofs_model::{Member, Result};
use serde::Deserialize;

use super::nodes::weight;
use super::parts::State;
use super::shell::Shell;
use super::text::{clean, count, encode_path, size};
use crate::holdings;
use crate::site::Site;
use monofs_api::percent::percent_encoded;
use monofs_api::placement::{Loss, LossTarget, NodeShare, PlacementDocument};
use monofs_members::membership;

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
pub(super) struct PlacementQuery {
    /// The node whose loss is asked about.
    without: String,
}

/// A row of the picture and of the table.
struct PlacementRow {
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
    bar_y: String,
    held: String,
    gains_x: String,
    gains: String,
    wanted_x: String,
    mark_end: String,
    label_x: String,
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
pub(super) struct PlacementPage {
    shell: Shell,
    zones: Vec<Zone>,
    rows: Vec<PlacementRow>,
    more: usize,
    height: String,
    copies: u32,
    total: String,
    loss: Option<LossShown>,
    words: String,
}

/// Errors: `NotFound` for a node that is none.
pub(super) async fn page(site: &Site, asked: &PlacementQuery) -> Result<PlacementPage> {
    let state = &site.router;
    let view = state.fleet.members.view();
    let lost = match asked.without.as_str() {
        "" => None,
        id => Some(membership::node(&view, id)?.id.clone()),
    };
    let placement = holdings::survey(site, lost).await?;
    let mut nodes: Vec<&Member> = view.nodes().collect();
    nodes.sort_by(|a, b| (&a.zone, &a.id).cmp(&(&b.zone, &b.id)));
    let more = nodes.len().saturating_sub(NODES_MAX);
    nodes.truncate(NODES_MAX);
    let (zones, rows, height) = draw(&nodes, &placement);
    let words = rows
        .iter()
        .map(|row| format!("{} holds {}, wanted {}", row.id, row.held, row.wanted));
    Ok(PlacementPage {
        shell: Shell::new(state, "Placement", "/placement"),
        words: words.collect::<Vec<_>>().join("; "),
        zones,
        rows,
        more,
        height: format!("{height:.0}"),
        copies: view.replication_factor,
        total: format!(
            "{} of {}, {}",
            count(placement.copies, "copy"),
            count(placement.repositories, "repository"),
            size(placement.bytes)
        ),
        loss: placement.without.as_ref().map(loss),
    })
}

/// What is drawn of one node, in bytes.
struct Amounts<'a> {
    share: Option<&'a NodeShare>,
    gains: Option<&'a LossTarget>,
    wanted: u64,
}

impl Amounts<'_> {
    fn held(&self) -> u64 {
        self.share.map_or(0, |share| share.bytes)
    }

    fn with_gains(&self) -> u64 {
        self.held() + self.gains.map_or(0, |gains| gains.bytes)
    }
}

fn draw(nodes: &[&Member], placement: &PlacementDocument) -> (Vec<Zone>, Vec<PlacementRow>, f64) {
    let shares: HashMap<&str, &NodeShare> = placement
        .nodes
        .iter()
        .map(|share| (share.node.node_id.as_str(), share))
        .collect();
    let targets = placement.without.iter().flat_map(|loss| &loss.targets);
    let gains: HashMap<&str, &LossTarget> = targets
        .map(|target| (target.node.node_id.as_str(), target))
        .collect();
    let of = |node: &Member| {
        let share = shares.get(node.id.as_str()).copied();
        let wanted = share.map_or(0.0, |share| share.share_wanted * placement.bytes as f64);
        Amounts {
            share,
            gains: gains.get(node.id.as_str()).copied(),
            wanted: wanted.round() as u64,
        }
    };
    let most = nodes
        .iter()
        .map(|node| of(node).with_gains().max(of(node).wanted))
        .max()
        .unwrap_or(0)
        .max(1);
    let lost = placement
        .without
        .as_ref()
        .map(|loss| loss.node.node_id.as_str());
    let mut zones = Vec::new();
    let mut rows = Vec::new();
    let mut y = 0.0;
    let mut zone: Option<&str> = None;
    for node in nodes {
        if zone != Some(node.zone.as_str()) {
            zone = Some(&node.zone);
            zones.push(heading(node, placement, y));
            y += ZONE_HEIGHT;
        }
        rows.push(row(
            node,
            &of(node),
            lost == Some(node.id.as_str()),
            y,
            most as f64,
        ));
        y += ROW_HEIGHT;
    }
    (zones, rows, y.max(ROW_HEIGHT) + 6.0)
}

/// Of the zone that `node` is the first of.
fn heading(node: &Member, placement: &PlacementDocument, y: f64) -> Zone {
    let about = placement
        .zones
        .iter()
        .find(|zone| zone.zone.as_deref().unwrap_or("") == node.zone);
    Zone {
        name: if node.zone.is_empty() {
            "no zone".to_owned()
        } else {
            format!("zone {}", clean(&node.zone))
        },
        y: format!("{:.0}", y + 22.0),
        about: about
            .map(|zone| {
                format!(
                    "{}, {} in {}",
                    count(zone.nodes as u64, "node"),
                    size(zone.bytes),
                    count(zone.copies, "copy")
                )
            })
            .unwrap_or_default(),
    }
}

fn row(node: &Member, amounts: &Amounts<'_>, lost: bool, y: f64, most: f64) -> PlacementRow {
    let held = width(amounts.held(), most);
    let wanted = BAR_LEFT + width(amounts.wanted, most);
    let gains = amounts.gains.map_or(0, |gains| gains.bytes);
    let end = BAR_LEFT + width(amounts.with_gains(), most);
    PlacementRow {
        id: clean(node.id.as_str()),
        href: format!("/nodes/{}", encode_path(node.id.as_str())),
        loss_href: format!(
            "/placement?without={}",
            percent_encoded(node.id.as_str().as_bytes())
        ),
        zone: clean(&node.zone),
        state: State::of_member(node),
        weight: weight(node.weight),
        held: in_copies(
            amounts.held(),
            amounts.share.map_or(0, |share| share.copies),
        ),
        wanted: size(amounts.wanted),
        gains: amounts
            .gains
            .map(|gains| in_copies(gains.bytes, gains.copies)),
        lost,
        drawn: Drawn {
            y: format!("{y:.0}"),
            text_y: format!("{:.0}", y + 16.0),
            bar_y: format!("{:.0}", y + 3.0),
            held: format!("{held:.1}"),
            gains_x: format!("{:.1}", BAR_LEFT + held),
            gains: format!("{:.1}", width(gains, most)),
            wanted_x: format!("{wanted:.1}"),
            mark_end: format!("{:.0}", y + 25.0),
            label_x: format!("{:.1}", end.max(wanted) + 8.0),
        },
    }
}

/// The width of a bar for so many of the `most` bytes that one has.
fn width(bytes: u64, most: f64) -> f64 {
    bytes as f64 / most * BAR_WIDTH
}

fn in_copies(bytes: u64, copies: u64) -> String {
    format!("{} in {}", size(bytes), count(copies, "copy"))
}

fn loss(loss: &Loss) -> LossShown {
    let unread = match loss.without_copy {
        0 => "none: others hold all of them".to_owned(),
        gone => format!(
            "{} would have no copy that serves, until it is back or a fetcher gets them again",
            count(gone, "repository")
        ),
    };
    let again: u64 = loss.targets.iter().map(|target| target.copies).sum();
    LossShown {
        id: clean(&loss.node.node_id),
        lines: vec![
            ("It holds", count(loss.copies, "copy")),
            (
                "Short of copies",
                format!(
                    "{} would have fewer than are wanted",
                    count(loss.below_copies, "repository")
                ),
            ),
            ("Not readable", unread),
            (
                "Made again",
                format!(
                    "{}, {}, when it is down for longer than --rebalance-delay",
                    count(again, "copy"),
                    size(loss.bytes_to_copy)
                ),
            ),
        ],
    }
}
