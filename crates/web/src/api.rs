//! `/api/v1/`: each endpoint takes a request apart, calls what the `Admin` service calls, and gives
//! the answer its shape.

mod browse;
mod ingest;
mod jobs;
mod members;
mod nodes;
mod openapi;
mod overview;
mod placement;
mod repos;

use super::routes::Routes;

/// All routes below `/api/v1/`.
pub(super) fn routes() -> Routes {
    [
        repos::routes(),
        ingest::routes(),
        nodes::routes(),
        members::routes(),
        jobs::routes(),
        placement::routes(),
        browse::routes(),
        overview::routes(),
        openapi::routes(),
    ]
    .into_iter()
    .fold(Routes::default(), Routes::merge)
}

pub(super) use repos::{RepositoryTail, split_tail};
