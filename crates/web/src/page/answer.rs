//! How a page, or what went wrong instead of it, becomes an answer. Every page is answered here.
//!
//! Invariants: no script or style is inline, and nothing is loaded from elsewhere, which the content
//! security policy enforces; nothing here knows the pages.

use std::time::Duration;

use askama::Template;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use monofs_model::{ErrorKind, Result};
use monofs_router::parts::Parts;

use super::shell::Shell;
use super::text::Line;

/// How long a page waits for what a node, or another router, says.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Only what this router serves itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
 connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// A page that says what went wrong.
#[derive(Template)]
#[template(path = "failed.html")]
struct FailedPage {
    shell: Shell,
    message: Line,
    retry: bool,
}

/// The answer with a page, or with what went wrong instead; `section`: the part of the site.
pub(super) fn show<T: Template>(state: &Parts, section: &'static str, page: Result<T>) -> Response {
    let error = match page {
        Ok(page) => return html(StatusCode::OK, &page),
        Err(error) => error,
    };
    let (code, title) = match error.kind {
        ErrorKind::NotFound => (StatusCode::NOT_FOUND, "Not found"),
        ErrorKind::Invalid => (StatusCode::BAD_REQUEST, "Not understood"),
        ErrorKind::Refused => (StatusCode::CONFLICT, "Not now"),
        ErrorKind::Unavailable | ErrorKind::NotHeld | ErrorKind::Full => {
            (StatusCode::SERVICE_UNAVAILABLE, "Not available now")
        }
        ErrorKind::Corrupt | ErrorKind::Internal => {
            (StatusCode::INTERNAL_SERVER_ERROR, "That failed")
        }
    };
    let failed = FailedPage {
        shell: Shell::new(state, title, section),
        message: Line::new(&error.message),
        retry: code.is_server_error(),
    };
    html(code, &failed)
}

/// The page that says that nothing is there.
pub(crate) fn not_found(state: &Parts, uri: &Uri) -> Response {
    let failed = FailedPage {
        shell: Shell::new(state, "Not found", ""),
        message: Line::new(&format!("There is no page at {}.", uri.path())),
        retry: false,
    };
    html(StatusCode::NOT_FOUND, &failed)
}

fn html<T: Template>(code: StatusCode, page: &T) -> Response {
    let body = match page.render() {
        Ok(body) => body,
        Err(error) => {
            tracing::error!(%error, "a page cannot be rendered");
            let message = "this page cannot be shown; see the router's log";
            return (StatusCode::INTERNAL_SERVER_ERROR, message).into_response();
        }
    };
    // A page is of this moment and of this router: it is neither kept nor taken for another kind.
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
    ];
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    (code, headers, body).into_response()
}
