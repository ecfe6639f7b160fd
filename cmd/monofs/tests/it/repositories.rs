//! What `--repo` takes, where it is shown, and what is said of one that cannot be served.

use monofs_testkit::Repo;

use crate::room::{LAST_LINE, Room, SOON, demo, repo_flag};

/// The line that announces the one repository of `monofs up`, given by its path and `suffix`.
#[track_caller]
fn announced(repo: &Repo, suffix: &str) -> String {
    let room = Room::new();
    let mut process = room.up([
        "--temporary".to_owned(),
        "--no-mount".to_owned(),
        format!("{}{suffix}", repo_flag(repo)),
    ]);
    let announced = process.wait_line("ingesting ", SOON);
    // The catalogue agrees with what was announced.
    let path = announced.split(" as ").nth(1).expect("a path is named");
    let path = path.split(',').next().expect("a path ends");
    process.wait_line(&format!("  {path} at "), SOON);
    process.wait_line(LAST_LINE, SOON);
    assert!(process.terminate(SOON).success());
    announced
}

fn with_origin(url: &str) -> Repo {
    let repo = demo();
    repo.git(["remote", "add", "origin", url]);
    repo
}

#[test]
fn a_checkout_is_shown_where_its_origin_says() {
    let line = announced(&with_origin("git@host.example:org/repo.git"), "");
    assert!(
        line.contains("as host.example/org/repo, the path of its origin"),
        "{line}"
    );
}

#[test]
fn a_repository_without_a_url_as_origin_is_shown_below_local() {
    let line = announced(&with_origin("/srv/upstream.git"), "");
    assert!(
        line.contains("as local/repo, as no URL is its origin"),
        "{line}"
    );
}

#[test]
fn a_path_that_the_user_names_wins() {
    let line = announced(
        &with_origin("https://host.example/org/repo.git"),
        "=team/tool",
    );
    assert!(line.ends_with(" as team/tool"), "{line}");
}

#[test]
fn a_ref_with_a_slash_is_mounted_beside_the_head() {
    let room = Room::new();
    let repo = demo();
    repo.commit_on("feature/new", |changes| {
        changes.file("new.txt", "new\n");
    });
    let flag = repo_flag(&repo);
    let mut process = room.up([
        "--temporary".to_owned(),
        room.mount_flag(),
        format!("{flag}=team/head"),
        format!("{flag}@feature%2Fnew=team/new"),
    ]);
    process.wait_line("serving 2 repositories", SOON);
    process.wait_line(LAST_LINE, SOON);
    let mount = room.path("mount");
    let new = std::fs::read_to_string(mount.join("team/new/new.txt"));
    assert_eq!(new.expect("the file of the branch"), "new\n");
    assert!(!mount.join("team/head/new.txt").exists());
    assert!(mount.join("team/head/README.md").exists());
    assert!(process.terminate(SOON).success());
    room.assert_nothing_left();
}

/// Directories that cannot be served, each for a reason of its own: the name, and what is said.
fn make_bad(room: &Room) -> [(String, &'static str); 3] {
    for name in ["files", "bare"] {
        std::fs::create_dir(room.path(name)).expect("make a directory");
    }
    std::fs::write(room.path("files/a.txt"), "a").expect("write a file");
    monofs_testkit::git::run(&room.path("bare"), ["init", "-q", "--bare", "."]);
    [
        ("missing", "no such repository"),
        ("files", "not a Git repository"),
        ("bare", "is empty"),
    ]
    .map(|(name, said)| (room.path(name).display().to_string(), said))
}

#[test]
fn bad_repositories_do_not_end_the_good_one_and_each_says_why() {
    let room = Room::new();
    let repo = demo();
    let bad = make_bad(&room);
    let mut args = vec!["--temporary".to_owned(), room.mount_flag()];
    args.extend(bad.iter().map(|(path, _)| format!("--repo={path}")));
    args.push(repo_flag(&repo));
    let mut process = room.up(args);
    process.wait_line("serving 1 repository; 3 of 4 failed", SOON);
    process.wait_line(LAST_LINE, SOON);

    let log = process.log();
    let failed: Vec<&String> = log
        .iter()
        .filter(|line| line.starts_with("failed: "))
        .collect();
    assert_eq!(failed.len(), bad.len(), "{log:?}");
    for (line, (path, said)) in failed.iter().zip(&bad) {
        assert!(line.starts_with(&format!("failed: {path}: ")), "{line}");
        for (_, other) in &bad {
            assert_eq!(line.contains(other), other == said, "{line}");
        }
    }
    let shown = room.path("mount").join("local/repo/README.md");
    assert_eq!(std::fs::read_to_string(shown).expect("the file"), "hello\n");
    assert!(process.terminate(SOON).success());
    room.assert_nothing_left();
}

#[test]
fn a_run_that_can_serve_nothing_ends_and_leaves_nothing() {
    let room = Room::new();
    let bad = make_bad(&room);
    let args = ["up", "--temporary", "--nodes=1"].map(str::to_owned);
    let repos = bad.iter().map(|(path, _)| format!("--repo={path}"));
    let ended = room.run(args.into_iter().chain(repos));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("none of the 3 repositories"),
        "{ended:?}"
    );
    assert!(!ended.stdout.contains("page:"), "{ended:?}");
    room.assert_nothing_left();
}

#[test]
fn what_was_served_before_is_served_again_when_its_source_is_gone() {
    let room = Room::new();
    let repo = demo();
    let args = || {
        vec![
            format!("--dir={}", room.path("data").display()),
            "--port=0".to_owned(),
            "--http-port=0".to_owned(),
            room.mount_flag(),
            format!("{}=team/tool", repo_flag(&repo)),
        ]
    };
    let mut first = room.up(args());
    first.wait_line(LAST_LINE, SOON);
    assert!(first.terminate(SOON).success());

    std::fs::remove_file(repo.path().join("HEAD")).expect("it is no repository any more");
    let mut second = room.up(args());
    let failed = second.wait_line("failed: ", SOON);
    assert!(failed.contains("team/tool stays at "), "{failed}");
    second.wait_line("serving 1 repository; 1 of 1 failed", SOON);
    second.wait_line(LAST_LINE, SOON);
    assert!(room.path("mount").join("team/tool/README.md").exists());
    assert!(second.terminate(SOON).success());
}
