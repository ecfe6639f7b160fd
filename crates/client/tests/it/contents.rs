//! Reading: batches, ranges of large files, the cache, verification.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use monofs_client::{Config, mount};
use monofs_model::limits::CHUNK_BYTES;
use monofs_testkit::Repo;
use monofs_testkit::repo::pattern;

use crate::fake::{FakeCluster, Mode};
use crate::on_mount;

#[tokio::test(flavor = "multi_thread")]
async fn metadata_comes_with_the_first_request_and_small_files_with_their_directory() {
    let cluster = FakeCluster::start(1).await;
    let repo = Repo::new();
    repo.commit(|c| {
        for directory in 0..20 {
            for file in 0..10 {
                c.file(
                    format!("d{directory}/e/f{file}"),
                    format!("{directory}/{file}"),
                );
            }
        }
    });
    cluster.publish("h/r", &repo, "main");
    let mounted = cluster.mount().await;
    on_mount(&mounted, "h/r", |at| {
        for directory in 0..20 {
            assert_eq!(
                fs::read_dir(at.join(format!("d{directory}/e")))
                    .unwrap()
                    .count(),
                10
            );
        }
    })
    .await;
    assert_eq!(
        cluster.trees_asked(),
        1,
        "one request brings the whole closure"
    );
    on_mount(&mounted, "h/r/d7/e", |at| {
        for file in 0..10 {
            assert_eq!(
                fs::read_to_string(at.join(format!("f{file}"))).unwrap(),
                format!("7/{file}")
            );
        }
    })
    .await;
    assert_eq!(
        cluster.blobs_asked(),
        1,
        "one request brings the directory's files"
    );
    let status = mounted.status().unwrap();
    assert_eq!((status.prefetch.blobs, status.prefetch.used), (9, 9));
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_a_large_file_fetch_only_their_chunks() {
    let cluster = FakeCluster::start(1).await;
    let repo = Repo::new();
    let content = pattern(CHUNK_BYTES * 9 + 1234);
    let large = content.clone();
    repo.commit(move |c| {
        c.file("large", &large).file("small", "s");
    });
    cluster.publish("h/r", &repo, "main");
    let mounted = mount(Config {
        prefetch: false,
        ..cluster.config()
    })
    .await
    .unwrap();
    on_mount(&mounted, "h/r/large", move |at| {
        let file = fs::File::open(at).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).unwrap();
        for (offset, len) in [
            (5 * CHUNK_BYTES + 17, 100),
            (CHUNK_BYTES * 9 + 1000, 234),
            (7 * CHUNK_BYTES - 3, 10),
        ] {
            let mut piece = vec![0; len];
            file.read_exact_at(&mut piece, offset as u64).unwrap();
            assert_eq!(piece, &content[offset..offset + len]);
        }
        assert_eq!(file.read_at(&mut [0; 10], content.len() as u64).unwrap(), 0);
    })
    .await;
    let mut chunks: Vec<u32> = cluster
        .spans_asked()
        .iter()
        .flat_map(|(_, first, count)| *first..first + count)
        .collect();
    chunks.sort();
    assert_eq!(chunks, [5, 6, 7, 9], "each needed chunk once and no other");
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequential_read_of_a_large_file_is_fetched_ahead() {
    let cluster = FakeCluster::start(1).await;
    let repo = Repo::new();
    let content = pattern(CHUNK_BYTES * 24 + 1);
    let large = content.clone();
    repo.commit(move |c| {
        c.file("large", &large);
    });
    cluster.publish("h/r", &repo, "main");
    let mounted = cluster.mount().await;
    on_mount(&mounted, "h/r/large", move |at| {
        let mut file = fs::File::open(at).unwrap();
        let mut read = Vec::new();
        file.read_to_end(&mut read).unwrap();
        assert!(read == content);
        file.seek(SeekFrom::Start(0)).unwrap();
    })
    .await;
    let spans = cluster.spans_asked();
    // A second reader with the kernel's cache out of the way asks nothing more.
    on_mount(&mounted, "h/r/large", |at| {
        let file = fs::File::open(at).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        std::io::copy(&mut &file, &mut std::io::sink()).unwrap();
    })
    .await;
    assert_eq!(cluster.spans_asked().len(), spans.len());
    let chunks: u32 = spans.iter().map(|(_, _, count)| count).sum();
    // A reader that waited long for a request made ahead asks too.
    assert!(
        (25..50).contains(&chunks),
        "each chunk once, as a rule: {spans:?}"
    );
    assert!(spans.len() <= 20, "in few requests: {spans:?}");
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_is_there_after_a_remount_without_any_node() {
    let mut cluster = FakeCluster::start(1).await;
    let repo = Repo::new();
    repo.commit(|c| {
        c.many("d", 50).file("later", "never read");
    });
    cluster.publish("h/r", &repo, "main");
    let mounted = cluster.mount().await;
    let read_all = |at: &std::path::Path| {
        let mut bytes = 0;
        for entry in fs::read_dir(at).unwrap() {
            bytes += fs::read(entry.unwrap().path()).unwrap().len();
        }
        bytes
    };
    let first = on_mount(&mounted, "h/r/d", read_all).await;
    mounted.unmount().await.unwrap();
    cluster.stop().await;
    let mounted = mount(Config {
        rpc_timeout: std::time::Duration::from_secs(1),
        ..cluster.config()
    })
    .await
    .unwrap();
    assert_eq!(
        on_mount(&mounted, "h/r/d", read_all).await,
        first,
        "a start without any router"
    );
    let status = mounted.status().unwrap();
    assert!(status.catalog.offline_copy && !status.router.connected);
    assert!(!status.problems.is_empty());
    let missing = on_mount(&mounted, "h/r/later", |at| fs::read(at)).await;
    assert_eq!(missing.unwrap_err().raw_os_error(), Some(libc::EIO));
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_cache_false_starts_afresh() {
    let cluster = FakeCluster::start(1).await;
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("f", "f");
    });
    cluster.publish("h/r", &repo, "main");
    for (keep_cache, requests) in [(true, 1), (true, 1), (false, 2)] {
        let mounted = mount(Config {
            keep_cache,
            ..cluster.config()
        })
        .await
        .unwrap();
        on_mount(&mounted, "h/r/f", |at| {
            assert_eq!(fs::read(at).unwrap(), b"f")
        })
        .await;
        mounted.unmount().await.unwrap();
        assert_eq!(cluster.blobs_asked(), requests);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remount_shows_what_changed_meanwhile_and_does_not_wait_when_nothing_did() {
    let cluster = FakeCluster::start(1).await;
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("f", "one");
    });
    cluster.publish("h/r", &repo, "main");
    let mounted = cluster.mount().await;
    on_mount(&mounted, "h/r/f", |at| {
        assert_eq!(fs::read(at).unwrap(), b"one")
    })
    .await;
    cluster.applied().await;
    mounted.unmount().await.unwrap();
    let start = std::time::Instant::now();
    let patient = Config {
        start_wait: std::time::Duration::from_secs(60),
        ..cluster.config()
    };
    let mounted = mount(patient.clone()).await.unwrap();
    assert!(
        start.elapsed() < std::time::Duration::from_secs(10),
        "took {:?}",
        start.elapsed()
    );
    mounted.unmount().await.unwrap();
    repo.commit(|c| {
        c.file("f", "two");
    });
    cluster.publish("h/r", &repo, "main");
    let mounted = mount(patient).await.unwrap();
    on_mount(&mounted, "h/r/f", |at| {
        assert_eq!(fs::read(at).unwrap(), b"two")
    })
    .await;
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn corrupt_content_is_taken_from_another_replica() {
    let cluster = FakeCluster::start(2).await;
    let repo = Repo::new();
    repo.commit(|c| {
        c.many("d", 20);
    });
    cluster.publish("h/r", &repo, "main");
    cluster.nodes[0].set(Mode::Corrupt);
    cluster.router.set(Mode::Corrupt);
    let mounted = cluster.mount().await;
    let expected = monofs_testkit::ExpectedTree::of(&repo, "main");
    on_mount(&mounted, "h/r", move |at| {
        monofs_testkit::assert_matches(at, &expected)
    })
    .await;
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_is_streamed_ahead_of_its_reader() {
    let cluster = FakeCluster::start(1).await;
    let repo = Repo::new();
    let (directories, files) = (200, 5);
    repo.commit(|c| {
        for directory in 0..directories {
            for file in 0..files {
                c.file(
                    format!("d{directory:03}/e/f{file}"),
                    format!("{directory}/{file}"),
                );
            }
        }
    });
    cluster.publish("h/r", &repo, "main");
    let mounted = cluster.mount().await;
    on_mount(&mounted, "h/r", move |at| {
        for directory in 0..directories {
            for file in 0..files {
                let text =
                    fs::read_to_string(at.join(format!("d{directory:03}/e/f{file}"))).unwrap();
                assert_eq!(text, format!("{directory}/{file}"));
            }
        }
    })
    .await;
    let requests = cluster.blobs_asked();
    assert!(
        requests < directories / 4,
        "{requests} requests for {directories} directories"
    );
    let status = mounted.status().unwrap();
    // A reader that waited long for a request made ahead asks too, on a busy machine.
    let (fetched, all) = (status.reads.chunks_fetched, directories * files);
    assert!(
        (all..=all + all / 20).contains(&fetched),
        "each content once, as a rule: {fetched} of {all}"
    );
    assert_eq!(status.prefetch.outstanding, 0);
    mounted.unmount().await.unwrap();
}
