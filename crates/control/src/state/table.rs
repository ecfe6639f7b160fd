//! Small typed tables of the control state: who is a member, what operators want, which jobs there
//! are.
//!
//! A value is a version byte and a message of the wire protocol, which only ever gains fields.
//! Memory is a copy of all rows that changes after the store did; see [`super::follow`].

use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;

use monofs_model::{Error, Result};
use monofs_proto::v1;
use monofs_store::state::{Compare, Scan, Versioned, Write};
use prost::Message;
use tokio::sync::watch;

use super::{Batch, Follower, SharedState};

/// Version of every value written.
const VERSION: u8 = 1;

/// The tables of a cluster.
pub struct Tables {
    /// By member id: as it last announced itself; state, use of disk and share are not kept here.
    pub members: Arc<Table<v1::Member>>,
    /// By node id.
    pub intents: Arc<Table<v1::NodeIntent>>,
    /// One row without a name, while the cluster is drained.
    pub maintenance: Arc<Table<v1::Maintenance>>,
    /// By node id.
    pub audits: Arc<Table<v1::NodeAudit>>,
    /// By job id.
    pub jobs: Arc<Table<v1::Job>>,
    /// By router id; held by each router while it runs.
    pub routers: Arc<Table<v1::RouterStatus>>,
    /// One row without a name, held by the leader.
    pub leader: Arc<Table<v1::RouterStatus>>,
    /// By display path; held by the router that works on it.
    pub claims: Arc<Table<v1::PathClaim>>,
}

impl Tables {
    pub fn new(shared: &Arc<SharedState>) -> Self {
        Self {
            members: Table::new(shared, "member/"),
            intents: Table::new(shared, "intent/"),
            maintenance: Table::new(shared, "maintenance/"),
            audits: Table::new(shared, "audit/"),
            jobs: Table::new(shared, "job/"),
            routers: Table::new(shared, "router/"),
            leader: Table::new(shared, "leader/"),
            claims: Table::new(shared, "ingest/"),
        }
    }

    /// All of them, to be followed.
    pub fn followers(&self) -> Vec<Arc<dyn Follower>> {
        vec![
            self.members.clone(),
            self.intents.clone(),
            self.maintenance.clone(),
            self.audits.clone(),
            self.jobs.clone(),
            self.routers.clone(),
            self.leader.clone(),
            self.claims.clone(),
        ]
    }
}

/// Rows of one kind under one prefix.
pub struct Table<T> {
    shared: Arc<SharedState>,
    prefix: &'static str,
    rows: RwLock<BTreeMap<String, (T, u64)>>,
    changed: watch::Sender<()>,
}

impl<T: Message + Default + Clone + PartialEq + Send + Sync + 'static> Table<T> {
    fn new(shared: &Arc<SharedState>, prefix: &'static str) -> Arc<Self> {
        let (rows, changed) = (RwLock::default(), watch::channel(()).0);
        Arc::new(Self {
            shared: shared.clone(),
            prefix,
            rows,
            changed,
        })
    }

    /// The row called `name`.
    pub fn get(&self, name: &str) -> Option<T> {
        self.read(|rows| rows.get(name).map(|(row, _)| row.clone()))
    }

    /// All rows in the order of their names.
    pub fn list(&self) -> Vec<T> {
        self.read(|rows| rows.values().map(|(row, _)| row.clone()).collect())
    }

    /// Wakes at every change.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Changes the row called `name` by compare-and-set: `change` is given what is there and says
    /// what should be (`None` = nothing); it is asked again when somebody else was faster. What is
    /// equal already is not written. Returns the row as it is then. Errors: `change`'s own; those
    /// of [`SharedState::transact`].
    pub async fn update(
        &self,
        name: &str,
        mut change: impl FnMut(Option<&T>) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let key = format!("{}{name}", self.prefix).into_bytes();
        let mut after = None;
        self.shared
            .transact(|| {
                let before = self.read(|rows| rows.get(name).cloned());
                after = change(before.as_ref().map(|(row, _)| row))?;
                if after.as_ref() == before.as_ref().map(|(row, _)| row) {
                    return Ok((Vec::new(), Vec::new()));
                }
                let compare = Compare {
                    key: key.clone(),
                    revision: before.map_or(0, |(_, revision)| revision),
                };
                let write = match &after {
                    Some(row) => Write::Put {
                        key: key.clone(),
                        value: encode(row),
                    },
                    None => Write::Delete { key: key.clone() },
                };
                Ok((vec![compare], vec![write]))
            })
            .await?;
        Ok(after)
    }

    /// The row called `name` as the store has it now; memory has it too when this returns.
    /// Errors: those of the store; `Unavailable` when the watch does not bring it.
    pub async fn stored(&self, name: &str) -> Result<Option<T>> {
        let key = format!("{}{name}", self.prefix);
        let scan = self
            .shared
            .store()
            .scan(&key)
            .await
            .map_err(|error| self.shared.refused(error))?;
        let Some((_, Versioned { value, revision })) =
            scan.rows.iter().find(|(found, _)| found == key.as_bytes())
        else {
            return Ok(None);
        };
        self.shared.seen(*revision).await?;
        decode(self.prefix, name, value).map(Some)
    }

    /// The key and value of a row, for a key that is held instead of written.
    pub fn row(&self, name: &str, row: &T) -> (String, Vec<u8>) {
        (format!("{}{name}", self.prefix), encode(row))
    }

    fn read<R>(&self, look: impl FnOnce(&BTreeMap<String, (T, u64)>) -> R) -> R {
        look(&self.rows.read())
    }

    fn name_of<'a>(&self, key: &'a [u8]) -> Option<&'a str> {
        std::str::from_utf8(key.strip_prefix(self.prefix.as_bytes())?).ok()
    }
}

impl<T: Message + Default + Clone + PartialEq + Send + Sync + 'static> Follower for Table<T> {
    fn load(&self, scan: &Scan) -> Result<()> {
        let mut rows = BTreeMap::new();
        for (key, Versioned { value, revision }) in &scan.rows {
            if let Some(name) = self.name_of(key) {
                rows.insert(
                    name.to_owned(),
                    (decode(self.prefix, name, value)?, *revision),
                );
            }
        }
        *self.rows.write() = rows;
        self.changed.send_replace(());
        Ok(())
    }

    fn apply(&self, batch: &Batch) -> Result<()> {
        let mut changed = false;
        for event in &batch.events {
            let Some(name) = self.name_of(&event.key) else {
                continue;
            };
            let row = match &event.value {
                Some(versioned) => Some((
                    decode(self.prefix, name, &versioned.value)?,
                    versioned.revision,
                )),
                None => None,
            };
            let mut rows = self.rows.write();
            match row {
                Some(row) => drop(rows.insert(name.to_owned(), row)),
                None => drop(rows.remove(name)),
            }
            changed = true;
        }
        if changed {
            self.changed.send_replace(());
        }
        Ok(())
    }
}

fn encode<T: Message>(row: &T) -> Vec<u8> {
    let mut value = vec![VERSION];
    value.extend_from_slice(&row.encode_to_vec());
    value
}

fn decode<T: Message + Default>(prefix: &str, name: &str, value: &[u8]) -> Result<T> {
    match value.split_first() {
        Some((&VERSION, message)) => {
            T::decode(message).map_err(|e| Error::corrupt(format!("state {prefix}{name}: {e}")))
        }
        version => Err(Error::refused(format!(
            "state {prefix}{name} has version {:?}, this router knows {VERSION}; run a newer \
             monofs-router",
            version.map(|(version, _)| version)
        ))),
    }
}
