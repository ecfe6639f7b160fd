//! Sources and ref names against the installed Git: what it takes apart, we take apart alike, and
//! real servers are reached by every form.

use std::path::Path;
use std::process::Command;

use monofs_fetcher::credentials::HostCredentials;
use monofs_model::source::{RemoteHost, Scheme};
use monofs_model::{ErrorKind, RefName, SourceUrl};
use monofs_testkit::random::{Rng, seed_or};
use monofs_testkit::remotes::{GitDaemon, HttpOptions, HttpRemote, SshRemote, has_ipv6};
use monofs_testkit::{Repo, git};

use crate::rig::{Rig, error_of};

/// Sources that Git takes and we refuse, and the word that says why: what could carry an option, a
/// secret or another request, and what Git reaches at another place than the text says.
const REFUSED: [(&str, &str); 31] = [
    ("ssh://h:99999/x", "port"),
    ("git://h:70000/x", "port"),
    ("ssh://h:0/x", "port"),
    ("ssh://h:+22/x", "port"),
    ("ssh://h:22:33/x", "port"),
    ("ssh://user:secret@h/x", "password"),
    ("git://user@h/x", "no user"),
    ("git://[h:22]/x", "port"),
    ("ssh://[-h]/x", "host"),
    ("ssh://a b/x", "host"),
    ("a b:c", "host"),
    ("$(id):x", "host"),
    ("ssh://a'b@h/x", "user name"),
    ("h:-x", "option"),
    ("ssh://h/-x", "option"),
    ("/-x", "option"),
    ("/a/../b", "'..'"),
    ("h:../b", "'..'"),
    ("ssh://h/a/%2e%2e/b", "'..'"),
    ("file:///a%0ab", "control"),
    ("/a\tb", "control"),
    ("file:///%ff", "UTF-8"),
    ("file://host/x", "no host"),
    ("ssh://h/", "no repository"),
    ("h:", "no repository"),
    ("file:///", "no repository"),
    ("./a", "absolute path"),
    ("go:golang.org/x/text", "not a source yet"),
    ("npm:x", "not a source yet"),
    ("crates:x", "not a source yet"),
    ("pypi:x", "not a source yet"),
];

/// How a source comes apart: protocol, user and host, port, path.
#[derive(Debug, PartialEq, Eq)]
struct Taken {
    protocol: String,
    host: String,
    port: Option<u16>,
    path: String,
}

/// What Git makes of a source that it connects to itself; `None` when it refuses it.
fn by_git(source: &str) -> Option<Taken> {
    let out = Command::new("git")
        .args(["fetch-pack", "--diag-url", source])
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).ok()?;
    let line = |name: &str| {
        let start = format!("Diag: {name}=");
        text.lines()
            .find_map(|line| line.strip_prefix(&start))
            .map(str::to_owned)
    };
    // Only for ssh it tells the port apart.
    let protocol = line("protocol")?;
    let (host, port) = match line("userandhost") {
        Some(host) => (host, line("port").filter(|port| port != "NONE")),
        None => {
            let both = line("hostandport")?;
            match both.rsplit_once(':') {
                Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                    (host.to_owned(), Some(port.to_owned()))
                }
                _ => (both, None),
            }
        }
    };
    Some(Taken {
        protocol,
        host: host.trim_matches(['[', ']']).to_owned(),
        port: port.and_then(|port| port.parse().ok()),
        path: line("path")?,
    })
}

fn by_us(source: &SourceUrl) -> Taken {
    let user = source.user().map(|user| format!("{user}@"));
    Taken {
        protocol: source.scheme().as_str().to_owned(),
        host: format!("{}{}", user.unwrap_or_default(), source.host()),
        port: source.port(),
        path: source.path().into_owned(),
    }
}

/// Our form of a host that Git leaves as it is written: lower case, addresses in their shortest form.
fn normal_host(text: &str) -> String {
    let (user, host) = text.rsplit_once('@').unwrap_or(("", text));
    let at = if user.is_empty() { "" } else { "@" };
    let host = host
        .parse::<std::net::Ipv6Addr>()
        .map_or_else(|_| host.to_ascii_lowercase(), |host| host.to_string());
    format!("{user}{at}{host}")
}

