//! Secrets stay where they belong: not in arguments, not in logs, not in errors.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use monofs_fetcher::Credentials;
use monofs_testkit::Repo;
use monofs_testkit::remotes::{HttpOptions, HttpRemote};
use parking_lot::Mutex;

use crate::rig::{Rig, error_of};

const TOKEN: &str = "s3cret-token-0123456789";

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The arguments of every process of this user, over and over, until told to stop.
fn watch_arguments(
    stop: Arc<std::sync::atomic::AtomicBool>,
) -> std::thread::JoinHandle<Vec<String>> {
    std::thread::spawn(move || {
        let mut leaks = Vec::new();
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                let text = String::from_utf8_lossy(&arguments).into_owned();
                // The header holds it in base64.
                if text.contains(TOKEN) || text.contains("Authorization") {
                    leaks.push(text);
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        leaks
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_in_no_argument_log_or_error() {
    let captured = Captured::default();
    let writer = captured.clone();
    tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .init();
    let stop = Arc::default();
    let watch = watch_arguments(Arc::clone(&stop));
    let repo = Repo::new();
    repo.commit(|c| {
        c.many("many", 2000);
    });
    let login = HttpOptions {
        login: Some(("robot", TOKEN)),
        ..HttpOptions::default()
    };
    let remote = HttpRemote::serve(repo.parent(), &login);
    let dir = tempfile::tempdir().unwrap();
    let token_file = dir.path().join("token");
    std::fs::write(&token_file, format!("{TOKEN}\n")).unwrap();
    for (line, works) in [
        (format!("token = '{TOKEN}'"), true),
        (format!("token_file = '{}'", token_file.display()), true),
        (format!("token = '{TOKEN}-wrong'"), false),
    ] {
        let file = dir.path().join("credentials.toml");
        std::fs::write(
            &file,
            format!("[hosts.localhost]\nuser = 'robot'\n{line}\n"),
        )
        .unwrap();
        let credentials = Credentials::load(&file).unwrap();
        let rig = Rig::with(move |config| config.credentials = credentials).await;
        let result = rig.ingest(&remote.url("repo.git"), "main").await;
        match works {
            true => assert_eq!(result.unwrap().snapshot.commit, repo.rev("main")),
            false => assert!(!error_of(result).message.contains(TOKEN)),
        }
        // The same through the installed git.
        let task = monofs_fetcher::source::FetchTask::new(Default::default());
        let (credentials, url) = (rig.config.credentials.clone(), remote.url("repo.git"));
        let resolved = tokio::task::spawn_blocking(move || {
            let source = monofs_model::SourceUrl::new(&url).unwrap();
            monofs_fetcher::git::cli::resolve(&source, &Default::default(), &credentials, &task)
        });
        match works {
            true => assert_eq!(resolved.await.unwrap().unwrap().commit, repo.rev("main")),
            false => assert!(!error_of(resolved.await.unwrap()).message.contains(TOKEN)),
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let leaks: Vec<String> = watch.join().unwrap();
    assert!(leaks.is_empty(), "{leaks:?}");
    let log = String::from_utf8_lossy(&captured.0.lock()).into_owned();
    assert!(log.contains("fetched"), "the log was captured");
    for secret in [
        TOKEN,
        &monofs_fetcher::git::http::basic("robot", TOKEN)[6..],
    ] {
        assert!(!log.contains(secret), "the log has the secret");
    }
}
