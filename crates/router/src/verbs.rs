//! The operator's verbs: each is checked here and handed to the part that does it. The gRPC `Admin`
//! service and the HTTP API call the same functions.

pub mod failovers;
pub mod ingests;
pub mod jobs;
pub mod members;
pub mod progress;
pub mod removal;

use monofs_model::{Consistency, ContentMode, DisplayPath, Error, RefName, Result, SourceUrl};
use monofs_proto::v1;

use crate::ingest::{self, IngestSpec};
use crate::parts::Work;
use monofs_control::Control;

/// Removes a repository. Errors: `NotFound`; `Refused` while it is being ingested.
pub async fn delete(control: &Control, work: &Work, path: &str) -> Result<()> {
    let entry = control.catalog.require(path)?;
    if let Some(router) = ingest::worked_on_by(control, work, &entry.path) {
        return Err(Error::refused(format!(
            "'{}' is being ingested right now (router {router}); delete it when that has ended",
            entry.path
        )));
    }
    control.entries.remove(&entry.path).await?;
    tracing::info!(path = %entry.path, "deleted");
    Ok(())
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
    use crate::fixture::TestRouter;

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
        let missing = delete(&parts.control, &parts.work, "a/b").await;
        assert_eq!(missing.expect_err("not there").kind, ErrorKind::NotFound);
        let invalid = delete(&parts.control, &parts.work, "/../x").await;
        assert_eq!(invalid.expect_err("no path").kind, ErrorKind::Invalid);
        router.repository("a/b", &["n1"], 1).await;
        let lease = v1::PathClaim {
            path: "a/b".into(),
            router_id: "router2".into(),
            ..Default::default()
        };
        let claims = &parts.control.tables.claims;
        let held = claims.update("a/b", |_| Ok(Some(lease.clone()))).await;
        held.expect("written");
        let refused = delete(&parts.control, &parts.work, "a/b").await;
        let refused = refused.expect_err("router2 works on it");
        assert!(refused.message.contains("router2"), "{refused}");
        claims.update("a/b", |_| Ok(None)).await.expect("released");
        delete(&parts.control, &parts.work, "a/b")
            .await
            .expect("gone");
        assert_eq!(parts.control.catalog.len(), 0);
    }
}
