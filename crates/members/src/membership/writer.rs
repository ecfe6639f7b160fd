//! Writes what this router learnt about members into the shared tables, again and again until it is
//! there.
//!
//! What waits is bounded by the number of members: the newest wish about one replaces the one
//! before.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use monofs_model::{Actor, Member, NodeId, Result};
use monofs_proto::v1;
use monofs_rpc::{Backoff, context};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::input::MembershipInput;
use monofs_control::state::{StateTable, StateTables};
use monofs_fleet::members::MemberEvent;

/// Pauses after writes that failed.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_LONGEST: Duration = Duration::from_secs(2);

/// What waits to be written.
pub struct Writer {
    members: Arc<StateTable<v1::Member>>,
    audits: Arc<StateTable<v1::NodeAudit>>,
    waiting: Mutex<BTreeMap<NodeId, Wish>>,
    wake: Notify,
}

#[derive(Default)]
struct Wish {
    record: Option<Member>,
    returned: bool,
}

impl Writer {
    pub fn new(tables: &StateTables) -> Self {
        Self {
            members: tables.members.clone(),
            audits: tables.audits.clone(),
            waiting: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// To be recorded as a member.
    pub fn record(&self, member: Member) {
        self.wish(member.id.clone(), |wish| wish.record = Some(member));
    }

    /// To be asked again what it holds, since it was away.
    pub fn note_return(&self, id: NodeId) {
        self.wish(id, |wish| wish.returned = true);
    }

    fn wish(&self, id: NodeId, add: impl FnOnce(&mut Wish)) {
        add(self.waiting.lock().entry(id).or_default());
        self.wake.notify_one();
    }

    async fn write(&self, actor: &Actor, id: &NodeId, wish: &Wish) -> Result<()> {
        if let Some(member) = &wish.record {
            let row = v1::Member::from(member);
            self.members
                .update(actor, id.as_str(), |_| Ok(Some(row.clone())))
                .await?;
        }
        if wish.returned {
            let away = |row: Option<&v1::NodeAudit>| {
                Ok(Some(v1::NodeAudit {
                    node_id: id.to_string(),
                    at: 0,
                    behind: true,
                    ..row.cloned().unwrap_or_default()
                }))
            };
            self.audits.update(actor, id.as_str(), away).await?;
        }
        Ok(())
    }
}

/// Writes until `stop`.
pub(super) async fn run(
    writer: Arc<Writer>,
    returns: mpsc::Sender<MembershipInput>,
    stop: CancellationToken,
) {
    let work = async {
        let mut retries = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        loop {
            writer.wake.notified().await;
            let actor = context::actor();
            let wishes = std::mem::take(&mut *writer.waiting.lock());
            let mut failed = None;
            for (id, wish) in wishes {
                match writer.write(&actor, &id, &wish).await {
                    Ok(()) if wish.returned => {
                        // Fails when the router stops.
                        let _ = returns
                            .send(MembershipInput::Machine(MemberEvent::ReturnNoted(id)))
                            .await;
                    }
                    Ok(()) => {}
                    Err(error) => {
                        let mut waiting = writer.waiting.lock();
                        let newer = waiting.entry(id).or_default();
                        newer.returned |= wish.returned;
                        newer.record = newer.record.take().or(wish.record);
                        failed = Some(error);
                    }
                }
            }
            let Some(error) = failed else {
                retries.reset();
                continue;
            };
            tracing::warn!(%error, "cannot record what members say; trying again");
            tokio::time::sleep(retries.next_pause()).await;
            writer.wake.notify_one();
        }
    };
    stop.run_until_cancelled(work).await;
}
