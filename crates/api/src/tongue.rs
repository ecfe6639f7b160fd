//! The two tongues that documents are written in, HTTP and the command line, and the little in
//! which they differ: how a time is written, and which replaced words are still there.
//!
//! Both differences are for programs that read the documents already. Times are seconds since the
//! epoch over HTTP and RFC 3339 on the command line, under the same names. A word that was replaced
//! by the one that both tongues use now stays in the tongue that had it.
//!
//! A document does not know where it is going, so who writes it says so for the time of the
//! writing: [`Tongue::write`].

use std::cell::Cell;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

/// The last second of the year 9999, the last one that RFC 3339 can write.
const RFC3339_MAX: i64 = 253_402_300_799;

/// Where a document is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tongue {
    /// The HTTP API, unless something else was said.
    Http,
    /// `monofs-admin --format json`.
    CommandLine,
}

/// Words that only HTTP still has, each with the one that replaced it. Where such a word stands for
/// something else, it names an object.
pub const REPLACED_OVER_HTTP: [(&str, &str); 14] = [
    ("router", "router_id"),
    ("node", "node_id"),
    ("job", "job_id"),
    ("routers", "routers_known"),
    ("view", "view_number"),
    ("fetched_bytes", "bytes_fetched"),
    ("acked_revision", "acknowledged_revision"),
    ("reads_per_second", "requests_per_second"),
    ("errors_per_second", "failed_per_second"),
    ("latency_p50_seconds", "p50_seconds"),
    ("latency_p99_seconds", "p99_seconds"),
    ("requests_failed", "requests.failed"),
    ("chunks_held", "requests.chunks_held"),
    ("chunks_missed", "requests.chunks_missed"),
];

/// Words that only the command line still has, each with the one that replaced it.
pub const REPLACED_ON_THE_COMMAND_LINE: [(&str, &str); 8] = [
    ("figures", "stat"),
    ("trees_served", "directories_served"),
    ("hydrated_files", "contents_held"),
    ("total_files", "contents_total"),
    ("cache_hits_percent", "cache_hit_ratio"),
    ("chunks_here_percent", "node_hit_ratio"),
    ("submodule", "url"),
    ("name_hex", "path_encoded"),
];

thread_local! {
    static TONGUE: Cell<Tongue> = const { Cell::new(Tongue::Http) };
}

/// Sets the tongue of this thread back when it goes out of scope.
struct Restore(Tongue);

impl Drop for Restore {
    fn drop(&mut self) {
        TONGUE.set(self.0);
    }
}

impl Tongue {
    /// Runs `write`, which writes documents in this tongue on this thread.
    pub fn write<T>(self, write: impl FnOnce() -> T) -> T {
        let _before = Restore(TONGUE.replace(self));
        write()
    }
}

/// For a word that HTTP had: whether it is left out.
pub(crate) fn not_http<T>(_: &T) -> bool {
    TONGUE.get() != Tongue::Http
}

/// For a word that the command line had: whether it is left out.
pub(crate) fn not_command_line<T>(_: &T) -> bool {
    TONGUE.get() != Tongue::CommandLine
}

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ToSchema)]
#[schema(value_type = i64, description = "Seconds since the epoch")]
pub struct Time(i64);

impl Time {
    /// From seconds since the epoch.
    pub const fn new(seconds: i64) -> Self {
        Self(seconds)
    }

    /// From a message, where 0 stands for never or not known.
    pub fn known(seconds: i64) -> Option<Self> {
        (seconds != 0).then_some(Self(seconds))
    }

    /// Seconds since the epoch.
    pub const fn seconds(self) -> i64 {
        self.0
    }

    /// As RFC 3339, or `@` and the seconds where that has no form for it.
    pub fn text(self) -> String {
        match u64::try_from(self.0) {
            Ok(since) if self.0 <= RFC3339_MAX => {
                humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(since))
                    .to_string()
            }
            _ => format!("@{}", self.0),
        }
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match TONGUE.get() {
            Tongue::Http => serializer.serialize_i64(self.0),
            Tongue::CommandLine => serializer.serialize_str(&self.text()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_seconds_over_http_and_text_on_the_command_line() {
        let time = Time::new(1_700_000_000);
        let json = || serde_json::to_string(&time).expect("a time is plain JSON");
        assert_eq!(json(), "1700000000");
        let text = Tongue::CommandLine.write(json);
        assert_eq!(text, "\"2023-11-14T22:13:20Z\"");
        assert_eq!(json(), "1700000000", "the tongue ends with the writing");
    }

    #[test]
    fn times_of_any_age_have_a_text() {
        assert_eq!(Time::known(0), None);
        assert_eq!(Time::new(-5).text(), "@-5");
        assert_eq!(Time::new(i64::MAX).text(), "@9223372036854775807");
        assert_eq!(Time::new(RFC3339_MAX).text(), "9999-12-31T23:59:59Z");
    }
}
