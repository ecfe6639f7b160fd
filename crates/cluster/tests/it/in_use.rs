//! Files that are open across an update: their contents are there for as long as they are in use,
//! whatever became of the commit, its source and the fetcher.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use monofs_cluster::{Builder, Ingest};
use monofs_proto::v1;
use monofs_testkit::repo::pattern;
use monofs_testkit::wait::wait_until_async;
use monofs_testkit::{Etcd, Repo};

use crate::system::{System, can_mount, off_thread};

const CHUNK: usize = 1 << 20;
/// A few chunks; the last page is read when all else is gone.
const LARGE: usize = 6 * CHUNK;
const PAGE: usize = 4096;
/// The grace, the time that clients have to come back, and some rounds of collection.
const COLLECTED: Duration = Duration::from_secs(60);

fn short_grace(builder: Builder) -> Builder {
    builder.router(|config| {
        config.health_interval = Duration::from_millis(200);
        config.unhealthy_threshold = Duration::from_millis(1500);
        config.worker_interval = Duration::from_millis(200);
        config.refresh_interval = Duration::ZERO;
        config.snapshot_grace = Duration::from_secs(1);
    })
}

/// A file of a mount, open and mapped.
struct MappedFile {
    file: File,
    at: *const u8,
}

// SAFETY: the map is read only and lives until it is dropped.
unsafe impl Send for MappedFile {}

impl MappedFile {
    fn open(path: &std::path::Path) -> Self {
        let file = File::open(path).unwrap();
        // SAFETY: a map of a file that this test has open, which nothing writes.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                LARGE,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(at, libc::MAP_FAILED);
        Self {
            file,
            at: at.cast(),
        }
    }

    /// A byte through the map: a page that cannot be had is a SIGBUS.
    fn touch(&self, offset: usize) -> u8 {
        assert!(offset < LARGE);
        // SAFETY: within the map.
        unsafe { std::ptr::read_volatile(self.at.add(offset)) }
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        // SAFETY: mapped by `open`, and not used after this.
        unsafe { libc::munmap(self.at.cast_mut().cast(), LARGE) };
    }
}

/// Reads the end of the file, and touches the page before it in the map.
async fn assert_whole(open: MappedFile, expected: &[u8]) -> MappedFile {
    let expected = expected.to_vec();
    off_thread(move || {
        let mut end = vec![0; PAGE];
        let last = LARGE - PAGE;
        open.file.read_exact_at(&mut end, last as u64).unwrap();
        assert!(end == expected[last..], "other bytes");
        let before = LARGE - 2 * CHUNK;
        assert_eq!(open.touch(before), expected[before]);
        open
    })
    .await
}

/// How many snapshots each node holds of a repository, and how many contents.
async fn held(system: &System, path: &str) -> Vec<(usize, u64)> {
    let Ok(mut admin) = system.cluster.admin() else {
        return Vec::new();
    };
    let request = v1::GetRepositoryRequest { path: path.into() };
    let Ok(answer) = admin.get_repository(request).await else {
        return Vec::new();
    };
    let replicas = answer.into_inner().replicas;
    replicas
        .into_iter()
        .filter_map(|replica| replica.held)
        .map(|held| (held.snapshots.len(), held.hydrated_blobs))
        .collect()
}

async fn wait_snapshots(system: &System, path: &str, snapshots: usize) {
    wait_until_async("each node holds so many snapshots", COLLECTED, async || {
        let held = held(system, path).await;
        held.len() == 2 && held.iter().all(|(held, _)| *held == snapshots)
    })
    .await;
}

/// Two lazy repositories: one with a large file, and one whose replaced snapshots say how far
/// collection is.
struct Repositories {
    large: Repo,
    other: Repo,
    bytes: Vec<u8>,
}

impl Repositories {
    async fn ingest(system: &System) -> Self {
        let bytes = pattern(LARGE);
        let large = Repo::new();
        large.commit(|c| {
            c.file("d/large", &bytes).file("f", "1");
        });
        let other = Repo::new();
        other.commit(|c| {
            c.file("f", "1");
        });
        for (repo, path) in [(&large, "h/large"), (&other, "h/other")] {
            let ingest = Ingest::of(repo.url()).at("main").shown_as(path).lazy();
            system.cluster.ingest(ingest.strong()).await.unwrap();
        }
        Self {
            large,
            other,
            bytes,
        }
    }

    async fn open(system: &System) -> MappedFile {
        let at = system.at("h/large/d/large");
        off_thread(move || {
            monofs_testkit::wait_until("the file is shown", COLLECTED, || at.exists());
            MappedFile::open(&at)
        })
        .await
    }

