//! Each protocol end to end, with and without credentials.

use monofs_fetcher::credentials::HostCredentials;
use monofs_model::source::RemoteHost;
use monofs_model::{ErrorKind, ObjectFormat};
use monofs_testkit::Repo;
use monofs_testkit::remotes::{Authority, GitDaemon, HttpOptions, HttpRemote, SshRemote};

use crate::rig::{Rig, assert_same, error_of};

fn sample(format: ObjectFormat) -> Repo {
    let repo = Repo::with_format(format);
    repo.commit(|c| {
        c.file("gone", "soon");
    });
    repo.commit(|c| {
        c.delete("gone").one_of_everything();
    });
    repo
}

async fn end_to_end(rig: &Rig, repo: &Repo, url: &str) {
    let fetched = rig.ingest(url, "main").await.unwrap();
    assert_eq!(fetched.snapshot.commit, repo.rev("main"));
    let last = fetched.progress.last().unwrap();
    assert_eq!(last.phase(), monofs_proto::v1::fetch_progress::Phase::Done);
    assert!(last.objects_total > 0 && last.bytes_done > 0, "{last:?}");
    assert_same(rig, &fetched, repo, "main").await;
    let again = rig.ingest(url, "").await.unwrap();
    assert_eq!(again.snapshot, fetched.snapshot);
    assert_eq!(
        rig.stat().await.fetches_done,
        1,
        "the second time it comes from the cache"
    );
    assert_eq!(rig.source.fallbacks(), 0, "gix does this alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn git_protocol() {
    let repo = sample(ObjectFormat::Sha1);
    let daemon = GitDaemon::serve(repo.parent());
    end_to_end(&Rig::new().await, &repo, &daemon.url("repo.git")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files() {
    let repo = sample(ObjectFormat::Sha1);
    end_to_end(&Rig::new().await, &repo, &repo.url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sha256_over_every_transport() {
    let repo = sample(ObjectFormat::Sha256);
    end_to_end(&Rig::new().await, &repo, &repo.url()).await;
    let daemon = GitDaemon::serve(repo.parent());
    end_to_end(&Rig::new().await, &repo, &daemon.url("repo.git")).await;
    let http = HttpRemote::serve(repo.parent(), &HttpOptions::default());
    end_to_end(&Rig::new().await, &repo, &http.url("repo.git")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_with_and_without_a_login() {
    let repo = sample(ObjectFormat::Sha1);
    let open = HttpRemote::serve(repo.parent(), &HttpOptions::default());
    end_to_end(&Rig::new().await, &repo, &open.url("repo.git")).await;

    let login = HttpOptions {
        login: Some(("robot", "s3cret-token")),
        ..HttpOptions::default()
    };
    let closed = HttpRemote::serve(repo.parent(), &login);
    let url = closed.url("repo.git");
    let error = error_of(Rig::new().await.ingest(&url, "main").await);
    assert_eq!(error.kind, ErrorKind::Refused);
    assert!(
        error.message.contains("--credentials") && error.message.contains("localhost"),
        "{error}"
    );

    let with = |token: &str| {
        let entry = HostCredentials {
            user: Some("robot".to_owned()),
            token: Some(token.to_owned().into()),
            ..HostCredentials::default()
        };
        Rig::with(move |config| {
            config
                .credentials
                .insert(RemoteHost::new("localhost").unwrap(), entry)
        })
    };
    let error = error_of(with("wrong-token").await.ingest(&url, "main").await);
    assert_eq!(error.kind, ErrorKind::Refused);
    assert!(!error.message.contains("wrong-token"), "{error}");
    end_to_end(&with("s3cret-token").await, &repo, &url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn https_with_a_private_authority() {
    let repo = sample(ObjectFormat::Sha1);
    let authority = Authority::new();
    let options = HttpOptions {
        login: Some(("robot", "s3cret-token")),
        authority: Some(&authority),
        ..HttpOptions::default()
    };
    let remote = HttpRemote::serve(repo.parent(), &options);
    let url = remote.url("repo.git");
    let entry = |ca: bool, login: bool| HostCredentials {
        user: Some("robot".to_owned()),
        token: login.then(|| "s3cret-token".to_owned().into()),
        ca_file: ca.then(|| authority.ca_file()),
        ..HostCredentials::default()
    };
    let with = |ca, login| {
        Rig::with(move |config| {
            config
                .credentials
                .insert(RemoteHost::new("localhost").unwrap(), entry(ca, login))
        })
    };

    let error = error_of(with(false, true).await.ingest(&url, "main").await);
    assert_eq!(error.kind, ErrorKind::Refused);
    assert!(error.message.contains("ca_file"), "{error}");
    let error = error_of(with(true, false).await.ingest(&url, "main").await);
    assert_eq!(error.kind, ErrorKind::Refused);
    end_to_end(&with(true, true).await, &repo, &url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_with_a_key_and_known_hosts() {
    let repo = sample(ObjectFormat::Sha1);
    let remote = SshRemote::serve(repo.parent());
    let url = remote.url("repo.git");
    let with = |key, known_hosts| {
        let entry = HostCredentials {
            ssh_key: Some(key),
            known_hosts: Some(known_hosts),
            ..HostCredentials::default()
        };
        Rig::with(move |config| {
            config
                .credentials
                .insert(RemoteHost::new("127.0.0.1").unwrap(), entry)
        })
    };
    end_to_end(&with(remote.key(), remote.known_hosts()).await, &repo, &url).await;

    let error = error_of(
        with(remote.stranger_key(), remote.known_hosts())
            .await
            .ingest(&url, "main")
            .await,
    );
    assert_eq!(error.kind, ErrorKind::Refused);
    let error = error_of(
        with(remote.key(), remote.wrong_hosts())
            .await
            .ingest(&url, "main")
            .await,
    );
    assert_eq!(error.kind, ErrorKind::Refused);
    assert!(error.message.contains("host key"), "{error}");
    let rig = with(remote.key(), remote.known_hosts()).await;
    assert_eq!(
        error_of(rig.ingest(&remote.url("none.git"), "main").await).kind,
        ErrorKind::NotFound
    );
}

/// Servers that know only protocol version 0: no `ls-refs`, all refs at once, another way to
/// negotiate.
#[tokio::test(flavor = "multi_thread")]
async fn old_servers() {
    let repo = sample(ObjectFormat::Sha1);
    let refresh = async |rig: &Rig, url: &str| {
        let next = repo.commit(|c| {
            c.file("next", url);
        });
        let fetched = rig.ingest(url, "main").await.unwrap();
        assert_eq!(fetched.snapshot.commit, next);
        assert_same(rig, &fetched, &repo, "main").await;
        assert_eq!(rig.stat().await.cached_repositories, 1);
        assert_eq!(
            error_of(rig.ingest(url, "none").await).kind,
            ErrorKind::NotFound
        );
    };
    let http = HttpRemote::serve(
        repo.parent(),
        &HttpOptions {
            old_protocol: true,
            ..HttpOptions::default()
        },
    );
    let rig = Rig::new().await;
    end_to_end(&rig, &repo, &http.url("repo.git")).await;
    refresh(&rig, &http.url("repo.git")).await;

    let ssh = SshRemote::serve_old(repo.parent());
    let entry = HostCredentials {
        ssh_key: Some(ssh.key()),
        known_hosts: Some(ssh.known_hosts()),
        ..HostCredentials::default()
    };
    let rig = Rig::with(move |config| {
        config
            .credentials
            .insert(RemoteHost::new("127.0.0.1").unwrap(), entry)
    })
    .await;
    end_to_end(&rig, &repo, &ssh.url("repo.git")).await;
    refresh(&rig, &ssh.url("repo.git")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_repository_is_followed() {
    let repo = sample(ObjectFormat::Sha1);
    let http = HttpRemote::serve(repo.parent(), &HttpOptions::default());
    end_to_end(&Rig::new().await, &repo, &http.url("moved/repo.git")).await;
}
