//! Counts and times every request, on both sides: a layer of the server, and the channel that
//! callers use.
//!
//! A request ends when the body of its answer has: with the status in its trailers (or headers,
//! where there is no body), or dropped, which is "cancelled". The layer of the server also gives
//! each request its span and makes it the request that the task works for, while its handler runs
//! and while its answer is made. Source:
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body::{Frame, SizeHint};
use monofs_model::Actor;
use tonic::codegen::http::{HeaderMap, Request, Response, header};
use tonic::codegen::{Body as HttpBody, BoxFuture, Service};
use tonic::{Code, Status};
use tracing::{Instrument, Span, info_span};

use crate::context;
use crate::metrics::{Call, Calls, is_known};

const STATUS_KEY: &str = "grpc-status";
const CONTENT_TYPE_GRPC: &[u8] = b"application/grpc";

/// The status that headers or trailers carry.
fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers
        .get(STATUS_KEY)
        .map(|value| Code::from_bytes(value.as_bytes()))
}

/// The body of an answer, followed to its end.
pub struct MeasuredBody<B> {
    body: B,
    /// `None`: what is not counted, and what has ended.
    call: Option<Call>,
    /// On the side that makes the body: the span and the actor of the request.
    served: Option<(Span, Actor)>,
}

impl<B> MeasuredBody<B> {
    fn new(
        response: Response<B>,
        mut call: Option<Call>,
        served: Option<(Span, Actor)>,
    ) -> Response<Self> {
        let (parts, body) = response.into_parts();
        if let (Some(call), Some(code)) = (&mut call, code_of(&parts.headers)) {
            call.ends(code);
        }
        Response::from_parts(parts, Self { body, call, served })
    }

    fn ends(&mut self, code: Code) {
        if let Some(call) = &mut self.call {
            call.ends(code);
        }
        self.over();
    }

    fn over(&mut self) {
        let Some(call) = self.call.take() else { return };
        if let Some((span, _)) = &self.served {
            let code = call.code().unwrap_or(Code::Cancelled);
            span.in_scope(|| tracing::debug!(?code, took = ?call.begun().elapsed(), "ended"));
        }
    }
}

impl<B> Drop for MeasuredBody<B> {
    fn drop(&mut self) {
        self.over();
    }
}

impl<B: HttpBody + Unpin> HttpBody for MeasuredBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.get_mut();
        let body = Pin::new(&mut this.body);

        // A streamed answer is made while it is read: that is still work of the request, under its
        // span and its actor.
        let polled = match &this.served {
            Some((span, actor)) => {
                span.in_scope(|| context::sync_scope(actor.clone(), || body.poll_frame(cx)))
            }
            None => body.poll_frame(cx),
        };

        // The trailers tell how the call ended. Without them it ended with the code that was known
        // before, else with an unknown one.
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    this.ends(code_of(trailers).unwrap_or(Code::Unknown));
                }
            }
            Poll::Ready(Some(Err(_))) => this.ends(Code::Unavailable),
            Poll::Ready(None) => {
                let told = this.call.as_ref().and_then(Call::code);
                this.ends(told.unwrap_or(Code::Unknown));
            }
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Measures what a server is asked.
#[derive(Clone)]
pub(crate) struct MeasureLayer(pub Arc<Calls>);

impl<S> tower::Layer<S> for MeasureLayer {
    type Service = MeasureService<S>;

    fn layer(&self, inner: S) -> MeasureService<S> {
        MeasureService {
            inner,
            calls: self.0.clone(),
        }
    }
}

/// See [`MeasureLayer`].
#[derive(Clone)]
pub(crate) struct MeasureService<S> {
    inner: S,
    calls: Arc<Calls>,
}

impl<S, A, B> Service<Request<A>> for MeasureService<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<MeasuredBody<B>>;
    type Error = S::Error;
    type Future = BoxFuture<Self::Response, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let path = request.uri().path();
        let kind = request
            .headers()
            .get(header::CONTENT_TYPE)
            .map_or(&[][..], |value| value.as_bytes());
        if !is_known(path) && !kind.starts_with(CONTENT_TYPE_GRPC) {
            // A probe of a load balancer.
            let answer = self.inner.call(request);
            return Box::pin(async move {
                answer
                    .await
                    .map(|response| MeasuredBody::new(response, None, None))
            });
        }
        let actor = context::actor_of(request.headers());
        let span = info_span!("rpc", path, request = actor.request_id.as_str());
        let call = self.calls.begin(path);
        let served = (span.clone(), actor.clone());
        let answer = {
            let _entered = span.enter();
            tracing::debug!("begins");
            context::sync_scope(actor.clone(), || self.inner.call(request))
        };
        let answer = async move {
            answer
                .await
                .map(|response| MeasuredBody::new(response, Some(call), Some(served)))
        };
        Box::pin(context::scope(actor, answer.instrument(span)))
    }
}

/// A connection to a peer that counts what is asked over it. Cheap to clone; clones share the
/// connection.
#[derive(Clone, Debug)]
pub struct Channel {
    inner: tonic::transport::Channel,
    calls: Arc<Calls>,
}

