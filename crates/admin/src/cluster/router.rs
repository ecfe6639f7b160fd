//! One router: its services, and the streams of answers that it gives.

use std::time::Duration;

use monofs_launch::exit::{Code, Failure};
use monofs_proto::v1::admin_client::AdminClient;
use monofs_proto::v1::catalog_client::CatalogClient;
use monofs_proto::v1::content_client::ContentClient;
use monofs_rpc::{Channel, Context};
use tonic::{Request, Streaming};

use super::explain::{CallSubject, answered};

/// One router that accepted a connection.
#[derive(Clone)]
pub struct RouterClient {
    pub(super) channel: Channel,
    pub(super) context: Context,
}

impl RouterClient {
    /// The operator's verbs.
    pub fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone())
            .max_decoding_message_size(monofs_model::limits::MESSAGE_BYTES_MAX)
    }

    /// The namespace.
    pub fn catalog(&self) -> CatalogClient<Channel> {
        CatalogClient::new(self.channel.clone())
            .max_decoding_message_size(monofs_model::limits::MESSAGE_BYTES_MAX)
    }

    /// Trees and blobs.
    pub fn content(&self) -> ContentClient<Channel> {
        monofs_rpc::content::client(self.channel.clone())
    }

    /// A call with one answer and a deadline.
    pub fn request<T>(&self, message: T) -> Request<T> {
        self.context.request(message)
    }

    /// A call with a stream of answers.
    pub fn stream<T>(&self, message: T) -> Request<T> {
        self.context.stream(message)
    }
}

/// The answers of a streaming call.
pub struct AnswerStream<T> {
    /// The first answer (`None`: there is not even one), if it has been taken from the stream.
    pub(super) first: Option<Option<T>>,
    pub(super) stream: Streaming<T>,
    pub(super) silence: Duration,
    pub(super) about: CallSubject,
}

impl<T> AnswerStream<T> {
    /// The next answer; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<T>, Failure> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        match tokio::time::timeout(self.silence, self.stream.message()).await {
            Ok(Ok(message)) => Ok(message),
            Ok(Err(status)) => Err(answered(status, self.about)),
            Err(_) => {
                let waited = humantime::format_duration(self.silence);
                Err(Failure::new(
                    Code::Unreachable,
                    format!("the router has been silent for {waited}"),
                )
                .hint("`monofs-admin status` shows what is wrong; then run the command again"))
            }
        }
    }
}
