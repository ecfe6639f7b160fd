//! The exporter: spans of `tracing` become OpenTelemetry's, in batches, over OTLP (gRPC).
//!
//! The trace id of a span is made from its `request` field, so what all roles did for one request
//! is one trace, though no trace context travels between them. That is done as a batch leaves,
//! where the field is at hand. Every span of ours (`request` and `rpc` of `monofs_rpc`) has the
//! field; one without it would stay in a trace of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, TraceId, TracerProvider as _};
use opentelemetry::{KeyValue, Value};
use opentelemetry_otlp::{RetryPolicy, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter,
};
use tracing::Level;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;

use super::{SpanLayer, SpanService};
use crate::exit::{Code, Failure};
use crate::version;

/// Spans that wait to be sent; what comes beyond is dropped.
const QUEUE_MAX: usize = 8192;
/// Spans in one message, so that with all their lines it stays below the 4 MiB that a collector
/// takes.
const BATCH_MAX: usize = 512;
/// How long a span waits for others before it is sent.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// How long one batch may take.
const EXPORT_MAX: Duration = Duration::from_secs(5);
/// How long the end of the process waits for the last batch.
const FLUSH_MAX: Duration = Duration::from_secs(1);
/// Log lines kept with one span.
const EVENTS_MAX: u32 = 32;

/// The running export.
#[derive(Debug)]
pub(crate) struct SpanExport {
    provider: SdkTracerProvider,
}

impl SpanExport {
    /// Starts to export to `endpoint`, and gives what collects the spans. Does not connect yet;
    /// must be called within the runtime, which drives the connection.
    pub(crate) fn start(
        service: &SpanService,
        endpoint: &str,
    ) -> Result<(Self, SpanLayer), Failure> {
        let sender = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_MAX)
            // Once more at once, for a connection that ended since the last batch; waiting would
            // hold up the end of the process.
            .with_retry_policy(RetryPolicy::disabled().with_max_retries(1))
            .build()
            .map_err(|error| {
                Failure::new(Code::Usage, format!("--otlp-endpoint {endpoint}: {error}"))
                    .hint("write it like http://localhost:4317")
            })?;
        let sender = RequestSpanExporter {
            sender,
            endpoint: endpoint.to_owned(),
            away: AtomicBool::new(false),
        };
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_MAX)
            .with_max_export_batch_size(BATCH_MAX)
            .with_scheduled_delay(BATCH_DELAY)
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(
                BatchSpanProcessor::builder(sender)
                    .with_batch_config(batches)
                    .build(),
            )
            .with_resource(resource(service))
            .with_sampler(Sampler::AlwaysOn)
            .with_max_events_per_span(EVENTS_MAX)
            .build();
        let layer = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("monofs"))
            // OpenTelemetry's own context is never read, and spans are entered at every poll.
            .with_context_activation(false)
            .with_tracked_inactivity(false)
            .with_threads(false)
            .with_location(false)
            // Ours alone, whatever RUST_LOG says: the exporter's connection would otherwise make
            // spans of its own.
            .with_filter(Targets::new().with_target("monofs", Level::INFO))
            .boxed();
        Ok((Self { provider }, layer))
    }

    /// Sends what is left, as far as that is possible within `FLUSH_MAX`. Not from within the
    /// runtime, which must run on.
    pub(crate) fn end(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH_MAX) {
            tracing::debug!(%error, "the last spans were not exported");
        }
    }
}

fn resource(service: &SpanService) -> Resource {
    let instance = service
        .instance
        .iter()
        .map(|id| KeyValue::new("service.instance.id", id.clone()));
    Resource::builder()
        .with_service_name(service.name)
        .with_attribute(KeyValue::new("service.version", version::VERSION))
        .with_attributes(instance)
        .build()
}

/// Sends spans under the trace of their request, and says once when the collector is away.
#[derive(Debug)]
struct RequestSpanExporter {
    sender: opentelemetry_otlp::SpanExporter,
    endpoint: String,
    /// The last batch could not be sent.
    away: AtomicBool,
}

impl SpanExporter for RequestSpanExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let outcome = self
            .sender
            .export(batch.into_iter().map(of_request).collect())
            .await;
        let was_away = self.away.swap(outcome.is_err(), Ordering::Relaxed);
        match &outcome {
            Err(error) if !was_away => {
                tracing::warn!(endpoint = self.endpoint, %error, "spans are not exported until the \
                 collector takes them");
            }
            Ok(()) if was_away => {
                tracing::info!(endpoint = self.endpoint, "spans are exported again")
            }
            _ => {}
        }
        outcome
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.sender.set_resource(resource);
    }
}

/// The span as an operator looks for it: in the trace of its request, named by what was done.
fn of_request(mut span: SpanData) -> SpanData {
    // What our own spans say of their request.
    let trace = text_of(&span, "request").and_then(trace_of);
    let served = text_of(&span, "path").map(|path| path.trim_start_matches('/').to_owned());
    let begun = text_of(&span, "doing").map(str::to_owned);
    if let Some(trace) = trace {
        let old = &span.span_context;
        span.span_context = SpanContext::new(
            trace,
            old.span_id(),
            old.trace_flags(),
            old.is_remote(),
            old.trace_state().clone(),
        );
        // Each is where a request enters the process. A span around it is of another request, so of
        // another trace.
        span.parent_span_id = SpanId::INVALID;
    }
    if let Some(path) = served {
        span.name = path.into();
        span.span_kind = SpanKind::Server;
    } else if let Some(doing) = begun {
        span.name = doing.into();
    }
    span
}

/// The value of a span's attribute that is text.
fn text_of<'s>(span: &'s SpanData, key: &str) -> Option<&'s str> {
    let mut attributes = span.attributes.iter();
    let found = attributes.find(|attribute| attribute.key.as_str() == key)?;
    match &found.value {
        Value::String(text) => Some(text.as_str()),
        _ => None,
    }
}

/// The trace of a request: its 16 hexadecimal digits with 16 zeros before them. An id of another
/// shape, from a foreign caller, has none.
fn trace_of(request: &str) -> Option<TraceId> {
    let digits = request.len() == 16 && request.bytes().all(|b| b.is_ascii_hexdigit());
    let id = u64::from_str_radix(request, 16)
        .ok()
        .filter(|id| digits && *id != 0)?;
    Some(TraceId::from(u128::from(id)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_the_end_of_its_trace_id() {
        assert_eq!(
            trace_of("9d6a00000000001f").unwrap().to_string(),
            "00000000000000009d6a00000000001f"
        );
        for foreign in [
            "",
            "+d6a00000000001f",
            "0000000000000000",
            "order-17",
            "9d6a00000000001f00",
        ] {
            assert_eq!(trace_of(foreign), None, "{foreign}");
        }
    }
}
