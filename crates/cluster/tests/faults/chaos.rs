//! Random faults for a while, readers and commits meanwhile, and an oracle. The seed replays the
//! faults and the commits.
//!
//! - every byte that is read is Git's, of the commit that was shown before the read or of a later
//!   one (or of an earlier one for a moment after a new one is named, never for a second);
//! - no read fails: a node is broken only while every repository has another holder;
//! - after healing, the mount shows the last acknowledged commit, and every repository has R
//!   verified copies, and no others.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use monofs_model::{ObjectFormat, ObjectKind, Oid};
use monofs_testkit::model::{Checks, ExpectedEntry, ExpectedKind, differences, xattr};
use monofs_testkit::random::{self, Rng};
use monofs_testkit::{ExpectedTree, Repo, wait_until};
use parking_lot::Mutex;

use crate::fault::Fault::{self, *};
use crate::site::{Admin, Plan, RPC_TIMEOUT, Role, SOON, Site};

const PATHS: [&str; 3] = ["h/one", "h/two", "h/three"];
/// Copies of each repository: the router's default.
const COPIES: usize = 2;
/// Faults that need no special processes.
const FAULTS: [Fault; 9] = [
    Kill,
    Stop,
    Partition,
    PartitionFromClient,
    Deaf,
    Mute,
    SlowLink,
    Lossy,
    FullDisk,
];
/// How long the kernel may show an earlier commit after a new one is named.
const STALE_MAX: Duration = Duration::from_secs(1);
/// Differences that are kept.
const SAID_MAX: usize = 20;

/// A repository, and what it was at each commit.
struct Tracked {
    path: &'static str,
    repo: Repo,
    commits: Mutex<Vec<Arc<ExpectedTree>>>,
}

impl Tracked {
    fn commits(&self) -> Vec<Arc<ExpectedTree>> {
        self.commits.lock().clone()
    }
}

/// What the readers found.
#[derive(Default)]
struct Found {
    reads: usize,
    /// Reads that saw the commit before the one that was named.
    stale: usize,
    longest: Duration,
    longest_at: String,
    broken: Vec<String>,
}

#[test]
fn a_minute_of_chaos_loses_nothing() {
    chaos(random::seed_or(20_261_127), Duration::from_secs(60));
}

