//! The view without a terminal: what is computed, decided and drawn.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use monofs_api::commands::LiveFigures;
use monofs_proto::v1;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::draw::draw;
use super::figures::{SampleHistory, StatusSample};
use super::grid::Palette;
use super::panels;
use super::view::{LiveView, Panel, ViewCommand, ViewEvent, ViewKey};

const SECOND: Duration = Duration::from_secs(1);

fn member(id: &str, state: v1::MemberState) -> Option<v1::Member> {
    Some(v1::Member {
        id: id.into(),
        state: state.into(),
        weight: 1.0,
        version: "0.1.0".into(),
        ..Default::default()
    })
}

/// Two nodes (one down), a fetcher, a job and a mount; every counter grows with `time`, in seconds.
fn sample(time: u64, router: &str) -> StatusSample {
    let mut durations = vec![0; 17];
    durations[3] = 90 * time;
    durations[9] = 10 * time;
    let stat = v1::StatResponse {
        node_id: "node1".into(),
        repositories: 7,
        disk_used_bytes: 9 << 30,
        disk_free_bytes: 1 << 30,
        hydrations_running: 1,
        hydrations_queued: 4,
        bytes_served: time << 20,
        request_durations: durations,
        requests_failed: time,
        chunks_held: 3 * time,
        chunks_missed: time,
        incarnation: 5,
        ..Default::default()
    };
    let node = |member, stat, error: &str| v1::NodeStatus {
        member,
        stat,
        error: error.into(),
    };
    let fetcher = v1::FetcherStatResponse {
        fetcher_id: "fetcher1".into(),
        cache_bytes_max: 1 << 30,
        fetches_waiting: 2,
        fetches_running: 3,
        bytes_fetched: time << 10,
        fetches_done: time,
        ..Default::default()
    };
    let report = v1::ClientReport {
        upcalls: 50 * time,
        cache_hits: 99,
        cache_misses: 1,
        ..Default::default()
    };
    let job = v1::Job {
        id: "repair-node2".into(),
        state: v1::job::State::Running.into(),
        steps_done: 1,
        steps_total: 4,
        message: "copies a/b to node1".into(),
        ..Default::default()
    };
    let status = v1::StatusResponse {
        nodes: vec![
            node(member("node1", v1::MemberState::Active), Some(stat), ""),
            node(
                member("node2", v1::MemberState::Down),
                None,
                "refused \u{1b}[31m",
            ),
        ],
        fetchers: vec![v1::FetcherStatus {
            member: member("fetcher1", v1::MemberState::Active),
            stat: Some(fetcher),
            error: String::new(),
        }],
        clients: vec![v1::ClientStatus {
            client_id: "laptop".into(),
            mount: "/mnt/monofs".into(),
            report: Some(report),
            reported_at: 1_700_000_000 + time as i64,
            ..Default::default()
        }],
        problems: vec!["node2 is down: `monofs-admin failover` shows who is read instead".into()],
        jobs: vec![job],
        repositories_ready: 7,
        replication_factor: 2,
        ..Default::default()
    };
    StatusSample {
        at: Duration::from_secs(time),
        router: router.into(),
        status,
    }
}

fn figures(samples: &[StatusSample]) -> LiveFigures {
    let mut history = SampleHistory::default();
    samples
        .iter()
        .cloned()
        .map(|sample| history.take(sample))
        .last()
        .unwrap()
}

fn told(time: u64, router: &str) -> ViewEvent {
    ViewEvent::Told(Box::new(sample(time, router)))
}

/// A view that has had two samples, two seconds apart.
fn view() -> LiveView {
    let mut view = LiveView::new(2 * SECOND);
    view.step(ViewEvent::Tick, Duration::ZERO);
    view.step(told(10, "r1:9090"), SECOND);
    view.step(ViewEvent::Tick, 2 * SECOND);
    view.step(told(12, "r1:9090"), 3 * SECOND);
    view
}

/// What a screen of this size shows.
fn screen(view: &LiveView, width: u16, height: u16, now: Duration) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| draw(frame, view, now, Palette::Coloured))
        .unwrap();
    let buffer = terminal.backend().buffer();
    let cell = |x, y| buffer.cell((x, y)).unwrap().symbol().to_owned();
    (0..height)
        .map(|y| {
            (0..width)
                .map(|x| cell(x, y))
                .collect::<String>()
                .trim_end()
                .to_owned()
        })
        .collect()
}

