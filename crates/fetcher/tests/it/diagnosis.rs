//! Logins, and what a message says: what happened, where, and what to set.

use std::time::Duration;

use monofs_fetcher::credentials::HostCredentials;
use monofs_model::ErrorKind;
use monofs_testkit::Repo;
use monofs_testkit::remotes::{Authority, GitDaemon, HttpOptions, HttpRemote, WebAnswer, WebHost};

use crate::rig::{Rig, error_of};

fn sample() -> Repo {
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("a", "1");
    });
    repo
}

const LOGIN: (&str, &str) = ("robot", "s3cret-token");

fn login() -> HostCredentials {
    HostCredentials {
        user: Some(LOGIN.0.to_owned()),
        token: Some(LOGIN.1.to_owned().into()),
        ..HostCredentials::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_signed_itself_is_trusted_as_its_own_ca_file() {
    let repo = sample();
    for is_authority in [true, false] {
        let own = Authority::self_signed(is_authority);
        let options = HttpOptions {
            authority: Some(&own),
            ..HttpOptions::default()
        };
        let remote = HttpRemote::serve(repo.parent(), &options);
        let with = |ca_file| {
            let entry = HostCredentials {
                ca_file,
                ..HostCredentials::default()
            };
            Rig::with(move |config| config.credentials.insert("localhost", entry))
        };
        let rig = with(Some(own.certificate())).await;
        let fetched = rig.ingest(&remote.url("repo.git"), "main").await.unwrap();
        assert_eq!(fetched.snapshot.commit, repo.rev("main"));
        assert_eq!(rig.source.fallbacks(), 0);
        // Only itself: another one with the same name is refused, and the advice fits.
        let other = Authority::self_signed(is_authority);
        let rig = with(Some(other.certificate())).await;
        let error = error_of(rig.ingest(&remote.url("repo.git"), "main").await);
        assert_eq!(error.kind, ErrorKind::Refused);
        assert!(
            error.message.contains("must hold the certificate"),
            "{error}"
        );
        let rig = with(None).await;
        let error = error_of(rig.ingest(&remote.url("repo.git"), "main").await);
        assert!(error.message.contains("set 'ca_file'"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_for_a_path_is_used_there_and_nowhere_else() {
    let repo = sample();
    let options = HttpOptions {
        login: Some(LOGIN),
        ..HttpOptions::default()
    };
    let remote = HttpRemote::serve(repo.parent(), &options);
    for (key, works) in [("localhost/repo", true), ("localhost/rep", false)] {
        let rig = Rig::with(move |config| config.credentials.insert(key, login())).await;
        let result = rig.ingest(&remote.url("repo.git"), "main").await;
        match works {
            true => assert_eq!(result.unwrap().snapshot.commit, repo.rev("main")),
            false => assert_eq!(error_of(result).kind, ErrorKind::Refused),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_within_the_origin_keeps_the_login_and_another_origin_never_sees_it() {
    let repo = sample();
    let options = HttpOptions {
        login: Some(LOGIN),
        ..HttpOptions::default()
    };
    let remote = HttpRemote::serve(repo.parent(), &options);
    // What has moved on the same host is followed for every kind of redirect.
    for status in [
        "301 Moved Permanently",
        "302 Found",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ] {
        let host = WebHost::serve(remote.port(), move |request| {
            let rest = request.target.strip_prefix("/old/")?;
            Some(WebAnswer::new(status, &[&format!("Location: /{rest}")]))
        });
        let rig = Rig::with(|config| config.credentials.insert("localhost", login())).await;
        let fetched = rig.ingest(&host.url("old/repo.git"), "main").await.unwrap();
        assert_eq!(fetched.snapshot.commit, repo.rev("main"), "{status}");
        assert!(host.asked().iter().all(|request| request.login.is_some()));
        assert_eq!(rig.source.fallbacks(), 0);
    }
    // Another port is another origin.
    let other = WebHost::serve(remote.port(), |_| None);
    let to = other.port();
    let host = WebHost::serve(remote.port(), move |request| {
        let place = format!("Location: http://localhost:{to}{}", request.target);
        Some(WebAnswer::new("301 Moved Permanently", &[&place]))
    });
    let rig = Rig::with(|config| config.credentials.insert("localhost", login())).await;
    let error = error_of(rig.ingest(&host.url("repo.git"), "main").await);
    assert_eq!(error.kind, ErrorKind::Refused);
    assert!(
        error.message.contains(&format!("localhost:{to}")),
        "{error}"
    );
    assert!(other.asked().iter().all(|request| request.login.is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_for_people_is_no_empty_repository() {
    let page = |status: &'static str| {
        WebHost::serve(0, move |request| {
            let mut answer = WebAnswer::new(status, &["Content-Type: text/html; charset=utf-8"]);
            answer.body = "<html>Sign in</html>".into();
            let is_login = request.target.starts_with("/users/sign_in");
            match status {
                "302 Found" if !is_login => Some(WebAnswer::new(
                    status,
                    &[
                        "Location: /users/sign_in?secret=x",
                        "Content-Type: text/html",
                    ],
                )),
                "302 Found" => {
                    answer.status = "200 OK".into();
                    Some(answer)
                }
                _ => Some(answer),
            }
        })
    };
    for status in ["200 OK", "203 Non-Authoritative Information", "302 Found"] {
        let host = page(status);
        for (key, told) in [
            ("nowhere", "add an entry for 'localhost"),
            ("localhost", "check the entry"),
        ] {
            let rig = Rig::with(move |config| config.credentials.insert(key, login())).await;
            let error = error_of(rig.ingest(&host.url("a.git"), "main").await);
            assert_eq!(error.kind, ErrorKind::Refused, "{status}");
            assert!(error.message.contains("a web page"), "{status}: {error}");
            assert!(error.message.contains(told), "{status}: {error}");
            assert!(!error.message.contains("secret"), "{error}");
            assert_eq!(rig.source.fallbacks(), 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_without_a_first_byte_is_told_with_the_setting() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let rig = Rig::with(|config| config.idle_timeout = Duration::from_secs(1)).await;
    for scheme in ["http", "git"] {
        let url = format!("{scheme}://localhost:{port}/a.git");
        let error = error_of(rig.ingest(&url, "main").await);
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert!(error.message.contains("--idle-timeout"), "{error}");
        assert!(error.message.contains("1s"), "{error}");
    }
}

/// The variable that makes a run of the test binary the one behind a proxy.
const BEHIND: &str = "MONOFS_TEST_BEHIND_PROXY";

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_proxy_is_named_and_not_the_host() {
    let port = monofs_testkit::free_port();
    if std::env::var_os(BEHIND).is_none() {
        // The environment is the process's: another run of this test is behind the proxy.
        let name = "diagnosis::a_dead_proxy_is_named_and_not_the_host";
        let out = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(BEHIND, "1")
            .env("HTTP_PROXY", format!("http://user:pw@127.0.0.1:{port}"))
            .env("http_proxy", format!("http://user:pw@127.0.0.1:{port}"))
            .env("https_proxy", format!("http://user:pw@127.0.0.1:{port}"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{text}");
        assert!(String::from_utf8_lossy(&out.stdout).contains("1 passed"));
        return;
    }
    let rig = Rig::new().await;
    for scheme in ["http", "https"] {
        let url = format!("{scheme}://git.example.org/a.git");
        let error = error_of(rig.ingest(&url, "main").await);
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert!(error.message.contains("the proxy 127.0.0.1:"), "{error}");
        assert!(error.message.contains("HTTPS_PROXY"), "{error}");
        assert!(!error.message.contains("pw@"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_branch_that_vanished_is_told_with_the_new_one() {
    let repo = sample();
    repo.git(["branch", "-m", "main", "trunk"]);
    repo.git(["symbolic-ref", "HEAD", "refs/heads/trunk"]);
    let daemon = GitDaemon::serve(repo.parent());
    let options = HttpOptions {
        old_protocol: true,
        ..HttpOptions::default()
    };
    let old = HttpRemote::serve(repo.parent(), &options);
    let http = HttpRemote::serve(repo.parent(), &HttpOptions::default());
    let rig = Rig::new().await;
    let urls = [
        daemon.url("repo.git"),
        old.url("repo.git"),
        http.url("repo.git"),
        repo.url(),
    ];
    for url in &urls {
        let error = error_of(rig.ingest(url, "main").await);
        assert_eq!(error.kind, ErrorKind::NotFound);
        assert!(error.message.contains("'trunk'"), "{url}: {error}");
        assert!(error.message.contains("--ref"), "{error}");
    }
    // A HEAD that names what is not there any more.
    repo.git(["symbolic-ref", "HEAD", "refs/heads/gone"]);
    for url in &urls {
        let error = error_of(rig.ingest(url, "").await);
        assert_eq!(error.kind, ErrorKind::NotFound);
        assert!(error.message.contains("--ref: trunk"), "{url}: {error}");
    }
}
