//! On a terminal: the live view, colours, and that everything is given back.

use monofs_testkit::wait_until;

use crate::fake::Fake;
use crate::pty::{Pty, SOON};
use crate::{command, run};

const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";

fn top(routers: &str) -> Pty {
    Pty::start(
        &[],
        &["top", &format!("--router={routers}"), "--interval=200ms"],
    )
}

/// What sets colours and weights, as opposed to what moves the cursor: the codes between `ESC [`
/// and `m`.
fn styles(text: &str) -> Vec<&str> {
    let sequences = text
        .split("\u{1b}[")
        .skip(1)
        .filter_map(|rest| rest.split_once('m').map(|(codes, _)| codes));
    sequences
        .filter(|codes| codes.chars().all(|c| c.is_ascii_digit() || c == ';'))
        .collect()
}

/// Whether text has a colour.
fn is_coloured(text: &str) -> bool {
    let colour = |code: &str| matches!(code, "31" | "32" | "33" | "36" | "38");
    styles(text)
        .iter()
        .any(|codes| codes.split(';').any(colour))
}

#[test]
fn top_draws_the_cluster_and_gives_the_terminal_back_on_q() {
    let fake = Fake::start();
    let mut pty = top(&fake.address().to_string());
    // Rates come with the second sample.
    pty.shows("p50 <300us  p99 <50ms");
    let screen = pty.screen();
    for part in [
        "degraded  router 127.0.0.1:",
        "node1  active",
        "fetcher1",
        "laptop",
    ] {
        assert!(screen.contains(part), "{part} is missing in {screen}");
    }
    assert!(pty.text().contains(ENTER));
    pty.press("?");
    pty.shows("sort by the next column");
    pty.press("2");
    pty.shows("NODE*");
    pty.press("q");
    let (code, restored, text) = pty.ended();
    assert_eq!((code, restored), (0, true), "{text:?}");
    let end = &text[text.rfind(LEAVE).unwrap()..];
    assert!(end.contains("\u{1b}[?25h"), "the cursor is back: {end:?}");
}

#[test]
fn top_gives_the_terminal_back_on_every_signal_and_on_control_c() {
    let fake = Fake::start();
    for signal in ["TERM", "HUP", "INT"] {
        let pty = top(&fake.address().to_string());
        pty.shows("node1");
        pty.signal(signal);
        let (code, restored, text) = pty.ended();
        assert_eq!(
            (code, restored, text.contains(LEAVE)),
            (0, true, true),
            "{signal}: {text:?}"
        );
    }
    let mut pty = top(&fake.address().to_string());
    pty.shows("node1");
    pty.press("\u{3}");
    let (code, restored, text) = pty.ended();
    assert_eq!((code, restored), (0, true), "{text:?}");
}

#[test]
fn top_ends_when_its_terminal_goes_away() {
    let fake = Fake::start();
    let pty = top(&fake.address().to_string());
    pty.shows("node1");
    let process = pty.process();
    drop(pty);
    wait_until("the process has ended", SOON, || !process.exists());
}

#[test]
fn top_goes_on_with_the_next_router_and_waits_when_there_is_none() {
    let (first, second) = (Fake::start(), Fake::start());
    let (one, two) = (first.address().to_string(), second.address().to_string());
    let mut pty = top(&format!("{one},{two}"));
    pty.shows(&format!("router {one}"));
    drop(first);
    pty.shows(&format!("router {one} went away; {two} answers now"));
    drop(second);
    pty.shows("no router answers");
    pty.press("q");
    let (code, restored, text) = pty.ended();
    assert_eq!((code, restored), (0, true), "{text:?}");
}

#[test]
fn top_follows_the_size_of_the_terminal() {
    let fake = Fake::start();
    let mut pty = top(&fake.address().to_string());
    pty.shows("q quit");
    pty.resize(2, 10);
    pty.resize(40, 160);
    // Columns that eighty have no room for.
    pty.shows("NOTE");
    pty.press("q");
    let (code, restored, text) = pty.ended();
    assert_eq!((code, restored), (0, true), "{text:?}");
}

#[test]
fn top_without_a_terminal_prints_one_snapshot_and_ends() {
    let fake = Fake::start();
    let text = fake.admin(&["top", "--interval=200ms"]).done().text();
    assert!(text.starts_with("degraded: router 127.0.0.1:"), "{text}");
    for part in [
        "p50 <300us  p99 <50ms",
        "NODE",
        "node2",
        "FETCHER",
        "CLIENT",
        "laptop",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let pty = Pty::start(
        &[],
        &[
            "top",
            "--once",
            "--interval=200ms",
            &format!("--router={}", fake.address()),
        ],
    );
    let (code, restored, text) = pty.ended();
    assert!(
        code == 0 && restored && text.contains("node1") && !text.contains(ENTER),
        "{text:?}"
    );
    run(&[
        "top",
        &format!("--router=127.0.0.1:{}", monofs_testkit::free_port()),
    ])
    .failed(3, "no router could be reached");
}

/// Commands whose output has colours on a terminal, with a part of it.
const COLOURED: [(&[&str], &str); 6] = [
    (&["status"], "node1"),
    (&["nodes"], "node1"),
    (&["repo", "no/such"], "error:"),
    (&["status", "--help"], "Usage:"),
    (&["status", "--nonsense"], "unexpected argument"),
    (&["verify", "--path=github.com/org/repo"], "node2"),
];

#[test]
fn colours_are_for_terminals_and_no_color_is_respected() {
    let fake = Fake::start();
    let router = format!("--router={}", fake.address());
    for (args, part) in COLOURED {
        let args = [args, &[router.as_str()]].concat();
        let (_, _, text) = Pty::start(&[], &args).ended();
        assert!(
            text.contains(part) && !styles(&text).is_empty(),
            "{args:?}: {text:?}"
        );
        for setting in ["NO_COLOR=1", "TERM=dumb"] {
            let (_, _, text) = Pty::start(&[setting], &args).ended();
            assert!(
                text.contains(part) && styles(&text).is_empty(),
                "{setting} {args:?}: {text:?}"
            );
        }
        let (_, _, text) = Pty::start(&["NO_COLOR="], &args).ended();
        assert!(
            !styles(&text).is_empty(),
            "an empty NO_COLOR forbids nothing: {text:?}"
        );
        let ran = command(&args)
            .env("TERM", "xterm-256color")
            .env("CLICOLOR_FORCE", "1")
            .output()
            .unwrap();
        let piped = [ran.stdout, ran.stderr].concat();
        assert!(
            !piped.contains(&0x1b),
            "{args:?} to a pipe: {}",
            String::from_utf8_lossy(&piped)
        );
    }
}

#[test]
fn the_live_view_and_progress_have_no_colours_either() {
    let fake = Fake::start();
    let router = format!("--router={}", fake.address());
    for (settings, coloured) in [(&[][..], true), (&["NO_COLOR=1"], false)] {
        let mut pty = Pty::start(settings, &["top", &router]);
        pty.shows("laptop");
        pty.press("q");
        let (code, _, text) = pty.ended();
        assert_eq!((code, is_coloured(&text)), (0, coloured), "{text:?}");
        let pty = Pty::start(settings, &["ingest", "--source=https://h/slow", &router]);
        pty.until("resolving");
        pty.signal("INT");
        let (code, _, text) = pty.ended();
        assert_eq!((code, is_coloured(&text)), (1, coloured), "{text:?}");
    }
}
