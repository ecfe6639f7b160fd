//! Walks: what is fetched ahead of readers and stored into the kernel's page cache, and what is not.

use std::fs;
use std::path::{Path, PathBuf};

use monofs_client::prefetch::order::STREAMS_MAX;
use monofs_testkit::Repo;

use crate::fake::FakeCluster;
use crate::on_mount;

const DIRECTORIES: usize = 120;
const FILES: usize = 20;

/// Directories `dNNN` of small `.c` and `.h` files.
fn many_directories() -> Repo {
    let repo = Repo::new();
    repo.commit(|c| {
        for d in 0..DIRECTORIES {
            for f in 0..FILES / 2 {
                c.file(format!("d{d:03}/f{f}.c"), format!("c {d} {f}"));
                c.file(format!("d{d:03}/f{f}.h"), format!("h {d} {f}"));
            }
        }
    });
    repo
}

fn listed(at: &Path) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names
}

/// Reads the files that end in `suffix`, directory by directory as `grep -r` does, and checks every byte.
fn read_all(at: &Path, suffix: &str) -> usize {
    let mut read = 0;
    for directory in listed(at) {
        let d: usize = directory.file_name().unwrap().to_str().unwrap()[1..].parse().unwrap();
        for file in listed(&directory).iter().filter(|file| file.to_str().unwrap().ends_with(suffix)) {
            let (stem, kind) = file.file_name().unwrap().to_str().unwrap().split_once('.').unwrap();
            assert_eq!(fs::read_to_string(file).unwrap(), format!("{kind} {d} {}", &stem[1..]));
            read += 1;
        }
    }
    read
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_everything_finds_contents_in_the_page_cache() {
    let cluster = FakeCluster::start(1).await;
    cluster.publish("h/r", &many_directories(), "main");
    let mounted = cluster.mount().await;
    let read = on_mount(&mounted, "h/r", |at| read_all(at, "")).await;
    assert_eq!(read, DIRECTORIES * FILES);
    let status = mounted.status().unwrap();
    let files = (DIRECTORIES * FILES) as u64;
    // What was stored was not asked for; the rest was. How much is stored depends on who is faster.
    assert!(status.prefetch.stored > 0, "{:?}", status.prefetch);
    assert!(status.prefetch.stored + status.upcalls["read"] >= files, "{status:?}");
    assert_eq!(status.prefetch.wasted, 0);
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_only_lists_has_nothing_fetched_or_stored() {
    let cluster = FakeCluster::start(1).await;
    cluster.publish("h/r", &many_directories(), "main");
    let mounted = cluster.mount().await;
    on_mount(&mounted, "h/r", |at| listed(at).iter().for_each(|directory| assert_eq!(listed(directory).len(), FILES)))
        .await;
    let status = mounted.status().unwrap();
    assert_eq!((status.prefetch.blobs, status.prefetch.stored, cluster.blobs_asked()), (0, 0, 0));
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_that_are_passed_over_are_not_stored() {
    let cluster = FakeCluster::start(1).await;
    cluster.publish("h/r", &many_directories(), "main");
    let mounted = cluster.mount().await;
    let read = on_mount(&mounted, "h/r", |at| read_all(at, ".c")).await;
    assert_eq!(read, DIRECTORIES * FILES / 2);
    let status = mounted.status().unwrap();
    assert!(status.prefetch.stored <= read as u64, "{:?}", status.prefetch);
    // The headers lie where they were fetched to: nobody read them, and the status says so.
    assert!(status.prefetch.used <= read as u64, "{:?}", status.prefetch);
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_jump_about_start_no_walk() {
    let cluster = FakeCluster::start(1).await;
    cluster.publish("h/r", &many_directories(), "main");
    let mounted = cluster.mount().await;
    // Far from each other in both orders, and never two neighbours.
    let places: Vec<usize> = (0..STREAMS_MAX * 4).map(|n| n * 37 % DIRECTORIES).collect();
    let visited = places.clone();
    on_mount(&mounted, "h/r", move |at| {
        for d in visited {
            assert_eq!(fs::read_to_string(at.join(format!("d{d:03}/f3.c"))).unwrap(), format!("c {d} 3"));
        }
    })
    .await;
    let status = mounted.status().unwrap();
    let with_siblings = (places.len() * FILES) as u64;
    assert!(status.prefetch.blobs <= with_siblings, "only what lies beside what was read: {:?}", status.prefetch);
    mounted.unmount().await.unwrap();
}
