//! The operator's verbs that tests, benchmarks and `monofs up` use.

use std::time::Duration;

use futures::StreamExt;
use monofs_model::{Error, Repository, Result};
use monofs_proto::v1;
use monofs_proto::v1::admin_client::AdminClient;
use monofs_rpc::content::guarded;
use monofs_rpc::{Channel, ChannelPool, Context, from_status, within};

use crate::running::Cluster;

/// Longest silence of an ingest before it counts as hung.
const SILENCE: Duration = Duration::from_secs(120);

/// What to ingest.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ingest {
    request: v1::IngestRequest,
}

impl Ingest {
    /// The HEAD of a source, shown where its URL says.
    pub fn of(source: impl Into<String>) -> Self {
        Self {
            request: v1::IngestRequest {
                source: source.into(),
                ..Default::default()
            },
        }
    }

    /// A branch, tag or commit.
    pub fn at(mut self, ref_name: impl Into<String>) -> Self {
        self.request.ref_name = ref_name.into();
        self
    }

    /// Another display path.
    pub fn shown_as(mut self, path: impl Into<String>) -> Self {
        self.request.path = path.into();
        self
    }

    /// Contents on first read only.
    pub fn lazy(mut self) -> Self {
        self.request.set_content(v1::ContentMode::Lazy);
        self
    }

    /// Every replica acknowledges before readers see it.
    pub fn strong(mut self) -> Self {
        self.request.set_consistency(v1::Consistency::Strong);
        self
    }

    /// Wait until all contents are on all replicas.
    pub fn hydrated(mut self) -> Self {
        self.request.wait_hydrated = true;
        self
    }
}

impl Cluster {
    /// Ingests and waits for the end. Errors: what made it fail.
    pub async fn ingest(&self, what: Ingest) -> Result<Repository> {
        ingest(self.admin()?, what).await
    }

    /// [`Cluster::ingest`] through a router, counted from 0.
    pub async fn ingest_at(&self, router: usize, what: Ingest) -> Result<Repository> {
        ingest(self.admin_of(router)?, what).await
    }

    /// Looks upstream and waits until what is new is published.
    pub async fn refresh(&self, path: &str) -> Result<Repository> {
        let mut admin = self.admin()?;
        let request = v1::RefreshRequest {
            path: path.to_owned(),
            follow: false,
        };
        let call = admin.refresh(Context::new(SILENCE).stream(request));
        let answer = within(SILENCE, "refresh", async {
            call.await.map_err(from_status)
        })
        .await?;
        last(answer.into_inner()).await
    }

    /// Deletes a repository.
    pub async fn delete(&self, path: &str) -> Result<()> {
        let mut admin = self.admin()?;
        let request = Context::new(SILENCE).request(v1::DeleteRequest {
            path: path.to_owned(),
        });
        within(SILENCE, "delete", async {
            admin.delete(request).await.map_err(from_status)
        })
        .await
        .map(drop)
    }

    /// The catalogue entry at `path`.
    pub async fn repository(&self, path: &str) -> Result<Repository> {
        let mut admin = self.admin()?;
        let request = Context::new(SILENCE).request(v1::GetRepositoryRequest {
            path: path.to_owned(),
        });
        let answer = within(SILENCE, "repository", async {
            admin.get_repository(request).await.map_err(from_status)
        });
        let entry = answer.await?.into_inner().repository;
        entry
            .ok_or_else(|| Error::internal("an answer without a repository"))?
            .try_into()
    }
}

/// How many repositories the cluster of the router at `host:port` serves. Errors: `Unavailable` when
/// it does not answer within `limit`.
pub async fn repositories_of(router: &str, limit: Duration) -> Result<u64> {
    let channels = ChannelPool::default();
    let mut admin = AdminClient::new(channels.get(router)?);
    let request = Context::new(limit).request(v1::StatusRequest::default());
    within(limit, "status", async {
        admin.status(request).await.map_err(from_status)
    })
    .await
    .map(|answer| answer.into_inner().repositories_ready)
}

async fn ingest(mut admin: AdminClient<Channel>, what: Ingest) -> Result<Repository> {
    let call = admin.ingest(Context::new(SILENCE).stream(what.request));
    let answer = within(SILENCE, "ingest", async { call.await.map_err(from_status) }).await?;
    last(answer.into_inner()).await
}

async fn last(messages: tonic::Streaming<v1::IngestProgress>) -> Result<Repository> {
    let mut messages = guarded(messages, SILENCE, "ingest");
    let mut last = v1::IngestProgress::default();
    while let Some(message) = messages.next().await {
        last = message?;
    }
    last.repository
        .ok_or_else(|| Error::unavailable("the ingest ended without a repository"))?
        .try_into()
}
