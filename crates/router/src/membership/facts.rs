//! What all routers share about members, as events: the difference between the tables as last seen
//! and as they are now.

use std::collections::BTreeMap;
use std::sync::Arc;

use monofs_model::{Member, NodeId};
use monofs_proto::v1;
use tokio::sync::watch;

use super::event::Event;
use super::member::{Audit, Intent};
use crate::state::{Table, Tables};

/// The tables, and what the machine knows of them.
pub(crate) struct Shared {
    members: Seen<v1::Member>,
    intents: Seen<v1::NodeIntent>,
    audits: Seen<v1::NodeAudit>,
    maintenance: Seen<v1::Maintenance>,
}

struct Seen<T> {
    table: Arc<Table<T>>,
    changed: watch::Receiver<()>,
    rows: BTreeMap<String, T>,
}

impl<T: prost::Message + Default + Clone + PartialEq + Send + Sync + 'static> Seen<T> {
    fn new(table: &Arc<Table<T>>) -> Self {
        Self {
            table: table.clone(),
            changed: table.changed(),
            rows: BTreeMap::new(),
        }
    }

    /// What differs since the last call, by the name that `name` finds in a row; `None` = it is
    /// gone.
    fn changes(&mut self, name: impl Fn(&T) -> &str) -> Vec<(String, Option<T>)> {
        self.changed.mark_unchanged();
        let now: BTreeMap<String, T> = self
            .table
            .list()
            .into_iter()
            .map(|row| (name(&row).to_owned(), row))
            .collect();
        let gone = self
            .rows
            .keys()
            .filter(|key| !now.contains_key(*key))
            .map(|key| (key.clone(), None));
        let changed = now
            .iter()
            .filter(|(key, row)| self.rows.get(*key) != Some(row));
        let changes = gone
            .chain(changed.map(|(key, row)| (key.clone(), Some(row.clone()))))
            .collect();
        self.rows = now;
        changes
    }
}

impl Shared {
    pub fn new(tables: &Tables) -> Self {
        Self {
            members: Seen::new(&tables.members),
            intents: Seen::new(&tables.intents),
            audits: Seen::new(&tables.audits),
            maintenance: Seen::new(&tables.maintenance),
        }
    }

    /// Waits until something changed.
    pub async fn changed(&mut self) {
        // A table lives as long as its router: an error cannot come before the end.
        let _ = tokio::select! {
            changed = self.members.changed.changed() => changed,
            changed = self.intents.changed.changed() => changed,
            changed = self.audits.changed.changed() => changed,
            changed = self.maintenance.changed.changed() => changed,
        };
    }

    /// Everything, at the start of a router.
    pub fn loaded(&mut self) -> Vec<Event> {
        let loaded = |event| match event {
            Event::Registered(_, Some(member)) => Event::Loaded(member),
            other => other,
        };
        self.changes().into_iter().map(loaded).collect()
    }

    /// What changed since the last call. What was found comes before what is wanted, so that a node
    /// that is held back no more is known to be behind, and both before the members, so that none
    /// is shown without.
    pub fn changes(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let maintenance = self.maintenance.changes(|_| "");
        events.extend(
            maintenance
                .into_iter()
                .map(|(_, row)| Event::Maintenance(row.is_some())),
        );
        each(
            self.audits.changes(|row| &row.node_id),
            &mut events,
            |id, row| Event::Audited(id, row.as_ref().map(audit)),
        );
        each(
            self.intents.changes(|row| &row.node_id),
            &mut events,
            |id, row| Event::Intent(id, row.as_ref().and_then(intent)),
        );
        for (name, row) in self.members.changes(|row| &row.id) {
            match row.map(Member::try_from).transpose() {
                Ok(member) => each(vec![(name, member)], &mut events, Event::Registered),
                Err(error) => {
                    tracing::error!(name, %error, "the state has a member that cannot be \
                     understood")
                }
            }
        }
        events
    }
}

fn each<T>(
    rows: Vec<(String, Option<T>)>,
    events: &mut Vec<Event>,
    event: impl Fn(NodeId, Option<T>) -> Event,
) {
    for (name, row) in rows {
        match NodeId::new(&name) {
            Ok(id) => events.push(event(id, row)),
            Err(error) => tracing::error!(%error, "the state has a fact about nobody"),
        }
    }
}

fn intent(row: &v1::NodeIntent) -> Option<Intent> {
    match row.kind() {
        v1::node_intent::Kind::Drain => Some(Intent::Drain {
            emptied: row.emptied,
        }),
        v1::node_intent::Kind::Failover => Some(Intent::Failover),
        v1::node_intent::Kind::Unspecified => None,
    }
}

fn audit(row: &v1::NodeAudit) -> Audit {
    Audit {
        incarnation: (row.at != 0).then_some(row.incarnation),
        behind: row.behind,
    }
}