/// `MONOFS_CHAOS_SECONDS` and `MONOFS_TEST_SEED` choose another run.
#[test]
#[ignore = "takes ten minutes: make test-long"]
fn ten_minutes_of_chaos_lose_nothing() {
    let seconds = std::env::var("MONOFS_CHAOS_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(600);
    chaos(random::seed_or(7), Duration::from_secs(seconds));
}

fn chaos(seed: u64, time: Duration) {
    println!(
        "replay with MONOFS_TEST_SEED={seed} MONOFS_CHAOS_SECONDS={}",
        time.as_secs()
    );
    let mut rng = Rng::new(seed);
    // Longer than any fault, shorter than the wait for the end.
    let mut site = Site::start(Plan {
        rebalance_delay: "3s",
        snapshot_grace: "15s",
        ..Plan::default()
    });
    let tracked: Arc<Vec<Tracked>> = Arc::new(
        PATHS
            .iter()
            .map(|path| begin(&site, path, &mut rng))
            .collect(),
    );
    site.remount();
    for one in tracked.iter() {
        site.shown(one.path, &one.commits()[0].commit.to_string());
    }
    let stop = Arc::<AtomicBool>::default();
    let root = site.client.as_ref().unwrap().root.clone();
    let readers: Vec<_> = (0..2u64)
        .map(|n| {
            let (tracked, stop, root, rng) = (
                tracked.clone(),
                stop.clone(),
                root.clone(),
                Rng::new(seed ^ (n + 1)),
            );
            std::thread::spawn(move || read(&tracked, &root, rng, &stop))
        })
        .collect();
    let writer = {
        let (tracked, stop, rng, admin) = (
            tracked.clone(),
            stop.clone(),
            Rng::new(seed ^ 99),
            site.admin.clone(),
        );
        std::thread::spawn(move || commit(&tracked, &admin, rng, &stop))
    };
    let until = Instant::now() + time;
    let mut faults = 0;
    while Instant::now() < until {
        one_fault(&mut site, &mut rng);
        faults += 1;
    }
    stop.store(true, Ordering::Relaxed);
    let flips = writer.join().unwrap();
    let mut broken = Vec::new();
    for reader in readers {
        let found = reader.join().unwrap();
        println!(
            "{} reads, {} stale, longest {:?} ({})",
            found.reads, found.stale, found.longest, found.longest_at
        );
        if found.longest > RPC_TIMEOUT + Duration::from_secs(1) {
            broken.push(format!(
                "an answer after {:?}, past its deadline: {}",
                found.longest, found.longest_at
            ));
        }
        broken.extend(found.broken);
    }
    println!("{faults} faults, {flips} acknowledged commits");
    assert!(broken.is_empty(), "seed {seed}:\n{}", broken.join("\n"));
    converge(&site, &tracked);
}

fn begin(site: &Site, path: &'static str, rng: &mut Rng) -> Tracked {
    let repo = Repo::new();
    random::populate(&repo, rng, 150);
    site.ingest(&repo.url(), path, "eager");
    let first = Arc::new(ExpectedTree::of(&repo, "main"));
    Tracked {
        path,
        repo,
        commits: Mutex::new(vec![first]),
    }
}

/// Breaks one server for a while, once every repository has another holder.
fn one_fault(site: &mut Site, rng: &mut Rng) {
    let role = [
        Role::Node,
        Role::Node,
        Role::Node,
        Role::Router,
        Role::Fetcher,
    ][rng.below(5) as usize];
    let count = match role {
        Role::Node => site.nodes.len(),
        Role::Router => site.routers.len(),
        Role::Fetcher => site.fetchers.len(),
    };
    let index = rng.below(count as u64) as usize;
    let fault = FAULTS[rng.below(FAULTS.len() as u64) as usize];
    let (lasts, rests) = (
        Duration::from_millis(500 + rng.below(4500)),
        Duration::from_millis(rng.below(1500)),
    );
    println!("{role:?} {index}: {fault:?} for {lasts:?}");
    if role == Role::Node {
        let victim = site.nodes[index].id.clone();
        wait_until(
            "every repository has a holder besides the victim",
            SOON,
            || {
                PATHS.iter().all(|path| {
                    site.holders(path)
                        .is_some_and(|all| all.iter().any(|id| *id != victim))
                })
            },
        );
    }
    let client = site.client_host.clone();
    fault.inflict(site.server(role, index), &client);
    std::thread::sleep(lasts);
    fault.heal(site.server(role, index), &client);
    site.wait_whole();
    std::thread::sleep(rests);
}

/// Commits upstream and refreshes until told to stop. Gives how many commits the router
/// acknowledged.
fn commit(tracked: &[Tracked], admin: &Admin, mut rng: Rng, stop: &AtomicBool) -> usize {
    let mut acknowledged = 0;
    while !stop.load(Ordering::Relaxed) {
        let one = rng.pick(tracked).unwrap();
        random::edit(&one.repo, &mut rng, 6);
        // The readers know the commit before the mount can show it.
        let expected = Arc::new(ExpectedTree::of(&one.repo, "main"));
        one.commits.lock().push(expected);
        // The router may be the one that is broken; the next refresh brings this commit too.
        acknowledged += usize::from(admin.run(&["refresh", one.path]).status.success());
        std::thread::sleep(Duration::from_millis(rng.below(1000)));
    }
    acknowledged
}

fn read(tracked: &[Tracked], root: &Path, mut rng: Rng, stop: &AtomicBool) -> Found {
    let mut found = Found::default();
    let mut newest: BTreeMap<&str, usize> = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        let one = rng.pick(tracked).unwrap();
        let at = root.join(one.path);
        let shown = timed(&mut found, &at, || xattr(&at, "user.monofs.commit"));
        let commits = one.commits();
        let index = match shown {
            Ok(shown) => commits
                .iter()
                .position(|known| known.commit.to_string().as_bytes() == shown),
            Err(error) => {
                say(&mut found, format!("{}: {error}", at.display()));
                continue;
            }
        };
        let Some(index) = index else {
            say(
                &mut found,
                format!("{} shows a commit that was never made", one.path),
            );
            continue;
        };
        let before = newest.insert(one.path, index).unwrap_or(0);
        if index < before {
            say(
                &mut found,
                format!("{} went back from commit {before} to {index}", one.path),
            );
        }
        let files: Vec<&[u8]> = commits[index].files().map(|(path, _)| path).collect();
        for _ in 0..20 {
            let Some(path) = rng.pick(&files) else { break };
            check(&mut found, one, &at, path, index);
        }
    }
    found
}

