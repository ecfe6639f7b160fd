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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use futures::stream::BoxStream;
    use monofs_model::ErrorKind;
    use monofs_proto::v1::content_server::{Content, ContentServer};
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;
    use tonic::service::Routes;
    use tonic::{Request, Response, Status};

    use super::*;
    use crate::{ChannelPool, to_status};

    /// Sends one message, and then what the name of the repository says.
    struct Scripted;

    type Answers<T> = BoxStream<'static, std::result::Result<T, Status>>;

    #[tonic::async_trait]
    impl Content for Scripted {
        type GetTreesStream = Answers<v1::GetTreesResponse>;
        type GetBlobsStream = Answers<v1::GetBlobsResponse>;

        async fn get_trees(
            &self,
            _: Request<v1::GetTreesRequest>,
        ) -> std::result::Result<Response<Self::GetTreesStream>, Status> {
            // The head of the answer never comes.
            std::future::pending().await
        }

        async fn get_blobs(
            &self,
            request: Request<v1::GetBlobsRequest>,
        ) -> std::result::Result<Response<Self::GetBlobsStream>, Status> {
            let first = futures::stream::iter([Ok(v1::GetBlobsResponse::default())]);
            let rest: Self::GetBlobsStream = match request.get_ref().storage_id.as_str() {
                "ends" => futures::stream::empty().boxed(),
                "fails" => {
                    let error = to_status(Error::corrupt("a torn chunk"));
                    futures::stream::iter([Err(error), Ok(v1::GetBlobsResponse::default())]).boxed()
                }
                _ => futures::stream::pending().boxed(),
            };
            Ok(Response::new(first.chain(rest).boxed()))
        }
    }

    async fn channel() -> Channel {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let routes = Routes::new(ContentServer::new(Scripted));
        let server = crate::serve(listener, routes, CancellationToken::new()).unwrap();
        ChannelPool::default()
            .get(&server.address().to_string())
            .unwrap()
    }

    /// What a request for the contents of `storage_id` yields: messages, or kinds of errors.
    async fn yielded(storage_id: &str, silence: Duration) -> Vec<Result<(), ErrorKind>> {
        let request = v1::GetBlobsRequest {
            storage_id: storage_id.into(),
            ..Default::default()
        };
        let answers = get_blobs(channel().await, &Context::new(silence), request)
            .await
            .unwrap();
        answers
            .map(|answer| answer.map(drop).map_err(|error| error.kind))
            .collect()
            .await
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_peer_or_with_the_first_error() {
        let long = Duration::from_secs(60);
        assert_eq!(yielded("ends", long).await, [Ok(())]);
        assert_eq!(
            yielded("fails", long).await,
            [Ok(()), Err(ErrorKind::Corrupt)],
            "what follows an error is not looked at"
        );
    }

    #[tokio::test]
    async fn too_long_a_silence_ends_a_stream_with_an_error() {
        assert_eq!(
            yielded("hangs", Duration::from_millis(300)).await,
            [Ok(()), Err(ErrorKind::Unavailable)]
        );
    }

    #[tokio::test]
    async fn a_peer_that_does_not_begin_to_answer_is_given_up() {
        let context = Context::new(Duration::from_millis(100));
        let request = v1::GetTreesRequest::default();
        let error = match get_trees(channel().await, &context, request).await {
            Ok(_) => panic!("the head of the answer never comes"),
            Err(error) => error,
        };
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert!(error.message.contains("directory records"), "{error}");
    }
}
