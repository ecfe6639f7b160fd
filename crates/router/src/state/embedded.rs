//! The state store of a single router: LMDB in its state directory.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use monofs_model::{Error, Result};
use monofs_store::state::{CommitOutcome, Compare, Scan, StateEnv, Write};

use super::StateStore;

/// [`StateStore`] over [`StateEnv`].
pub struct EmbeddedState {
    env: Arc<StateEnv>,
    epoch: String,
}

impl EmbeddedState {
    /// Opens or creates the state in `dir`. Errors: another process has it open.
    pub async fn open(dir: PathBuf) -> Result<Self> {
        let env = blocking(move || StateEnv::open(&dir)).await?;
        let epoch = env.epoch();
        Ok(Self { env: Arc::new(env), epoch })
    }
}

#[async_trait]
impl StateStore for EmbeddedState {
    async fn scan(&self, prefix: &str) -> Result<Scan> {
        let (env, prefix) = (self.env.clone(), prefix.to_owned());
        blocking(move || env.scan_at(prefix.as_bytes())).await
    }

    async fn commit(&self, compares: Vec<Compare>, writes: Vec<Write>) -> Result<CommitOutcome> {
        let env = self.env.clone();
        blocking(move || env.commit(&compares, &writes)).await
    }

    fn epoch(&self) -> &str {
        &self.epoch
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal(format!("state store: {e}")))?
}
