//! Counts and times the requests of the HTTP side, by route, and gives each an id that the calls
//! made for it carry.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use monofs_model::Door;
use monofs_rpc::context;

use crate::requests::OTHER;
use crate::site::Site;

fn name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => OTHER,
    }
}

/// Answers a request, as a request with an id of its own.
pub(crate) async fn measure(State(site): State<Site>, request: Request, next: Next) -> Response {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or(OTHER, MatchedPath::as_str)
        .to_owned();
    let method = name(request.method());
    let begun = Instant::now();
    let response = context::begin_by(Door::Http, "http", next.run(request)).await;
    site.requests
        .answered(route, method, response.status().as_u16(), begun.elapsed());
    response
}
