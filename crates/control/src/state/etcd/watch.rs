//! One watch of etcd as batches: everything that one revision changed below the prefix.

use std::collections::VecDeque;

use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use monofs_model::{Error, Result};
use monofs_proto::etcd::event::EventType;
use monofs_proto::etcd::watch_client::WatchClient;
use monofs_proto::etcd::watch_request::RequestUnion;
use monofs_proto::etcd::{Event as WireEvent, WatchCreateRequest, WatchRequest, WatchResponse};
use monofs_rpc::Channel;
use monofs_store::state::Versioned;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status, Streaming};

use super::calls::{Endpoints, Repeat};
use super::wire::{EtcdKeys, MESSAGE_BYTES_MAX};
use crate::state::store::{CommitBatch, KeyEvent};

/// Lets etcd end the watch when the member that serves it is cut off from its cluster.
const REQUIRE_LEADER: &str = "hasleader";

/// Every commit after `revision` of the history on `cluster`.
pub(super) async fn watch(
    endpoints: &Endpoints,
    keys: &EtcdKeys,
    cluster: u64,
    revision: u64,
) -> Result<BoxStream<'static, Result<CommitBatch>>> {
    let (key, range_end) = keys.everything();
    let create = WatchCreateRequest {
        key,
        range_end,
        start_revision: revision as i64 + 1,
        progress_notify: true,
        fragment: true,
    };
    let create = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    let opening = endpoints.call("watch", Repeat::Always, |channel: Channel| {
        // etcd ends a watch whose requests end.
        let requests = stream::iter([create.clone()]).chain(stream::pending());
        let mut request = Request::new(requests);
        request
            .metadata_mut()
            .insert(REQUIRE_LEADER, MetadataValue::from_static("true"));
        let mut client = WatchClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        async move {
            let mut answers = client.watch(request).await?.into_inner();
            let first = answers.message().await?.unwrap_or_default();
            Ok(tonic::Response::new((first, answers)))
        }
    });
    let (created, answers) = opening.await?;
    let now = created.header.unwrap_or_default();
    if now.cluster_id != cluster || (now.revision as u64) < revision {
        return Err(Error::not_held(
            "etcd has another history than before: it was emptied or restored",
        ));
    }
    let watch = EtcdWatch {
        answers,
        keys: keys.clone(),
        revision,
        events: Vec::new(),
        ready: VecDeque::new(),
    };
    let started = watch.take(created)?;
    Ok(stream::unfold(Some(started), |watch| async move {
        let mut watch = watch?;
        match watch.next().await {
            Ok(batch) => Some((Ok(batch), Some(watch))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed())
}

struct EtcdWatch {
    answers: Streaming<WatchResponse>,
    keys: EtcdKeys,
    /// Of the last batch.
    revision: u64,
    /// Of a response that comes in pieces.
    events: Vec<WireEvent>,
    ready: VecDeque<CommitBatch>,
}

impl EtcdWatch {
    async fn next(&mut self) -> Result<CommitBatch> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(batch);
            }
            let answer = self.answers.message().await.map_err(|status: Status| {
                Error::unavailable(format!("etcd: watch: {}", status.message()))
            })?;
            self.hear(answer.ok_or_else(|| Error::unavailable("etcd ended the watch"))?)?;
        }
    }

    fn take(mut self, first: WatchResponse) -> Result<Self> {
        self.hear(first).map(|()| self)
    }

    fn hear(&mut self, answer: WatchResponse) -> Result<()> {
        if answer.compact_revision > 0 {
            let kept = answer.compact_revision;
            return Err(Error::not_held(format!(
                "etcd was compacted: its history begins at revision {kept}"
            )));
        }
        if answer.canceled {
            return Err(Error::unavailable(format!(
                "etcd ended the watch: {}",
                answer.cancel_reason
            )));
        }
        self.events.extend(answer.events);
        if answer.fragment {
            return Ok(());
        }
        let events = std::mem::take(&mut self.events);
        // Without events it says how far the history is.
        let told = if events.is_empty() && !answer.created {
            answer.header.map(|header| header.revision as u64)
        } else {
            None
        };
        for event in events {
            self.add(event)?;
        }
        if let Some(revision) = told.filter(|revision| *revision > self.revision) {
            self.revision = revision;
            self.ready.push_back(CommitBatch {
                revision,
                events: Vec::new(),
            });
        }
        Ok(())
    }

    fn add(&mut self, event: WireEvent) -> Result<()> {
        let kind = event.r#type();
        let Some(row) = event.kv else { return Ok(()) };
        let revision = row.mod_revision as u64;
        // All events of one revision are one batch.
        if self
            .ready
            .back()
            .is_none_or(|batch| batch.revision != revision)
        {
            self.revision = revision;
            self.ready.push_back(CommitBatch {
                revision,
                events: Vec::new(),
            });
        }
        if self.keys.is_epoch(&row.key) {
            return Err(Error::not_held("the history was declared a new one"));
        }
        // Keys that are not the state's own only move the revision.
        let Some(key) = self.keys.own(&row.key) else {
            return Ok(());
        };
        let Some(batch) = self.ready.back_mut() else {
            return Ok(());
        };
        let value = (kind == EventType::Put).then(|| Versioned {
            value: row.value.into(),
            revision,
        });
        batch.events.push(KeyEvent {
            key: key.to_vec(),
            value,
        });
        Ok(())
    }
}
