//! What a failed conversation with a remote means, as one line and a kind to act on.
//!
//! Two speakers have to be understood: gix (typed errors with causes) and the error output of `git`
//! and `ssh` (English text; children run with LC_ALL=C). What neither table knows is
//! [`GixVerdict::Strange`]: the other implementation may try.

mod http;

pub use http::judge_http;

use std::io;
use std::path::Path;

use gix::protocol::transport::client::AuthenticationRequired;
use monofs_model::source::Scheme;
use monofs_model::{Error, ErrorKind, Oid, RefName, SourceUrl};

use crate::credentials::HostCredentials;
use crate::source::FetchLimits;

/// Longest piece of a remote's own words in a message, in bytes.
const QUOTE_BYTES_MAX: usize = 300;

/// What a call of gix returns.
pub type GixResult<T> = std::result::Result<T, gix::Error>;

/// What is being asked of which remote, for messages.
#[derive(Debug, Clone, Copy)]
pub struct RemoteRequest<'a> {
    pub source: &'a SourceUrl,
    pub ref_name: &'a RefName,
    pub commit: Option<Oid>,
    /// What the fetcher was told to be there.
    pub host: &'a HostCredentials,
    pub limits: FetchLimits,
}

/// What a failure means.
#[derive(Debug)]
pub enum GixVerdict {
    /// Understood: another implementation would fail alike.
    Clear(Error),
    /// The remote does not hand out this commit by its id, or cannot leave out history: other ways
    /// to ask for it may be worth a try.
    Withheld(String),
    /// Not understood, or something that this implementation cannot do.
    Strange(String),
}

impl GixVerdict {
    /// The error to report when no other implementation will try.
    pub fn into_error(self, asked: &RemoteRequest<'_>) -> Error {
        match self {
            Self::Clear(error) => error,
            Self::Withheld(_) => no_commit(asked),
            Self::Strange(text) => Error::unavailable(format!("{}: {text}", asked.source)),
        }
    }
}

/// Understands an error of gix.
pub fn judge_gix(error: &gix::Error, asked: &RemoteRequest<'_>) -> GixVerdict {
    let mut texts: Vec<String> = Vec::new();
    for cause in error.iter_errors() {
        let text = cause.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
        if cause.is::<AuthenticationRequired>() {
            return GixVerdict::Clear(refused(asked));
        }
    }
    let text = one_line(&texts.join(": "));
    // What was said is more exact than how the connection ended.
    let by_io = || {
        error
            .iter_errors()
            .find_map(|cause| judge_io(cause.downcast_ref::<io::Error>()?, asked))
    };
    judge_text(&text, asked)
        .or_else(by_io)
        .map_or(GixVerdict::Strange(text), GixVerdict::Clear)
}

/// What a server says that hands out only what a ref names.
const WITHHOLDING: &[&str] = &[
    "not our ref",
    "unadvertised object",
    "couldn't find remote ref",
    "does not allow request",
    // JGit.
    " not valid",
];

/// What is said of a server that cannot leave out history.
const WHOLE_ONLY: &[&str] = &[
    "lack feature \"shallow\"",
    "dumb http transport does not support shallow",
    "does not support shallow",
    "does not support --depth",
];

/// Whether these words mean that the server can give whole histories alone.
pub fn is_whole_only(text: &str) -> bool {
    let lower = text.to_lowercase();
    WHOLE_ONLY.iter().any(|words| lower.contains(words))
}

/// Whether these words mean that the commit may be had in another way.
pub fn is_withheld(text: &str) -> bool {
    let lower = text.to_lowercase();
    is_whole_only(text) || WITHHOLDING.iter().any(|words| lower.contains(words))
}

/// More came than may be fetched.
pub fn over_limit(asked: &RemoteRequest<'_>) -> Error {
    let source = asked.source;
    let limit = asked.limits.bytes_max;
    Error::full(format!(
        "{source}: the commit needs more than the {limit} bytes that may be fetched; raise \
         --max-cache-gb"
    ))
}

