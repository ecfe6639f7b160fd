//! Repositories: the list, one in full, and what can be done with one.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use monofs_api::ingest::IngestStarted;
use monofs_api::jobs::RebalancePlan;
use monofs_api::percent::{percent_decoded, percent_encoded};
use monofs_api::repos::{
    PublicationDocument, Publications, ReplicaDocument, RepositoryCondition, RepositoryDocument,
    RepositoryInFull, RepositoryList, SubmoduleDocument,
};
use monofs_api::requests::{RebalanceOneRequest, RepositorySort, SortOrder, WantedRepositories};
use monofs_api::{ListPage, ListPaging};
use monofs_model::{DisplayPath, placement};
use monofs_proto::v1;

use crate::error::Answer;
use crate::extract::{Body, Document, Name, Query, RequestActor};
use crate::routes::Routes;
use monofs_control::catalog::{
    RepositoryFilter, RepositoryQuery, RepositorySorting, SortDirection,
};
use monofs_router::browse;
use monofs_router::ingest;
use monofs_router::parts::Parts;
use monofs_router::status;
use monofs_router::verbs::{jobs, repositories};

/// Longest text to filter by, in bytes.
const QUERY_MAX: usize = 200;

pub(super) fn routes() -> Routes {
    Routes::default()
        .get("/api/v1/repos", list)
        .get("/api/v1/repos/{path}", one)
        .delete("/api/v1/repos/{path}", delete)
        .post("/api/v1/repos/{path}/refresh", refresh)
        .post("/api/v1/repos/{path}/rebalance", rebalance)
        .get("/api/v1/repos/{path}/history", history)
}

/// Repositories
///
/// Filtered, sorted and paged.
#[utoipa::path(get, path = "/api/v1/repos", tag = "repositories", params(WantedRepositories),
    responses((status = 200, body = RepositoryList)))]
pub(super) async fn list(
    State(state): State<Arc<Parts>>,
    Query(wanted): Query<WantedRepositories>,
) -> Answer<Document<RepositoryList>> {
    let paging = ListPaging {
        offset: wanted.offset,
        limit: wanted.limit,
    };
    let (offset, limit) = paging.checked()?;
    if wanted.q.len() > QUERY_MAX {
        return Err(
            monofs_model::Error::invalid(format!("'q' is longer than {QUERY_MAX} bytes")).into(),
        );
    }
    let view = state.fleet.members.view();
    let copies = view.copies_wanted();
    let filter = RepositoryFilter {
        words: wanted.q.split_whitespace().map(str::to_lowercase).collect(),
        state: wanted.state.and_then(RepositoryCondition::state),
        troubled_below: wanted.troubled.then_some(copies),
    };
    let query = RepositoryQuery {
        filter,
        sorting: sorting(wanted.sort),
        direction: match wanted.order {
            SortOrder::Asc => SortDirection::Ascending,
            SortOrder::Desc => SortDirection::Descending,
        },
        offset,
        limit,
    };
    let found = state.control.catalog.search(query).await?;
    let page = ListPage::new(offset, limit, found.shown.len(), found.total);
    let repositories = found
        .shown
        .iter()
        .map(|entry| RepositoryDocument::from(&**entry))
        .collect();
    Ok(Document(RepositoryList { repositories, page }))
}

/// The order of the catalogue that a sort asks for.
fn sorting(sort: RepositorySort) -> RepositorySorting {
    match sort {
        RepositorySort::Path => RepositorySorting::Path,
        RepositorySort::State => RepositorySorting::State,
        RepositorySort::Bytes => RepositorySorting::Bytes,
        RepositorySort::Files => RepositorySorting::Files,
        RepositorySort::Copies => RepositorySorting::Copies,
        RepositorySort::Created => RepositorySorting::Created,
        RepositorySort::Refreshed => RepositorySorting::Refreshed,
        RepositorySort::Committed => RepositorySorting::Committed,
    }
}

/// One repository in full
///
/// Every node is asked what it holds of it.
#[utoipa::path(get, path = "/api/v1/repos/{path}", tag = "repositories",
    params(("path" = String, Path, description = "Percent-encoded, slashes too")),
    responses((status = 200, body = RepositoryInFull)))]
pub(super) async fn one(
    State(state): State<Arc<Parts>>,
    Name(path): Name,
) -> Answer<Document<RepositoryInFull>> {
    let entry = state.control.catalog.require(&path)?;
    Ok(Document(in_full(&state, &entry).await))
}

/// A repository with its replicas.
pub(crate) async fn in_full(
    state: &Arc<Parts>,
    entry: &monofs_model::Repository,
) -> RepositoryInFull {
    let copies = state.fleet.members.view().replication_factor.max(1) as usize;
    let nodes = state.fleet.members.placement_nodes();
    let wanted: Vec<String> = placement::replicas(&entry.storage_id(), &nodes, copies)
        .iter()
        .map(ToString::to_string)
        .collect();
    let commit = entry
        .snapshot
        .as_ref()
        .map(|snapshot| snapshot.commit.to_string());
    let asked = status::replicas(&state.fleet, entry).await;
    let modules = entry
        .snapshot
        .iter()
        .flat_map(|snapshot| &snapshot.submodules);
    RepositoryInFull {
        replicas: asked
            .iter()
            .map(|replica| ReplicaDocument::new(replica, Some(&wanted), commit.as_deref()))
            .collect(),
        worked_on_by: ingest::worked_on_by(&state.control, &state.work, &entry.path),
        submodules: modules
            .filter_map(|module| {
                Some(SubmoduleDocument {
                    path_encoded: encoded(&module.path)?,
                    url: module.url.clone(),
                })
            })
            .collect(),
        wanted: Some(wanted),
        repository: entry.into(),
    }
}

