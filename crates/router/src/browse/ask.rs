//! One question to the holders of a repository: the first good answer counts.

use std::future::Future;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use monofs_model::{Error, ErrorKind, Member, Repository, Result};
use monofs_rpc::{Channel, within};

use monofs_members::fleet::Fleet;

/// A holder that has not answered by then is not waited for alone: the next one is asked, too.
const HEDGE_AFTER: Duration = Duration::from_millis(400);
/// Longest silence of one holder.
pub(super) const SILENCE: Duration = Duration::from_secs(8);
/// Longest time for an answer, whoever gives it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// The first good answer of the holders of `entry`, asked in the order in which clients ask them:
/// the next one when one fails, or takes longer than [`HEDGE_AFTER`]. Calls that are not needed any
/// more are dropped. Errors: the last holder's; `Unavailable` when there is none.
pub(super) async fn holders<T, F: Future<Output = Result<T>>>(
    fleet: &Fleet,
    entry: &Repository,
    ask: impl Fn(Channel) -> F,
) -> Result<T> {
    // The holders are asked in the order of the view as it is now.
    let view = fleet.members.view();
    let readers = view.readers(&entry.storage_id(), &entry.holders);
    let mut waiting = readers.into_iter().cloned();
    let mut asked = FuturesUnordered::new();
    let begin = |node: Member| {
        let channel = fleet.channels.get(&node.address);
        let call = channel.map(&ask);
        async move {
            match call {
                Ok(call) => (node, call.await),
                Err(error) => (node, Err(error)),
            }
        }
    };

    // This is the error when there is no holder to ask; that of a holder that fails replaces it.
    let mut failure = Error::unavailable(format!(
        "no node that holds '{}' can be reached; `monofs-admin nodes` says which are down",
        entry.path
    ));

    // One holder is in flight at first. A slow one is not given up: the next is asked beside it,
    // and the first good answer wins.
    let work = async {
        loop {
            if asked.is_empty() {
                let Some(node) = waiting.next() else {
                    return Err(failure);
                };
                asked.push(begin(node));
            }
            let answer = match tokio::time::timeout(HEDGE_AFTER, asked.next()).await {
                Ok(answer) => answer,
                Err(_) => {
                    asked.extend(waiting.next().map(begin));
                    continue;
                }
            };

            // A holder that cannot be reached is reported, so that it is probed before others ask
            // it.
            match answer {
                Some((_, Ok(answer))) => return Ok(answer),
                Some((node, Err(error))) => {
                    if error.kind == ErrorKind::Unavailable {
                        fleet.members.reported(&node.id);
                    }
                    failure = error.context(format!("node {}", node.id));
                }
                None => {}
            }
        }
    };
    within(ANSWER_TIMEOUT, "the holders", work).await
}
