//! The installed git behind the same seam: it does what gix does, and takes over what gix cannot.

use std::sync::Arc;

use monofs_fetcher::git::failure::RemoteRequest;
use monofs_fetcher::git::{GitSource, cli, layout};
use monofs_fetcher::objects::PackFiles;
use monofs_fetcher::source::{CommitWant, FetchTask, LocalFiles, RemoteSource, ResolvedRef};
use monofs_fetcher::{Credentials, walk};
use monofs_model::{ErrorKind, ObjectFormat, Oid, RefName, Result, SourceUrl};
use monofs_testkit::Repo;
use monofs_testkit::proxy::{Fault, Proxy};
use monofs_testkit::remotes::{GitDaemon, HttpOptions, HttpRemote};

use crate::rig::{Rig, assert_same, error_of};

/// Two sources that must behave alike.
enum Way {
    Native,
    Cli,
}

impl Way {
    fn resolve(&self, source: &SourceUrl, ref_name: &RefName) -> Result<ResolvedRef> {
        let task = FetchTask::new(Default::default());
        match self {
            Way::Native => GitSource::new(Credentials::default(), LocalFiles::Allowed)
                .resolve(source, ref_name, &task),
            Way::Cli => cli::resolve(source, ref_name, &Credentials::default(), &task),
        }
    }

    fn fetch(&self, want: &CommitWant<'_>, task: &Arc<FetchTask>) -> Result<()> {
        match self {
            Way::Native => {
                GitSource::new(Credentials::default(), LocalFiles::Allowed).fetch(want, task)
            }
            Way::Cli => {
                let credentials = Credentials::default();
                let task_limits = task.limits;
                cli::fetch(want, &credentials, task).map_err(|verdict| {
                    verdict.into_error(&RemoteRequest {
                        source: want.source,
                        ref_name: want.ref_name,
                        commit: Some(want.commit),
                        host: credentials.of(want.source),
                        limits: task_limits,
                    })
                })
            }
        }
    }
}

fn conforms(way: &Way, repo: &Repo, url: &str, proxy: Option<&Proxy>) {
    let source = SourceUrl::new(url).unwrap();
    let main = RefName::new("main").unwrap();
    let resolved = way.resolve(&source, &main).unwrap();
    assert_eq!(
        (resolved.commit, resolved.full_ref.as_str()),
        (repo.rev("main"), "refs/heads/main")
    );
    assert_eq!(way.resolve(&source, &RefName::default()).unwrap(), resolved);
    assert_eq!(
        way.resolve(&source, &RefName::new("v1").unwrap())
            .unwrap()
            .commit,
        repo.rev("v1^{commit}")
    );
    assert_eq!(
        error_of(way.resolve(&source, &RefName::new("none").unwrap())).kind,
        ErrorKind::NotFound
    );

    let dir = tempfile::tempdir().unwrap();
    layout::create(dir.path(), repo.format()).unwrap();
    let fetch = |commit: Oid, have: &[Oid]| {
        let task = FetchTask::new(Default::default());
        let want = CommitWant {
            source: &source,
            ref_name: &main,
            commit,
            have,
            into: dir.path(),
        };
        way.fetch(&want, &task).map(|()| task.progress())
    };
    let progress = fetch(resolved.commit, &[]).unwrap();
    assert!(progress.objects_total > 0, "{progress:?}");
    let walk = |commit: &Oid| {
        let objects = PackFiles::open(dir.path(), repo.format()).unwrap().reader();
        walk::snapshot(
            &objects,
            commit,
            &FetchTask::new(Default::default()),
            &mut |_, _| {},
        )
    };
    assert_eq!(walk(&resolved.commit).unwrap().commit, resolved.commit);
    let nobody = resolved
        .commit
        .to_string()
        .replace(|c: char| c.is_ascii_hexdigit(), "1")
        .parse()
        .unwrap();
    assert_eq!(error_of(fetch(nobody, &[])).kind, ErrorKind::NotFound);

    let before = proxy.map_or(0, Proxy::answered);
    let next = repo.commit(|c| {
        c.file("next", "1");
    });
    fetch(next, &[resolved.commit]).unwrap();
    if let Some(proxy) = proxy {
        assert!(
            proxy.answered() - before < 8000,
            "a small change took {} bytes",
            proxy.answered() - before
        );
    }
    assert_eq!(walk(&next).unwrap().commit, next);
}

fn sample(format: ObjectFormat) -> Repo {
    let repo = Repo::with_format(format);
    let first = repo.commit(|c| {
        c.file("a", "1").many("many", 2000);
    });
    repo.tag("v1", &first);
    repo.commit(|c| {
        c.file("a", "2");
    });
    repo
}

#[test]
fn both_ways_conform() {
    for way in [Way::Native, Way::Cli] {
        for format in [ObjectFormat::Sha1, ObjectFormat::Sha256] {
            let repo = sample(format);
            conforms(&way, &repo, &repo.url(), None);
            let daemon = GitDaemon::serve(repo.parent());
            let proxy = Proxy::to(daemon.port(), Fault::None);
            conforms(
                &way,
                &repo,
                &format!("git://127.0.0.1:{}/repo.git", proxy.port()),
                Some(&proxy),
            );
            let http = HttpRemote::serve(repo.parent(), &HttpOptions::default());
            conforms(&way, &repo, &http.url("repo.git"), None);
        }
    }
}

/// Long objects that compress well and that do not, at the first fetch and beside what is cached.
#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_gix_refuses_is_received_once() {
    const LONG: usize = 3 << 20;
    for (name, contents) in [("noise", noise(LONG)), ("zeros", vec![0; LONG])] {
        let repo = Repo::new();
        repo.commit(|c| {
            c.file("first", "1").file(name, &contents);
        });
        let daemon = GitDaemon::serve(repo.parent());
        let proxy = Proxy::to(daemon.port(), Fault::None);
        let url = format!("git://127.0.0.1:{}/repo.git", proxy.port());
        let rig = Rig::with(|config| config.object_bytes_max = 1 << 20).await;
        let commit = rig.resolve(&url, "main").await.unwrap().commit;
        let (connections, answered) = (proxy.connections(), proxy.answered());
        let fetched = rig.fetch(&url, "main", commit).await.unwrap();
        assert_same(&rig, &fetched, &repo, "main").await;
        assert_eq!(proxy.connections() - connections, 1, "{name}");
        let took = proxy.answered() - answered;
        assert!(took < LONG as u64 * 3 / 2, "{name}: {took} bytes came");
        assert_eq!(rig.source.fallbacks(), 0, "{name}");

        let mut changed = contents.clone();
        changed[100] ^= 1;
        repo.commit(|c| {
            c.file(name, &changed).file("second", noise(LONG));
        });
        let connections = proxy.connections();
        let fetched = rig.ingest(&url, "main").await.unwrap();
        assert_same(&rig, &fetched, &repo, "main").await;
        assert_eq!(
            proxy.connections() - connections,
            2,
            "{name}: one for the ref and one for the commit"
        );
        assert_eq!(rig.source.fallbacks(), 0, "{name}");
    }
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut rng = monofs_testkit::random::Rng::new(bytes as u64);
    (0..bytes).map(|_| rng.bits() as u8).collect()
}
