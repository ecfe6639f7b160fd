//! A remote host that wants to be left alone for a while. The verdict is made by a fetcher, travels
//! with errors, and is kept by every router that heard of it.

use std::time::Duration;

/// A remote host that said "not now", or keeps answering with server errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPause {
    /// As `SourceUrl::host_name` gives it.
    pub host: String,
    /// A few words: what it answered.
    pub cause: String,
    /// How long it is not to be asked, from now on; zero = it did not say.
    pub retry_after: Duration,
}
