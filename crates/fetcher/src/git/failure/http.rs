//! What a failed request over HTTP means.

use std::time::Duration;

use monofs_model::{Error, HostPause};

use super::{
    GixVerdict, RemoteRequest, host_of, one_line, refused, silent, slow_to_connect, unreachable,
    untrusted,
};
use crate::git::http::verdict::HttpFailure;

/// Understands a failure of our own client. `proxy`: what was between us and the host.
pub fn judge_http(
    failure: &HttpFailure,
    proxy: Option<&str>,
    asked: &RemoteRequest<'_>,
) -> GixVerdict {
    let source = asked.source;
    let host = host_of(source);

    // The kind of the failure decides. Only a status that has no known meaning is left to the
    // installed git, which may understand the answer.
    let error = match failure {
        HttpFailure::Status {
            code: 401,
            elsewhere: Some(elsewhere),
            ..
        } => Error::refused(format!(
            "{source}: {host} sends us on to {elsewhere}, which asks for credentials; give the URL \
             there as --source, and add an entry for that host to the fetcher's --credentials file"
        )),
        HttpFailure::Status {
            code, retry_after, ..
        } => match judge_answer(*code, *retry_after, asked, proxy) {
            Some(error) => error,
            None => return GixVerdict::Strange(format!("HTTP status {code}")),
        },
        HttpFailure::WebPage { at } => web_page(at, asked),
        HttpFailure::Redirect { to, why } => Error::refused(format!(
            "{source}: {host} sends us on to {to}, and {why}; give the URL of the repository \
             itself as --source"
        )),
        HttpFailure::Silent { connecting: true } => through(proxy, slow_to_connect(asked)),
        HttpFailure::Silent { connecting: false } => through(proxy, silent(asked)),
        HttpFailure::Certificate { why } => untrusted(asked, why),
        HttpFailure::Unconnected { why } => unconnected(proxy, why, asked),
    };
    GixVerdict::Clear(error)
}

/// Understands the status of an answer of which nothing else is known. `None`: it is not known
/// what it means.
pub fn judge_status(code: u16, asked: &RemoteRequest<'_>) -> Option<Error> {
    judge_answer(code, None, asked, None)
}

fn judge_answer(
    code: u16,
    retry_after: Option<Duration>,
    asked: &RemoteRequest<'_>,
    proxy: Option<&str>,
) -> Option<Error> {
    let source = asked.source;
    match code {
        // Hosts refuse this way, too, what comes too often.
        403 if retry_after.is_some() => Some(not_now(code, retry_after, asked, proxy)),
        401 | 403 => Some(refused(asked)),
        404 | 410 => Some(Error::not_found(format!(
            "{source}: there is no such repository, or it is not visible to us; check the \
             URL{}",
            bundle_advice(asked)
        ))),
        407 => Some(Error::refused(format!(
            "{source}: the proxy {} asks for a login; write it into HTTPS_PROXY or HTTP_PROXY of \
             the fetcher, as http://USER:PASSWORD@HOST:PORT",
            proxy.unwrap_or("of the fetcher")
        ))),
        408 | 425 | 429 | 500..=599 => Some(not_now(code, retry_after, asked, proxy)),
        _ => None,
    }
}

fn bundle_advice(asked: &RemoteRequest<'_>) -> &'static str {
    if asked.source.path().ends_with(".bundle") {
        "; a bundle is read from the fetcher's own disk only: give its path as --source"
    } else {
        ""
    }
}

/// The host answers, and wants to be asked later.
fn not_now(
    code: u16,
    retry_after: Option<Duration>,
    asked: &RemoteRequest<'_>,
    proxy: Option<&str>,
) -> Error {
    let status = reqwest::StatusCode::from_u16(code).ok();
    let reason = status.and_then(|status| status.canonical_reason());
    let said = retry_after.map_or_else(String::new, |pause| {
        format!(", Retry-After {} s", pause.as_secs())
    });
    let cause = format!("HTTP {code} {}{said}", reason.unwrap_or("of no known name"));
    let host = asked.source.host_name().unwrap_or_default();
    let error = unreachable(asked, &format!("it answers {cause}"));
    through(proxy, error).with_pause(HostPause {
        host,
        cause,
        retry_after: retry_after.unwrap_or_default(),
    })
}

fn web_page(at: &str, asked: &RemoteRequest<'_>) -> Error {
    let host = host_of(asked.source);
    let advice = if asked.host.has_login() {
        format!("check the entry '{}' in", asked.host.key)
    } else {
        format!("add an entry for '{host}' to")
    };
    Error::refused(format!(
        "{}: {host} answers with a web page ({at}) instead of a Git repository, as hosts do that \
         want a sign-in first: {advice} the fetcher's --credentials file, and check the URL",
        asked.source
    ))
}

fn unconnected(proxy: Option<&str>, why: &str, asked: &RemoteRequest<'_>) -> Error {
    let why = one_line(why);
    match proxy {
        Some(proxy) => Error::unavailable(format!(
            "cannot fetch {} (ref '{}'): the proxy {proxy} does not let us through ({why}); it \
             comes from HTTPS_PROXY, HTTP_PROXY or ALL_PROXY of the fetcher: correct that, or put \
             {} into NO_PROXY",
            asked.source,
            asked.ref_name,
            asked.source.host()
        )),
        // The words of the system are known already.
        None => super::judge_text(&why, asked).unwrap_or_else(|| unreachable(asked, &why)),
    }
}

/// The same, with the proxy that may be at fault.
fn through(proxy: Option<&str>, mut error: Error) -> Error {
    if let Some(proxy) = proxy {
        error.message.push_str(&format!(
            " (asked through the proxy {proxy} of HTTPS_PROXY or HTTP_PROXY)"
        ));
    }
    error
}
