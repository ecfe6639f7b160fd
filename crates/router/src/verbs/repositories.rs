//! Repositories: to add one, to look upstream for its next commit, to remove it, and what the
//! catalogue says of them.

use std::sync::Arc;

use monofs_control::Control;
use monofs_model::{
    Actor, Consistency, ContentMode, DisplayPath, Error, RefName, Result, SourceUrl,
};
use monofs_proto::v1;

use super::asked::asked;
use crate::ingest::{self, IngestSpec, Job};
use crate::parts::{Parts, Work};
use crate::{status, watch};

/// Begins the ingest of a repository, or joins the one that runs. Errors: `Refused` while another
/// source or ref is ingested there; `Full`; why it may not begin.
pub async fn ingest(actor: &Actor, state: &Arc<Parts>, spec: IngestSpec) -> Result<Arc<Job>> {
    asked(actor, "ingest", spec.path.as_str());
    ingest::ingest(actor, state, spec).await
}

/// Begins to look upstream for a new commit of a repository, or joins the job that runs. Errors:
/// `NotFound`; those of [`ingest()`].
pub async fn refresh(actor: &Actor, state: &Arc<Parts>, path: &str) -> Result<Arc<Job>> {
    asked(actor, "refresh", path);
    let entry = state.control.catalog.require(path)?;
    ingest::refresh(actor, state, &entry).await
}

/// Removes a repository. Errors: `NotFound`; `Refused` while it is being ingested.
pub async fn delete(actor: &Actor, control: &Control, work: &Work, path: &str) -> Result<()> {
    asked(actor, "delete", path);
    let entry = control.catalog.require(path)?;
    if let Some(router) = ingest::worked_on_by(control, work, &entry.path) {
        return Err(Error::refused(format!(
            "'{}' is being ingested right now (router {router}); delete it when that has ended",
            entry.path
        )));
    }
    control.entries.remove(actor, &entry.path).await?;
    tracing::info!(path = %entry.path, "deleted");
    Ok(())
}

/// One page of the repositories whose paths begin with a prefix, in the order of their paths.
pub fn list(
    actor: &Actor,
    control: &Control,
    request: &v1::ListRepositoriesRequest,
) -> v1::ListRepositoriesResponse {
    asked(actor, "list repositories", &request.prefix);
    let limit = watch::page_size(request.page_size);
    let page = control
        .catalog
        .page(&request.prefix, &request.page_token, limit);
    // A page that is not full is the last one.
    let last = page.last().filter(|_| page.len() == limit);
    v1::ListRepositoriesResponse {
        next_page_token: last.map_or(String::new(), |entry| entry.path.to_string()),
        repositories: page
            .iter()
            .map(|entry| v1::Repository::from(&**entry))
            .collect(),
    }
}

/// One repository, with what every node that holds it, or should, says of its copy. Errors:
/// `NotFound`.
pub async fn get(actor: &Actor, state: &Parts, path: &str) -> Result<v1::GetRepositoryResponse> {
    asked(actor, "get repository", path);
    let entry = state.control.catalog.require(path)?;
    Ok(v1::GetRepositoryResponse {
        repository: Some(v1::Repository::from(&*entry)),
        replicas: status::replicas(&state.fleet, &entry).await,
    })
}

/// Checks everything that an ingest request says.
pub fn spec(request: &v1::IngestRequest) -> Result<IngestSpec> {
    let source = SourceUrl::new(&request.source)?;
    let path = if request.path.is_empty() {
        source.display_path()?
    } else {
        DisplayPath::new(&request.path)?
    };
    let content = match request.content() {
        v1::ContentMode::Unspecified => ContentMode::default(),
        given => given.try_into()?,
    };
    let consistency = match request.consistency() {
        v1::Consistency::Unspecified => Consistency::default(),
        given => given.try_into()?,
    };
    Ok(IngestSpec {
        path,
        source,
        ref_name: RefName::new(&request.ref_name)?,
        content,
        consistency,
    })
}

#[cfg(test)]
mod tests {
    use monofs_model::ErrorKind;

    use super::*;
    use crate::fixture::{TestRouter, actor};

    fn request(source: &str) -> v1::IngestRequest {
        v1::IngestRequest {
            source: source.into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_request_gets_the_path_of_its_source_and_the_defaults() {
        let spec = spec(&request("https://example.com/org/repo.git")).expect("well formed");
        assert_eq!(spec.path.as_str(), "example.com/org/repo");
        assert_eq!(spec.content, ContentMode::default());
        assert_eq!(spec.consistency, Consistency::default());
        let named = v1::IngestRequest {
            path: "team/thing".into(),
            ref_name: "v1.2".into(),
            ..request("https://example.com/org/repo")
        };
        let named = super::spec(&named).expect("well formed");
        assert_eq!(named.path.as_str(), "team/thing");
        assert_eq!(named.ref_name.as_str(), "v1.2");
    }

    #[test]
    fn bad_requests_are_refused_before_anything_happens() {
        let bad = [
            request(""),
            request("not a source"),
            v1::IngestRequest {
                path: "../up".into(),
                ..request("https://example.com/a")
            },
            v1::IngestRequest {
                ref_name: "a..b".into(),
                ..request("https://example.com/a/b")
            },
            v1::IngestRequest {
                content: 77,
                ..request("https://example.com/a/b")
            },
        ];
        for request in bad {
            // An unknown number is read as unspecified by the wire, which is the default.
            let is_known = request.content == 0;
            let outcome = spec(&request);
            assert_eq!(outcome.is_err(), is_known, "{request:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_repository_is_deleted_unless_a_router_works_on_it() {
        let router = TestRouter::start().await;
        let parts = router.parts();
        let missing = delete(actor(), &parts.control, &parts.work, "a/b").await;
        assert_eq!(missing.expect_err("not there").kind, ErrorKind::NotFound);
        let invalid = delete(actor(), &parts.control, &parts.work, "/../x").await;
        assert_eq!(invalid.expect_err("no path").kind, ErrorKind::Invalid);
        router.repository("a/b", &["n1"], 1).await;
        let lease = v1::PathClaim {
            path: "a/b".into(),
            router_id: "router2".into(),
            ..Default::default()
        };
        let claims = &parts.control.tables.claims;
        let held = claims
            .update(actor(), "a/b", |_| Ok(Some(lease.clone())))
            .await;
        held.expect("written");
        let refused = delete(actor(), &parts.control, &parts.work, "a/b").await;
        let refused = refused.expect_err("router2 works on it");
        assert!(refused.message.contains("router2"), "{refused}");
        claims
            .update(actor(), "a/b", |_| Ok(None))
            .await
            .expect("released");
        delete(actor(), &parts.control, &parts.work, "a/b")
            .await
            .expect("gone");
        assert_eq!(parts.control.catalog.len(), 0);
    }
}
