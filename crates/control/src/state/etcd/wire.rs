//! How the state is written in etcd: the names of its keys, the operations of a transaction, and
//! what etcd takes.

use std::borrow::Cow;

use bytes::Bytes;
use monofs_model::{Error, Result};
use monofs_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use monofs_proto::etcd::kv_client::KvClient;
use monofs_proto::etcd::request_op::Request as Op;
use monofs_proto::etcd::{Compare as WireCompare, DeleteRangeRequest, PutRequest, RequestOp};
use monofs_rpc::Channel;
use monofs_store::state::{Compare, Write};

use crate::state::store::ASIDE;

/// What etcd takes in one transaction by default (`--max-txn-ops`), and in one request
/// (`--max-request-bytes`).
pub(super) const OPERATIONS_MAX: usize = 128;
pub(super) const REQUEST_BYTES_MAX: usize = 1_500_000;
/// Keys of one page of a scan.
pub(super) const PAGE_KEYS: i64 = 256;
/// Longest answer: a page of the largest values.
pub(super) const MESSAGE_BYTES_MAX: usize = PAGE_KEYS as usize * (REQUEST_BYTES_MAX + 4096);

/// How keys are called in etcd.
#[derive(Clone)]
pub(super) struct EtcdKeys {
    pub(super) prefix: String,
}

impl EtcdKeys {
    pub(super) fn state(&self, key: &[u8]) -> Bytes {
        match key.strip_prefix(ASIDE.as_bytes()) {
            // Outside of what everything is.
            Some(rest) => [self.prefix.as_bytes(), b".aside/", rest].concat().into(),
            None => [self.prefix.as_bytes(), b"/state/", key].concat().into(),
        }
    }

    pub(super) fn epoch(&self) -> Bytes {
        format!("{}/epoch", self.prefix).into()
    }

    pub(super) fn touch(&self) -> Bytes {
        format!("{}/touch", self.prefix).into()
    }

    pub(super) fn is_epoch(&self, key: &[u8]) -> bool {
        key.strip_prefix(self.prefix.as_bytes()) == Some(b"/epoch")
    }

    /// The key of the state that is called so in etcd.
    pub(super) fn own<'a>(&self, key: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let rest = key.strip_prefix(self.prefix.as_bytes())?;
        match rest.strip_prefix(b".aside/") {
            Some(aside) => Some([ASIDE.as_bytes(), aside].concat().into()),
            None => rest.strip_prefix(b"/state/").map(Cow::Borrowed),
        }
    }

    /// The range of everything of this cluster.
    pub(super) fn everything(&self) -> (Bytes, Bytes) {
        range_of(format!("{}/", self.prefix).into())
    }
}

/// The range of all keys that start with `prefix`, which does not end with 0xff.
pub(super) fn range_of(prefix: Bytes) -> (Bytes, Bytes) {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    (prefix, end.into())
}

pub(super) fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// `key` was last changed at `revision`; 0 = it is absent.
pub(super) fn equal(key: Bytes, revision: i64) -> WireCompare {
    WireCompare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key,
        target_union: Some(TargetUnion::ModRevision(revision)),
    }
}

/// `key` belongs to this lease.
pub(super) fn leased(key: Bytes, lease: i64) -> WireCompare {
    WireCompare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Lease.into(),
        key,
        target_union: Some(TargetUnion::Lease(lease)),
    }
}

pub(super) fn put(key: Bytes, value: Bytes, lease: i64) -> RequestOp {
    RequestOp {
        request: Some(Op::RequestPut(PutRequest { key, value, lease })),
    }
}

pub(super) fn delete(key: Bytes) -> RequestOp {
    RequestOp {
        request: Some(Op::RequestDeleteRange(DeleteRangeRequest {
            key,
            range_end: Bytes::new(),
        })),
    }
}

/// Errors: `Invalid` for what etcd would not take.
pub(super) fn check(compares: &[Compare], writes: &[Write], more: usize) -> Result<()> {
    let operations = compares.len().max(writes.len() + more);
    if operations > OPERATIONS_MAX {
        return Err(Error::invalid(format!(
            "{operations} changes in one commit; etcd takes {OPERATIONS_MAX} at most"
        )));
    }
    // All keys and values make one request.
    let mut total = 0;
    for write in writes {
        let (key, value) = match write {
            Write::Put { key, value } => (key, value.len()),
            Write::Delete { key } => (key, 0),
        };
        if key.is_empty() {
            return Err(Error::invalid("a state key has at least one byte"));
        }
        total += key.len() + value;
    }
    if total > REQUEST_BYTES_MAX {
        return Err(Error::invalid(format!(
            "a change of {total} bytes; etcd takes {REQUEST_BYTES_MAX} at most (a repository with \
             too many submodules?)"
        )));
    }
    Ok(())
}
