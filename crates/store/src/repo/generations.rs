//! Generation nodes of a repository, and which of them its snapshots name.
//!
//! A snapshot may be shown in several generations, each with nodes of its own: the last few are
//! kept, since readers that have not followed a flip yet may ask for those of the one before.

use std::collections::HashSet;

use bytes::Bytes;
use heed::RoTxn;
use monofs_model::{GenerationNode, GenerationRef, Oid, Result};

use super::store::{RepoReader, RepoStore};
use super::trees::parts;
use crate::env::{TxnResult, put_changed};

/// Generations that are kept of a commit that was shown again and again.
const KEPT_MAX: usize = 4;
/// Bytes of a generation in a key.
const GENERATION_BYTES: usize = 8;

impl RepoStore {
    /// Stores generation nodes. Verifies nothing: callers do first.
    pub fn put_generation_nodes(&self, batch: &[(Oid, Bytes)]) -> Result<()> {
        let table = self.generation_tables()?.nodes;
        for part in parts(batch, |(_, node)| node.len()) {
            self.env
                .write("put generation nodes", |wtxn| -> TxnResult<()> {
                    for (id, node) in part {
                        put_changed(table, wtxn, id.as_bytes(), node)?;
                    }
                    Ok(())
                })?;
        }
        Ok(())
    }

    /// Notes that `generation` shows the commit with these generations of its names, whose nodes
    /// are all here: from now on `gc` keeps them. The oldest of too many are forgotten.
    pub fn put_generations(
        &self,
        commit: &Oid,
        generation: u64,
        generations: &GenerationRef,
    ) -> Result<()> {
        let table = self.generation_tables()?.shown;
        let mut value = Vec::new();
        generations.encode_to(&mut value);
        self.env.write("note generations", |wtxn| -> TxnResult<()> {
            let key = [commit.as_bytes(), &generation.to_be_bytes()].concat();
            table.put(wtxn, &key, &value)?;
            let mut keys = Vec::new();
            for row in table.prefix_iter(wtxn, commit.as_bytes())? {
                keys.push(row?.0.to_vec());
            }
            let too_many = keys.len().saturating_sub(KEPT_MAX);
            for key in &keys[..too_many] {
                table.delete(wtxn, key)?;
            }
            Ok(())
        })
    }

    /// Forgets what is noted about commits that are not held any more, and returns the nodes that
    /// the others name. Nodes that are missing end the walk there.
    pub(super) fn mark_generations(&self, held: &HashSet<Oid>) -> Result<HashSet<Oid>> {
        let Some(tables) = self.known_generation_tables() else {
            return Ok(HashSet::new());
        };

        // One transaction forgets the gone commits and collects the roots of the others. The key of
        // a row begins with its commit.
        let roots = self
            .env
            .write("forget generations", |wtxn| -> TxnResult<_> {
                let mut gone = Vec::new();
                let mut roots = Vec::new();
                for row in tables.shown.iter(wtxn)? {
                    let (key, value) = row?;
                    let commit = &key[..key.len().saturating_sub(GENERATION_BYTES)];
                    match Oid::from_bytes(commit).is_ok_and(|commit| held.contains(&commit)) {
                        true => roots.extend(GenerationRef::decode(value)?.node()),
                        false => gone.push(key.to_vec()),
                    }
                }
                for key in &gone {
                    tables.shown.delete(wtxn, key)?;
                }
                Ok(roots)
            })?;

        // Nodes are marked from those roots; the caller sweeps the rest.
        let txn = self.env.read()?;
        let marked = reachable(tables.nodes, &txn, roots);
        marked.map_err(|e| self.env.txn_error("mark generation nodes", e))
    }
}

/// The ids of `roots` and of all nodes below them. Below one that is not here, or damaged, nothing is
/// known.
fn reachable(
    nodes: crate::env::Table,
    txn: &RoTxn<'_>,
    roots: Vec<Oid>,
) -> TxnResult<HashSet<Oid>> {
    let mut seen: HashSet<Oid> = roots.iter().copied().collect();
    let mut pending = roots;
    while let Some(id) = pending.pop() {
        let bytes = nodes.get(txn, id.as_bytes())?;
        let Some(node) = bytes.and_then(|bytes| GenerationNode::decode(bytes).ok()) else {
            continue;
        };
        pending.extend(node.children().filter(|child| seen.insert(*child)));
    }
    Ok(seen)
}

impl RepoReader<'_> {
    /// The generation node with this id.
    pub fn generation_node(&self, id: &Oid) -> Result<Option<&[u8]>> {
        let Some(tables) = self.store.known_generation_tables() else {
            return Ok(None);
        };
        tables
            .nodes
            .get(&self.txn, id.as_bytes())
            .map_err(|e| self.error("read a generation node", e))
    }

    /// Nodes that the tree of generations below `root` lacks; one that is damaged is lacking, too.
    /// Below these nothing is known, so ask again after putting them.
    pub fn missing_generation_nodes(&self, root: &GenerationRef) -> Result<Vec<Oid>> {
        let mut missing = Vec::new();
        let mut pending: Vec<Oid> = root.node().into_iter().collect();
        let mut seen: HashSet<Oid> = pending.iter().copied().collect();
        while let Some(id) = pending.pop() {
            let bytes = self.generation_node(&id)?;
            match bytes.map(|bytes| GenerationNode::decode_verified(bytes, &id)) {
                Some(Ok(node)) => {
                    pending.extend(node.children().filter(|child| seen.insert(*child)));
                }
                Some(Err(_)) | None => missing.push(id),
            }
        }
        Ok(missing)
    }
}
