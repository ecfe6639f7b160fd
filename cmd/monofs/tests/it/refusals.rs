//! What is checked first, and what a user is told to do about it.

use std::process::Command;

use monofs_testkit::process::binary;
use monofs_testkit::require;

use crate::room::{Room, demo, ended, repo_flag};

#[test]
fn the_mount_point_is_checked_before_anything_is_ingested() {
    let room = Room::new();
    let repo = demo();
    std::fs::create_dir(room.path("mount")).expect("make a directory");
    std::fs::write(room.path("mount/mine.txt"), "mine").expect("write a file");
    let ended = room.run([
        "up".to_owned(),
        "--temporary".to_owned(),
        room.mount_flag(),
        repo_flag(&repo),
    ]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.stderr.contains("is not empty"), "{ended:?}");
    assert_eq!(ended.stdout, "", "nothing was begun");
    assert!(room.path("mount/mine.txt").exists());
    room.assert_nothing_left();
}

#[test]
fn ports_are_checked_before_anything_is_ingested() {
    let room = Room::new();
    let repo = demo();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("it listens").port();
    for flag in ["--port", "--http-port"] {
        let ended = room.run([
            "up".to_owned(),
            "--temporary".to_owned(),
            format!("{flag}={port}"),
            repo_flag(&repo),
        ]);
        assert_eq!(ended.code, Some(4), "{ended:?}");
        let held = format!("(process {})", std::process::id());
        for part in [held.as_str(), flag, "--temporary"] {
            assert!(ended.stderr.contains(part), "{part}: {ended:?}");
        }
        assert_eq!(ended.stdout, "", "nothing was begun");
    }
    room.assert_nothing_left();
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let room = Room::new();
    let ended = room.run(["up", "--dir=/proc/monofs", "--port=0", "--http-port=0"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("create the data directory /proc/monofs"),
        "{ended:?}"
    );
}

#[test]
fn every_role_says_what_to_do_about_a_port_that_is_taken() {
    let room = Room::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = taken.local_addr().expect("it listens").to_string();
    let port = at.rsplit(':').next().expect("a port");
    let listen = ["--listen=127.0.0.1", "--state-dir"].map(str::to_owned);
    let [listen, state] = listen;
    let state = format!("{state}={}", room.path("state").display());
    let commands: [(&str, Vec<String>, &str); 5] = [
        (
            "monofs-router",
            vec![listen.clone(), state.clone(), format!("--port={port}")],
            "--port",
        ),
        (
            "monofs-router",
            vec![
                listen,
                state,
                "--port=0".to_owned(),
                format!("--http-port={port}"),
            ],
            "--http-port",
        ),
        (
            "monofs-node",
            vec!["--node-id=n".to_owned(), format!("--addr={at}")],
            "--addr",
        ),
        ("monofs-fetcher", vec![format!("--addr={at}")], "--addr"),
        (
            "monofs-client",
            vec![room.mount_flag(), format!("--metrics-addr={at}")],
            "--metrics-addr",
        ),
    ];
    for (name, args, flag) in commands {
        let ended = ended(
            Command::new(binary(name))
                .args(&args)
                .envs(room.variables()),
        );
        assert_eq!(ended.code, Some(4), "{name}: {ended:?}");
        let held = format!("(process {})", std::process::id());
        let advice = format!("another with {flag}");
        for part in [
            "could not listen on",
            held.as_str(),
            "hint: ",
            advice.as_str(),
        ] {
            assert!(ended.stderr.contains(part), "{name}: {part}: {ended:?}");
        }
    }
}

#[test]
fn without_a_fuse_device_it_serves_and_says_that_nothing_is_mounted() {
    let room = Room::new();
    let repo = demo();
    // A /dev of its own, with what a process needs and no more; `timeout` stands for Ctrl-C.
    let script = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 \
                  && mknod -m 666 /dev/urandom c 1 9 \
                  && exec timeout --signal=INT --preserve-status 10 \"$@\"";
    let mut command = Command::new(require("unshare"));
    command
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(binary("monofs"))
        .args(["up", "--temporary", "--nodes=1", &repo_flag(&repo)])
        .envs(room.variables());
    let ended = ended(&mut command);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for part in [
        "serving 1 repository",
        "nothing is mounted: /dev/fuse is not here",
        "monofs-admin ls local/repo --router ",
    ] {
        assert!(ended.stdout.contains(part), "{part}: {ended:?}");
    }
    room.assert_nothing_left();
}
