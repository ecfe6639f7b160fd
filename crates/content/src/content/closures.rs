//! Repositories of which all directory records are just streaming in: a miss of one record waits a
//! moment for it to come with the others.

use std::collections::HashMap;

use monofs_model::StorageId;
use parking_lot::Mutex;
use tokio::sync::watch;

/// The repositories whose closure is streaming in; the value changes with each message.
#[derive(Debug, Default)]
pub(super) struct Closures(Mutex<HashMap<StorageId, watch::Sender<u64>>>);

impl Closures {
    /// The closure of this repository begins to stream in, until the guard is dropped.
    pub fn begin(&self, repo: &StorageId) -> ClosureGuard<'_> {
        self.0
            .lock()
            .entry(repo.clone())
            .or_insert_with(|| watch::channel(0).0);
        ClosureGuard {
            closures: self,
            repo: repo.clone(),
        }
    }

    /// A part of this repository's records arrived.
    pub fn advance(&self, repo: &StorageId) {
        let progress = self.0.lock().get(repo).cloned();
        // This wakes the waiters, so it is done without the lock.
        if let Some(progress) = progress {
            progress.send_modify(|count| *count += 1);
        }
    }

    /// Changes with each part that arrives and ends with the closure. `None`: none is streaming in.
    pub fn progress(&self, repo: &StorageId) -> Option<watch::Receiver<u64>> {
        self.0.lock().get(repo).map(watch::Sender::subscribe)
    }
}

/// Ends a closure when it is dropped, in whatever way its request ends.
pub(super) struct ClosureGuard<'a> {
    closures: &'a Closures,
    repo: StorageId,
}

impl Drop for ClosureGuard<'_> {
    fn drop(&mut self) {
        let ended = self.closures.0.lock().remove(&self.repo);
        // This wakes the waiters, so it is done without the lock.
        drop(ended);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use monofs_model::DisplayPath;

    use super::*;

    fn repo() -> StorageId {
        DisplayPath::new("h/r").unwrap().storage_id()
    }

    #[tokio::test]
    async fn waiters_see_each_part_and_the_end() {
        let closures = Closures::default();
        assert!(closures.progress(&repo()).is_none());
        let guard = closures.begin(&repo());
        let mut progress = closures.progress(&repo()).unwrap();
        closures.advance(&repo());
        progress.changed().await.unwrap();
        drop(guard);
        assert!(progress.changed().await.is_err(), "it is over");
        assert!(closures.progress(&repo()).is_none());
    }

    #[tokio::test]
    async fn a_request_that_panics_leaves_nothing_in_flight() {
        let closures = Arc::new(Closures::default());
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (fail, told_to_fail) = tokio::sync::oneshot::channel::<()>();
        let request = tokio::spawn({
            let closures = closures.clone();
            async move {
                let _guard = closures.begin(&repo());
                begun.send(()).unwrap();
                told_to_fail.await.unwrap();
                panic!("the request fails");
            }
        });
        has_begun.await.unwrap();
        let mut progress = closures.progress(&repo()).unwrap();
        fail.send(()).unwrap();
        assert!(request.await.unwrap_err().is_panic());
        assert!(progress.changed().await.is_err(), "waiters are released");
        assert!(closures.progress(&repo()).is_none());
    }

    #[tokio::test]
    async fn a_request_that_is_given_up_leaves_nothing_in_flight() {
        let closures = Closures::default();
        let request = async {
            let _guard = closures.begin(&repo());
            std::future::pending::<()>().await;
        };
        let ended = tokio::time::timeout(std::time::Duration::ZERO, request).await;
        assert!(ended.is_err());
        assert!(closures.progress(&repo()).is_none());
    }
}