impl Channel {
    pub(crate) fn new(inner: tonic::transport::Channel, calls: Arc<Calls>) -> Self {
        Self { inner, calls }
    }
}

impl Service<Request<tonic::body::Body>> for Channel {
    type Response = Response<MeasuredBody<tonic::body::Body>>;
    type Error = Status;
    type Future = BoxFuture<Self::Response, Status>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.inner
            .poll_ready(cx)
            .map_err(|error| Status::from_error(error.into()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let mut call = self.calls.begin(request.uri().path());
        let answer = self.inner.call(request);
        Box::pin(async move {
            match answer.await {
                Ok(response) => Ok(MeasuredBody::new(response, Some(call), None)),
                Err(error) => {
                    let status = Status::from_error(error.into());
                    call.ends(status.code());
                    Err(status)
                }
            }
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures::StreamExt;
    use monofs_proto::v1;
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;
    use tonic::service::Routes;

    use super::*;
    use crate::ChannelPool;
    use crate::metrics::Samples;

    /// Answers with messages for ever, or, asked about "missing", with an error.
    struct Endless;

    type Stream<T> = futures::stream::BoxStream<'static, Result<T, Status>>;

    #[tonic::async_trait]
    impl v1::content_server::Content for Endless {
        type GetTreesStream = Stream<v1::GetTreesResponse>;
        type GetBlobsStream = Stream<v1::GetBlobsResponse>;

        async fn get_trees(
            &self,
            _: tonic::Request<v1::GetTreesRequest>,
        ) -> Result<tonic::Response<Self::GetTreesStream>, Status> {
            Ok(tonic::Response::new(Box::pin(
                futures::stream::repeat_with(|| Ok(Default::default())),
            )))
        }

        async fn get_blobs(
            &self,
            request: tonic::Request<v1::GetBlobsRequest>,
        ) -> Result<tonic::Response<Self::GetBlobsStream>, Status> {
            match request.into_inner().storage_id.as_str() {
                "missing" => Err(Status::not_found("no")),
                "later" => {
                    let messages = [Ok(Default::default()), Err(Status::data_loss("broken"))];
                    Ok(tonic::Response::new(Box::pin(futures::stream::iter(
                        messages,
                    ))))
                }
                _ => Ok(tonic::Response::new(Box::pin(futures::stream::iter([Ok(
                    Default::default(),
                )])))),
            }
        }
    }

    fn counted(calls: &Calls, served: bool) -> Vec<String> {
        let mut out = Samples::default();
        if served {
            calls.served(&mut out)
        } else {
            calls.made(&mut out)
        }
        let text = crate::metrics::exposition("test", |all| *all = out);
        let named = |line: &&str| line.contains("_total{") && line.contains("Content");
        text.lines()
            .filter(named)
            .map(|line| line.split_once("method=").unwrap().1.to_owned())
            .collect()
    }

    #[tokio::test]
    async fn both_sides_count_every_end_of_a_request_and_no_probe() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let served = Arc::new(Calls::default());
        let routes = Routes::new(v1::content_server::ContentServer::new(Endless));
        let server = crate::server::serve_counted(
            listener,
            routes,
            served.clone(),
            CancellationToken::new(),
        )
        .unwrap();
        let pool = ChannelPool::default();
        let channel = pool.get(&server.address().to_string()).unwrap();
        let mut client = v1::content_client::ContentClient::new(channel);
        let ask = |id: &str| v1::GetBlobsRequest {
            storage_id: id.into(),
            ..Default::default()
        };
        for id in ["there", "later"] {
            let mut answers = client.get_blobs(ask(id)).await.unwrap().into_inner();
            while let Some(Ok(_)) = answers.next().await {}
        }
        client.get_blobs(ask("missing")).await.unwrap_err();
        let mut endless = client
            .get_trees(v1::GetTreesRequest::default())
            .await
            .unwrap()
            .into_inner();
        endless.next().await.unwrap().unwrap();
        drop(endless);
        let probe = tokio::net::TcpStream::connect(server.address())
            .await
            .unwrap();
        probe.writable().await.unwrap();
        probe
            .try_write(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .unwrap();
        let wanted = [
            "\"GetTrees\",code=\"cancelled\"} 1",
            "\"GetBlobs\",code=\"ok\"} 1",
            "\"GetBlobs\",code=\"not_found\"} 1",
            "\"GetBlobs\",code=\"data_loss\"} 1",
        ];
        let all = async {
            // The server hears of the end of the stream a moment later.
            while counted(&served, true).len() < wanted.len()
                || counted(pool.calls(), false).len() < wanted.len()
            {
                tokio::task::yield_now().await;
            }
        };
        let _ = tokio::time::timeout(std::time::Duration::from_secs(10), all).await;
        assert_eq!(counted(&served, true), wanted);
        assert_eq!(counted(pool.calls(), false), wanted);
        server.shutdown(std::time::Duration::from_secs(1)).await;
        assert_eq!(
            served.totals("other").durations.iter().sum::<u64>(),
            0,
            "probes are no requests"
        );
    }
}
