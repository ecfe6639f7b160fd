//! What all routers share about members, as events: the difference between the tables as last seen
//! and as they are now.

use std::collections::BTreeMap;
use std::sync::Arc;

use monofs_model::{Member, NodeId};
use monofs_proto::v1;
use tokio::sync::watch;

use monofs_control::state::{StateTable, StateTables};
use monofs_fleet::members::{AuditFinding, DepartureIntent, MemberEvent};

/// The tables, and what the machine knows of them.
pub struct TableChanges {
    members: TableView<v1::Member>,
    intents: TableView<v1::NodeIntent>,
    audits: TableView<v1::NodeAudit>,
    maintenance: TableView<v1::Maintenance>,
}

struct TableView<T> {
    table: Arc<StateTable<T>>,
    changed: watch::Receiver<()>,
    rows: BTreeMap<String, T>,
}

impl<T: prost::Message + Default + Clone + PartialEq + Send + Sync + 'static> TableView<T> {
    fn new(table: &Arc<StateTable<T>>) -> Self {
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

impl TableChanges {
    pub fn new(tables: &StateTables) -> Self {
        Self {
            members: TableView::new(&tables.members),
            intents: TableView::new(&tables.intents),
            audits: TableView::new(&tables.audits),
            maintenance: TableView::new(&tables.maintenance),
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
    pub fn loaded(&mut self) -> Vec<MemberEvent> {
        let loaded = |event| match event {
            MemberEvent::Registered(_, Some(member)) => MemberEvent::Loaded(member),
            other => other,
        };
        self.changes().into_iter().map(loaded).collect()
    }

    /// What changed since the last call. What was found comes before what is wanted, so that a node
    /// that is held back no more is known to be behind, and both before the members, so that none
    /// is shown without.
    pub fn changes(&mut self) -> Vec<MemberEvent> {
        // What was found and what is wanted come first: maintenance, audits and intents.
        let mut events = Vec::new();
        let maintenance = self.maintenance.changes(|_| "");
        events.extend(
            maintenance
                .into_iter()
                .map(|(_, row)| MemberEvent::Maintenance(row.is_some())),
        );
        each(
            self.audits.changes(|row| &row.node_id),
            &mut events,
            |id, row| MemberEvent::Audited(id, row.as_ref().map(audit)),
        );
        each(
            self.intents.changes(|row| &row.node_id),
            &mut events,
            |id, row| MemberEvent::Intent(id, row.as_ref().and_then(intent)),
        );

        // The members come last. A row that cannot be understood is logged and left out, and the
        // others go on.
        for (name, row) in self.members.changes(|row| &row.id) {
            match row.map(Member::try_from).transpose() {
                Ok(member) => each(vec![(name, member)], &mut events, MemberEvent::Registered),
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
    events: &mut Vec<MemberEvent>,
    event: impl Fn(NodeId, Option<T>) -> MemberEvent,
) {
    for (name, row) in rows {
        match NodeId::new(&name) {
            Ok(id) => events.push(event(id, row)),
            Err(error) => tracing::error!(%error, "the state has a fact about nobody"),
        }
    }
}

fn intent(row: &v1::NodeIntent) -> Option<DepartureIntent> {
    match row.kind() {
        v1::node_intent::Kind::Drain => Some(DepartureIntent::Drain {
            emptied: row.emptied,
        }),
        v1::node_intent::Kind::Failover => Some(DepartureIntent::Failover),
        v1::node_intent::Kind::Unspecified => None,
    }
}

fn audit(row: &v1::NodeAudit) -> AuditFinding {
    AuditFinding {
        incarnation: (row.at != 0).then_some(row.incarnation),
        behind: row.behind,
    }
}
