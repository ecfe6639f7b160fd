//! The node's gRPC services: decode, hand down, answer. No decisions here beyond checking the
//! request.

mod content;
mod node;

pub(crate) use content::ContentService;
pub(crate) use node::NodeService;

use monofs_model::Result;
use monofs_rpc::context;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::state::Served;

/// Messages between the work and the connection of one streaming answer.
const ANSWER_QUEUE: usize = 4;

type Sink<T> = mpsc::Sender<Result<T, tonic::Status>>;
type Answer<T> = Result<tonic::Response<ReceiverStream<Result<T, tonic::Status>>>, tonic::Status>;

/// An answer made message by message. Blocking.
pub(crate) trait Pieces: Send + 'static {
    type Message: Send + 'static;

    /// Whether nothing is left to make.
    fn is_done(&self) -> bool;

    /// The next message, unless it would be empty.
    fn next(&mut self, served: &Served) -> Result<Option<Self::Message>>;
}

/// After how many bytes a message of an answer is sent: the first one soon, since somebody waits
/// for what was asked for first and a connection that is far away starts slowly; the rest in pieces
/// that are cheap to send.
pub(crate) struct MessageBytes(usize);

impl MessageBytes {
    const FIRST: usize = 16 << 10;
    pub const MAX: usize = 1 << 20;

    /// For the next message.
    pub fn next(&mut self) -> usize {
        let bytes = self.0;
        self.0 = (bytes * 8).min(Self::MAX);
        bytes
    }
}

impl Default for MessageBytes {
    fn default() -> Self {
        Self(Self::FIRST)
    }
}

/// A streaming answer fed by `work`; its error becomes the last message.
fn answer<T, F>(work: impl FnOnce(Sink<T>) -> F) -> Answer<T>
where
    T: Send + 'static,
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (sink, stream) = mpsc::channel(ANSWER_QUEUE);
    let running = work(sink.clone());
    tokio::spawn(context::carry(async move {
        if let Err(error) = running.await {
            // The receiver may be gone: then nobody wants to know.
            let _ = sink.send(Err(monofs_rpc::to_status(error))).await;
        }
    }));
    Ok(tonic::Response::new(ReceiverStream::new(stream)))
}
