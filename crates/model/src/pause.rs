//! A remote host that wants to be left alone for a while. The verdict is made by a fetcher, travels
//! with errors, and is kept by every router that heard of it.

use std::time::Duration;

use crate::source::SourceUrl;

/// A remote host that said "not now", or keeps answering with server errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPause {
    /// As [`HostPause::host_of`] names it.
    pub host: String,
    /// A few words: what it answered.
    pub cause: String,
    /// How long it is not to be asked, from now on; zero = it did not say.
    pub retry_after: Duration,
}

impl HostPause {
    /// The name of a source's host: `host`, or `host:port` where the source names a port, in lower
    /// case. `None` for a source on the fetcher's own disk.
    pub fn host_of(source: &SourceUrl) -> Option<String> {
        source.remote_host().map(|host| host.to_string())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_name_however_it_is_written() {
        let host = |url| HostPause::host_of(&SourceUrl::new(url).unwrap());
        assert_eq!(
            host("https://Git.Example.org/a").as_deref(),
            Some("git.example.org")
        );
        assert_eq!(
            host("https://git.example.org/b"),
            host("https://GIT.example.org/a")
        );
        assert_eq!(host("http://h:81/a").as_deref(), Some("h:81"));
        assert_eq!(host("/srv/git/x.git"), None);
    }
}
