//! The cluster as this tool sees it: a list of routers, of which the first that can answer is
//! asked.
//!
//! A router that cannot be reached, falls silent before it answered, or says that it cannot do it
//! now (kind `unavailable`: it has lost the state store, say) is passed over; any other answer is
//! final. Passing over is safe because every verb may be asked for twice: those that change
//! something are idempotent by what they name. When a router that was passed over may have done the
//! work, the failure that ends the command says so.

mod explain;
mod router;
mod stranger;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use monofs_launch::exit::{Code, Failure};
use monofs_model::{Error, ErrorKind};
use monofs_rpc::{ChannelPool, Context, from_status};
use tonic::{Response, Status, Streaming};

pub use explain::{CallSubject, explain};
pub use router::{AnswerStream, RouterClient};

use explain::{answered, is_answer};

/// How long a router may take to accept a connection before the next one is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The routers.
#[derive(Clone)]
pub struct ClusterClient {
    routers: Vec<String>,
    timeout: Duration,
    pool: ChannelPool,
    /// The router that answered last: the next call does not wait for dead ones before it again.
    preferred: Arc<AtomicUsize>,
}

impl ClusterClient {
    /// Nothing is connected yet.
    pub fn new(routers: Vec<String>, timeout: Duration) -> Self {
        Self {
            routers,
            timeout,
            pool: ChannelPool::default(),
            preferred: Arc::default(),
        }
    }

    /// The addresses, as given.
    pub fn routers(&self) -> &[String] {
        &self.routers
    }

    /// The router that answered last; the first one before any did.
    pub fn answering(&self) -> &str {
        self.routers
            .get(self.preferred.load(Ordering::Relaxed))
            .map_or("", String::as_str)
    }

    /// How long one answer may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// A cluster of this router alone.
    pub fn only(&self, router: &str) -> Self {
        Self {
            routers: vec![router.to_owned()],
            preferred: Arc::default(),
            ..self.clone()
        }
    }

    /// Asks the first router that can answer.
    pub async fn ask<T, F>(&self, call: impl Fn(RouterClient) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.ask_about(CallSubject::Cluster, call).await
    }

    /// Asks the first router that can answer for a stream; `silence` is the longest pause between
    /// two answers. Where that is no longer than a call may take, the first answer is awaited
    /// before a router counts as one that can.
    pub async fn follow<T, F>(
        &self,
        about: CallSubject,
        silence: Duration,
        call: impl Fn(RouterClient) -> F,
    ) -> Result<AnswerStream<T>, Failure>
    where
        F: Future<Output = Result<Response<Streaming<T>>, Status>>,
    {
        let prompt = silence <= self.timeout;
        let open = |router: RouterClient| {
            let opened = call(router);
            async move {
                let mut stream = opened.await?.into_inner();
                let first = if prompt {
                    Some(stream.message().await?)
                } else {
                    None
                };
                Ok(Response::new((first, stream)))
            }
        };
        let (first, stream) = self.ask_about(about, open).await?;
        Ok(AnswerStream {
            first,
            stream,
            silence,
            about,
        })
    }