/// Understands a failed system call on a connection.
pub fn judge_io(error: &io::Error, asked: &RemoteRequest<'_>) -> Option<Error> {
    use io::ErrorKind as Io;

    // A server's demand for a login comes wrapped in such an error, too.
    if error
        .get_ref()
        .is_some_and(|inner| inner.is::<AuthenticationRequired>())
    {
        return Some(refused(asked));
    }

    // The kind decides whether the host cannot be reached, fell silent, or our own disk is full.
    // What says none of these is left to other judges.
    let what = match error.kind() {
        Io::ConnectionRefused => "the connection was refused",
        Io::TimedOut | Io::WouldBlock => return Some(silent(asked)),
        Io::ConnectionReset | Io::ConnectionAborted | Io::BrokenPipe => "it closed the connection",
        Io::UnexpectedEof => "it closed the connection in the middle of an answer",
        Io::HostUnreachable | Io::NetworkUnreachable | Io::NetworkDown => "there is no route to it",
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => {
            return Some(Error::full(format!(
                "no room to fetch {}: {error}",
                asked.source
            )));
        }
        _ => return None,
    };
    Some(unreachable(asked, what))
}

/// How a word in a remote's or a command's text is understood. The first match wins.
const WORDS: &[(&str, ErrorMeaning)] = &[
    ("not our ref", ErrorMeaning::NoCommit),
    ("unadvertised object", ErrorMeaning::NoCommit),
    (
        "remote error: upload-pack: not our ref",
        ErrorMeaning::NoCommit,
    ),
    ("couldn't find remote ref", ErrorMeaning::NoCommit),
    ("host key verification failed", ErrorMeaning::HostKey),
    (
        "remote host identification has changed",
        ErrorMeaning::HostKey,
    ),
    ("permission denied (", ErrorMeaning::Refused),
    ("too many authentication failures", ErrorMeaning::Refused),
    ("authentication failed", ErrorMeaning::Refused),
    ("could not read username", ErrorMeaning::Refused),
    ("could not read password", ErrorMeaning::Refused),
    ("invalid credentials", ErrorMeaning::Refused),
    ("no credentials were returned", ErrorMeaning::Refused),
    (
        "access denied or repository not exported",
        ErrorMeaning::NoRepository,
    ),
    ("no such repository", ErrorMeaning::NoRepository),
    ("repository not exported", ErrorMeaning::NoRepository),
    ("repository not found", ErrorMeaning::NoRepository),
    (
        "does not appear to be a git repository",
        ErrorMeaning::NoRepository,
    ),
    ("not a git repository", ErrorMeaning::NoRepository),
    ("does not exist", ErrorMeaning::NoRepository),
    ("no such file or directory", ErrorMeaning::NoRepository),
    (
        "could not resolve proxy",
        ErrorMeaning::Unreachable(
            "the name of the proxy that HTTPS_PROXY or HTTP_PROXY gives cannot be resolved",
        ),
    ),
    ("is this a git repository", ErrorMeaning::NoRepository),
    (
        "could not resolve host",
        ErrorMeaning::Unreachable("its name cannot be resolved"),
    ),
    (
        "name or service not known",
        ErrorMeaning::Unreachable("its name cannot be resolved"),
    ),
    (
        "failed to lookup address",
        ErrorMeaning::Unreachable("its name cannot be resolved"),
    ),
    (
        "temporary failure in name resolution",
        ErrorMeaning::Unreachable("its name cannot be resolved"),
    ),
    (
        "no address associated",
        ErrorMeaning::Unreachable("its name cannot be resolved"),
    ),
    (
        "connection refused",
        ErrorMeaning::Unreachable("the connection was refused"),
    ),
    ("connection timed out", ErrorMeaning::Silent),
    ("operation timed out", ErrorMeaning::Silent),
    ("timed out", ErrorMeaning::Silent),
    (
        "no route to host",
        ErrorMeaning::Unreachable("there is no route to it"),
    ),
    (
        "network is unreachable",
        ErrorMeaning::Unreachable("there is no route to it"),
    ),
    ("certificate", ErrorMeaning::Certificate),
    ("ssl connect error", ErrorMeaning::Certificate),
    ("no space left on device", ErrorMeaning::Full),
    (
        "lacks these prerequisite commits",
        ErrorMeaning::PartialBundle,
    ),
    ("tree depth", ErrorMeaning::Damaged),
    ("repository corruption", ErrorMeaning::Damaged),
    ("in tree entry", ErrorMeaning::Damaged),
    ("too-short tree", ErrorMeaning::Damaged),
    ("hash mismatch", ErrorMeaning::Damaged),
    ("is corrupt", ErrorMeaning::Damaged),
    ("unable to read", ErrorMeaning::Damaged),
    ("bad tree object", ErrorMeaning::Damaged),
    ("bad object", ErrorMeaning::Damaged),
    ("unpack-objects failed", ErrorMeaning::Damaged),
    ("index-pack failed", ErrorMeaning::Damaged),
    ("missing necessary objects", ErrorMeaning::Damaged),
    (
        "early eof",
        ErrorMeaning::Unreachable("it closed the connection in the middle of an answer"),
    ),
    (
        "unexpected end of file",
        ErrorMeaning::Unreachable("it closed the connection in the middle of an answer"),
    ),
    (
        "hung up unexpectedly",
        ErrorMeaning::Unreachable("it closed the connection in the middle of an answer"),
    ),
];

