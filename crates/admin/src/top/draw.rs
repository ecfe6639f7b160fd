//! The screen: the summary on top, the open panel, and a line of keys at the bottom. Pure: the view
//! in, a buffer out.

use std::time::Duration;

use monofs_api::Health;
use monofs_api::commands::{LiveFigures, LiveNode};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span, Text};

use crate::mood::Mood;
use crate::text::{clean, count, latency, rate, size, wrapped};
use crate::top::grid::{Grid, Palette};
use crate::top::panels;
use crate::top::view::{LiveView, Panel};

/// Problems that the summary names; the rest is counted.
const PROBLEMS_SHOWN_MAX: usize = 3;
/// On a screen with fewer lines problems are counted only.
const PROBLEMS_HEIGHT_MIN: usize = 16;

const HELP: &str = "\
q, Esc, Ctrl-C   quit
?, h             this help
1 2 3 4 5        overview, nodes, fetchers, jobs, clients
Tab, arrows      next panel, previous panel
s S              sort by the next column, the previous column (* marks it)
r                sort the other way round (^ marks it)
up down, j k     scroll; also PgUp, PgDn, Home, End
space, p         pause, go on
+ -              ask more often, less often

READS, FAIL, DONE, UPCALLS: requests a second since the last sample. P50, P99:
half, and 99 of 100, of those requests took less. HERE: chunks that were on
the node. DISK: used, of used and free. HYDR: contents being copied or queued.
LAG: repositories that a mount shows at an older commit. A `-` is not known: the
member does not tell, was just started, or had nothing to do.";

/// Draws the view.
pub fn draw(frame: &mut Frame<'_>, view: &LiveView, now: Duration, palette: Palette) {
    // The header first, then as much of the rest as fits.
    let area = frame.area();
    let width = usize::from(area.width);
    let height = usize::from(area.height);
    let mut lines = header(view, now, width, palette);
    let footer = usize::from(height > lines.len() + 2);
    if let Some(figures) = &view.figures {
        lines.extend(summary(figures, width, height, palette));
    }
    lines.truncate(height.saturating_sub(footer));
    let room = height.saturating_sub(lines.len() + footer);
    lines.extend(body(view, width, room, palette));
    // All but the last line, and the keys in that.
    frame.render_widget(
        Text::from(lines),
        Rect {
            height: area.height - footer as u16,
            ..area
        },
    );
    if footer == 1 {
        frame.render_widget(
            keys(view),
            Rect {
                y: area.y + area.height - 1,
                height: 1,
                ..area
            },
        );
    }
}

/// The word, who answers, and what is out of order with the view itself.
fn header(view: &LiveView, now: Duration, width: usize, palette: Palette) -> Vec<Line<'static>> {
    // The word, and the routers.
    let mut spans = match &view.figures {
        Some(figures) => {
            let mood = match figures.health {
                Health::Healthy => Mood::Good,
                Health::Degraded => Mood::Uneasy,
                Health::Unhealthy => Mood::Bad,
            };
            let word = Span::styled(figures.health.word(), bold(palette, mood));
            let leader = figures.leader.as_deref().unwrap_or("no router");
            vec![
                word,
                Span::raw(format!(
                    "  router {}, {} leads",
                    clean(&figures.router),
                    clean(leader)
                )),
            ]
        }
        None => vec![Span::styled("connecting", bold(palette, Mood::Plain))],
    };
    spans.push(Span::raw(format!(
        "  every {}",
        humantime::format_duration(view.interval)
    )));
    if view.paused {
        spans.push(Span::styled("  PAUSED", bold(palette, Mood::Uneasy)));
    }
    // What is wrong with the view itself.
    let mut lines = vec![Line::from(spans)];
    if let Some((why, since)) = &view.failed {
        let waited = now.saturating_sub(*since).as_secs();
        let old = view
            .figures
            .as_ref()
            .map(|_| now.saturating_sub(view.told_at).as_secs());
        let old = old.map_or(String::new(), |old| format!("; below is from {old}s ago"));
        let text = format!("no router answers for {waited}s, still trying{old}: {why}");
        lines.extend(
            wrapped(&text, width)
                .into_iter()
                .take(3)
                .map(|line| Line::styled(line, palette.style(Mood::Bad))),
        );
    } else if let Some(notice) = view.notice(now) {
        lines.push(Line::styled(clean(notice), palette.style(Mood::Uneasy)));
    }
    lines
}

fn bold(palette: Palette, mood: Mood) -> Style {
    palette.style(mood).add_modifier(Modifier::BOLD)
}

/// The sum of a figure over the nodes that tell it.
fn over_nodes(figures: &LiveFigures, figure: fn(&LiveNode) -> Option<u64>) -> u64 {
    let told = figures.nodes.iter().filter_map(figure);
    told.fold(0, u64::saturating_add)
}

