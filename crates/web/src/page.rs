//! The web page: rendered here, live through small scripts, for operators and for developers who
//! look for a repository.
//!
//! Pages read the router's state directly; whatever changes something is a call of `/api/v1` by the
//! browser. Invariants: a page does not wait for members longer than [`answer::ASK_TIMEOUT`], and
//! most not at all; nothing from outside reaches HTML unescaped; what takes long is bounded in time,
//! size and number.

mod add;
mod answer;
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

use axum::Router;
use axum::extract::{FromRef, Path, Query, State};
use axum::http::{HeaderMap, Uri, header};
use axum::response::{Redirect, Response};
use axum::routing::get;
use tokio::sync::Semaphore;

pub(super) use answer::not_found;
use answer::show;

use crate::site::Site;
use monofs_router::parts::Parts;

/// What the handlers of pages share.
#[derive(Clone)]
struct PageContext {
    site: Site,
    /// The places for files that are highlighted.
    highlights: Arc<Semaphore>,
}

impl FromRef<PageContext> for Arc<Parts> {
    fn from_ref(pages: &PageContext) -> Self {
        pages.site.router.clone()
    }
}

/// What most handlers need.
type RouterParts = State<Arc<Parts>>;

/// The page's part of the HTTP server.
pub(super) fn routes(site: &Site) -> Router<Site> {
    let pages = PageContext {
        site: site.clone(),
        highlights: Arc::new(Semaphore::new(highlight::AT_ONCE)),
    };
    Router::new()
        .route("/", get(overview))
        // A name that people try.
        .route("/dashboard", get(overview))
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
        .with_state(pages)
}

/// Whether an address that nothing is at was asked for by a person.
pub(super) fn is_for_people(uri: &Uri, headers: &HeaderMap) -> bool {
    let wanted = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .unwrap_or_default();
    !uri.path().starts_with("/api/") && wanted.contains("text/html")
}

async fn overview(
    State(state): RouterParts,
    Query(query): Query<overview::OverviewQuery>,
) -> Response {
    show(&state, "/", Ok(overview::page(&state, &query)))
}

async fn repositories(
    State(state): RouterParts,
    Query(query): Query<repositories::RepositoriesQuery>,
) -> Response {
    show(&state, "/repos", repositories::page(&state, &query).await)
}

async fn repository(State(state): RouterParts, uri: Uri) -> Response {
    let encoded = &uri.path()["/repos/".len()..];
    show(&state, "/repos", repository::page(&state, encoded).await)
}

async fn add(State(state): RouterParts) -> Response {
    show(&state, "/add", Ok(add::form(&state)))
}

async fn ingest(State(state): RouterParts, uri: Uri) -> Response {
    let encoded = &uri.path()["/add/".len()..];
    show(&state, "/add", add::progress(&state, encoded).await)
}

async fn browse(
    State(pages): State<PageContext>,
    uri: Uri,
    Query(query): Query<browse::BrowseQuery>,
) -> Response {
    let encoded = &uri.path()["/browse/".len()..];
    browse::answer(&pages.site.router, &pages.highlights, encoded, &query).await
}

async fn nodes(State(state): RouterParts) -> Response {
    show(&state, "/nodes", Ok(nodes::page(&state)))
}

async fn node(
    State(state): RouterParts,
    Path(id): Path<String>,
    Query(query): Query<node::NodeQuery>,
) -> Response {
    show(&state, "/nodes", node::page(&state, &id, &query))
}

async fn fetchers(State(state): RouterParts) -> Response {
    show(&state, "/fetchers", Ok(fetchers::page(&state)))
}

async fn jobs(State(state): RouterParts, Query(query): Query<jobs::JobsQuery>) -> Response {
    show(&state, "/jobs", Ok(jobs::page(&state, &query)))
}

async fn placement(
    State(pages): State<PageContext>,
    Query(query): Query<placement::PlacementQuery>,
) -> Response {
    let site = &pages.site;
    show(
        &site.router,
        "/placement",
        placement::page(site, &query).await,
    )
}

async fn clients(
    State(state): RouterParts,
    Query(query): Query<clients::ClientsQuery>,
) -> Response {
    show(&state, "/clients", Ok(clients::page(&state, &query).await))
}