#[test]
fn rates_and_latencies_are_those_of_the_time_between_two_samples() {
    let one = figures(&[sample(10, "r")]);
    assert_eq!(
        (
            one.reads.requests_per_second,
            one.interval_seconds,
            one.nodes[0].reads.p99_seconds
        ),
        (None, None, None)
    );
    let two = figures(&[sample(10, "r"), sample(12, "r")]);
    let node = &two.nodes[0].reads;
    assert_eq!(
        (node.requests_per_second, node.failed_per_second),
        (Some(100.0), Some(1.0))
    );
    assert_eq!(
        (node.bytes_per_second, node.p50_seconds, node.p99_seconds),
        (Some(1048576.0), Some(3e-4), Some(0.05))
    );
    assert_eq!(two.nodes[0].chunks_here_percent, Some(75.0));
    assert_eq!(two.reads, *node, "one node tells, so it is all of them");
    assert_eq!(
        two.nodes[1].reads.requests_per_second, None,
        "it was not asked"
    );
    assert_eq!(
        (
            two.fetchers[0].bytes_per_second,
            two.clients[0].upcalls_per_second
        ),
        (Some(1024.0), Some(50.0))
    );
}

#[test]
fn a_member_that_started_again_or_does_not_tell_has_no_rates() {
    let mut again = sample(12, "r");
    again.status.nodes[0].stat.as_mut().unwrap().incarnation = 6;
    assert_eq!(
        figures(&[sample(10, "r"), again]).nodes[0]
            .reads
            .requests_per_second,
        None
    );
    let back = figures(&[sample(12, "r"), sample(10, "r")]);
    assert_eq!(
        (
            back.nodes[0].reads.requests_per_second,
            back.fetchers[0].bytes_per_second
        ),
        (None, None)
    );
    let old = |time| {
        let mut sample = sample(time, "r");
        sample.status.nodes[0]
            .stat
            .as_mut()
            .unwrap()
            .request_durations
            .clear();
        sample.status.clients[0].report = None;
        sample
    };
    let silent = figures(&[old(10), old(12)]);
    assert_eq!(silent.nodes[0].reads.requests_per_second, None);
    assert_eq!(
        silent.nodes[0].reads.bytes_per_second,
        Some(1048576.0),
        "that it does tell"
    );
    assert_eq!(silent.clients[0].upcalls_per_second, None);
}

#[test]
fn a_report_that_is_seen_twice_does_not_look_like_an_idle_mount() {
    let mut same = sample(13, "r");
    same.status.clients = sample(12, "r").status.clients;
    let seen = figures(&[sample(10, "r"), sample(12, "r"), same]);
    assert_eq!(seen.clients[0].upcalls_per_second, Some(50.0));
}

#[test]
fn it_asks_when_the_interval_is_over_and_never_twice_at_once() {
    let mut view = LiveView::new(2 * SECOND);
    assert_eq!(view.step(ViewEvent::Tick, Duration::ZERO), ViewCommand::Ask);
    assert_eq!(
        view.step(ViewEvent::Tick, 9 * SECOND),
        ViewCommand::Nothing,
        "the first question is open"
    );
    assert_eq!(
        view.step(told(10, "r"), 10 * SECOND),
        ViewCommand::Ask,
        "it was slower than the interval"
    );
    assert_eq!(view.step(told(11, "r"), 11 * SECOND), ViewCommand::Nothing);
    assert_eq!(view.step(ViewEvent::Tick, 12 * SECOND), ViewCommand::Ask);
    view.step(ViewEvent::Failed("gone".into()), 12 * SECOND);
    assert_eq!(
        view.step(ViewEvent::Key(ViewKey::Char(' ')), 13 * SECOND),
        ViewCommand::Nothing
    );
    assert_eq!(
        view.step(ViewEvent::Tick, 90 * SECOND),
        ViewCommand::Nothing,
        "paused"
    );
    assert_eq!(
        view.step(ViewEvent::Key(ViewKey::Char('p')), 91 * SECOND),
        ViewCommand::Ask,
        "at once"
    );
    for key in [ViewKey::Char('q'), ViewKey::Interrupt, ViewKey::Escape] {
        assert_eq!(
            view.step(ViewEvent::Key(key), 92 * SECOND),
            ViewCommand::Quit
        );
    }
}