/// Reads a file and looks whether the commit shown before, or any later one, has it with these
/// bytes. What an earlier commit has may be seen for a moment: a commit is named before the kernel
/// was told about every name.
fn check(found: &mut Found, one: &Tracked, at: &Path, path: &[u8], index: usize) {
    let full = at.join(std::ffi::OsStr::from_bytes(path));
    let from = Instant::now();
    loop {
        let result = timed(found, &full, || look(&full));
        let commits = one.commits();
        let fits = |commit: &Arc<ExpectedTree>| {
            fits(&result, commit.entries.get(path), commit.commit.format())
        };
        if commits[index..].iter().any(fits) {
            return;
        }
        if !commits[..index].iter().any(fits) || from.elapsed() > STALE_MAX {
            let what = result.map(|bytes| bytes.map(|bytes| bytes.len()));
            return say(
                found,
                format!(
                    "{}: {what:?} is in no commit since {}",
                    full.display(),
                    commits[index].commit
                ),
            );
        }
        found.stale += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The bytes of a file; `None` for anything else.
fn look(at: &Path) -> std::io::Result<Option<Vec<u8>>> {
    if std::fs::symlink_metadata(at)?.is_file() {
        std::fs::read(at).map(Some)
    } else {
        Ok(None)
    }
}

fn fits(
    result: &std::io::Result<Option<Vec<u8>>>,
    entry: Option<&ExpectedEntry>,
    format: ObjectFormat,
) -> bool {
    match result {
        Ok(Some(bytes)) => {
            entry.is_some_and(|entry| entry.oid == Oid::of(format, ObjectKind::Blob, bytes))
        }
        Ok(None) => !is_file(entry),
        Err(error) => {
            let missing = [
                ErrorKind::NotFound,
                ErrorKind::NotADirectory,
                ErrorKind::IsADirectory,
            ];
            missing.contains(&error.kind()) && !is_file(entry)
        }
    }
}

fn is_file(entry: Option<&ExpectedEntry>) -> bool {
    entry.is_some_and(|entry| matches!(entry.kind, ExpectedKind::File { .. }))
}

fn timed<T>(found: &mut Found, at: &Path, call: impl FnOnce() -> T) -> T {
    let from = Instant::now();
    let value = call();
    let took = from.elapsed();
    found.reads += 1;
    if took > found.longest {
        (found.longest, found.longest_at) = (took, at.display().to_string());
    }
    value
}

fn say(found: &mut Found, what: String) {
    if found.broken.len() < SAID_MAX {
        found.broken.push(what);
    }
}

/// After healing: the last commit everywhere, R verified copies, and no others.
fn converge(site: &Site, tracked: &[Tracked]) {
    let from = Instant::now();
    for one in tracked {
        wait_until("a refresh is acknowledged", SOON, || {
            site.admin(&["refresh", one.path]).status.success()
        });
        let last = one.commits().last().unwrap().clone();
        let at: PathBuf = site.shown(one.path, &last.commit.to_string());
        let checks = Checks {
            mount: true,
            contents: true,
            exact_times: false,
        };
        // The commit is named before the kernel was told about every name.
        wait_until("the mount shows all of the last commit", SOON, || {
            differences(&at, &last, checks).is_empty()
        });
        site.wait_replicated(one.path);
    }
    wait_until("every copy passes verification", SOON, || {
        site.admin(&["verify"]).status.success()
    });
    println!("converged {:?} after the last fault", from.elapsed());
    for one in tracked {
        let last = one.commits().last().unwrap().commit.to_string();
        let copies = || site.copies(one.path, &last).len();
        wait_until(
            &format!("{} has {COPIES} copies of its last commit", one.path),
            SOON,
            || copies() >= COPIES,
        );
        let mut held = Vec::new();
        let from = Instant::now();
        while held.len() != COPIES && from.elapsed() < SOON {
            held = site.copies(one.path, "");
        }
        assert_eq!(
            held.len(),
            COPIES,
            "{} is kept by more nodes than it should: {held:?}",
            one.path
        );
    }
}
