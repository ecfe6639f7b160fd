//! Answers that are streams of messages: made piece by piece from a store and fed to a connection.
//!
//! Invariants: an answer's queue is bounded; a view of a store is held only while one message is
//! made, never while the receiver is waited for.
//!
//! Callers: `trees` and `blobs` make pieces, the services send them.

use monofs_model::Result;
use monofs_rpc::context;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::blocking::blocking;
use crate::served::ServedCounters;
use std::sync::Arc;

/// Messages between the work and the connection of one streaming answer.
const ANSWER_QUEUE: usize = 4;

/// Where the messages of one answer go.
pub(crate) type AnswerSink<T> = mpsc::Sender<Result<T, tonic::Status>>;

/// What a handler of a streaming call returns.
pub(crate) type StreamedAnswer<T> =
    Result<tonic::Response<ReceiverStream<Result<T, tonic::Status>>>, tonic::Status>;

/// An answer made message by message. Blocking.
pub(crate) trait AnswerPieces: Send + 'static {
    type Message: Send + 'static;

    /// Whether nothing is left to make.
    fn is_done(&self) -> bool;

    /// The next message, unless it would be empty.
    fn next(&mut self, served: &ServedCounters) -> Result<Option<Self::Message>>;
}

/// Bytes after which a message of an answer is sent: the first one soon, since a reader waits for
/// what was requested first and a connection that is far away starts slowly; the rest in pieces
/// that are cheap to send.
pub(crate) struct MessageBytes(usize);

impl MessageBytes {
    const FIRST: usize = 16 << 10;
    /// Of the messages of a long answer.
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

/// A streaming answer fed by `work`, which goes on when the receiver is gone; its error becomes the
/// last message.
pub(crate) fn answer<T, F>(work: impl FnOnce(AnswerSink<T>) -> F) -> StreamedAnswer<T>
where
    T: Send + 'static,
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (sink, stream) = mpsc::channel(ANSWER_QUEUE);
    let running = work(sink.clone());
    tokio::spawn(context::carry(async move {
        if let Err(error) = running.await {
            // The receiver may be gone, and then the error is of no use.
            let _ = sink.send(Err(monofs_rpc::to_status(error))).await;
        }
    }));
    Ok(tonic::Response::new(ReceiverStream::new(stream)))
}

/// Sends `first` and then all pieces; `None` when the receiver is gone.
pub(crate) async fn send_pieces<P: AnswerPieces>(
    served: &Arc<ServedCounters>,
    first: Option<P::Message>,
    mut pieces: P,
    sink: &AnswerSink<P::Message>,
) -> Result<Option<P>> {
    let served = served.clone();
    let sink = sink.clone();
    blocking(move || {
        let mut ready = first;
        loop {
            if let Some(message) = ready
                && sink.blocking_send(Ok(message)).is_err()
            {
                return Ok(None);
            }
            if pieces.is_done() {
                return Ok(Some(pieces));
            }
            ready = pieces.next(&served)?;
        }
    })
    .await
}