    /// Asks the first router that can answer about something.
    pub async fn ask_about<T, F>(
        &self,
        about: CallSubject,
        call: impl Fn(RouterClient) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        // The router that answered last is asked first.
        let mut passed = PassedRouters::default();
        let first = self.preferred.load(Ordering::Relaxed);
        for step in 0..self.routers.len() {
            let index = (first + step) % self.routers.len();
            let address = &self.routers[index];
            let router = match self.reach(address).await {
                Ok(router) => router,
                Err(why) => {
                    passed.unreached.push(format!("{address}: {why}"));
                    continue;
                }
            };
            // An answer is final, except for those that another router may better.
            let channel = router.channel.clone();
            match tokio::time::timeout(self.timeout, call(router)).await {
                Ok(Ok(response)) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(response.into_inner());
                }
                Ok(Err(status)) if status.code() == tonic::Code::Unimplemented => {
                    match stranger::role(&channel).await {
                        Some(who) => passed.strangers.push(format!("{address}: {who}")),
                        None => return Err(passed.before(answered(status, about))),
                    }
                }
                Ok(Err(status)) if is_final(&status) => {
                    return Err(passed.before(answered(status, about)));
                }
                Ok(Err(status)) if is_answer(&status) => {
                    passed.unable.push((address.clone(), from_status(status)))
                }
                Ok(Err(status)) => match stranger::language(address)
                    .await
                    .filter(|_| !is_of_a_proxy(&status))
                {
                    Some(what) => passed.strangers.push(format!("{address}: {what}")),
                    None => passed
                        .lost
                        .push(format!("{address}: {}", from_status(status))),
                },
                Err(_) => passed.lost.push(format!(
                    "{address}: no answer within {}",
                    humantime::format_duration(self.timeout)
                )),
            }
        }
        Err(passed.failure(about))
    }

    /// A router that at least accepts connections, so that a dead one is passed over without
    /// waiting for a call.
    async fn reach(&self, address: &str) -> Result<RouterClient, String> {
        let channel = self.pool.get(address).map_err(|error| error.message)?;
        let limit = CONNECT_TIMEOUT.min(self.timeout);
        match tokio::time::timeout(limit, tokio::net::TcpStream::connect(address)).await {
            Ok(Ok(_)) => Ok(RouterClient {
                channel,
                context: Context::new(self.timeout),
            }),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!(
                "no connection within {}",
                humantime::format_duration(limit)
            )),
        }
    }
}

/// Whether another router would say the same.
fn is_final(status: &Status) -> bool {
    is_answer(status) && from_status(status.clone()).kind != ErrorKind::Unavailable
}

/// Whether HTTP was answered where a gRPC status was due: by a proxy, which knows no router that
/// could.
fn is_of_a_proxy(status: &Status) -> bool {
    status.message().contains("HTTP status")
}

/// The routers that were passed over, and why.
#[derive(Default)]
struct PassedRouters {
    /// They never heard of it.
    unreached: Vec<String>,
    /// They are no routers.
    strangers: Vec<String>,
    /// They may have done it.
    lost: Vec<String>,
    /// They say that they cannot do it now.
    unable: Vec<(String, Error)>,
}

impl PassedRouters {
    /// What a router answered after these had been passed over.
    fn before(&self, mut failure: Failure) -> Failure {
        let unable = self
            .unable
            .iter()
            .map(|(address, error)| format!("{address}: {error}"));
        let maybe: Vec<String> = self.lost.iter().cloned().chain(unable).collect();
        if !maybe.is_empty() {
            failure.message = format!(
                "{}; asked before, without knowing how it went: {}",
                failure.message,
                maybe.join("; ")
            );
        }
        failure
    }

    /// The failure when no router is left to ask.
    fn failure(self, about: CallSubject) -> Failure {
        // Without an answer of any router the cluster is out of reach.
        let strange = !self.strangers.is_empty();
        let mut silent = [self.strangers, self.unreached, self.lost].concat();
        let mut unable = self.unable.into_iter();
        let Some((_, first)) = unable.next() else {
            return Failure::new(
                Code::Unreachable,
                format!("no router could be reached: {}", silent.join("; ")),
            )
            .hint(if strange {
                "--router takes the gRPC port of a router: --port of `monofs-router`, 9090 \
                     unless it was set"
            } else {
                "start one with `monofs-router`, or name a running one with --router=HOST:PORT"
            });
        };
        // One that could not do it now says more than those that were silent.
        silent.extend(unable.map(|(address, error)| format!("{address}: {error}")));
        let mut failure = explain(first, about);
        if !silent.is_empty() {
            failure.message = format!(
                "{}; the other routers did not do better ({})",
                failure.message,
                silent.join("; ")
            );
        }
        failure
    }
}
