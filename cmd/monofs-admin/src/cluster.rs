//! The cluster as this tool sees it: a list of routers, of which the first that answers is asked.
//!
//! A router that cannot be reached, or that falls silent before it answered, is passed over; what a router answered is
//! final. The one place where a gRPC status becomes a `Failure`.

use std::future::Future;
use std::time::Duration;

use monofs_launch::exit::{Code, Failure, code_of, hint_of};
use monofs_model::{Error, ErrorKind};
use monofs_proto::v1::admin_client::AdminClient;
use monofs_proto::v1::catalog_client::CatalogClient;
use monofs_proto::v1::content_client::ContentClient;
use monofs_rpc::status::KIND_KEY;
use monofs_rpc::{ChannelPool, Context, from_status};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

/// How long a router may take to accept a connection before the next one is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// What it means when a router answers that something is unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// The nodes that hold what was asked for.
    Cluster,
    /// The Git remote, or whatever else an ingest needs: the cluster was reached and the work failed.
    Work,
}

/// The routers.
#[derive(Clone)]
pub struct Cluster {
    routers: Vec<String>,
    timeout: Duration,
    pool: ChannelPool,
}

/// One router that accepted a connection.
#[derive(Clone)]
pub struct Router {
    channel: Channel,
    context: Context,
}

impl Router {
    /// The operator's verbs.
    pub fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone()).max_decoding_message_size(monofs_model::limits::MESSAGE_BYTES_MAX)
    }

    /// The namespace.
    pub fn catalog(&self) -> CatalogClient<Channel> {
        CatalogClient::new(self.channel.clone()).max_decoding_message_size(monofs_model::limits::MESSAGE_BYTES_MAX)
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
pub struct Answers<T> {
    stream: Streaming<T>,
    silence: Duration,
    unavailable: Unavailable,
}

impl<T> Answers<T> {
    /// The next answer; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<T>, Failure> {
        match tokio::time::timeout(self.silence, self.stream.message()).await {
            Ok(Ok(message)) => Ok(message),
            Ok(Err(status)) => Err(answered(status, self.unavailable)),
            Err(_) => {
                let waited = humantime::format_duration(self.silence);
                Err(Failure::new(Code::Unreachable, format!("the router has been silent for {waited}"))
                    .hint("`monofs-admin status` shows what is wrong; then run the command again"))
            }
        }
    }
}

impl Cluster {
    /// Nothing is connected yet.
    pub fn new(routers: Vec<String>, timeout: Duration) -> Self {
        Self { routers, timeout, pool: ChannelPool::default() }
    }

    /// The addresses, as given.
    pub fn routers(&self) -> &[String] {
        &self.routers
    }

    /// How long one answer may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// A cluster of this router alone.
    pub fn only(&self, router: &str) -> Self {
        Self { routers: vec![router.to_owned()], ..self.clone() }
    }

    /// Asks the first router that answers.
    pub async fn ask<T, F>(&self, call: impl Fn(Router) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.ask_about(Unavailable::Cluster, call).await
    }

    /// Asks the first router that answers for a stream; `silence` is the longest pause between two answers.
    pub async fn follow<T, F>(
        &self,
        unavailable: Unavailable,
        silence: Duration,
        call: impl Fn(Router) -> F,
    ) -> Result<Answers<T>, Failure>
    where
        F: Future<Output = Result<Response<Streaming<T>>, Status>>,
    {
        let stream = self.ask_about(unavailable, call).await?;
        Ok(Answers { stream, silence, unavailable })
    }

    async fn ask_about<T, F>(&self, unavailable: Unavailable, call: impl Fn(Router) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut silent = Vec::new();
        for address in &self.routers {
            let router = match self.reach(address).await {
                Ok(router) => router,
                Err(why) => {
                    silent.push(format!("{address}: {why}"));
                    continue;
                }
            };
            match tokio::time::timeout(self.timeout, call(router)).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) if is_answer(&status) => return Err(answered(status, unavailable)),
                Ok(Err(status)) => silent.push(format!("{address}: {}", from_status(status))),
                Err(_) => {
                    silent.push(format!("{address}: no answer within {}", humantime::format_duration(self.timeout)))
                }
            }
        }
        Err(unreachable(&silent))
    }

    /// A router that at least accepts connections, so that a dead one is passed over without waiting for a call.
    async fn reach(&self, address: &str) -> Result<Router, String> {
        let channel = self.pool.get(address).map_err(|error| error.message)?;
        let limit = CONNECT_TIMEOUT.min(self.timeout);
        match tokio::time::timeout(limit, tokio::net::TcpStream::connect(address)).await {
            Ok(Ok(_)) => Ok(Router { channel, context: Context::new(self.timeout) }),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no connection within {}", humantime::format_duration(limit))),
        }
    }
}

/// Whether a router said this, rather than the way to it.
fn is_answer(status: &Status) -> bool {
    use tonic::Code::{Cancelled, DeadlineExceeded, Internal, Unavailable, Unknown};
    let transport = matches!(status.code(), Unavailable | DeadlineExceeded | Cancelled | Unknown | Internal);
    status.metadata().contains_key(KIND_KEY) || !transport
}

fn unreachable(silent: &[String]) -> Failure {
    Failure::new(Code::Unreachable, format!("no router could be reached: {}", silent.join("; ")))
        .hint("start one with `monofs-router`, or name a running one with --router=HOST:PORT")
}

fn answered(status: Status, unavailable: Unavailable) -> Failure {
    if status.code() == tonic::Code::Unimplemented {
        return Failure::new(Code::Failed, "the router does not know this command")
            .hint("compare `monofs-admin --version` with the router's in `monofs-admin status`");
    }
    let told = is_answer(&status);
    explain(from_status(status), if told { unavailable } else { Unavailable::Cluster })
}

/// The failure of a command for an error of the cluster.
pub fn explain(error: Error, unavailable: Unavailable) -> Failure {
    let hint = match (error.kind, unavailable) {
        (ErrorKind::NotFound, Unavailable::Work) => {
            "check --source, --ref and the path; `monofs-admin repos` lists what is there"
        }
        (ErrorKind::NotFound, _) => {
            "`monofs-admin repos` lists the repositories, `monofs-admin ls` what is below a path"
        }
        (ErrorKind::Unavailable, Unavailable::Work) => {
            "check the source and the network, and `monofs-admin status` for nodes and fetchers; then run it again"
        }
        (ErrorKind::Unavailable, _) => "`monofs-admin status` shows which members are down and what to do",
        (ErrorKind::Refused, _) => {
            "change first what the message names; `monofs-admin repos` and `status` show the state"
        }
        (ErrorKind::Corrupt, _) => "`monofs-admin verify` finds damaged copies; a refresh takes fresh ones",
        (ErrorKind::Full, _) => "`monofs-admin nodes` shows free disk space; make room or add a node",
        (kind, _) => hint_of(kind),
    };
    let code = match (error.kind, unavailable) {
        (ErrorKind::Unavailable, Unavailable::Work) => Code::Failed,
        (kind, _) => code_of(kind),
    };
    Failure::new(code, error.message).hint(hint)
}
