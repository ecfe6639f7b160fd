//! When a file last changed, as build tools see it: what an update changes is newer than all that was
//! made before it, and what it leaves alone keeps its time, on every mount and from every replica.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use monofs_cluster::Ingest;
use monofs_cluster::client::Mounted;
use monofs_model::Oid;
use monofs_testkit::git::EPOCH;
use monofs_testkit::{Repo, wait::wait_until_async};

use crate::system::{SOON, System, can_mount, off_thread};

const PATH: &str = "h/r";

/// A commit of the tree that `main` has, at the date that all of these have: an author who amends
/// keeps it, and one whose clock is wrong writes any.
fn same_date(repo: &Repo) -> Oid {
    let tree = repo.rev("main^{tree}").to_string();
    let made = repo.git(["commit-tree", &tree, "-m", "same date"]);
    let commit: Oid = String::from_utf8(made).unwrap().trim().parse().unwrap();
    repo.point("refs/heads/main", &commit);
    commit
}

/// What a command printed. It runs in `at` and may wait for this process's own FUSE threads.
async fn run(at: &Path, command: &str) -> String {
    let (at, command) = (at.to_owned(), command.to_owned());
    off_thread(move || {
        let ran = Command::new("sh")
            .args(["-ec", &command])
            .current_dir(&at)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(ran.status.success(), "{command}: {errors}");
        String::from_utf8_lossy(&ran.stdout).into_owned()
    })
    .await
}

/// Time and inode number of every name below a directory.
async fn names(at: &Path) -> BTreeMap<PathBuf, (i64, u64)> {
    let at = at.to_owned();
    off_thread(move || {
        let mut found = BTreeMap::new();
        let mut pending = vec![at.clone()];
        while let Some(path) = pending.pop() {
            let meta = std::fs::symlink_metadata(&path).unwrap();
            assert_eq!(meta.mtime(), meta.ctime(), "{}", path.display());
            if meta.is_dir() {
                pending.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            }
            let name = path.strip_prefix(&at).unwrap().to_owned();
            found.insert(name, (meta.mtime(), meta.ino()));
        }
        found
    })
    .await
}

/// A system that shows a repository, and a directory for what is built.
struct Build {
    system: System,
    repo: Repo,
    out: PathBuf,
}

impl Build {
    async fn start(repo: Repo) -> Self {
        Self::start_in(System::start().await, repo).await
    }

    async fn start_in(system: System, repo: Repo) -> Self {
        same_date(&repo);
        let what = Ingest::of(repo.url()).at("main").shown_as(PATH);
        system.cluster.ingest(what).await.unwrap();
        system.assert_shows(PATH, &repo).await;
        let out = system.dir.path().join("out");
        std::fs::create_dir(&out).unwrap();
        Self { system, repo, out }
    }

    fn at(&self) -> PathBuf {
        self.system.at(PATH)
    }

    /// Publishes what `main` has now, and waits until it is shown.
    async fn update(&self) {
        same_date(&self.repo);
        self.system.cluster.refresh(PATH).await.unwrap();
        self.system.assert_follows(PATH, &self.repo).await;
    }

    /// Another mount, with a cache of its own.
    async fn second_mount(&self, cache: &str) -> (Mounted, PathBuf) {
        let root = self.system.dir.path().join(format!("mount-{cache}"));
        std::fs::create_dir(&root).unwrap();
        let mut config = self.system.cluster.client_config(cache);
        config.mount.clone_from(&root);
        config.rpc_timeout = Duration::from_secs(3);
        let mounted = monofs_cluster::client::mount(config).await.unwrap();
        (mounted, root.join(PATH))
    }
}

