//! The check of every copy, byte by byte, by the nodes that hold it.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use monofs_model::{Actor, Member, Repository, Result};
use monofs_proto::v1;
use monofs_rpc::content::guarded;
use monofs_rpc::{Context, context, from_status, within};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::asked::asked;
use super::progress::QUEUE;
use crate::parts::Parts;
use monofs_members::fleet::Fleet;

/// What nodes say of the copies that they check, one copy after the other.
pub type Verification = BoxStream<'static, Result<v1::AdminVerifyProgress, Status>>;

/// Lets every holder check its copy of the repository at `path`; empty = of all. Errors: `NotFound`.
pub fn verify(actor: &Actor, state: &Arc<Parts>, path: &str) -> Result<Verification> {
    asked(actor, "verify", path);
    let repositories: Vec<Arc<Repository>> = match path {
        "" => state.control.catalog.page("", "", usize::MAX),
        path => vec![state.control.catalog.require(path)?],
    };
    let (sink, stream) = mpsc::channel(QUEUE);
    let state = state.clone();
    tokio::spawn(context::carry(async move {
        for entry in repositories.iter().filter(|entry| entry.snapshot.is_some()) {
            let view = state.fleet.members.view();
            let holders = view.nodes().filter(|node| entry.holders.contains(&node.id));
            for node in holders {
                verify_on(&state.fleet, node, entry, &sink).await;
            }
        }
    }));
    Ok(ReceiverStream::new(stream).boxed())
}

/// A caller that is gone ends it.
async fn verify_on(
    fleet: &Fleet,
    node: &Member,
    entry: &Repository,
    sink: &mpsc::Sender<Result<v1::AdminVerifyProgress, Status>>,
) {
    let silence = fleet.progress_timeout;
    let started = async {
        let mut client = fleet.node_client(node)?;
        let request = v1::VerifyRequest {
            storage_id: entry.storage_id().to_string(),
        };
        client
            .verify(Context::new(silence).stream(request))
            .await
            .map_err(from_status)
    };
    let mut answers = match within(silence, "verify", started).await {
        Ok(answer) => guarded(answer.into_inner(), silence, "verify"),
        Err(error) => {
            let _ = sink.send(Ok(told(node, entry, Err(error)))).await;
            return;
        }
    };
    while let Some(answer) = answers.next().await {
        if sink.send(Ok(told(node, entry, answer))).await.is_err() {
            return;
        }
    }
}

/// What a node said of its copy, or why it did not.
fn told(
    node: &Member,
    entry: &Repository,
    answer: Result<v1::VerifyProgress>,
) -> v1::AdminVerifyProgress {
    let (progress, error) = match answer {
        Ok(progress) => (Some(progress), String::new()),
        Err(error) => (None, error.to_string()),
    };
    v1::AdminVerifyProgress {
        node_id: node.id.to_string(),
        path: entry.path.to_string(),
        progress,
        error,
    }
}
