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