#[derive(Debug, Clone, Copy)]
enum ErrorMeaning {
    NoCommit,
    NoRepository,
    Refused,
    HostKey,
    Certificate,
    Full,
    Damaged,
    PartialBundle,
    Silent,
    Unreachable(&'static str),
}

/// Understands the words of a remote, of `git` or of `ssh`.
pub fn judge_text(text: &str, asked: &RemoteRequest<'_>) -> Option<Error> {
    // A repository may be called 'certificate': only what is said about it counts.
    let lower = text
        .to_lowercase()
        .replace(&asked.source.as_str().to_lowercase(), "")
        .replace(&asked.source.request_url().to_lowercase(), "");
    if let Some(error) = http_status_in(&lower).and_then(|code| http::judge_status(code, asked)) {
        return Some(error);
    }
    let (_, meaning) = WORDS.iter().find(|(word, _)| lower.contains(word))?;
    let source = asked.source;
    Some(match meaning {
        ErrorMeaning::NoCommit => no_commit(asked),
        ErrorMeaning::NoRepository => no_repository(source),
        ErrorMeaning::Refused => refused(asked),
        ErrorMeaning::HostKey => Error::refused(format!(
            "{source}: the host key of {} is not the known one; put the right one into \
             'known_hosts' of the fetcher's --credentials",
            host_of(source)
        )),
        ErrorMeaning::Certificate => untrusted(asked, text),
        ErrorMeaning::Full => Error::full(format!("no room to fetch {source}: {}", one_line(text))),
        ErrorMeaning::Damaged => Error::corrupt(format!(
            "{source} (ref '{}'): the remote's repository or what it sent is damaged: {}; run 'git \
             fsck' there",
            asked.ref_name,
            one_line(text)
        )),
        ErrorMeaning::PartialBundle => Error::invalid(format!(
            "{source}: the bundle builds on commits that are not in it (its prerequisites); make \
             one that is whole: git bundle create FILE --all"
        )),
        ErrorMeaning::Silent => silent(asked),
        ErrorMeaning::Unreachable(why) => unreachable(asked, why),
    })
}

/// There is no repository at a source. On a disk of this host it can be seen why.
fn no_repository(source: &SourceUrl) -> Error {
    if source.scheme() != Scheme::File {
        return Error::not_found(format!(
            "{source}: there is no such repository, or it is not visible to us; check the URL"
        ));
    }
    let path = source.path();
    Error::not_found(match Path::new(path.as_ref()).exists() {
        true => format!(
            "{source}: not a Git repository; give a directory with .git in it, or a bare repository"
        ),
        false => format!(
            "{source}: no such repository: there is nothing at that path on the fetcher's host"
        ),
    })
}

/// The status that `git` quotes.
fn http_status_in(lower: &str) -> Option<u16> {
    let (_, rest) = lower.split_once("returned error: ")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// The server's certificate is not accepted.
pub fn untrusted(asked: &RemoteRequest<'_>, why: &str) -> Error {
    let host = host_of(asked.source);
    let advice = if asked.host.ca_file.is_some() {
        format!(
            "'ca_file' of its entry '{}' in the fetcher's --credentials must hold the certificate \
             of the authority that signed it, or that certificate itself",
            asked.host.key
        )
    } else {
        "set 'ca_file' for it in the fetcher's --credentials".to_owned()
    };
    Error::refused(format!(
        "{}: the certificate of {host} is not trusted ({}); {advice}",
        asked.source,
        one_line(why)
    ))
}

/// The remote does not give out the commit.
pub fn no_commit(asked: &RemoteRequest<'_>) -> Error {
    let commit = asked
        .commit
        .map_or_else(|| asked.ref_name.to_string(), |commit| commit.to_string());
    Error::not_found(format!(
        "{}: the remote does not have {commit} (ref '{}') or does not give it out; resolve the ref \
         again",
        asked.source, asked.ref_name
    ))
}

/// The remote does not accept the login, or the login has no right to the repository.
pub fn refused(asked: &RemoteRequest<'_>) -> Error {
    let host = host_of(asked.source);
    let what = if asked.host.has_login() {
        let key = &asked.host.key;
        format!(
            "{host} refused our credentials; check the entry '{key}' in the fetcher's \
             --credentials file"
        )
    } else {
        format!(
            "{host} asks for credentials; add an entry for '{host}' to the fetcher's --credentials \
             file"
        )
    };
    Error::refused(format!("{}: {what}", asked.source))
}

/// The remote cannot be talked to.
pub fn unreachable(asked: &RemoteRequest<'_>, why: &str) -> Error {
    let host = host_of(asked.source);
    let RemoteRequest {
        source, ref_name, ..
    } = asked;
    Error::unavailable(format!(
        "cannot fetch {source} (ref '{ref_name}') from {host}: {why}; check the URL, or try later"
    ))
}

/// The remote sent nothing for too long.
pub fn silent(asked: &RemoteRequest<'_>) -> Error {
    let limit = humantime::format_duration(asked.limits.idle_timeout);
    unreachable(
        asked,
        &format!("it sent nothing for {limit} (the fetcher's --idle-timeout)"),
    )
}

/// There was no connection in time.
pub fn slow_to_connect(asked: &RemoteRequest<'_>) -> Error {
    let limit = humantime::format_duration(asked.limits.connect_timeout);
    unreachable(
        asked,
        &format!("there was no connection within {limit} (the fetcher's --connect-timeout)"),
    )
}

/// Whether the other implementation could do better than this failure.
pub fn worth_another_try(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Internal | ErrorKind::Corrupt)
}

pub(super) fn host_of(source: &SourceUrl) -> String {
    source
        .remote_host()
        .map_or_else(|| "this host".to_owned(), |host| host.to_string())
}

/// Others' words on one line of bounded length, without control characters.
pub fn one_line(text: &str) -> String {
    let words: Vec<&str> = text
        .split(|c: char| c.is_control() || c == ' ')
        .filter(|word| !word.is_empty())
        .collect();
    let mut line = words.join(" ");
    if line.len() > QUOTE_BYTES_MAX {
        let end = (0..=QUOTE_BYTES_MAX)
            .rev()
            .find(|&at| line.is_char_boundary(at))
            .unwrap_or(0);
        line.truncate(end);
        line.push_str("...");
    }
    line
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_path_without_a_repository_says_whether_anything_is_there() {
        let directory = tempfile::tempdir().unwrap();
        for (path, said) in [
            (directory.path().to_owned(), "not a Git repository"),
            (directory.path().join("missing"), "no such repository"),
        ] {
            let source = SourceUrl::new(path.to_str().unwrap()).unwrap();
            let error = no_repository(&source);
            assert_eq!(error.kind, ErrorKind::NotFound);
            assert!(error.message.contains(said), "{error}");
        }
    }

    #[test]
    fn words_of_git_and_ssh_are_understood() {
        let source = SourceUrl::new("ssh://git@host:22/x.git").unwrap();
        let ref_name = RefName::new("main").unwrap();
        let asked = RemoteRequest {
            source: &source,
            ref_name: &ref_name,
            commit: None,
            host: &HostCredentials::default(),
            limits: FetchLimits::default(),
        };
        for (text, kind) in [
            (
                "git@host: Permission denied (publickey).",
                ErrorKind::Refused,
            ),
            (
                "Host key verification failed.\r\nfatal: Could not read from remote repository.",
                ErrorKind::Refused,
            ),
            (
                "ssh: Could not resolve hostname x: Name or service not known",
                ErrorKind::Unavailable,
            ),
            (
                "ssh: connect to host x port 22: Connection refused",
                ErrorKind::Unavailable,
            ),
            (
                "fatal: '/x.git' does not appear to be a git repository",
                ErrorKind::NotFound,
            ),
            (
                "fatal: remote error: upload-pack: not our ref 0123",
                ErrorKind::NotFound,
            ),
        ] {
            let error = judge_text(text, &asked).unwrap();
            assert_eq!(error.kind, kind, "{text}");
            assert!(!error.message.contains('\n'));
        }
        assert!(judge_text("something else", &asked).is_none());
    }
}
