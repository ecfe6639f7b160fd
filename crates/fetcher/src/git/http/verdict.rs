//! What goes wrong with a request over HTTP: found by the client and its answers, read by those who
//! tell people.

use std::io;
use std::time::Duration;

use parking_lot::Mutex;

/// What an answer, or its absence, says about the remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpFailure {
    /// A status that is an error. `retry_after`: what the header of that name says.
    Status {
        code: u16,
        reason: &'static str,
        retry_after: Option<Duration>,
        /// Scheme and host that answered, when it is not the source's own.
        elsewhere: Option<String>,
    },
    /// A page for people instead of Git's own answer. `at`: the URL without its query.
    WebPage { at: String },
    /// It sends requests to a place where they may not go.
    Redirect { to: String, why: &'static str },
    /// It did not answer in time: within the connect timeout, or the idle timeout.
    Silent { connecting: bool },
    /// No connection; with what was said about it.
    Unconnected { why: String },
    /// The server's certificate was refused.
    Certificate { why: String },
}

/// What went wrong, and the proxy that was asked. The first failure counts.
#[derive(Debug, Default)]
pub struct HttpVerdict {
    pub failure: Option<HttpFailure>,
    /// The proxy between us and the host, without its login.
    pub proxy: Option<String>,
}

/// Keeps the first failure; the text of the error is of no use beyond the log.
pub fn note(verdict: &Mutex<HttpVerdict>, failure: HttpFailure) -> io::Error {
    let text = format!("{failure:?}");
    verdict.lock().failure.get_or_insert(failure);
    io::Error::other(text)
}

/// What a failed request means.
pub fn understood(error: &reqwest::Error) -> HttpFailure {
    if error.is_timeout() {
        return HttpFailure::Silent {
            connecting: error.is_connect(),
        };
    }
    let mut why = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause {
        // The last one says what happened, those before it where.
        why = deeper.to_string();
        cause = deeper.source();
    }
    if why.to_lowercase().contains("certificate") {
        return HttpFailure::Certificate { why };
    }
    HttpFailure::Unconnected { why }
}
