//! Hosts that say "not now": a clear verdict with the time, and no question before it.

use std::time::{Duration, SystemTime};

use monofs_model::ErrorKind;
use monofs_testkit::Repo;
use monofs_testkit::remotes::{HttpOptions, HttpRemote, WebAnswer, WebHost};

use crate::rig::{Rig, error_of};

fn sample() -> Repo {
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("a", "1");
    });
    repo
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_say_not_now_is_a_verdict_with_the_time() {
    let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
    let date = format!("Retry-After: {}", httpdate(in_an_hour));
    for (status, header) in [
        ("429 Too Many Requests", "Retry-After: 3600"),
        ("503 Service Unavailable", "Retry-After: 3600"),
        ("429 Too Many Requests", date.as_str()),
        ("403 Forbidden", "Retry-After: 3600"),
    ] {
        let answer = WebAnswer::new(status, &[header]);
        let host = WebHost::serve(0, move |_| Some(answer.clone()));
        let rig = Rig::new().await;
        let error = error_of(rig.ingest(&host.url("a.git"), "main").await);
        assert_eq!(error.kind, ErrorKind::Unavailable);
        let pause = error.pause.clone().expect("the verdict came over the wire");
        assert_eq!(pause.host, format!("localhost:{}", host.port()));
        assert!(pause.cause.starts_with("HTTP "), "{pause:?}");
        let said = Duration::from_secs(3595)..Duration::from_secs(3700);
        assert!(said.contains(&pause.retry_after), "{pause:?}");
        assert!(error.message.contains("says not now"), "{error}");
        // All other repositories of the host wait, too, and the fetcher shows it.
        for number in 0..12 {
            let url = host.url(&format!("other{number}.git"));
            assert!(error_of(rig.ingest(&url, "main").await).pause.is_some());
        }
        assert_eq!(host.asked().len(), 1, "{:?}", host.asked());
        let shown = rig.stat().await.hosts_paused;
        assert_eq!(shown.len(), 1);
        assert_eq!(shown[0].host, pause.host);
        assert_eq!(rig.source.fallbacks(), 0, "git is not sent after gix");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_server_errors_is_asked_ever_more_seldom() {
    let host = WebHost::serve(0, |_| Some(WebAnswer::new("502 Bad Gateway", &[])));
    let rig = Rig::new().await;
    let until = tokio::time::Instant::now() + Duration::from_secs(4);
    let mut tries = 0;
    while tokio::time::Instant::now() < until {
        let error = error_of(rig.ingest(&host.url("a.git"), "main").await);
        assert!(error.message.contains("HTTP 502"), "{error}");
        tries += 1;
        tokio::task::yield_now().await;
    }
    // Full jitter: a pause may be short by chance, not most of them.
    let asked = host.asked().len();
    assert!(
        asked < 40 && asked * 3 < tries,
        "{asked} questions of {tries} tries"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_says_not_now_in_the_middle_is_understood_and_asked_again_in_time() {
    let repo = sample();
    let real = HttpRemote::serve(repo.parent(), &HttpOptions::default());
    // The list of refs is given, the pack only at the second try.
    let refused = std::sync::atomic::AtomicUsize::new(0);
    let host = WebHost::serve(real.port(), move |request| {
        let first = request.method == "POST"
            && refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        first.then(|| WebAnswer::new("429 Too Many Requests", &["Retry-After: 1"]))
    });
    let rig = Rig::new().await;
    let url = host.url("repo.git");
    let mut failure = None;
    let error = loop {
        match rig.ingest(&url, "main").await {
            Err(error) => {
                let pause = error.pause.clone().expect("nothing else goes wrong");
                failure.get_or_insert(error);
                tokio::time::sleep(pause.retry_after).await;
            }
            Ok(fetched) => {
                assert_eq!(fetched.snapshot.commit, repo.rev("main"));
                break failure.expect("the first try was refused");
            }
        }
    };
    assert!(error.message.contains("HTTP 429"), "{error}");
    assert!(rig.stat().await.hosts_paused.is_empty(), "it answered");
    assert_eq!(rig.source.fallbacks(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cached_is_served_while_its_host_is_left_alone() {
    let repo = sample();
    let real = HttpRemote::serve(repo.parent(), &HttpOptions::default());
    let shut = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_shut = shut.clone();
    let host = WebHost::serve(real.port(), move |_| {
        let shut = is_shut.load(std::sync::atomic::Ordering::Relaxed);
        shut.then(|| WebAnswer::new("429 Too Many Requests", &["Retry-After: 60"]))
    });
    let rig = Rig::new().await;
    let url = host.url("repo.git");
    let fetched = rig.ingest(&url, "main").await.unwrap();
    shut.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(error_of(rig.resolve(&url, "main").await).pause.is_some());
    let commit = bytes::Bytes::copy_from_slice(fetched.snapshot.commit.as_bytes());
    let again = rig.fetch(&url, "main", commit).await.unwrap();
    assert_eq!(again.snapshot, fetched.snapshot);
    // A read of a commit that has to be fetched ends with the reason instead of a question.
    let asked = host.asked().len();
    let next = repo.commit(|c| {
        c.file("a", "2");
    });
    let origin = monofs_proto::v1::Origin {
        commit: bytes::Bytes::copy_from_slice(next.as_bytes()),
        ..fetched.origin.clone()
    };
    let root = crate::rig::object(&repo, "main^{tree}");
    let read = rig
        .trees(&fetched.id, &[root], 1 << 20, 0, Some(origin))
        .await;
    assert!(error_of(read).pause.is_some());
    assert_eq!(host.asked().len(), asked);
}

fn httpdate(time: SystemTime) -> String {
    httpdate::fmt_http_date(time)
}
