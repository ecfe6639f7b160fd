//! Looking into the tree: ls, cat, stat.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use crate::fake::{Fake, LARGE, REPO};
use crate::{Ran, command};

#[test]
fn the_namespace_is_listed_at_every_level() {
    let fake = Fake::start();
    assert_eq!(
        fake.admin(&["ls"]).done().text(),
        "github.com/\ngitlab.com/\n"
    );
    assert_eq!(
        fake.admin(&["ls", "/gitlab.com/"]).done().text(),
        "a/\nnew/\n"
    );
    let json = fake
        .admin(&["ls", "gitlab.com", "--format=json"])
        .done()
        .json();
    let above = &json["entries"][0];
    assert_eq!(above["name"], "a");
    assert_eq!(above["kind"], "namespace");
    assert_eq!(above["path_encoded"], "gitlab.com/a");
    assert!(above["size"].is_null() && above["oid"].is_null() && above["state"].is_null());
    assert_eq!(json["entries"][1]["state"], "ingesting");
    assert!(
        fake.admin(&["ls", "-l", "gitlab.com"])
            .done()
            .text()
            .contains("new/  (ingesting)")
    );
    let stat = fake
        .admin(&["stat", "gitlab.com", "--format=json"])
        .done()
        .json();
    assert_eq!(
        stat,
        serde_json::json!({
            "path": "/gitlab.com", "path_encoded": "gitlab.com", "kind": "namespace", "total": 2,
            "entries": 2
        })
    );
}

#[test]
fn directories_are_listed_with_kinds_sizes_and_ids() {
    let fake = Fake::start();
    let expected = [
        "README.md",
        "caf\\xe9",
        "damaged",
        "evil\\u{1b}[31m",
        "ext/",
        "large.bin",
        "link@",
        "lost",
        "run*",
        "src/",
    ];
    assert_eq!(
        fake.admin(&["ls", REPO])
            .done()
            .text()
            .lines()
            .collect::<Vec<_>>(),
        expected
    );
    let long = fake.admin(&["ls", "-l", REPO]).done();
    assert!(!long.out.contains(&0x1b), "no escape reaches the terminal");
    let line = long
        .text()
        .lines()
        .find(|line| line.contains("large.bin"))
        .unwrap()
        .to_owned();
    assert!(
        line.starts_with("file") && line.contains(&LARGE.to_string()),
        "{line}"
    );
    let json = fake.admin(&["ls", REPO, "--format=json"]).done().json();
    let entries = json["entries"].as_array().unwrap();
    assert_eq!(json["path"], format!("/{REPO}"));
    assert_eq!(entries[1]["name_hex"], "636166e9");
    assert_eq!(entries[3]["name"], "evil\u{1b}[31m");
    assert_eq!(
        entries[0],
        serde_json::json!({
            "name": "README.md", "path_encoded": format!("{REPO}/README.md"), "kind": "file", "size": 8,
            "oid": "8954bb97349bfe2a7799e6a7a64c6f747c635d6c", "state": null, "name_hex": null
        })
    );
    assert_eq!(
        fake.admin(&["ls", &format!("{REPO}/src")]).done().text(),
        "main.rs\n"
    );
    assert_eq!(
        fake.admin(&["ls", &format!("{REPO}/run")]).done().text(),
        "run*\n"
    );
}

#[test]
fn files_come_out_byte_for_byte() {
    let fake = Fake::start();
    let cat = |name: &str| fake.admin(&["cat", &format!("{REPO}/{name}")]);
    assert_eq!(cat("README.md").done().out, b"# hello\n");
    assert_eq!(cat("run").done().out, b"");
    assert_eq!(cat("src/main.rs").done().out, b"# hello\n");
    assert!(cat("large.bin").done().out == monofs_testkit::repo::pattern(LARGE));
    let raw = command(&["cat", &format!("--router={}", fake.address())])
        .arg(OsStr::from_bytes(b"github.com/org/repo/caf\xe9"))
        .output()
        .unwrap();
    assert!(
        raw.status.success() && raw.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&raw.stderr)
    );
    let both = fake
        .admin(&[
            "cat",
            &format!("{REPO}/README.md"),
            &format!("{REPO}/src/main.rs"),
        ])
        .done();
    assert_eq!(both.out, b"# hello\n# hello\n");
}

#[test]
fn a_reader_that_stops_early_is_no_failure() {
    let fake = Fake::start();
    let mut child = command(&[
        "cat",
        &format!("{REPO}/large.bin"),
        &format!("--router={}", fake.address()),
    ])
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(0), &b""[..])
    );
}

#[test]
fn damaged_and_lost_contents_are_failures() {
    let fake = Fake::start();
    let cat = |path: &str| fake.admin(&["cat", path]);
    cat(&format!("{REPO}/damaged")).failed(1, "do not match");
    cat(&format!("{REPO}/lost")).failed(3, "no reachable node holds");
    cat(&format!("{REPO}/src")).failed(1, "is a directory");
    cat(&format!("{REPO}/link")).failed(1, "is a symlink");
    cat(&format!("{REPO}/no/such")).failed(1, "does not exist");
    cat(&format!("{REPO}/README.md/x")).failed(1, "is no directory");
    cat("github.com").failed(1, "is a directory");
    cat("nowhere/at/all").failed(1, "/nowhere/at/all does not exist");
    cat("gitlab.com/new/x").failed(4, "no commit yet");
    cat("github.com/../etc").failed(2, "'..'");
}

#[test]
fn stat_tells_everything_about_a_path() {
    let fake = Fake::start();
    let stat = |name: &str| -> Ran {
        fake.admin(&["stat", &format!("{REPO}{name}"), "--format=json"])
            .done()
    };
    let file = stat("/README.md").json();
    for (key, value) in [
        ("kind", "file"),
        ("repository", REPO),
        ("commit_time", "2020-09-13T12:26:40Z"),
    ] {
        assert_eq!(file[key], value);
    }
    assert_eq!(
        (file["size"].as_u64(), file["holders"][1].as_str()),
        (Some(8), Some("node2"))
    );
    assert_eq!(file["commit"], "ab".repeat(20));
    let link = stat("/link").json();
    assert_eq!(
        (link["kind"].as_str(), link["target"].as_str()),
        (Some("symlink"), Some("README.md"))
    );
    assert_eq!(
        stat("/ext").json()["submodule"],
        format!("https://example.com/ext.git@{}", "07".repeat(20))
    );
    assert_eq!(stat("/src").json()["entries"], 1);
    assert_eq!(stat("").json()["kind"], "repository");
    let text = fake
        .admin(&["stat", &format!("{REPO}/large.bin")])
        .done()
        .text();
    assert!(
        text.contains("size:        2.0 MiB (2097229 B)\n"),
        "{text}"
    );
}