#[test]
fn what_arrives_while_it_is_paused_does_not_change_the_screen() {
    let mut view = view();
    view.step(ViewEvent::Key(ViewKey::Char(' ')), 4 * SECOND);
    let before = screen(&view, 100, 30, 4 * SECOND);
    view.step(told(90, "r2:9090"), 5 * SECOND);
    assert_eq!(screen(&view, 100, 30, 4 * SECOND), before);
    assert!(before[0].contains("PAUSED"), "{before:?}");
}

#[test]
fn a_router_that_goes_away_is_told_and_the_next_one_is_named() {
    let mut view = view();
    view.step(
        ViewEvent::Failed("no router could be reached: r1:9090: refused".into()),
        10 * SECOND,
    );
    let lines = screen(&view, 120, 24, 15 * SECOND);
    assert!(
        lines[1].starts_with(
            "no router answers for 5s, still trying; below is from 12s ago: no router"
        ),
        "{lines:?}"
    );
    assert!(
        lines.iter().any(|line| line.starts_with("node1")),
        "the last figures stay: {lines:?}"
    );
    view.step(told(20, "r2:9090"), 16 * SECOND);
    let lines = screen(&view, 120, 24, 16 * SECOND);
    assert!(lines[0].contains("router r2:9090"), "{lines:?}");
    assert_eq!(lines[1], "router r1:9090 went away; r2:9090 answers now");
    let later = screen(&view, 120, 24, 40 * SECOND);
    assert!(
        !later.iter().any(|line| line.contains("went away")),
        "{later:?}"
    );
}

#[test]
fn the_overview_has_everything_on_eighty_columns() {
    let lines = screen(&view(), 80, 24, 3 * SECOND);
    assert_eq!(
        lines[0],
        "degraded  router r1:9090, no router leads  every 2s"
    );
    assert_eq!(
        lines[1],
        "reads 100/s  1.0 MiB/s  p50 <300us  p99 <50ms  failed 1.0/s"
    );
    let node = lines.iter().find(|line| line.starts_with("node1")).unwrap();
    for part in [
        "active",
        "100/s",
        "1.0 MiB/s",
        "<300us",
        "<50ms",
        "90 %",
        "1.0 GiB",
    ] {
        assert!(node.contains(part), "{part} is missing in {node}");
    }
    for start in [
        "NODE*",
        "node2",
        "FETCHER",
        "fetcher1",
        "JOB",
        "repair-node2",
        "CLIENT",
        "laptop",
        "! node2 is down",
    ] {
        assert!(
            lines.iter().any(|line| line.starts_with(start)),
            "{start} is missing in {lines:#?}"
        );
    }
    assert!(lines[23].starts_with("q quit  ? help"), "{lines:?}");
    assert!(!lines.concat().contains('\u{1b}'));
}

#[test]
fn any_size_of_screen_is_drawn() {
    let mut view = view();
    for panel in ['1', '2', '3', '4', '5', '?'] {
        view.step(ViewEvent::Key(ViewKey::Char(panel)), 3 * SECOND);
        for (width, height) in [
            (1, 1),
            (5, 2),
            (20, 3),
            (30, 5),
            (40, 8),
            (80, 12),
            (300, 100),
        ] {
            let lines = screen(&view, width, height, 3 * SECOND);
            assert_eq!(lines.len(), usize::from(height));
            assert!(
                height < 3 || lines[0].starts_with(&"degraded"[..8.min(usize::from(width))]),
                "{lines:?}"
            );
        }
    }
    let empty = LiveView::new(SECOND);
    assert_eq!(screen(&empty, 40, 5, SECOND)[0], "connecting  every 1s");
}

#[test]
fn narrow_screens_lose_the_last_columns_and_no_number_is_cut() {
    let mut view = view();
    view.step(ViewEvent::Key(ViewKey::Char('2')), 3 * SECOND);
    let lines = screen(&view, 31, 20, 3 * SECOND);
    let heading = lines.iter().find(|line| line.starts_with("NODE")).unwrap();
    assert_eq!(heading.as_str(), "NODE*  STATE   READS      BYTES");
}

