//! Remote hosts that said "not now", as this router has heard from fetchers.
//!
//! Fetchers alone ask hosts, and each refuses by itself to ask one too soon. This table keeps the
//! router from sending them requests that would be refused, and from trying the next fetcher for
//! what the host would answer to all of them.
//!
//! Invariant: bounded by [`HOSTS_MAX`]; a row is of no effect once its time is over.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use monofs_control::clock;
use monofs_model::{Error, HostPause, SourceUrl};
use monofs_proto::v1;
use parking_lot::Mutex;

/// Hosts that are remembered; beyond that the one that may be asked first is forgotten.
const HOSTS_MAX: usize = 1024;

/// The hosts that are not to be asked now.
#[derive(Debug, Default)]
pub struct PausedHosts(Mutex<HashMap<String, PausedHost>>);

#[derive(Debug)]
struct PausedHost {
    cause: String,
    until: Instant,
    /// What a fetcher said.
    error: Error,
}

impl PausedHosts {
    /// Returns when the host of `source` may be asked. Errors: what the fetcher said that heard
    /// "not now" last, with what is left of the pause.
    pub fn check(&self, source: &SourceUrl) -> Result<(), Error> {
        let Some(host) = source.host_name() else {
            return Ok(());
        };
        let mut hosts = self.0.lock();
        let Some(paused) = hosts.get(&host) else {
            return Ok(());
        };
        let left = paused.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            hosts.remove(&host);
            return Ok(());
        }
        Err(paused.error.clone().with_pause(HostPause {
            host,
            cause: paused.cause.clone(),
            retry_after: left,
        }))
    }

    /// Keeps what `error` says about a host, if it does.
    pub fn note(&self, error: &Error) {
        let Some(pause) = &error.pause else {
            return;
        };
        let mut hosts = self.0.lock();
        if hosts.len() >= HOSTS_MAX && !hosts.contains_key(&pause.host) {
            let first = hosts.iter().min_by_key(|(_, paused)| paused.until);
            if let Some(host) = first.map(|(host, _)| host.clone()) {
                hosts.remove(&host);
            }
        }
        let paused = PausedHost {
            cause: pause.cause.clone(),
            until: Instant::now() + pause.retry_after,
            error: error.clone(),
        };
        hosts.insert(pause.host.clone(), paused);
    }

    /// The host of `source` answered.
    pub fn answered(&self, source: &SourceUrl) {
        if let Some(host) = source.host_name() {
            self.0.lock().remove(&host);
        }
    }

    /// All of them, by name.
    pub fn list(&self) -> Vec<v1::HostPause> {
        let now = Instant::now();
        let hosts = self.0.lock();
        let rows = hosts.iter().filter(|(_, paused)| paused.until > now);
        let mut list: Vec<v1::HostPause> = rows
            .map(|(host, paused)| {
                shown(&HostPause {
                    host: host.clone(),
                    cause: paused.cause.clone(),
                    retry_after: paused.until - now,
                })
            })
            .collect();
        list.sort_by(|a, b| a.host.cmp(&b.host));
        list
    }
}

/// A pause as it is shown, with the time of the next try.
pub fn shown(pause: &HostPause) -> v1::HostPause {
    v1::HostPause {
        next_try_at: clock::now() + whole_seconds(pause.retry_after),
        ..v1::HostPause::from(pause)
    }
}

/// Rounded up.
fn whole_seconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis().div_ceil(1000)).unwrap_or(i64::MAX / 2)
}

/// What this router knows and what fetchers say, one row for each host: the pause that lasts
/// longest.
pub fn merged<'a>(
    own: Vec<v1::HostPause>,
    fetchers: impl Iterator<Item = &'a v1::HostPause>,
) -> Vec<v1::HostPause> {
    let now = clock::now();
    let mut all = own;
    for pause in fetchers {
        let pause = v1::HostPause {
            next_try_at: now + whole_seconds(Duration::from_millis(pause.retry_after_ms)),
            ..pause.clone()
        };
        match all.iter_mut().find(|known| known.host == pause.host) {
            Some(known) if known.next_try_at >= pause.next_try_at => {}
            Some(known) => *known = pause,
            None => all.push(pause),
        }
    }
    all.sort_by(|a, b| a.host.cmp(&b.host));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_now(host: &str, retry_after: Duration) -> Error {
        Error::unavailable(format!("{host} says not now")).with_pause(HostPause {
            host: host.to_owned(),
            cause: "HTTP 429".to_owned(),
            retry_after,
        })
    }

    fn source(url: &str) -> SourceUrl {
        SourceUrl::new(url).expect("a source")
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_host_is_not_asked_until_its_time_is_over_or_it_answered() {
        let hosts = PausedHosts::default();
        hosts.note(&Error::unavailable("no route"));
        assert!(hosts.list().is_empty());
        hosts.note(&not_now("h", HOUR));
        let error = hosts.check(&source("https://H/b")).expect_err("paused");
        assert_eq!(error.message, "h says not now");
        let left = error.pause.expect("with the time").retry_after;
        assert!(left <= HOUR && left > HOUR / 2);
        assert!(hosts.check(&source("https://other/b")).is_ok());
        let listed = hosts.list();
        assert!(listed[0].next_try_at > clock::now() + 3500, "{listed:?}");
        hosts.answered(&source("https://h/c"));
        assert!(hosts.check(&source("https://h/b")).is_ok());
        hosts.note(&not_now("h", Duration::ZERO));
        assert!(hosts.check(&source("https://h/b")).is_ok());
        assert!(hosts.list().is_empty());
    }

    #[test]
    fn the_number_of_hosts_is_bounded() {
        let hosts = PausedHosts::default();
        for number in 0..HOSTS_MAX + 9 {
            hosts.note(&not_now(&format!("h{number}"), HOUR));
        }
        assert_eq!(hosts.list().len(), HOSTS_MAX);
    }

    #[test]
    fn the_longest_pause_of_a_host_is_shown_once() {
        let hosts = PausedHosts::default();
        hosts.note(&not_now("a", Duration::from_secs(60)));
        let told = |host: &str, seconds: u64| v1::HostPause {
            host: host.to_owned(),
            retry_after_ms: seconds * 1000,
            ..Default::default()
        };
        let fetchers = [told("b", 5), told("a", 600), told("b", 1)];
        let shown = merged(hosts.list(), fetchers.iter());
        let names: Vec<_> = shown.iter().map(|pause| pause.host.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(shown[0].next_try_at >= clock::now() + 599);
    }
}
