//! Spans of the process to an OpenTelemetry collector (`--otlp-endpoint`); the flag is in every
//! build, what it needs only in one with the feature `otlp`.
//!
//! Called by `start` alone. Invariants: nothing waits for the collector (a bounded queue, sent in
//! batches by a thread of its own, what does not fit is dropped); a collector that is away is one
//! warning; the end of the process waits for it at most `FLUSH_MAX`.

#[cfg(feature = "otlp")]
mod otlp;

#[cfg(feature = "otlp")]
pub(crate) use otlp::SpanExport;
use tracing_subscriber::{Layer, Registry};

/// What a build without the feature says to the flag.
const ABSENT: &str =
    "this build cannot export spans: build with `cargo build --release --features otlp`";

/// What a subscriber gets to collect spans.
pub(crate) type SpanLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Which process the spans are of.
#[derive(Debug, Clone)]
#[cfg_attr(
    not(feature = "otlp"),
    expect(dead_code, reason = "only the exporter asks")
)]
pub(crate) struct SpanService {
    pub name: &'static str,
    /// The id of the node, fetcher or router, if it was given one.
    pub instance: Option<String>,
}

impl SpanService {
    /// The service of this name; its id is the value of a role's flag: `--node-id` of
    /// `monofs-node`.
    pub(crate) fn new(name: &'static str, matches: &clap::ArgMatches) -> Self {
        let flag = format!("{}_id", name.trim_start_matches("monofs-"));
        let mut given = matches
            .try_get_raw(&flag)
            .ok()
            .flatten()
            .into_iter()
            .flatten();
        let instance = given
            .next()
            .and_then(|id| id.to_str())
            .filter(|id| !id.is_empty())
            .map(str::to_owned);
        Self { name, instance }
    }
}

/// The address of a collector, as `--otlp-endpoint` takes it.
pub(crate) fn collector(text: &str) -> Result<String, String> {
    if !cfg!(feature = "otlp") {
        return Err(ABSENT.to_owned());
    }
    match text.split_once("://") {
        Some(("http", address)) if crate::args::address(address.trim_end_matches('/')).is_ok() => {
            Ok(text.to_owned())
        }
        Some(("https", _)) => {
            Err("no TLS here: send to a collector on this host or network by http".to_owned())
        }
        _ => Err(
            "write it like http://localhost:4317, the collector's port for OTLP over gRPC"
                .to_owned(),
        ),
    }
}

#[cfg(not(feature = "otlp"))]
pub(crate) use absent::SpanExport;

/// In this build nothing is exported.
#[cfg(not(feature = "otlp"))]
mod absent {
    use super::{ABSENT, SpanLayer, SpanService};
    use crate::exit::{Code, Failure};

    #[derive(Debug)]
    pub(crate) enum SpanExport {}

    impl SpanExport {
        /// Never; the flag's parser has said so before.
        pub(crate) fn start(_: &SpanService, endpoint: &str) -> Result<(Self, SpanLayer), Failure> {
            Err(Failure::new(
                Code::Usage,
                format!("--otlp-endpoint {endpoint}: {ABSENT}"),
            ))
        }

        pub(crate) fn end(&self) {
            match *self {}
        }
    }
}
