//! Walks: what is fetched ahead of readers and stored into the kernel's page cache, and what is
//! not.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use monofs_client::prefetch::order::READERS_MAX;
use monofs_model::limits::CHUNK_BYTES;
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
    let mut names: Vec<PathBuf> = fs::read_dir(at)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    names
}

/// Reads the files that end in `suffix`, directory by directory as `grep -r` does, and checks every
/// byte.
fn read_all(at: &Path, suffix: &str) -> usize {
    let mut read = 0;
    for directory in listed(at) {
        let d: usize = directory.file_name().unwrap().to_str().unwrap()[1..]
            .parse()
            .unwrap();
        for file in listed(&directory)
            .iter()
            .filter(|file| file.to_str().unwrap().ends_with(suffix))
        {
            let (stem, kind) = file
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .split_once('.')
                .unwrap();
            assert_eq!(
                fs::read_to_string(file).unwrap(),
                format!("{kind} {d} {}", &stem[1..])
            );
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
    assert!(
        status.prefetch.stored + status.upcalls["read"] >= files,
        "{status:?}"
    );
    assert_eq!(status.prefetch.wasted, 0);
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_only_lists_has_nothing_fetched_or_stored() {
    let cluster = FakeCluster::start(1).await;
    cluster.publish("h/r", &many_directories(), "main");
    let mounted = cluster.mount().await;
    on_mount(&mounted, "h/r", |at| {
        listed(at)
            .iter()
            .for_each(|directory| assert_eq!(listed(directory).len(), FILES))
    })
    .await;
    let status = mounted.status().unwrap();
    assert_eq!(
        (
            status.prefetch.blobs,
            status.prefetch.stored,
            cluster.blobs_asked()
        ),
        (0, 0, 0)
    );
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
    assert!(
        status.prefetch.stored <= read as u64,
        "{:?}",
        status.prefetch
    );
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
    let places: Vec<usize> = (0..READERS_MAX * 4).map(|n| n * 37 % DIRECTORIES).collect();
    let visited = places.clone();
    on_mount(&mounted, "h/r", move |at| {
        for d in visited {
            assert_eq!(
                fs::read_to_string(at.join(format!("d{d:03}/f3.c"))).unwrap(),
                format!("c {d} 3")
            );
        }
    })
    .await;
    let status = mounted.status().unwrap();
    let with_siblings = (places.len() * FILES) as u64;
    assert!(
        status.prefetch.blobs <= with_siblings,
        "only what lies beside what was read: {:?}",
        status.prefetch
    );
    mounted.unmount().await.unwrap();
}

const LARGE_FILES: usize = 12;
const LARGE_CHUNKS: usize = 3;

/// Directories `dNNN` of one large file and a small one.
fn large_files() -> Repo {
    let repo = Repo::new();
    repo.commit(|c| {
        for d in 0..LARGE_FILES {
            c.file(format!("d{d:03}/large.bin"), large_file(d));
            c.file(format!("d{d:03}/small.c"), format!("c {d}"));
        }
    });
    repo
}

fn large_file(n: usize) -> Vec<u8> {
    (0..LARGE_CHUNKS * CHUNK_BYTES)
        .map(|at| (at / 1000 + n) as u8)
        .collect()
}

/// Mounts [`large_files`], has them read one after the other, and returns the spans asked for that
/// begin with a file.
async fn first_spans_of_large_files(
    read: impl Fn(usize, &Path) + Copy + Send + 'static,
) -> Vec<u32> {
    let cluster = FakeCluster::start(1).await;
    cluster.publish("h/r", &large_files(), "main");
    let mounted = cluster.mount().await;
    on_mount(&mounted, "h/r", move |at| {
        for (d, directory) in listed(at).iter().enumerate() {
            read(d, &directory.join("large.bin"));
            assert_eq!(
                fs::read_to_string(directory.join("small.c")).unwrap(),
                format!("c {d}")
            );
        }
    })
    .await;
    mounted.unmount().await.unwrap();
    let spans = cluster.spans_asked();
    spans
        .into_iter()
        .filter(|(_, first, _)| *first == 0)
        .map(|(_, _, count)| count)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn large_files_come_whole_ahead_of_a_reader_that_reads_them_whole() {
    let spans =
        first_spans_of_large_files(|d, file| assert_eq!(fs::read(file).unwrap(), large_file(d)))
            .await;
    let whole = spans
        .iter()
        .filter(|count| **count == LARGE_CHUNKS as u32)
        .count();
    assert!(whole > 0, "{spans:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_large_files_only_the_beginning_comes_ahead_of_a_reader_that_looks_no_further() {
    let spans = first_spans_of_large_files(|d, file| {
        let mut start = [0; 4];
        fs::File::open(file)
            .unwrap()
            .read_exact(&mut start)
            .unwrap();
        assert_eq!(start, large_file(d)[..4]);
    })
    .await;
    assert!(
        spans.len() >= LARGE_FILES && spans.iter().all(|count| *count == 1),
        "{spans:?}"
    );
}
