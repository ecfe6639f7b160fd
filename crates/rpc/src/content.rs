//! The content service as its callers use it: messages bounded, errors translated, silence turned
//! into an error.

use std::future::Future;

use futures::{Stream, StreamExt};
use monofs_model::limits::MESSAGE_BYTES_MAX;
use monofs_model::{Error, Result};
use monofs_proto::v1;
use monofs_proto::v1::content_client::ContentClient;

use crate::context::Context;
use crate::deadline::within;
use crate::measure::Channel;
use crate::status::from_status;

/// A content client on this channel, with the message limits set.
pub fn client(channel: Channel) -> ContentClient<Channel> {
    ContentClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// Directory records; each answer must follow the one before within the context's deadline.
pub async fn get_trees(
    channel: Channel,
    context: &Context,
    request: v1::GetTreesRequest,
) -> Result<impl Stream<Item = Result<v1::GetTreesResponse>> + Send + Unpin + 'static> {
    let mut client = client(channel);
    let request = context.stream(request);
    start(context, "directory records", async move {
        client.get_trees(request).await
    })
    .await
}

/// Contents; each answer must follow the one before within the context's deadline.
pub async fn get_blobs(
    channel: Channel,
    context: &Context,
    request: v1::GetBlobsRequest,
) -> Result<impl Stream<Item = Result<v1::GetBlobsResponse>> + Send + Unpin + 'static> {
    let mut client = client(channel);
    let request = context.stream(request);
    start(context, "contents", async move {
        client.get_blobs(request).await
    })
    .await
}

async fn start<T: Send + 'static>(
    context: &Context,
    doing: &'static str,
    call: impl Future<Output = Result<tonic::Response<tonic::Streaming<T>>, tonic::Status>>,
) -> Result<impl Stream<Item = Result<T>> + Send + Unpin + 'static> {
    let limit = context.deadline;
    let stream = within(limit, doing, async { call.await.map_err(from_status) })
        .await?
        .into_inner();
    Ok(guarded(stream, limit, doing))
}

/// The messages of a stream; an error or too long a silence ends it.
pub fn guarded<T: Send + 'static>(
    stream: tonic::Streaming<T>,
    silence: std::time::Duration,
    doing: &'static str,
) -> impl Stream<Item = Result<T>> + Send + Unpin + 'static {
    Box::pin(futures::stream::unfold(
        Some(stream),
        move |stream| async move {
            let mut stream = stream?;
            match tokio::time::timeout(silence, stream.next()).await {
                Ok(Some(Ok(message))) => Some((Ok(message), Some(stream))),
                Ok(Some(Err(status))) => Some((Err(from_status(status)), None)),
                Ok(None) => None,
                Err(_) => Some((
                    Err(Error::unavailable(format!(
                        "{doing}: silence for {silence:?}"
                    ))),
                    None,
                )),
            }
        },
    ))
}