/// Compares, for what we accept, the source and its normal form with Git.
#[track_caller]
fn assert_as_git(text: &str) {
    let source = SourceUrl::new(text).unwrap_or_else(|e| panic!("{text:?}: {e}"));
    let mut expected = by_git(text).unwrap_or_else(|| panic!("git refuses {text:?}"));
    expected.host = normal_host(&expected.host);
    assert_eq!(by_us(&source), expected, "{text:?}");
    let normal = by_git(source.as_str()).unwrap();
    assert_eq!(normal, expected, "{text:?} as {source}");
}

#[test]
fn sources_come_apart_as_in_git() {
    for text in [
        "user@host:team/proj.git",
        "host:team/proj.git",
        "host:/team/proj.git",
        "host:~/proj.git",
        "host:~user/proj.git",
        "host:/~user/proj.git",
        "host:2222/proj.git",
        "host:a?b#c%20d",
        "host:a b",
        "[::1]:x",
        "u@[::1]:x/y",
        "[u@h:22]:x",
        "u@[h:22]:/x",
        "[h]:x",
        "Host.Example:x",
        "ssh://Host/x",
        "ssh://h:/x",
        "ssh://h:22/x",
        "ssh://u@h:022/~u/x",
        "ssh://h//x",
        "ssh://[::1]/x",
        "ssh://u@[::1]:22/x",
        "ssh://::1/x",
        "ssh://[fe80::1%25lo]/x",
        "ssh://[u@h:22]/x",
        "ssh://h/a%3fb?c#d",
        "ssh://h/50%off%zz%00",
        "ssh://u%40x@h:5/p",
        "git+ssh://h/x",
        "ssh+git://h/x",
        "git://h/x",
        "git://h:9/~u/x",
        "git://[::1]/x",
        "git://[::1]:9418/x?y",
        "file:///a%20b%zz%00",
        "file:///a?b#c",
        "/dir/c#.git",
        "/dir/what?.git",
        "/dir/50%off.git",
        "/dir/50%20off.git",
        "/dir/a b.git",
        "/a:b/c",
        "/ü/\u{3000}x",
    ] {
        // These schemes are written `ssh` once they are normal.
        assert_as_git(text);
    }
}

#[test]
fn what_git_would_take_and_we_do_not_is_refused_with_the_reason() {
    for (text, word) in REFUSED {
        let error = SourceUrl::new(text).expect_err(text);
        assert!(error.message.contains(word), "{text}: {error}");
        assert!(!error.message.contains("secret"), "{text}: {error}");
    }
}

#[test]
fn generated_sources_come_apart_as_in_git() {
    const PIECES: [&str; 34] = [
        "ssh://",
        "git://",
        "file://",
        "git+ssh://",
        "http://",
        "user@",
        "Host",
        "h",
        "[::1]",
        "[0::1]",
        "[h]",
        "[u@h:22]",
        "::1",
        "/",
        "/",
        "/",
        "//",
        ":",
        ":",
        ":22",
        ":99999",
        ":x",
        "~",
        "~u",
        "a",
        "b.git",
        "%20",
        "%2F",
        "%zz",
        "%",
        "?",
        "#",
        "-",
        " ",
    ];
    let mut random = Rng::new(seed_or(15));
    let mut compared = 0;
    for _ in 0..1500 {
        let count = 2 + random.below(6);
        let text: String = (0..count).map(|_| *random.pick(&PIECES).unwrap()).collect();
        let Ok(source) = SourceUrl::new(&text) else {
            continue;
        };
        if matches!(source.scheme(), Scheme::Http | Scheme::Https) {
            continue;
        }
        assert_as_git(&text);
        compared += 1;
    }
    assert!(compared > 100, "only {compared} sources were accepted");
}

/// What Git's credentials know of a web address.
fn by_git_credential(source: &str) -> Taken {
    let mut fill = Command::new("git");
    fill.args([
        "-c",
        "credential.useHttpPath=true",
        "-c",
        "credential.helper=",
    ])
    .args([
        "-c",
        "credential.helper=!f() { grep ^username= || echo username=NONE; echo password=x; }; f",
    ])
    .args(["credential", "fill"]);
    let text = git::output(&mut fill, format!("url={source}\n\n").as_bytes());
    let text = String::from_utf8(text).unwrap();
    let line = |name: &str| {
        let start = format!("{name}=");
        let found = text.lines().find_map(|line| line.strip_prefix(&start));
        found.unwrap_or_default().to_owned()
    };
    let user = Some(line("username")).filter(|user| user != "NONE");
    let user = user.map_or_else(String::new, |user| format!("{user}@"));
    let host = RemoteHost::new(&line("host")).unwrap();
    Taken {
        protocol: line("protocol"),
        host: format!("{user}{}", host.host),
        port: host.port,
        path: format!("/{}", line("path")),
    }
}

