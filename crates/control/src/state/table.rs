//! A small typed table of the control state: rows of one kind under one prefix of keys.
//!
//! A value is a version byte and a message of the wire protocol, which only ever gains fields.
//! Memory is a copy of all rows that changes after the store did; see [`super::follow`].

use std::collections::BTreeMap;
use std::sync::Arc;

use monofs_model::{Actor, Error, Result};
use monofs_store::state::{Compare, Scan, Versioned, Write};
use parking_lot::RwLock;
use prost::Message;
use tokio::sync::watch;

use super::action::{StateAction, StateVerb};
use super::follow::{SharedState, StateFollower, StateTransaction};
use super::store::CommitBatch;

/// Version of every value written.
const VERSION: u8 = 1;

/// Rows of one kind under one prefix.
pub struct StateTable<T> {
    shared: Arc<SharedState>,
    prefix: &'static str,
    rows: RwLock<BTreeMap<String, KnownRow<T>>>,
    changed: watch::Sender<()>,
}

/// A row with the revision of its key.
#[derive(Clone)]
struct KnownRow<T> {
    row: T,
    revision: u64,
}

impl<T: Message + Default + Clone + PartialEq + Send + Sync + 'static> StateTable<T> {
    /// The table whose keys begin with `prefix`, without rows until it is followed.
    pub(super) fn new(shared: &Arc<SharedState>, prefix: &'static str) -> Arc<Self> {
        Arc::new(Self {
            shared: shared.clone(),
            prefix,
            rows: RwLock::default(),
            changed: watch::channel(()).0,
        })
    }

    /// The row called `name`.
    pub fn get(&self, name: &str) -> Option<T> {
        self.rows.read().get(name).map(|known| known.row.clone())
    }

    /// All rows in the order of their names.
    pub fn list(&self) -> Vec<T> {
        let rows = self.rows.read();
        rows.values().map(|known| known.row.clone()).collect()
    }

    /// Wakes at every change.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Changes the row called `name` by compare-and-set, on behalf of `actor`: `change` is given what is there and says
    /// what should be (`None` = nothing); it is asked again when another change was faster. What is
    /// equal already is not written. Returns the row
    /// as it is then. Errors: `change`'s own; those of [`SharedState::transact`].
    pub async fn update(
        &self,
        actor: &Actor,
        name: &str,
        mut change: impl FnMut(Option<&T>) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let key = self.key(name).into_bytes();
        let action = StateAction {
            verb: StateVerb::ChangeRow(self.prefix),
            subject: name,
        };
        let mut after = None;
        self.shared
            .transact(actor, action, || {
                // What memory has, and what should be there.
                let known = self.rows.read().get(name).cloned();
                let before = known.as_ref().map(|known| &known.row);
                after = change(before)?;
                if after.as_ref() == before {
                    return Ok(StateTransaction::default());
                }
                // Written if the store has what memory has.
                let compare = Compare {
                    key: key.clone(),
                    revision: known.map_or(0, |known| known.revision),
                };
                let write = match &after {
                    Some(row) => Write::Put {
                        key: key.clone(),
                        value: encode(row),
                    },
                    None => Write::Delete { key: key.clone() },
                };
                Ok(StateTransaction {
                    compares: vec![compare],
                    writes: vec![write],
                })
            })
            .await?;
        Ok(after)
    }

    /// The row called `name` as the store has it now; memory has it too when this returns.
    /// Errors: those of the store; `Unavailable` when the watch does not bring it.
    pub async fn stored(&self, name: &str) -> Result<Option<T>> {
        let key = self.key(name);
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

    /// The key of the row called `name`, for a key that is held instead of written.
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The value of a row, for a key that is held instead of written.
    pub fn value(&self, row: &T) -> Vec<u8> {
        encode(row)
    }

    fn name_of<'a>(&self, key: &'a [u8]) -> Option<&'a str> {
        std::str::from_utf8(key.strip_prefix(self.prefix.as_bytes())?).ok()
    }

    fn known(&self, name: &str, versioned: &Versioned) -> Result<KnownRow<T>> {
        Ok(KnownRow {
            row: decode(self.prefix, name, &versioned.value)?,
            revision: versioned.revision,
        })
    }
}

impl<T: Message + Default + Clone + PartialEq + Send + Sync + 'static> StateFollower
    for StateTable<T>
{
    fn load(&self, scan: &Scan) -> Result<()> {
        let mut rows = BTreeMap::new();
        for (key, versioned) in &scan.rows {
            if let Some(name) = self.name_of(key) {
                rows.insert(name.to_owned(), self.known(name, versioned)?);
            }
        }
        *self.rows.write() = rows;
        self.changed.send_replace(());
        Ok(())
    }

    fn apply(&self, batch: &CommitBatch) -> Result<()> {
        let mut changed = false;
        for event in &batch.events {
            let Some(name) = self.name_of(&event.key) else {
                continue;
            };
            // Decoded before the lock is taken.
            let known = event.value.as_ref();
            let known = known
                .map(|versioned| self.known(name, versioned))
                .transpose()?;
            let mut rows = self.rows.write();
            match known {
                Some(known) => drop(rows.insert(name.to_owned(), known)),
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