/// The whole cluster in a few lines, and what is wrong.
fn summary(
    figures: &LiveFigures,
    width: usize,
    height: usize,
    palette: Palette,
) -> Vec<Line<'static>> {
    // Sums over the cluster.
    let reads = &figures.reads;
    let bytes = reads
        .bytes_per_second
        .map_or_else(|| "-".to_owned(), panels::byte_rate);
    let running = over_nodes(figures, |node| node.hydrations_running);
    let queued = over_nodes(figures, |node| node.hydrations_queued);
    let hydrations = running.saturating_add(queued);
    let mut lines = vec![
        Line::raw(format!(
            "reads {}  {bytes}  p50 {}  p99 {}  failed {}",
            rate(reads.requests_per_second),
            latency(reads.p50_seconds),
            latency(reads.p99_seconds),
            rate(reads.failed_per_second)
        )),
        Line::raw(format!(
            "repositories {} ready, {} being ingested, {} failed  disk {} used, {} free  \
             hydrations {hydrations}",
            figures.repositories_ready,
            figures.repositories_ingesting,
            figures.repositories_failed,
            size(over_nodes(figures, |node| node.disk_used_bytes)),
            size(over_nodes(figures, |node| node.disk_free_bytes))
        )),
    ];
    // The first problems, each cut so that its command is whole.
    let shown = if height < PROBLEMS_HEIGHT_MIN {
        0
    } else {
        PROBLEMS_SHOWN_MAX
    };
    for finding in figures.findings.iter().take(shown) {
        let mut text = format!("! {}", clean(&finding.problem));
        if text.chars().count() > width {
            let next = finding
                .next
                .as_ref()
                .map_or(String::new(), |next| format!(" > {}", clean(next)));
            let room = width.saturating_sub(next.chars().count() + 3);
            text = text
                .chars()
                .take(room)
                .chain("...".chars())
                .chain(next.chars())
                .collect();
        }
        lines.push(Line::styled(text, palette.style(Mood::Bad)));
    }
    let hidden = figures.findings.len().saturating_sub(shown);
    if hidden > 0 {
        let more = if shown > 0 { "more " } else { "" };
        let problems = count(hidden as u64, "problem").replacen(' ', &format!(" {more}"), 1);
        lines.push(Line::styled(
            format!("! {problems}: monofs-admin status"),
            palette.style(Mood::Bad),
        ));
    }
    lines
}

fn body(view: &LiveView, width: usize, room: usize, palette: Palette) -> Vec<Line<'static>> {
    // The help covers everything.
    if view.help {
        return HELP.lines().take(room).map(Line::raw).collect();
    }
    let Some(figures) = &view.figures else {
        return Vec::new();
    };
    // The open panel, sorted and scrolled.
    let mut grid = match view.panel {
        Panel::Overview => return overview(view, figures, width, room, palette),
        Panel::Nodes => panels::nodes(figures),
        Panel::Fetchers => panels::fetchers(figures),
        Panel::Jobs => panels::jobs(figures),
        Panel::Clients => panels::clients(figures),
    };
    if grid.rows.is_empty() {
        return vec![
            Line::raw(""),
            Line::raw(format!("no {}", view.panel.name())),
        ];
    }
    let sort = view.sorted();
    grid.sort(sort);
    let mut lines = vec![Line::raw("")];
    lines.extend(grid.lines(
        width,
        room.saturating_sub(1),
        view.scroll,
        Some(sort),
        palette,
    ));
    lines
}

/// All panels below each other, each with as much room as it needs and there is.
fn overview(
    view: &LiveView,
    figures: &LiveFigures,
    width: usize,
    room: usize,
    palette: Palette,
) -> Vec<Line<'static>> {
    let mut nodes = panels::nodes(figures);
    nodes.sort(view.sorted());
    let grids = [
        nodes,
        panels::fetchers(figures),
        panels::jobs(figures),
        panels::clients(figures),
    ];
    let grids: Vec<Grid> = grids
        .into_iter()
        .filter(|grid| !grid.rows.is_empty())
        .collect();
    // A blank line before each, its headings and its rows.
    let wanted: Vec<usize> = grids.iter().map(|grid| grid.rows.len() + 2).collect();
    let mut lines = Vec::new();
    for (number, (grid, height)) in grids.iter().zip(shares(&wanted, room)).enumerate() {
        // Less than one row says nothing.
        if height < 3 {
            continue;
        }
        lines.push(Line::raw(""));
        let sort = (number == 0 && !figures.nodes.is_empty()).then(|| view.sorted());
        lines.extend(grid.lines(width, height - 1, 0, sort, palette));
    }
    lines
}

/// `room` lines given to those that want some, in turns until all have what they want.
fn shares(wanted: &[usize], room: usize) -> Vec<usize> {
    let mut given = vec![0; wanted.len()];
    let mut left = room;
    while left > 0
        && given
            .iter()
            .zip(wanted)
            .any(|(given, wanted)| given < wanted)
    {
        for (given, wanted) in given.iter_mut().zip(wanted) {
            if *given < *wanted && left > 0 {
                *given += 1;
                left -= 1;
            }
        }
    }
    given
}

/// The line of keys.
fn keys(view: &LiveView) -> Line<'static> {
    let mut spans = vec![Span::raw("q quit  ? help  s sort  p pause  ")];
    for (number, panel) in Panel::ALL.iter().enumerate() {
        let text = format!("{} {}", number + 1, panel.name());
        let open = *panel == view.panel;
        spans.push(if open {
            Span::styled(text, Style::new().add_modifier(Modifier::REVERSED))
        } else {
            Span::raw(text)
        });
        spans.push(Span::raw(" "));
    }
    Line::from(spans)
}
