//! The web page: rendered here, live through small scripts, for operators and for developers who
//! look for a repository.
//!
//! Pages read the router's state directly; whatever changes something is a call of `/api/v1` by the
//! browser. Invariants: a page does not wait for members longer than [`ASK_TIMEOUT`], and most not
//! at all; nothing from outside reaches HTML unescaped; no script or style is inline, and nothing
//! is loaded from elsewhere, which the content security policy enforces; what takes long is bounded
//! in time, size and number.

mod add;
mod assets;
mod browse;
mod chart;
mod clients;
mod fetchers;
mod highlight;
mod jobs;
mod node;
mod nodes;
mod overview;
mod parts;
mod placement;
mod replicas;
mod repositories;
mod repository;
mod shell;
mod text;

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use monofs_model::{ErrorKind, Result};
use tokio::sync::Semaphore;

use crate::site::Site;
use monofs_router::parts::Parts;
use shell::Shell;
use text::Line;

/// How long a page waits for what a node, or another router, says.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Only what this router serves itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
 connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What pages share.
struct Pages {
    site: Site,
    state: Arc<Parts>,
    highlights: Arc<Semaphore>,
}

impl Pages {
    /// The answer with a page, or with what went wrong instead; `section`: the part of the site.
    fn show<T: Template>(&self, section: &'static str, page: Result<T>) -> Response {
        match page {
            Ok(page) => html(StatusCode::OK, &page),
            Err(error) => {
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
                let shell = Shell::new(&self.state, title, section);
                html(
                    code,
                    &Failed {
                        shell,
                        message: Line::new(&error.message),
                        retry: code.is_server_error(),
                    },
                )
            }
        }
    }
}

#[derive(Template)]
#[template(path = "failed.html")]
struct Failed {
    shell: Shell,
    message: Line,
    retry: bool,
}

/// The page's part of the HTTP server.
pub(super) fn routes(site: &Site) -> Router<Site> {
    let pages = Pages {
        site: site.clone(),
        state: site.router.clone(),
        highlights: Arc::new(Semaphore::new(highlight::AT_ONCE)),
    };
    Router::new()
        .route("/", get(overview))
        .route("/repos", get(repositories))
        .route("/repos/{*path}", get(repository))
        .route("/add", get(add))
        .route("/add/{*path}", get(ingest))
        .route("/browse", get(|| async { Redirect::permanent("/browse/") }))
        .route("/browse/", get(browse))
        .route("/browse/{*path}", get(browse))
        .route("/nodes", get(nodes))
        .route("/nodes/{id}", get(node))
        .route("/fetchers", get(fetchers))
        .route("/jobs", get(jobs))
        .route("/placement", get(placement))
        .route("/clients", get(clients))
        .route("/assets/{mark}/{name}", get(assets::get))
        .with_state(Arc::new(pages))
}

/// Whether an address that nothing is at was asked for by a person.
pub(super) fn is_for_people(uri: &Uri, headers: &HeaderMap) -> bool {
    let wanted = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .unwrap_or_default();
    !uri.path().starts_with("/api/") && wanted.contains("text/html")
}

/// The page that says that nothing is there.
pub(super) fn not_found(state: &Arc<Parts>, uri: &Uri) -> Response {
    let shell = Shell::new(state, "Not found", "");
    let message = Line::new(&format!("There is no page at {}.", uri.path()));
    html(
        StatusCode::NOT_FOUND,
        &Failed {
            shell,
            message,
            retry: false,
        },
    )
}

fn html<T: Template>(code: StatusCode, page: &T) -> Response {
    let body = match page.render() {
        Ok(body) => body,
        Err(error) => {
            tracing::error!(%error, "a page cannot be rendered");
            return (
                StatusCode::INTERNAL_SERVER_ERROR,
                "this page cannot be shown; see the router's log",
            )
                .into_response();
        }
    };
    let about = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(POLICY),
        ),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("same-origin"),
        ),
    ];
    (code, about, body).into_response()
}

type Shared = State<Arc<Pages>>;

async fn overview(State(pages): Shared, Query(query): Query<overview::Asked>) -> Response {
    pages.show("/", Ok(overview::page(&pages, &query)))
}

async fn repositories(State(pages): Shared, Query(query): Query<repositories::Asked>) -> Response {
    pages.show("/repos", repositories::page(&pages, &query).await)
}

async fn repository(State(pages): Shared, uri: Uri) -> Response {
    pages.show(
        "/repos",
        repository::page(&pages, &uri.path()["/repos/".len()..]).await,
    )
}

async fn add(State(pages): Shared) -> Response {
    pages.show("/add", Ok(add::form(&pages)))
}

async fn ingest(State(pages): Shared, uri: Uri) -> Response {
    pages.show(
        "/add",
        add::progress(&pages, &uri.path()["/add/".len()..]).await,
    )
}

async fn browse(State(pages): Shared, uri: Uri, Query(query): Query<browse::Asked>) -> Response {
    browse::answer(&pages, &uri.path()["/browse/".len()..], &query).await
}

async fn nodes(State(pages): Shared) -> Response {
    pages.show("/nodes", Ok(nodes::page(&pages)))
}

async fn node(
    State(pages): Shared,
    Path(id): Path<String>,
    Query(query): Query<node::Asked>,
) -> Response {
    pages.show("/nodes", node::page(&pages, &id, &query))
}

async fn fetchers(State(pages): Shared) -> Response {
    pages.show("/fetchers", Ok(fetchers::page(&pages)))
}

async fn jobs(State(pages): Shared, Query(query): Query<jobs::Asked>) -> Response {
    pages.show("/jobs", Ok(jobs::page(&pages, &query)))
}

async fn placement(State(pages): Shared, Query(query): Query<placement::Asked>) -> Response {
    pages.show("/placement", placement::page(&pages, &query).await)
}

async fn clients(State(pages): Shared, Query(query): Query<clients::Asked>) -> Response {
    pages.show("/clients", Ok(clients::page(&pages, &query).await))
}
