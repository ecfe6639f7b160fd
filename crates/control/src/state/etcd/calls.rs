//! Calls to an etcd cluster: its endpoints are tried in turn, every call has a deadline, and errors
//! say what to do.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use monofs_model::{Error, ErrorKind, Result};
use monofs_rpc::{Channel, ChannelPool};
use tonic::{Code, ConnectError, Response, Status};

/// Deadline of one call to one endpoint.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// Deadline of one call to all of them.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether a call may be made again although it may have been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    Always,
    /// Only if it cannot have reached etcd.
    IfNotSent,
}

/// Where etcd is.
pub(super) struct Endpoints {
    addresses: Vec<String>,
    channels: ChannelPool,
    /// The one that answered last.
    current: AtomicUsize,
}

impl Endpoints {
    /// Errors: `Invalid` for what is no address, or none.
    pub fn new(addresses: Vec<String>) -> Result<Self> {
        let channels = ChannelPool::calm();
        for address in &addresses {
            channels.get(address)?;
        }
        if addresses.is_empty() {
            return Err(Error::invalid(
                "--state etcd://: no endpoint; write etcd://HOST:PORT,HOST:PORT/PREFIX",
            ));
        }
        Ok(Self {
            addresses,
            channels,
            current: AtomicUsize::new(0),
        })
    }

    /// The first answer of an endpoint. Errors: `Unavailable` when none answers in time; what etcd
    /// says otherwise (`NotHeld` = compacted, `Full`, `NotFound`, `Invalid`).
    pub async fn call<T, F>(
        &self,
        doing: &str,
        repeat: Repeat,
        call: impl Fn(Channel) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let tries = async {
            let first = self.current.load(Ordering::Relaxed);
            let mut failures = Vec::new();
            for offset in 0..self.addresses.len() {
                let at = (first + offset) % self.addresses.len();
                let address = &self.addresses[at];
                let channel = self.channels.get(address)?;
                let (why, sent) = match tokio::time::timeout(CALL_TIMEOUT, call(channel)).await {
                    Ok(Ok(answer)) => {
                        self.current.store(at, Ordering::Relaxed);
                        return Ok(answer.into_inner());
                    }
                    Ok(Err(status)) if !is_away(&status) => return Err(told(doing, &status)),
                    Ok(Err(status)) => {
                        let sent = !is_connect(&status);
                        (monofs_rpc::from_status(status).message, sent)
                    }
                    Err(_) => (format!("no answer within {CALL_TIMEOUT:?}"), true),
                };
                failures.push(format!("{address}: {why}"));
                // The next call begins with another one.
                self.current
                    .store((at + 1) % self.addresses.len(), Ordering::Relaxed);
                if sent && repeat == Repeat::IfNotSent {
                    let unclear = "whether it was done is not known";
                    return Err(Error::unavailable(format!(
                        "etcd: {doing}: {}; {unclear}",
                        failures.join(", ")
                    )));
                }
            }
            Err(Error::unavailable(format!(
                "etcd: {doing}: {}",
                failures.join(", ")
            )))
        };
        tokio::time::timeout(TOTAL_TIMEOUT, tries)
            .await
            .map_err(|_| {
                Error::unavailable(format!("etcd: {doing}: no answer within {TOTAL_TIMEOUT:?}"))
            })?
    }
}

/// The endpoint could not be reached or could not answer now, as opposed to what is wrong with the
/// request.
fn is_away(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::Internal
            | Code::Aborted
    )
}

/// The connection was not made, so nothing was sent.
fn is_connect(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// What etcd says about a request.
fn told(doing: &str, status: &Status) -> Error {
    let kind = match status.code() {
        // Compacted, or not there yet: the history is not the one that was asked for.
        Code::OutOfRange => ErrorKind::NotHeld,
        Code::ResourceExhausted => ErrorKind::Full,
        Code::NotFound => ErrorKind::NotFound,
        Code::InvalidArgument => ErrorKind::Invalid,
        _ => ErrorKind::Refused,
    };
    let advice = if kind == ErrorKind::Full && status.message().contains("space exceeded") {
        "; compact and defragment it (`etcdctl compact`, `defrag`, `alarm disarm`) and start it \
         with --auto-compaction-retention"
    } else {
        ""
    };
    Error::new(kind, format!("etcd: {doing}: {}{advice}", status.message()))
}
