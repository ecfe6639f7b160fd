//! `Content` through the router, for those who cannot reach the nodes: forwards to the holders in
//! HRW order; of a commit that was replaced, to those that held it.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use monofs_control::catalog::RetainedSnapshot;
use monofs_model::{Error, ErrorKind, NodeId, Oid, Result, StorageId};
use monofs_proto::v1;
use monofs_rpc::content::{get_blobs, get_trees};
use monofs_rpc::{Channel, Context, to_status};
use tonic::{Request, Response, Status};

use crate::parts::Parts;

/// Longest silence of a node before the next holder is asked.
const SILENCE: Duration = Duration::from_secs(8);

pub(crate) struct ContentProxy {
    state: Arc<Parts>,
}

impl ContentProxy {
    pub fn new(state: Arc<Parts>) -> Self {
        Self { state }
    }

    /// The answer of the first holder that gives one.
    async fn forward<T, S, F>(
        &self,
        storage_id: &str,
        origin: Option<&v1::Origin>,
        call: impl Fn(Channel) -> F,
    ) -> Result<BoxStream<'static, Result<T, Status>>>
    where
        T: Send + 'static,
        S: Stream<Item = Result<T>> + Send + Unpin + 'static,
        F: Future<Output = Result<S>>,
    {
        let id = StorageId::new(storage_id)?;
        let holders = self.holders(&id, origin).await?;
        let view = self.state.fleet.members.view();
        let mut failure = Error::unavailable(format!("no node that holds {id} can be reached"));
        for node in view.readers(&id, &holders) {
            let answer = match call(self.state.fleet.channels.get(&node.address)?).await {
                // A node that is gone or does not hold it says so with the first message.
                Ok(mut stream) => match stream.next().await {
                    Some(Ok(first)) => Ok(futures::stream::once(async { Ok(first) }).chain(stream)),
                    Some(Err(error)) => Err(error),
                    None => return Ok(futures::stream::empty().boxed()),
                },
                Err(error) => Err(error),
            };
            match answer {
                Ok(stream) => return Ok(stream.map(|message| message.map_err(to_status)).boxed()),
                Err(error) => {
                    if error.kind == ErrorKind::Unavailable {
                        self.state.fleet.members.reported(&node.id);
                    }
                    failure = error.context(format!("node {}", node.id));
                }
            }
        }
        Err(failure)
    }

    /// The nodes that hold what is asked for. Errors: `NotFound`, the state store's.
    async fn holders(&self, id: &StorageId, origin: Option<&v1::Origin>) -> Result<Vec<NodeId>> {
        let entry = self.state.control.catalog.by_storage_id(id);
        let shown = entry.as_ref().and_then(|entry| entry.snapshot.as_ref());
        let wanted = origin.and_then(|origin| Oid::from_bytes(&origin.commit).ok());
        let current = entry.as_ref().map(|entry| entry.holders.clone());
        if let Some(holders) = &current
            && wanted.is_none_or(|commit| shown.is_some_and(|shown| shown.commit == commit))
        {
            return Ok(holders.clone());
        }

        // A commit that was replaced, of a repository that may be deleted by now.
        let mut replaced = self.state.control.retained.of(Some(id)).await?;
        let replaced = replaced.remove(id).unwrap_or_default();
        let is_wanted = |row: &RetainedSnapshot| wanted == Some(row.snapshot.commit);
        let before = replaced.into_iter().find(is_wanted).map(|row| row.holders);
        before
            .or(current)
            .ok_or_else(|| Error::not_found(format!("no repository has the storage id {id}")))
    }
}

#[tonic::async_trait]
impl v1::content_server::Content for ContentProxy {
    type GetTreesStream = BoxStream<'static, Result<v1::GetTreesResponse, Status>>;
    type GetBlobsStream = BoxStream<'static, Result<v1::GetBlobsResponse, Status>>;

    async fn get_trees(
        &self,
        request: Request<v1::GetTreesRequest>,
    ) -> Result<Response<Self::GetTreesStream>, Status> {
        let context = Context::new(SILENCE);
        let request = request.into_inner();
        let context = &context;
        let sent = &request;
        let call = |channel| async move { get_trees(channel, context, sent.clone()).await };
        self.forward(&request.storage_id, request.origin.as_ref(), call)
            .await
            .map(Response::new)
            .map_err(to_status)
    }

    async fn get_blobs(
        &self,
        request: Request<v1::GetBlobsRequest>,
    ) -> Result<Response<Self::GetBlobsStream>, Status> {
        let context = Context::new(SILENCE);
        let request = request.into_inner();
        let context = &context;
        let sent = &request;
        let call = |channel| async move { get_blobs(channel, context, sent.clone()).await };
        self.forward(&request.storage_id, request.origin.as_ref(), call)
            .await
            .map(Response::new)
            .map_err(to_status)
    }
}

#[cfg(test)]
mod tests;
