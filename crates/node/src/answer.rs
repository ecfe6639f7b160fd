//! Answers that are streams of messages: made piece by piece from a store and fed to a connection.
//!
//! Invariants: an answer's queue is bounded; while the receiver is waited for, neither a view of a
//! store nor a thread that may block is held, so receivers that do not read hold up no other one.
//!
//! Callers: `trees` and `blobs` make pieces, the services send them.

use std::sync::Arc;

use monofs_model::{Error, Result};
use monofs_rpc::{context, to_status};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::blocking::blocking;
use crate::served::ServedCounters;

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

/// The tasks that feed streaming answers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct AnswerTasks {
    tasks: TaskTracker,
    cut: CancellationToken,
}

impl AnswerTasks {
    /// Tasks of `tasks`, which end at `cut` wherever they are.
    pub fn new(tasks: TaskTracker, cut: CancellationToken) -> Self {
        Self { tasks, cut }
    }

    /// A streaming answer fed by `work`, which goes on when the receiver is gone; its error becomes
    /// the last message.
    pub fn answer<T, F>(&self, work: impl FnOnce(AnswerSink<T>) -> F) -> StreamedAnswer<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let (sink, stream) = mpsc::channel(ANSWER_QUEUE);
        let running = work(sink.clone());
        let cut = self.cut.clone();
        self.tasks.spawn(context::carry(async move {
            let ended = cut.run_until_cancelled(async {
                if let Err(error) = running.await {
                    // The receiver may be gone, and then the error is of no use.
                    let _ = sink.send(Err(to_status(error))).await;
                }
            });
            if ended.await.is_none() {
                let stopping = Error::unavailable("the node stops; ask another replica");
                let _ = sink.try_send(Err(to_status(stopping)));
            }
        }));
        Ok(tonic::Response::new(ReceiverStream::new(stream)))
    }
}

/// Sends `first` and then all pieces; `None` when the receiver is gone.
pub(crate) async fn send_pieces<P: AnswerPieces>(
    served: &Arc<ServedCounters>,
    first: Option<P::Message>,
    mut pieces: P,
    sink: &AnswerSink<P::Message>,
) -> Result<Option<P>> {
    let mut ready = first;
    loop {
        if let Some(message) = ready.take()
            && sink.send(Ok(message)).await.is_err()
        {
            return Ok(None);
        }
        if pieces.is_done() {
            return Ok(Some(pieces));
        }
        let served = served.clone();
        let queue = sink.clone();
        (pieces, ready) = blocking(move || fill_queue(pieces, &served, &queue)).await?;
    }
}

/// Makes messages until all are made or the queue is full; then the one that did not fit comes with
/// the rest. Blocking.
fn fill_queue<P: AnswerPieces>(
    mut pieces: P,
    served: &ServedCounters,
    queue: &AnswerSink<P::Message>,
) -> Result<(P, Option<P::Message>)> {
    while !pieces.is_done() {
        let Some(message) = pieces.next(served)? else {
            continue;
        };
        if let Err(unsent) = queue.try_send(Ok(message)) {
            return Ok((pieces, unsent.into_inner().ok()));
        }
    }
    Ok((pieces, None))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use monofs_model::ErrorKind;
    use monofs_rpc::from_status;
    use tokio_stream::StreamExt;

    use super::*;

    /// Counts down.
    struct Countdown(u32);

    impl AnswerPieces for Countdown {
        type Message = u32;

        fn is_done(&self) -> bool {
            self.0 == 0
        }

        fn next(&mut self, _: &ServedCounters) -> Result<Option<u32>> {
            self.0 -= 1;
            match self.0 {
                13 => Err(Error::corrupt("the store is broken here")),
                left if left.is_multiple_of(3) => Ok(None),
                left => Ok(Some(left)),
            }
        }
    }

    fn tasks() -> AnswerTasks {
        AnswerTasks::new(TaskTracker::new(), CancellationToken::new())
    }

    #[test]
    fn messages_grow_from_a_small_first_one() {
        let mut bytes = MessageBytes::default();
        let sizes = [(); 4].map(|()| bytes.next());
        assert_eq!(sizes, [16 << 10, 128 << 10, 1 << 20, 1 << 20]);
    }

    #[tokio::test]
    async fn pieces_come_in_order_and_empty_ones_are_left_out() {
        let served = Arc::<ServedCounters>::default();
        let (sink, stream) = mpsc::channel(1);
        let sent =
            tokio::spawn(async move { send_pieces(&served, Some(99), Countdown(12), &sink).await });
        let received: Vec<u32> = ReceiverStream::new(stream)
            .map(|message| message.expect("no error"))
            .collect()
            .await;
        assert_eq!(received, [99, 11, 10, 8, 7, 5, 4, 2, 1]);
        let pieces = sent.await.expect("no panic").expect("no error");
        assert!(pieces.expect("the receiver stayed").is_done());
    }

    #[tokio::test]
    async fn a_receiver_that_is_gone_ends_the_work() {
        let served = Arc::<ServedCounters>::default();
        let (sink, stream) = mpsc::channel(1);
        drop(stream);
        let sent = send_pieces(&served, None, Countdown(12), &sink).await;
        assert!(sent.expect("no error").is_none());
    }

    #[tokio::test]
    async fn an_error_is_the_last_message() {
        let served = Arc::<ServedCounters>::default();
        let answer = tasks().answer(|sink| async move {
            send_pieces(&served, None, Countdown(20), &sink)
                .await
                .map(drop)
        });
        let stream = answer.expect("an answer").into_inner();
        let mut received: Vec<_> = stream.collect().await;
        let last = received.pop().expect("some messages");
        let error = from_status(last.expect_err("the last one is the error"));
        assert_eq!(error.kind, ErrorKind::Corrupt);
        let numbers: Vec<u32> = received.into_iter().flatten().collect();
        assert_eq!(numbers, [19, 17, 16, 14]);
    }

    #[tokio::test]
    async fn work_goes_on_without_a_receiver_and_ends_at_the_cut() {
        let tasks = tasks();
        let (begun, mut begins) = mpsc::channel(1);
        let answer = tasks.answer(|_sink: AnswerSink<u32>| async move {
            begun.send(()).await.expect("the test listens");
            std::future::pending().await
        });
        drop(answer);
        begins.recv().await.expect("it begins");
        assert_eq!(tasks.tasks.len(), 1);
        tasks.tasks.close();
        assert!(tasks.tasks.wait().now_or_never().is_none());
        tasks.cut.cancel();
        tasks.tasks.wait().await;
    }

    #[tokio::test]
    async fn at_the_cut_the_receiver_hears_that_the_node_stops() {
        let tasks = tasks();
        let answer = tasks.answer(|_sink: AnswerSink<u32>| async { std::future::pending().await });
        tasks.cut.cancel();
        let mut stream = answer.expect("an answer").into_inner();
        let last = stream.next().await.expect("a message");
        let error = from_status(last.expect_err("an error"));
        assert_eq!(error.kind, ErrorKind::Unavailable);
    }
}