#[test]
fn rows_are_sorted_by_the_column_that_is_chosen() {
    let mut view = view();
    let first = |view: &LiveView| {
        let lines = screen(view, 120, 24, 3 * SECOND);
        let heading = lines
            .iter()
            .position(|line| line.starts_with("NODE"))
            .unwrap();
        (
            lines[heading].clone(),
            lines[heading + 1].split(' ').next().unwrap().to_owned(),
        )
    };
    view.step(ViewEvent::Key(ViewKey::Char('2')), 3 * SECOND);
    assert_eq!(first(&view).1, "node1");
    view.step(ViewEvent::Key(ViewKey::Char('r')), 3 * SECOND);
    let (heading, row) = first(&view);
    assert!(
        heading.starts_with("NODE^") && row == "node2",
        "{heading} {row}"
    );
    view.step(ViewEvent::Key(ViewKey::Char('s')), 3 * SECOND);
    view.step(ViewEvent::Key(ViewKey::Char('s')), 3 * SECOND);
    let (heading, row) = first(&view);
    assert!(
        heading.contains("READS*") && row == "node1",
        "most first: {heading} {row}"
    );
    for _ in 0..3 {
        view.step(ViewEvent::Key(ViewKey::Char('S')), 3 * SECOND);
    }
    assert!(first(&view).0.contains("NOTE*"), "round to the last column");
}

#[test]
fn every_column_of_every_panel_can_be_sorted_by() {
    let figures = figures(&[sample(10, "r"), sample(12, "r")]);
    let grids = [
        panels::nodes,
        panels::nodes,
        panels::fetchers,
        panels::jobs,
        panels::clients,
    ]
    .map(|of| of(&figures));
    for (panel, grid) in Panel::ALL.iter().zip(grids) {
        let mut view = LiveView::new(SECOND);
        view.panel = *panel;
        for column in 0..grid.headings.len() {
            assert_eq!(view.sorted().column, column, "{panel:?}");
            view.step(ViewEvent::Key(ViewKey::Char('s')), SECOND);
        }
        assert_eq!(
            view.sorted().column,
            0,
            "{panel:?} has as many columns as it sorts by"
        );
        assert!(
            grid.rows.iter().all(|row| row.len() == grid.headings.len()),
            "{panel:?}"
        );
    }
}

#[test]
fn long_lists_are_counted_and_scrolled() {
    let mut many = sample(10, "r");
    let one = many.status.nodes[0].clone();
    many.status.nodes = (0..50)
        .map(|number| v1::NodeStatus {
            member: member(&format!("node{number:02}"), v1::MemberState::Active),
            ..one.clone()
        })
        .collect();
    let mut view = LiveView::new(SECOND);
    view.step(ViewEvent::Told(Box::new(many)), SECOND);
    assert!(
        screen(&view, 80, 24, SECOND)
            .iter()
            .any(|line| line.starts_with("1-") && line.ends_with(" of 50"))
    );
    view.step(ViewEvent::Key(ViewKey::Char('2')), SECOND);
    for _ in 0..4 {
        view.step(ViewEvent::Key(ViewKey::PageDown), SECOND);
    }
    assert!(
        screen(&view, 80, 24, SECOND)
            .iter()
            .any(|line| line.starts_with("node40"))
    );
    view.step(ViewEvent::Key(ViewKey::End), SECOND);
    let lines = screen(&view, 80, 24, SECOND);
    assert!(
        lines.iter().any(|line| line.starts_with("node49")),
        "{lines:#?}"
    );
    view.step(ViewEvent::Key(ViewKey::Home), SECOND);
    assert!(
        screen(&view, 80, 24, SECOND)
            .iter()
            .any(|line| line.starts_with("node00"))
    );
}

#[test]
fn help_names_every_key_and_colours_can_be_left_away() {
    let mut view = view();
    view.step(ViewEvent::Key(ViewKey::Char('?')), 3 * SECOND);
    let lines = screen(&view, 80, 24, 3 * SECOND).join("\n");
    for part in ["q, Esc", "space, p", "s S", "r  ", "PgUp", "+ -", "Tab"] {
        assert!(lines.contains(part), "{part} is missing in {lines}");
    }
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal
        .draw(|frame| draw(frame, &view, 3 * SECOND, Palette::Monochrome))
        .unwrap();
    let plain = terminal
        .backend()
        .buffer()
        .content
        .iter()
        .all(|cell| cell.fg == ratatui::style::Color::Reset);
    assert!(plain, "no colour where none is wanted");
}