#[test]
fn web_addresses_come_apart_as_in_git() {
    for text in [
        "https://host/org/x.git",
        "http://Host:8080/x",
        "https://org@dev.azure.com/org/My%20Project/_git/x",
        "https://me%40org.example@host/x",
        "http://[::1]:81/x",
        "https://host:443/a%2520b",
        "https://host/50%off",
    ] {
        let source = SourceUrl::new(text).unwrap();
        assert_eq!(by_us(&source), by_git_credential(text), "{text}");
        assert_eq!(SourceUrl::new(source.as_str()).unwrap(), source);
    }
    for (text, word) in [
        ("https://host/x?private_token=secret", "'?'"),
        ("https://host/x#secret", "'#'"),
        ("https://host?x/y", "'?'"),
        ("https://user:secret@host/x", "credentials"),
        ("https://ghp_secretsecretsecret@host/x", "credentials"),
        ("https://host:70000/x", "port"),
        ("https://host/a b", "white space"),
        ("HTTPS://host/x", "use https"),
    ] {
        let error = SourceUrl::new(text).expect_err(text);
        assert!(error.message.contains(word), "{text}: {error}");
        assert!(!error.message.contains("secret"), "{text}: {error}");
    }
}

fn git_accepts(name: &str) -> bool {
    Command::new("git")
        .args(["check-ref-format", "--allow-onelevel", name])
        .status()
        .unwrap()
        .success()
}

#[test]
fn ref_names_are_refused_exactly_as_git_refuses_them() {
    const PIECES: [&str; 32] = [
        "a", "b", "heads", "/", "/", "/", ".", ".", "..", ".lock", ".LOCK", "@", "{", "@{", "~",
        "^", ":", "?", "*", "[", "]", "\\", " ", "\t", "\u{7f}", "\u{85}", "\u{a0}", "\u{3000}",
        "ü", "-", "'", "#",
    ];
    let mut random = Rng::new(seed_or(16));
    for _ in 0..1200 {
        let count = 1 + random.below(5);
        let name: String = (0..count).map(|_| *random.pick(&PIECES).unwrap()).collect();
        // As an option Git does not even look at it.
        if name.starts_with('-') {
            assert!(RefName::new(&name).is_err(), "{name:?}");
            continue;
        }
        assert_eq!(RefName::new(&name).is_ok(), git_accepts(&name), "{name:?}");
    }
}

/// A bare copy of a repository under another name.
fn copy(repo: &Repo, to: &Path) {
    git::run(
        repo.parent(),
        ["clone", "-q", "--bare", "repo.git", to.to_str().unwrap()],
    );
}

