//! What holds for every request and every answer: no page of another site changes anything, and no
//! browser takes an answer for more than it is.
//!
//! A request that changes something must be one that a browser does not send for another site
//! without asking first: with a JSON body (or the method DELETE), and without the marks of another
//! origin. Behind a proxy `Host` is what the browser sent.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::HttpError;

/// What browsers may load for a page of ours: our own, and nothing may frame it.
const POLICY: &str = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action \
 'self'; object-src 'none'";

const SECURITY: [(HeaderName, &str); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::REFERRER_POLICY, "same-origin"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// Adds the security headers that the answer does not set itself.
pub(super) async fn secure(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in SECURITY {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    response
}

/// In front of every handler that changes something: lets only requests through that come from our
/// own pages, or from no browser.
pub(super) async fn same_site(request: Request, next: Next) -> Response {
    match check(request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check(method: &Method, headers: &HeaderMap) -> Result<(), HttpError> {
    // Browsers say where a request comes from.
    if let Some(site @ ("cross-site" | "same-site")) =
        text(headers, HeaderName::from_static("sec-fetch-site"))
    {
        return Err(foreign(&format!("Sec-Fetch-Site: {site}")));
    }
    if let Some(origin) = text(headers, header::ORIGIN) {
        let from = origin.split_once("://").map(|(_, host)| host);
        let host = text(headers, header::HOST);
        if from.is_none() || from.map(str::to_ascii_lowercase) != host.map(str::to_ascii_lowercase)
        {
            return Err(foreign(&format!("Origin: {}", origin.escape_debug())));
        }
    }
    // What no form can send needs a permission that a browser would ask for first.
    if *method == Method::DELETE {
        return Ok(());
    }
    let kind = text(headers, header::CONTENT_TYPE).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let message = "a request that changes something must say 'Content-Type: application/json', \
     with or without a body";
    Err(HttpError::of_http(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        message,
        "curl: -H 'Content-Type: application/json'",
    ))
}

/// A header as text; what is none as a question mark, which fits nothing.
fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let value = headers.get(name)?;
    Some(value.to_str().unwrap_or("?"))
}

fn foreign(what: &str) -> HttpError {
    let message = format!("a page of another site may not change anything here ({what})");
    HttpError::of_http(
        StatusCode::FORBIDDEN,
        message,
        "use this router's own page, the API directly, or monofs-admin",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: Method, headers: &[(&'static str, &str)]) -> Option<u16> {
        let pair = |(name, value): &(&'static str, &str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_str(value).expect("a header"),
            )
        };
        check(&method, &headers.iter().map(pair).collect())
            .err()
            .map(|error| error.status.as_u16())
    }

    #[test]
    fn what_changes_something_comes_from_our_own_pages_or_from_no_browser() {
        let json = ("content-type", "application/json; charset=utf-8");
        let host = ("host", "monofs.example:8080");
        assert_eq!(status(Method::POST, &[json, host]), None);
        assert_eq!(status(Method::DELETE, &[host]), None);
        assert_eq!(
            status(
                Method::POST,
                &[json, host, ("origin", "http://monofs.example:8080")]
            ),
            None
        );
        assert_eq!(
            status(
                Method::POST,
                &[json, host, ("sec-fetch-site", "same-origin")]
            ),
            None
        );
        assert_eq!(status(Method::POST, &[host]), Some(415));
        assert_eq!(
            status(Method::POST, &[host, ("content-type", "text/plain")]),
            Some(415)
        );
        assert_eq!(
            status(
                Method::POST,
                &[json, host, ("origin", "http://evil.example")]
            ),
            Some(403)
        );
        assert_eq!(
            status(Method::POST, &[json, host, ("origin", "null")]),
            Some(403)
        );
        assert_eq!(
            status(
                Method::POST,
                &[json, host, ("origin", "http://monofs.example")]
            ),
            Some(403)
        );
        assert_eq!(
            status(Method::POST, &[json, ("origin", "http://monofs.example")]),
            Some(403)
        );
        assert_eq!(
            status(
                Method::POST,
                &[json, host, ("sec-fetch-site", "cross-site")]
            ),
            Some(403)
        );
        assert_eq!(
            status(Method::DELETE, &[host, ("origin", "http://evil.example")]),
            Some(403)
        );
    }
}
