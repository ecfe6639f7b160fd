//! What the handlers of the HTTP side share: the router behind them, and what is counted and limited
//! here alone.
//!
//! Invariant: nothing here knows the handlers. A handler that needs the router only takes
//! `State<Arc<Parts>>`.

use std::sync::Arc;

use axum::extract::FromRef;
use monofs_router::parts::Parts;
use tokio::sync::{Semaphore, watch};

use crate::requests::HttpRequests;

/// Listeners of event streams of all kinds at a time.
pub(crate) const LISTENERS_MAX: usize = 256;
/// Surveys of all copies at the same time; more wait.
const SURVEYS_MAX: usize = 2;

/// The HTTP side of one router; clones are the same site.
#[derive(Clone)]
pub(crate) struct Site {
    pub router: Arc<Parts>,
    /// The overview as it was made last for those who listen; `None` = nothing listened yet.
    pub announced: watch::Sender<Option<Arc<str>>>,
    /// The places for listeners of event streams.
    pub listeners: Arc<Semaphore>,
    /// The places for surveys of all copies.
    pub surveys: Arc<Semaphore>,
    pub requests: Arc<HttpRequests>,
}

impl Site {
    /// The site of `router`, on which nothing was asked yet.
    pub fn new(router: Arc<Parts>) -> Self {
        Self {
            router,
            announced: watch::channel(None).0,
            listeners: Arc::new(Semaphore::new(LISTENERS_MAX)),
            surveys: Arc::new(Semaphore::new(SURVEYS_MAX)),
            requests: Arc::default(),
        }
    }
}

impl FromRef<Site> for Arc<Parts> {
    fn from_ref(site: &Site) -> Self {
        site.router.clone()
    }
}