fn sources() -> Repo {
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("in.txt", "one")
            .file("mod.py", "X = 1\n")
            .file("same.txt", "same")
            .exec("tool", "#!/bin/sh\n")
            .file("a/b/deep", "1")
            .file("a/c/other", "1");
    });
    repo
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_redo_what_an_update_with_an_old_date_changed_and_nothing_else() {
    if !can_mount() {
        return;
    }
    let build = Build::start(sources()).await;
    let (at, out) = (build.at(), build.out.clone());
    let source = at.display();
    let makefile =
        format!("all: in.out same.out\n%.out: {source}/%.txt\n\tcp $< $@\n\techo $@ >> log\n");
    std::fs::write(out.join("Makefile"), makefile).unwrap();
    let python = format!(
        "PYTHONPYCACHEPREFIX={}/pyc PYTHONPATH={source} python3 -c 'import mod; print(mod.X)'",
        out.display()
    );
    let rsync = format!("rsync -a -i {source}/ {}/copy/", out.display());
    run(&out, "make all").await;
    assert_eq!(run(&out, &python).await, "1\n");
    run(&out, &rsync).await;
    let incremental = format!("tar -C {source} --listed-incremental=seen -cvf part.tar . | sort");
    run(&out, &incremental).await;
    run(&out, &format!("touch stamp; tar -C {source} -cf all.tar .")).await;
    run(&out, "rm log; make all; test ! -e log").await;

    // Two files of the same size, by an author whose date did not move.
    build.repo.commit(|c| {
        c.file("in.txt", "two").file("mod.py", "X = 2\n");
    });
    build.update().await;
    for newer in ["-newer", "-cnewer"] {
        let found = run(&out, &format!("find {source} -type f {newer} stamp | sort")).await;
        assert_eq!(
            found,
            format!("{source}/in.txt\n{source}/mod.py\n"),
            "{newer}"
        );
    }
    let archive = format!(
        "tar -C {source} -cvf new.tar --newer-mtime={}/stamp . 2>/dev/null | grep -v /$ | sort",
        out.display()
    );
    assert_eq!(run(&out, &archive).await, "./in.txt\n./mod.py\n");
    let part = run(&out, &incremental).await;
    let files: Vec<&str> = part.lines().filter(|line| !line.ends_with('/')).collect();
    assert_eq!(files, ["./in.txt", "./mod.py"]);
    run(&out, "make all").await;
    assert_eq!(run(&out, "cat in.out log").await, "twoin.out\n");
    assert_eq!(run(&out, &python).await, "2\n");
    let copied = run(&out, &rsync).await;
    let files: Vec<&str> = copied
        .lines()
        .filter(|line| line.starts_with(">f"))
        .collect();
    assert_eq!(files.len(), 2, "{copied}");
    assert_eq!(run(&out, "cat copy/in.txt copy/mod.py").await, "twoX = 2\n");
    build.system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_update_leaves_alone_keeps_its_time_on_every_mount() {
    if !can_mount() {
        return;
    }
    let mut build = Build::start(sources()).await;
    let first = names(&build.at()).await;
    assert!(first.values().all(|(time, _)| *time == EPOCH), "{first:?}");

    // One file changes, and then another one.
    let mut shown = first.clone();
    for (path, directory) in [("a/b/deep", "a/b"), ("in.txt", "")] {
        build.repo.commit(|c| {
            c.file(path, "changed");
        });
        build.update().await;
        let now = names(&build.at()).await;
        for (name, before) in &shown {
            let changed = name == Path::new(path) || name == Path::new(directory);
            let after = &now[name];
            assert_eq!(after.0 > before.0, changed, "{}", name.display());
            assert_eq!(
                after.1 == before.1,
                name != Path::new(path),
                "{}",
                name.display()
            );
        }
        shown = now;
    }
    assert_ne!(shown[Path::new("a/b/deep")].0, shown[Path::new("in.txt")].0);

    // A mount with nothing in its cache, and the same one again after its end.
    let (mounted, at) = build.second_mount("other").await;
    assert_eq!(names(&at).await, shown);
    mounted.unmount().await.unwrap();
    build.system.unmount().await;
    build.system.mount().await;
    assert_eq!(names(&build.at()).await, shown);
    build.system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_back_or_changes_its_mode_has_a_new_time() {
    if !can_mount() {
        return;
    }
    let build = Build::start(sources()).await;
    let first = names(&build.at()).await;
    let old = build.repo.rev("main");
    build.repo.commit(|c| {
        c.file("in.txt", "two").exec("same.txt", "same");
    });
    build.update().await;
    let second = names(&build.at()).await;
    build.repo.point("refs/heads/main", &old);
    build.update().await;
    let third = names(&build.at()).await;
    for name in ["in.txt", "same.txt"].map(Path::new) {
        assert!(first[name].0 < second[name].0 && second[name].0 < third[name].0);
        assert_ne!(
            first[name].1, third[name].1,
            "another file, with the old bytes"
        );
    }
    assert_eq!(first[Path::new("mod.py")], third[Path::new("mod.py")]);

    // Deleted and made again: a new tree, that is older than nothing that was shown.
    build.system.cluster.delete(PATH).await.unwrap();
    let gone = build.at();
    let is_gone = || async {
        let gone = gone.clone();
        off_thread(move || !gone.exists()).await
    };
    wait_until_async("the mount shows no repository", SOON, is_gone).await;
    let what = Ingest::of(build.repo.url()).at("main").shown_as(PATH);
    let again = build.system.cluster.ingest(what).await.unwrap();
    assert_eq!(again.generation, 4);
    build.system.assert_follows(PATH, &build.repo).await;
    let fourth = names(&build.at()).await;
    assert!(third.iter().all(|(name, (time, _))| fourth[name].0 > *time));
    build.system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_skipped_updates_tells_the_same_times() {
    if !can_mount() {
        return;
    }
    let system = System::start_with(|builder| builder.nodes(2)).await;
    system.cluster.wait_members(2, 1).await.unwrap();
    let mut build = Build::start_in(system, sources()).await;
    build.system.cluster.stop_node(1).await;
    for content in ["2", "3"] {
        build.repo.commit(|c| {
            c.file("a/b/deep", content);
        });
        build.update().await;
    }
    let shown = names(&build.at()).await;

    // The other node comes back, copies, and then is the only one.
    build.system.cluster.start_node(1).await.unwrap();
    let cluster = &build.system.cluster;
    let both_hold = || async {
        let entry = cluster.repository(PATH).await;
        entry.is_ok_and(|entry| entry.holders.len() == 2)
    };
    wait_until_async("both nodes hold the commit", 3 * SOON, both_hold).await;
    build.system.cluster.stop_node(0).await;
    let (mounted, at) = build.second_mount("late").await;
    assert_eq!(names(&at).await, shown);
    mounted.unmount().await.unwrap();

    // It makes the next update from what it copied.
    build.repo.commit(|c| {
        c.file("in.txt", "last");
    });
    build.update().await;
    let last = names(&build.at()).await;
    let deep = Path::new("a/b/deep");
    assert_eq!(last[deep], shown[deep]);
    assert!(last[Path::new("in.txt")].0 > shown[Path::new("in.txt")].0);
    build.system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_every_node_lost_comes_back_with_the_time_of_its_return() {
    if !can_mount() {
        return;
    }
    let system = System::start_with(|builder| builder.nodes(1)).await;
    system.cluster.wait_members(1, 1).await.unwrap();
    let mut build = Build::start_in(system, sources()).await;
    build.repo.commit(|c| {
        c.file("in.txt", "two");
    });
    build.update().await;
    let before = names(&build.at()).await;
    let entry = build.system.cluster.repository(PATH).await.unwrap();
    let shown = entry.snapshot.clone().unwrap();
    assert!(
        shown.generations.unwrap().node().is_some(),
        "there is something to lose"
    );

    let lost = build.system.dir.path().join("cluster/node1/repos");
    build.system.cluster.stop_node(0).await;
    std::fs::remove_dir_all(lost.join(entry.storage_id().as_str())).unwrap();
    build.system.cluster.start_node(0).await.unwrap();
    let cluster = &build.system.cluster;
    let is_back = || async {
        let entry = cluster.repository(PATH).await;
        entry.is_ok_and(|entry| entry.generation > 2 && !entry.holders.is_empty())
    };
    wait_until_async("it is shown again", 3 * SOON, is_back).await;
    let (mounted, at) = build.second_mount("later").await;
    let after = names(&at).await;
    assert!(before.iter().all(|(name, (time, _))| after[name].0 > *time));
    let first = build.at();
    let follows = || async { names(&first).await == after };
    wait_until_async("the first mount shows the same", SOON, follows).await;
    mounted.unmount().await.unwrap();
    build.system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_that_had_ended_before_an_update_shows_the_same_times_as_others() {
    if !can_mount() {
        return;
    }
    let mut build = Build::start(sources()).await;
    let first = names(&build.at()).await;
    build.system.unmount().await;
    build.repo.commit(|c| {
        c.file("in.txt", "two");
    });
    same_date(&build.repo);
    build.system.cluster.refresh(PATH).await.unwrap();
    let (mounted, at) = build.second_mount("there").await;
    let there = names(&at).await;
    mounted.unmount().await.unwrap();
    assert!(there[Path::new("in.txt")].0 > first[Path::new("in.txt")].0);

    // It comes back when the update is too old for a mount that had gone on to show it in time.
    let clock = build.out.join("clock");
    let is_old = || async {
        std::fs::write(&clock, "").unwrap();
        std::fs::metadata(&clock).unwrap().mtime() - there[Path::new("in.txt")].0 > 3
    };
    wait_until_async("the update is some seconds old", SOON, is_old).await;
    build.system.mount().await;
    build.system.assert_follows(PATH, &build.repo).await;
    assert_eq!(names(&build.at()).await, there);
    build.system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_kernel_caches_change_no_time_and_a_commit_from_the_future_none_either() {
    if !can_mount() {
        return;
    }
    let repo = sources();
    // Of the year 2200.
    let tree = repo.rev("main^{tree}");
    let person = "A U Thor <a@example.org> 7258118400 +0000";
    let commit = format!("tree {tree}\nauthor {person}\ncommitter {person}\n\nfuture\n");
    let raw = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(raw.path(), commit).unwrap();
    let file = raw.path().to_str().unwrap();
    let made = repo.git(["hash-object", "-t", "commit", "-w", file]);
    let made: Oid = String::from_utf8(made).unwrap().trim().parse().unwrap();
    repo.point("refs/heads/main", &made);
    let system = System::start().await;
    let what = Ingest::of(repo.url()).at("main").shown_as(PATH);
    system.cluster.ingest(what).await.unwrap();
    system.assert_follows(PATH, &repo).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.unwrap().as_secs() as i64;
    let first = names(&system.at(PATH)).await;
    assert!(
        first
            .values()
            .all(|(time, _)| (now - 60..=now + 2).contains(time)),
        "{first:?}"
    );

    repo.commit(|c| {
        c.file("in.txt", "two");
    });
    system.cluster.refresh(PATH).await.unwrap();
    system.assert_follows(PATH, &repo).await;
    let second = names(&system.at(PATH)).await;
    assert!(second[Path::new("in.txt")].0 > first[Path::new("in.txt")].0);
    // Names and inodes go; no file of ours is written meanwhile.
    std::fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    assert_eq!(names(&system.at(PATH)).await, second);
    system.stop().await;
}
