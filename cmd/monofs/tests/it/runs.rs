//! Several runs of one user: how the second is told of the first, and how `monofs status` and
//! `monofs down` find them.

use monofs_testkit::Process;

use crate::room::{LAST_LINE, Room, SOON};

/// A run with its data in a directory of the room, and free ports.
#[track_caller]
fn in_directory(room: &Room, name: &str) -> Process {
    let mut run = room.up([
        format!("--dir={}", room.path(name).display()),
        "--port=0".to_owned(),
        "--http-port=0".to_owned(),
    ]);
    run.wait_line(LAST_LINE, SOON);
    run
}

fn dir_flag(room: &Room, name: &str) -> String {
    format!("--dir={}", room.path(name).display())
}

/// Behind the last blank of the line that begins like this.
fn value(process: &Process, start: &str) -> String {
    let log = process.log();
    let line = log.iter().find(|line| line.starts_with(start));
    let line = line.expect("the line is there").trim_start_matches(start);
    line.split(' ').next().unwrap_or(line).to_owned()
}

#[test]
fn a_second_run_in_a_directory_is_told_of_the_first_and_what_to_do() {
    let room = Room::new();
    let mut first = in_directory(&room, "data");
    let args = [
        "up".to_owned(),
        dir_flag(&room, "data"),
        "--port=0".to_owned(),
    ];
    let second = room.run(args);
    assert_eq!(second.code, Some(4), "{second:?}");
    let process = format!("(process {})", first.id());
    for part in [
        process.as_str(),
        "--temporary",
        "--port",
        "--http-port",
        "monofs status",
        "monofs down",
    ] {
        assert!(second.stderr.contains(part), "{part}: {second:?}");
    }
    assert!(first.terminate(SOON).success());
}

#[test]
fn a_port_of_another_run_is_named_with_its_process() {
    let room = Room::new();
    let mut first = in_directory(&room, "data");
    let router = value(&first, "router: ");
    let port = router.rsplit(':').next().expect("a port");
    let second = room.run([
        "up".to_owned(),
        dir_flag(&room, "other"),
        format!("--port={port}"),
        "--http-port=0".to_owned(),
    ]);
    assert_eq!(second.code, Some(4), "{second:?}");
    let held = format!("by monofs (process {})", first.id());
    for part in [
        held.as_str(),
        "another MonoFS runs here",
        "--temporary",
        "monofs status",
    ] {
        assert!(second.stderr.contains(part), "{part}: {second:?}");
    }
    assert!(
        !room.path("other").exists(),
        "nothing is made before the check"
    );
    assert!(first.terminate(SOON).success());
}

#[test]
fn status_shows_what_runs_and_down_ends_it() {
    let room = Room::new();
    let none = room.run(["status"]);
    assert_eq!(none.code, Some(1), "{none:?}");
    assert!(
        none.stderr.contains("no `monofs up` of yours runs"),
        "{none:?}"
    );

    let mut run = in_directory(&room, "data");
    let shown = room.run(["status".to_owned(), dir_flag(&room, "data")]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    let data = room.path("data").canonicalize().expect("it is there");
    for part in [
        format!("process {}", run.id()),
        format!("data:   {}", data.display()),
        "mount:  none".to_owned(),
        "serves: 0 repositories".to_owned(),
        format!("router: {}", value(&run, "router: ")),
        format!("page:   {}", value(&run, "page: ")),
    ] {
        assert!(shown.stdout.contains(&part), "{part}: {shown:?}");
    }
    let elsewhere = room.run(["status".to_owned(), dir_flag(&room, "home")]);
    assert_eq!(elsewhere.code, Some(1), "{elsewhere:?}");

    let ended = room.run(["down".to_owned(), dir_flag(&room, "data")]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(run.wait(SOON).success(), "as with Ctrl-C");
    assert_eq!(room.run(["down"]).code, Some(1));
    assert_eq!(room.run(["down", "--all"]).code, Some(0));
    room.assert_nothing_left();
}

#[test]
fn down_asks_which_of_several_and_ends_all_when_told() {
    let room = Room::new();
    let mut first = in_directory(&room, "first");
    let mut second = in_directory(&room, "second");
    let asked = room.run(["down"]);
    assert_eq!(asked.code, Some(2), "{asked:?}");
    for part in ["--all", "first", "second"] {
        assert!(asked.stderr.contains(part), "{part}: {asked:?}");
    }
    assert!(first.is_running() && second.is_running());
    assert_eq!(room.run(["down", "--all"]).code, Some(0));
    assert!(first.wait(SOON).success() && second.wait(SOON).success());
    room.assert_nothing_left();
}

#[test]
fn a_killed_run_leaves_its_directory_to_the_next() {
    let room = Room::new();
    let mut first = in_directory(&room, "data");
    first.kill();
    let mut second = in_directory(&room, "data");
    assert!(second.terminate(SOON).success());
    room.assert_nothing_left();
}