    /// Replaces what both show.
    async fn replace(&self, system: &System) {
        self.large.commit(|c| {
            c.file("d/large", "small now");
        });
        system.cluster.refresh("h/large").await.unwrap();
        self.replace_other(system).await;
    }

    async fn replace_other(&self, system: &System) {
        self.other.commit(|c| {
            c.file("f", "2");
        });
        system.cluster.refresh("h/other").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_file_of_a_lazy_repository_outlives_grace_fetcher_and_source() {
    if !can_mount() {
        return;
    }
    let mut system = System::start_with(short_grace).await;
    let repositories = Repositories::ingest(&system).await;
    let open = Repositories::open(&system).await;
    assert!(
        held(&system, "h/large")
            .await
            .iter()
            .all(|held| held.1 == 0)
    );
    repositories.replace(&system).await;

    // Both nodes get the contents while they can be had, although nobody has read them.
    wait_until_async("the contents are kept", COLLECTED, async || {
        let held = held(&system, "h/large").await;
        held.len() == 2 && held.iter().all(|(_, contents)| *contents > 0)
    })
    .await;
    system.cluster.stop_fetcher(0).await;
    std::fs::remove_dir_all(repositories.large.path()).unwrap();

    // What nobody reads is collected, and what is open is not: told with who holds it.
    wait_snapshots(&system, "h/other", 1).await;
    wait_snapshots(&system, "h/large", 2).await;
    let status = system.cluster.status().await.unwrap();
    let [kept] = &status.kept_snapshots[..] else {
        panic!("{:?}", status.kept_snapshots)
    };
    let client = &status.clients[0];
    assert_eq!((kept.path.as_str(), kept.not_applied), ("h/large", false));
    assert_eq!(kept.client_id, client.client_id);
    assert_eq!((client.in_use_snapshots, client.in_use_contents), (1, 1));
    let open = assert_whole(open, &repositories.bytes).await;

    // Closed, it goes.
    drop(open);
    wait_snapshots(&system, "h/large", 1).await;
    let status = system.cluster.status().await.unwrap();
    assert_eq!((status.kept_snapshots_total, status.clients.len()), (0, 1));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_file_outlives_a_restart_of_the_router() {
    if !can_mount() {
        return;
    }
    let mut system = System::start_with(short_grace).await;
    let repositories = Repositories::ingest(&system).await;
    let open = Repositories::open(&system).await;
    repositories.replace(&system).await;
    wait_snapshots(&system, "h/other", 1).await;
    system.cluster.stop_router(0).await;
    system.cluster.start_router(0).await.unwrap();
    system.cluster.wait_members(2, 1).await.unwrap();
    repositories.replace_other(&system).await;
    wait_snapshots(&system, "h/other", 1).await;
    wait_snapshots(&system, "h/large", 2).await;
    let open = assert_whole(open, &repositories.bytes).await;
    drop(open);
    wait_snapshots(&system, "h/large", 1).await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_file_of_another_routers_client_outlives_the_grace_and_that_router() {
    if !can_mount() {
        return;
    }
    let etcd = Etcd::start();
    let two = |builder: Builder| short_grace(builder).routers(2, vec![etcd.endpoint()]);
    let mut system = System::start_with(two).await;
    let repositories = Repositories::ingest(&system).await;
    let status = system.cluster.status().await.unwrap();
    let leads = status.routers.iter().find(|router| router.leader).unwrap();
    let leader = usize::from(leads.router_id == "router2");

    // The client follows the router that does not lead.
    system.unmount().await;
    let mut config = system.cluster.client_config("other-cache");
    config.mount.clone_from(&system.root);
    config.routers = [1 - leader, leader]
        .map(|number| system.cluster.router_address_of(number))
        .to_vec();
    system.mounted = Some(monofs_cluster::client::mount(config).await.unwrap());
    let open = Repositories::open(&system).await;
    repositories.replace(&system).await;
    wait_snapshots(&system, "h/other", 1).await;
    wait_snapshots(&system, "h/large", 2).await;

    // It moves to the leader when its router ends.
    system.cluster.stop_router(1 - leader).await;
    repositories.replace_other(&system).await;
    wait_snapshots(&system, "h/other", 1).await;
    wait_snapshots(&system, "h/large", 2).await;
    let open = assert_whole(open, &repositories.bytes).await;
    drop(open);
    wait_snapshots(&system, "h/large", 1).await;
    system.stop().await;
}
