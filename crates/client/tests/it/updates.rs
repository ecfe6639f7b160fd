//! Flips under readers: no torn read, no stale name after the flip, nothing else invalidated.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use monofs_client::{Config, Mounted, mount};
use monofs_testkit::model::{Checks, assert_matches_with, xattr};
use monofs_testkit::{ExpectedTree, Repo};

use crate::fake::{FakeCluster, Mode};
use crate::on_mount;

/// The whole mount equals the commit. Times are left out: files that did not change keep that of an
/// older commit.
async fn assert_shows(mounted: &Mounted, repo: &Repo, revision: &str) {
    let expected = ExpectedTree::of(repo, revision);
    on_mount(mounted, "h/r", move |at| {
        assert_eq!(
            xattr(at, "user.monofs.commit").unwrap(),
            expected.commit.to_string().as_bytes()
        );
        assert_eq!(
            xattr(at, "user.monofs.oid").unwrap(),
            expected.root.to_string().as_bytes()
        );
        assert_matches_with(
            at,
            &expected,
            Checks {
                mount: false,
                contents: true,
                exact_times: false,
            },
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_change_is_seen_after_the_flip() {
    let cluster = FakeCluster::start(2).await;
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("changes", "old")
            .file("goes", "g")
            .file("moves", "m")
            .file("d/file", "f")
            .file("stays/deep/x", "x");
        c.file("file-to-dir", "f")
            .file("dir-to-file/x", "x")
            .symlink("link", "goes")
            .exec("mode", "m");
        c.file("deep/a/b/c/d", "old");
    });
    cluster.publish("h/r", &repo, "main");
    let mounted = cluster.mount().await;
    assert_shows(&mounted, &repo, "main").await;
    // The absence of what will be added is remembered by the kernel.
    on_mount(&mounted, "h/r", |at| {
        for absent in ["added", "d/added", "moved", "brand/new"] {
            assert!(fs::metadata(at.join(absent)).is_err());
        }
    })
    .await;
    let steps: [fn(&Repo); 4] = [
        |repo| {
            repo.commit(|c| {
                c.file("changes", "new")
                    .delete("goes")
                    .rename("moves", "moved")
                    .file("added", "a");
                c.file("d/added", "da")
                    .file("brand/new/dir", "b")
                    .file("deep/a/b/c/d", "new");
            });
        },
        |repo| {
            repo.commit(|c| {
                c.delete("file-to-dir")
                    .file("file-to-dir/x", "x")
                    .delete("dir-to-file/x")
                    .file("dir-to-file", "f");
                c.symlink("link", "changes").file("mode", "m");
            });
        },
        |repo| {
            repo.commit(|c| {
                c.delete("file-to-dir/x")
                    .file("file-to-dir", "again")
                    .delete("dir-to-file")
                    .file("dir-to-file/y", "y");
                c.delete("brand/new/dir").delete("d/file").delete("d/added");
            });
        },
        |repo| {
            repo.commit(|c| {
                c.file("d/file", "back")
                    .file("brand/new/dir", "back")
                    .file("changes", "old");
            });
        },
    ];
    for step in steps {
        step(&repo);
        cluster.publish("h/r", &repo, "main");
        cluster.applied().await;
        assert_shows(&mounted, &repo, "main").await;
    }
    assert_eq!(mounted.status().unwrap().invalidations.flips, 4);
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn open_files_and_directories_keep_what_they_were() {
    let cluster = FakeCluster::start(1).await;
    let repo = Repo::new();
    let old = monofs_testkit::repo::pattern(3 << 20);
    let bytes = old.clone();
    let first = repo.commit(move |c| {
        c.file("d/large", &bytes).file("gone/f", "f");
    });
    cluster.publish("h/r", &repo, "main");
    let mounted = cluster.mount().await;
    let (file, ino) = on_mount(&mounted, "h/r/d/large", |at| {
        let mut file = fs::File::open(at).unwrap();
        file.read_exact(&mut [0; 100]).unwrap();
        let ino = file.metadata().unwrap().ino();
        (file, ino)
    })
    .await;
    let gone = on_mount(&mounted, "h/r/gone", |at| fs::File::open(at).unwrap()).await;
    let directory = on_mount(&mounted, "h/r/d", |at| fs::metadata(at).unwrap().ino()).await;
    repo.commit(|c| {
        c.file("d/large", vec![7u8; 3 << 20]).delete("gone/f");
    });
    cluster.publish("h/r", &repo, "main");
    cluster.applied().await;
    on_mount(&mounted, "h/r", move |at| {
        let mut rest = vec![0; old.len()];
        file.read_exact_at(&mut rest, 0).unwrap();
        assert!(rest == old, "an open file keeps its bytes");
        let now = fs::metadata(at.join("d/large")).unwrap();
        assert_ne!(now.ino(), ino, "new content, new inode");
        assert!(
            fs::read(at.join("d/large"))
                .unwrap()
                .iter()
                .all(|byte| *byte == 7)
        );
        assert_eq!(
            fs::metadata(at.join("d")).unwrap().ino(),
            directory,
            "a directory stays itself"
        );
        let mut commit = [0; 64];
        let len = rustix::fs::fgetxattr(&file, "user.monofs.commit", &mut commit[..]).unwrap();
        assert_eq!(String::from_utf8_lossy(&commit[..len]), first.to_string());
        assert!(fs::metadata(at.join("gone")).is_err());
        assert_eq!(gone.metadata().unwrap().mode() & 0o777, 0o755);
    })
    .await;
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_what_changed_is_invalidated() {
    let cluster = FakeCluster::start(1).await;
    let repo = Repo::new();
    repo.commit(|c| {
        for directory in 0..10 {
            for file in 0..10 {
                c.file(
                    format!("d{directory}/s/f{file}"),
                    format!("{directory}{file}"),
                );
            }
        }
    });
    cluster.publish("h/r", &repo, "main");
    let mounted = cluster.mount().await;
    assert_shows(&mounted, &repo, "main").await;
    let warm = mounted.status().unwrap();
    repo.commit(|c| {
        c.file("d3/s/f3", "changed")
            .file("d3/s/new", "new")
            .delete("d4/s/f0");
    });
    cluster.publish("h/r", &repo, "main");
    cluster.applied().await;
    let told = mounted.status().unwrap().invalidations;
    assert_eq!(
        (told.names, told.directories),
        (3, 2),
        "f3, new and f0, in d3/s and d4/s"
    );
    let reads_before = mounted.status().unwrap().upcalls["read"];
    on_mount(&mounted, "h/r", |at| {
        for directory in (0..10).filter(|d| *d != 3 && *d != 4) {
            for file in 0..10 {
                fs::read(at.join(format!("d{directory}/s/f{file}"))).unwrap();
            }
        }
        fs::read(at.join("d3/s/f4")).unwrap();
    })
    .await;
    let after = mounted.status().unwrap();
    assert_eq!(
        after.upcalls["read"], reads_before,
        "unchanged files stay in the page cache"
    );
    assert_eq!(
        after.upcalls["lookup"], warm.upcalls["lookup"],
        "unchanged names stay known"
    );
    assert_shows(&mounted, &repo, "main").await;
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_in_progress_is_not_torn() {
    let cluster = FakeCluster::start(1).await;
    let repo = Repo::new();
    repo.commit(|c| {
        c.many("d", 3000);
    });
    cluster.publish("h/r", &repo, "main");
    let mounted = cluster.mount().await;
    let mut listing = on_mount(&mounted, "h/r/d", |at| {
        let mut listing = fs::read_dir(at).unwrap();
        let names: Vec<_> = listing
            .by_ref()
            .take(10)
            .map(|e| e.unwrap().file_name())
            .collect();
        (listing, names)
    })
    .await;
    let expected = on_mount(&mounted, "h/r/d", |at| {
        let mut names: Vec<_> = fs::read_dir(at)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        names
    })
    .await;
    repo.commit(|c| {
        c.delete("d").file("d/000", "first").file("d/zzz", "last");
    });
    cluster.publish("h/r", &repo, "main");
    cluster.applied().await;
    on_mount(&mounted, "h/r/d", move |at| {
        listing.1.extend(listing.0.map(|e| e.unwrap().file_name()));
        listing.1.sort();
        assert_eq!(listing.1.len(), 3000, "the listing ends as it began");
        assert!(listing.1 == expected);
        let now: Vec<_> = fs::read_dir(at)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(now, ["000", "zzz"]);
        assert!(
            fs::metadata(at.join(&expected[5])).is_err(),
            "names of the old listing lead nowhere"
        );
    })
    .await;
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn repositories_come_and_go() {
    let cluster = FakeCluster::start(1).await;
    let (one, two) = (Repo::new(), Repo::new());
    one.commit(|c| {
        c.file("f", "one");
    });
    two.commit(|c| {
        c.file("f", "two");
    });
    cluster.publish("h/a/one", &one, "main");
    let mounted = cluster.mount().await;
    let read = |path: &'static str| on_mount(&mounted, path, |at| fs::read_to_string(at).ok());
    assert_eq!(read("h/a/one/f").await.as_deref(), Some("one"));
    assert_eq!(read("h/b/two/f").await, None);
    cluster.publish("h/b/two", &two, "main");
    cluster.applied().await;
    assert_eq!(read("h/b/two/f").await.as_deref(), Some("two"));
    cluster.remove("h/a/one");
    cluster.applied().await;
    assert_eq!(read("h/a/one/f").await, None);
    let names = on_mount(&mounted, "h", |at| {
        fs::read_dir(at)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect::<Vec<_>>()
    });
    assert_eq!(names.await, ["b"]);
    // The same path may come back with something else, and a directory may become a repository.
    cluster.publish("h/a/one", &two, "main");
    cluster.applied().await;
    assert_eq!(read("h/a/one/f").await.as_deref(), Some("two"));
    cluster.remove("h/a/one");
    cluster.publish("h/a", &one, "main");
    cluster.applied().await;
    assert_eq!(read("h/a/f").await.as_deref(), Some("one"));
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_records_cannot_be_had_is_not_shown_until_they_can() {
    let cluster = FakeCluster::start(1).await;
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("d/f", "old");
    });
    cluster.publish("h/r", &repo, "main");
    let config = Config {
        rpc_timeout: std::time::Duration::from_secs(1),
        ..cluster.config()
    };
    let mounted = mount(config).await.unwrap();
    let read = || {
        on_mount(&mounted, "h/r/d/f", |at: &Path| {
            fs::read_to_string(at).unwrap()
        })
    };
    assert_eq!(read().await, "old");
    cluster.applied().await;
    for server in cluster.nodes.iter().chain([&cluster.router]) {
        server.set(Mode::Fail);
    }
    repo.commit(|c| {
        c.file("d/f", "new");
    });
    cluster.publish("h/r", &repo, "main");
    crate::until("the lag is told", || async {
        !mounted.status().unwrap().catalog.lagging.is_empty()
    })
    .await;
    assert_eq!(read().await, "old");
    for server in cluster.nodes.iter().chain([&cluster.router]) {
        server.set(Mode::Serve);
    }
    cluster.applied().await;
    assert_eq!(read().await, "new");
    assert!(mounted.status().unwrap().problems.is_empty());
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_during_many_flips_is_always_one_commit() {
    let cluster = FakeCluster::start(2).await;
    let repo = Repo::new();
    let write = |n: usize| {
        let text = format!("{n:04}").repeat(5000);
        repo.commit(move |c| {
            c.file("d/f", &text)
                .file(format!("d/extra{}", n % 3), &text);
        });
    };
    write(0);
    cluster.publish("h/r", &repo, "main");
    let mounted = cluster.mount().await;
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, path) = (stop.clone(), mounted.path().join("h/r/d/f"));
    let reader = std::thread::spawn(move || {
        let (mut last, mut seen) = (0, 0);
        while !stopped.load(Ordering::Relaxed) {
            let text = fs::read_to_string(&path).unwrap();
            assert_eq!(text.len(), 20_000);
            assert_eq!(text, text[..4].repeat(5000), "a torn read");
            let now: usize = text[..4].parse().unwrap();
            assert!(now >= last, "went back from {last} to {now}");
            seen += usize::from(now != last);
            last = now;
        }
        (last, seen)
    });
    for n in 1..30 {
        write(n);
        cluster.publish("h/r", &repo, "main");
        cluster.applied().await;
        let at = mounted.path().join("h/r/d/f");
        let text = crate::blocking(move || fs::read_to_string(at).unwrap()).await;
        assert_eq!(
            &text[..4],
            format!("{n:04}"),
            "stale after the flip was acknowledged"
        );
    }
    stop.store(true, Ordering::Relaxed);
    let (_, seen) = crate::blocking(move || reader.join().unwrap()).await;
    assert!(seen > 5, "the reader saw {seen} flips");
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn old_records_that_nobody_has_do_not_block_a_flip() {
    let cluster = FakeCluster::start(1).await;
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("d/old", "old").file("d/same", "same");
    });
    cluster.publish("h/r", &repo, "main");
    let lost = String::from_utf8(repo.git(["rev-parse", "main:d"]))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let mounted = cluster.mount().await;
    on_mount(&mounted, "h/r/d", |at| {
        assert_eq!(fs::read_dir(at).unwrap().count(), 2)
    })
    .await;
    // A start from the copy of the catalogue, with records gone from the cache and from every node.
    mounted.unmount().await.unwrap();
    cluster.lose_tree(&lost);
    repo.commit(|c| {
        c.file("d/new", "new").delete("d/old");
    });
    let mounted = cluster.mount().await;
    cluster.publish("h/r", &repo, "main");
    cluster.lose_tree(&lost);
    cluster.applied().await;
    on_mount(&mounted, "h/r/d", |at| {
        assert_eq!(fs::read(at.join("new")).unwrap(), b"new");
        assert!(fs::metadata(at.join("old")).is_err());
        assert_eq!(xattr(at, "user.monofs.repo").unwrap(), b"h/r");
    })
    .await;
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_can_be_read_and_listed_while_commits_follow_each_other() {
    const READERS: usize = 4;
    const COMMITS: usize = 100;
    let cluster = FakeCluster::start(1).await;
    let repo = Repo::new();
    let write = |n: usize| {
        repo.commit(|c| {
            c.file("d/f", format!("{n}"));
        });
        cluster.publish("h/r", &repo, "main");
    };
    write(0);
    let mounted = cluster.mount().await;
    let stop = Arc::new(AtomicBool::new(false));
    let at = mounted.path().join(".monofs");
    let readers: Vec<_> = (0..READERS)
        .map(|n| {
            let at = at.clone();
            let stop = stop.clone();
            std::thread::spawn(move || {
                let mut documents = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    if n % 2 == 0 {
                        assert!(fs::read(at.join("status")).unwrap().ends_with(b"}\n"));
                    } else {
                        assert_eq!(fs::read_dir(&at).unwrap().count(), 1);
                    }
                    documents += 1;
                }
                documents
            })
        })
        .collect();
    for n in 1..=COMMITS {
        write(n);
        // Bounded: it fails when the mount hangs.
        cluster.applied().await;
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(crate::blocking(|| reader.join().unwrap()).await > 0);
    }
    mounted.unmount().await.unwrap();
}