fn repository() -> Repo {
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("a", "1");
    });
    repo
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_with_letters_of_urls_are_paths() {
    let repo = repository();
    let rig = Rig::new().await;
    for name in [
        "c#.git",
        "what?.git",
        "50%off.git",
        "50%20off.git",
        "a b.git",
    ] {
        let at = repo.parent().join(name);
        copy(&repo, &at);
        let fetched = rig.ingest(at.to_str().unwrap(), "main").await.unwrap();
        assert_eq!(fetched.snapshot.commit, repo.rev("main"), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_of_web_servers_keep_their_escapes() {
    let repo = repository();
    for name in ["My Project", "50%off", "50%20off", "ü", "what?"] {
        std::fs::create_dir(repo.parent().join(name)).unwrap();
        copy(&repo, &repo.parent().join(name).join("x.git"));
    }
    let login = HttpOptions {
        login: Some(("org", "s3cret-token")),
        ..HttpOptions::default()
    };
    let http = HttpRemote::serve(repo.parent(), &login);
    // The entry names no user: the source does.
    let entry = HostCredentials {
        token: Some("s3cret-token".to_owned().into()),
        ..HostCredentials::default()
    };
    let rig = Rig::with(|config| {
        config
            .credentials
            .insert(RemoteHost::new("LocalHost").unwrap(), entry)
    })
    .await;
    let port = http.port();
    for path in [
        "My%20Project/x.git",
        "50%25off/x.git",
        "50%2520off/x.git",
        "%c3%bc/x.git",
        "ü/x.git",
        "what%3F/x.git",
    ] {
        let url = format!("http://org@LOCALHOST:{port}/{path}");
        let fetched = rig
            .ingest(&url, "main")
            .await
            .unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!(fetched.snapshot.commit, repo.rev("main"), "{path}");
    }
    assert_eq!(rig.source.fallbacks(), 0, "gix does this alone");
    let wrong = format!("http://other@localhost:{port}/repo.git");
    let error = error_of(rig.ingest(&wrong, "main").await);
    assert_eq!(error.kind, ErrorKind::Refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ipv6_loopback_is_reached_by_every_form() {
    if !has_ipv6() {
        panic!("this test needs ::1 on the loopback device");
    }
    let repo = repository();
    let http = HttpRemote::serve(repo.parent(), &HttpOptions::default());
    let daemon = GitDaemon::serve(repo.parent());
    let ssh = SshRemote::serve(repo.parent());
    let entry = HostCredentials {
        ssh_key: Some(ssh.key()),
        known_hosts: Some(ssh.known_hosts()),
        ..HostCredentials::default()
    };
    let rig = Rig::with(|config| {
        config
            .credentials
            .insert(RemoteHost::new("[::1]").unwrap(), entry)
    })
    .await;
    let (user, at) = (ssh.user().to_owned(), repo.path());
    for url in [
        format!("http://[::1]:{}/repo.git", http.port()),
        format!("git://[::1]:{}/repo.git", daemon.port()),
        format!("ssh://{user}@[::1]:{}{}", ssh.port(), at.display()),
        format!("ssh://{user}@[0:0::1]:{}{}", ssh.port(), at.display()),
    ] {
        let fetched = rig
            .ingest(&url, "main")
            .await
            .unwrap_or_else(|e| panic!("{url}: {e}"));
        assert_eq!(fetched.snapshot.commit, repo.rev("main"), "{url}");
    }
    assert_eq!(rig.source.fallbacks(), 0, "gix does this alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_behind_a_colon_is_below_the_home_directory() {
    let repo = repository();
    let home = std::env::var("HOME").unwrap();
    let below = tempfile::Builder::new()
        .prefix("monofs-team-")
        .tempdir_in(&home)
        .unwrap();
    copy(&repo, &below.path().join("it's a proj.git"));
    let team = below.path().file_name().unwrap().to_str().unwrap();
    let ssh = SshRemote::serve(repo.parent());
    let entry = HostCredentials {
        ssh_key: Some(ssh.key()),
        known_hosts: Some(ssh.known_hosts()),
        ..HostCredentials::default()
    };
    let rig = Rig::with(|config| {
        config
            .credentials
            .insert(RemoteHost::new("127.0.0.1").unwrap(), entry)
    })
    .await;
    let login = format!("{}@127.0.0.1:{}", ssh.user(), ssh.port());
    for url in [
        format!("[{login}]:{team}/it's a proj.git"),
        format!("ssh://{login}/~/{team}/it's%20a%20proj.git"),
        format!("[{login}]:{}/it's a proj.git", below.path().display()),
    ] {
        let fetched = rig
            .ingest(&url, "main")
            .await
            .unwrap_or_else(|e| panic!("{url}: {e}"));
        assert_eq!(fetched.snapshot.commit, repo.rev("main"), "{url}");
    }
    assert_eq!(rig.source.fallbacks(), 0, "gix does this alone");
    // The root of the server has no such directory.
    let absolute = format!("ssh://{login}/{team}/it's%20a%20proj.git");
    let error = error_of(rig.ingest(&absolute, "main").await);
    assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_no_host_has_is_named_instead_of_another_being_asked() {
    let repo = repository();
    let rig = Rig::new().await;
    repo.point("refs/heads/full\u{3000}width", &repo.rev("main"));
    let wide = rig.ingest(&repo.url(), "full\u{3000}width").await.unwrap();
    assert_eq!(wide.snapshot.commit, repo.rev("main"));
    for url in ["git://127.0.0.1:99999/x.git", "ssh://127.0.0.1:70000/x.git"] {
        let error = error_of(rig.resolve(url, "main").await);
        assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
        assert!(error.message.contains("port"), "{error}");
    }
}
