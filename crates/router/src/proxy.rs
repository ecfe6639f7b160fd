//! `Content` through the router, for those who cannot reach the nodes: forwards to the holders in
//! HRW order.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use monofs_model::{Error, ErrorKind, Result, StorageId};
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
        call: impl Fn(Channel) -> F,
    ) -> Result<BoxStream<'static, Result<T, Status>>>
    where
        T: Send + 'static,
        S: Stream<Item = Result<T>> + Send + Unpin + 'static,
        F: Future<Output = Result<S>>,
    {
        let id = StorageId::new(storage_id)?;
        let entry = self.state.control.catalog.by_storage_id(&id);
        let entry = entry
            .ok_or_else(|| Error::not_found(format!("no repository has the storage id {id}")))?;
        let view = self.state.fleet.members.view();
        let mut failure =
            Error::unavailable(format!("no node that holds {} can be reached", entry.path));
        for node in view.readers(&id, &entry.holders) {
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
        self.forward(&request.storage_id, call)
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
        self.forward(&request.storage_id, call)
            .await
            .map(Response::new)
            .map_err(to_status)
    }
}

#[cfg(test)]
mod tests;