/// The path of a submodule for a URL; `None` for one that no tree can have.
fn encoded(path: &[u8]) -> Option<String> {
    let path = browse::TreePath::new(path).ok()?;
    Some(path.encoded())
}

/// Delete a repository
///
/// Readers see it no more; what it took on disk goes after the grace of its last commit.
#[utoipa::path(delete, path = "/api/v1/repos/{path}", tag = "repositories",
    params(("path" = String, Path, description = "Percent-encoded, slashes too")),
    responses((status = 204, description = "It is gone")))]
pub(super) async fn delete(
    RequestActor(actor): RequestActor,
    State(state): State<Arc<Parts>>,
    Name(path): Name,
) -> Answer<StatusCode> {
    repositories::delete(&actor, &state.control, &state.work, &path).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Look upstream for a new commit
///
/// Begins it, or joins one that runs.
#[utoipa::path(post, path = "/api/v1/repos/{path}/refresh", tag = "repositories",
    params(("path" = String, Path, description = "Percent-encoded, slashes too")),
    responses((status = 202, body = IngestStarted)))]
pub(super) async fn refresh(
    RequestActor(actor): RequestActor,
    State(state): State<Arc<Parts>>,
    Name(path): Name,
    Body(_): Body<EmptyRequest>,
) -> Answer<(StatusCode, Document<IngestStarted>)> {
    let job = repositories::refresh(&actor, &state, &path).await?;
    Ok((
        StatusCode::ACCEPTED,
        Document(IngestStarted::at(&job.spec.path)),
    ))
}

/// A body without anything in it.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EmptyRequest {}

/// Bring the copies of one repository to where placement wants them
#[utoipa::path(post, path = "/api/v1/repos/{path}/rebalance", tag = "repositories",
    params(("path" = String, Path, description = "Percent-encoded, slashes too")),
    request_body = RebalanceOneRequest, responses((status = 200, body = RebalancePlan)))]
pub(super) async fn rebalance(
    RequestActor(actor): RequestActor,
    State(state): State<Arc<Parts>>,
    Name(path): Name,
    Body(asked): Body<RebalanceOneRequest>,
) -> Answer<Document<RebalancePlan>> {
    let entry = state.control.catalog.require(&path)?;
    let request = v1::RebalanceRequest {
        storage_id: String::new(),
        path: entry.path.to_string(),
        dry_run: asked.dry_run,
    };
    let plan = jobs::rebalance(&actor, &state, request).await?;
    Ok(Document(RebalancePlan::new(&plan, asked.mode())))
}

/// The commits that a repository showed
///
/// The newest first; the last twenty are kept.
#[utoipa::path(get, path = "/api/v1/repos/{path}/history", tag = "repositories",
    params(("path" = String, Path, description = "Percent-encoded, slashes too")),
    responses((status = 200, body = Publications)))]
pub(super) async fn history(
    State(state): State<Arc<Parts>>,
    Name(path): Name,
) -> Answer<Document<Publications>> {
    let entry = state.control.catalog.require(&path)?;
    Ok(Document(publications(&state, &entry.path).await?))
}

/// The commits that a repository showed, the newest first. Errors: the state store's.
pub(crate) async fn publications(
    state: &Arc<Parts>,
    path: &DisplayPath,
) -> Result<Publications, monofs_model::Error> {
    let kept = state.control.published.of(path).await?;
    let publications = kept.iter().rev().map(PublicationDocument::from).collect();
    Ok(Publications {
        path: path.to_string(),
        publications,
    })
}

/// What can follow the path of a repository in a URL.
const ACTIONS: [&str; 4] = ["refresh", "rebalance", "history", "events"];

/// The rest of a URL behind `/api/v1/repos/`, taken apart.
pub(crate) struct RepositoryTail {
    /// Of the repository, percent-encoded as one component.
    pub path: String,
    pub action: Option<&'static str>,
}

/// Understands paths whose slashes are not encoded. What is the path of a repository is not taken
/// for an action, so that `a/refresh` is found, too, also when it lies inside the repository `a`. `None`: there is only one component, or it is
/// an action of such a one.
pub(crate) fn split_tail(
    tail: &str,
    is_repository: impl Fn(&str) -> bool,
) -> Option<RepositoryTail> {
    let (before, last) = tail.rsplit_once('/')?;
    let action = ACTIONS.into_iter().find(|action| *action == last);
    let action = action.filter(|_| !decoded(tail).is_some_and(|path| is_repository(&path)));
    if action.is_some() && !before.contains('/') {
        return None;
    }
    let path = decoded(if action.is_some() { before } else { tail })?;
    Some(RepositoryTail {
        path: percent_encoded(path.as_bytes()),
        action,
    })
}

fn decoded(text: &str) -> Option<String> {
    String::from_utf8(percent_decoded(text)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_slashes_are_told_from_actions() {
        let is_repository = |path: &str| path == "a/refresh" || path == "x/y/history";
        let split = |tail| split_tail(tail, is_repository).map(|tail| (tail.path, tail.action));
        assert_eq!(
            split("github.com/org/repo"),
            Some(("github.com%2Forg%2Frepo".into(), None))
        );
        assert_eq!(
            split("github.com/org/repo/refresh"),
            Some(("github.com%2Forg%2Frepo".into(), Some("refresh")))
        );
        assert_eq!(split("a/refresh"), Some(("a%2Frefresh".into(), None)));
        assert_eq!(
            split("a/refresh/refresh"),
            Some(("a%2Frefresh".into(), Some("refresh")))
        );
        assert_eq!(split("x/y/history"), Some(("x%2Fy%2Fhistory".into(), None)));
        assert_eq!(
            split("b/refresh"),
            None,
            "the action of one component needs no help"
        );
        assert_eq!(split("a%2Frefresh"), None);
    }
}
