//! What a collector gets from a process, and what the process does without one.

use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::{Running, output, role};

/// How long a batch may take to arrive.
const ARRIVES: Duration = Duration::from_secs(20);
/// How long a process may take to end: the last flush and what a busy machine adds, less than an
/// export may take.
const ENDS: Duration = Duration::from_secs(4);
const AWAY: &str = "spans are not exported";

/// A collector that keeps what it gets.
struct Collector {
    address: SocketAddr,
    batches: mpsc::Receiver<ExportTraceServiceRequest>,
    _runtime: tokio::runtime::Runtime,
}

struct Keep(mpsc::Sender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Keep {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.0
            .send(request.into_inner())
            .map_err(|_| tonic::Status::unavailable("the test is over"))?;
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, batches) = mpsc::channel();
        let server = Server::builder().add_service(TraceServiceServer::new(Keep(sender)));
        runtime.spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        Self {
            address,
            batches,
            _runtime: runtime,
        }
    }

    /// The next span that is named so, with what is said about its process.
    fn next(&self, name: &str) -> (Vec<KeyValue>, Span) {
        let until = Instant::now() + ARRIVES;
        loop {
            let batch = self
                .batches
                .recv_timeout(until.saturating_duration_since(Instant::now()))
                .unwrap();
            for process in batch.resource_spans {
                let spans = process
                    .scope_spans
                    .into_iter()
                    .flat_map(|scope| scope.spans);
                if let Some(span) = spans.into_iter().find(|span| span.name == name) {
                    return (process.resource.unwrap().attributes, span);
                }
            }
        }
    }
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> &'a str {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{key} is {other:?}"),
    }
}

fn exporting_to(address: SocketAddr) -> std::process::Command {
    let mut command = role();
    command
        .arg("--deed=ask")
        .arg(format!("--otlp-endpoint=http://{address}"));
    command
}

#[test]
fn a_collector_gets_each_request_under_the_trace_of_its_id_though_the_log_is_quiet() {
    let collector = Collector::start();
    let running = Running::start(
        exporting_to(collector.address)
            .arg("--role-id=role-7")
            .env("RUST_LOG", "warn"),
    );
    let (process, span) = collector.next("start");
    assert_eq!(text(&process, "service.name"), "role");
    assert_eq!(text(&process, "service.version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(text(&process, "service.instance.id"), "role-7");
    let request = text(&span.attributes, "request");
    let trace: String = span
        .trace_id
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(trace, format!("{request:0>32}"));
    assert!(
        span.events.iter().any(|line| line.name == "started"),
        "{:?}",
        span.events
    );

    running.signal("TERM");
    assert_eq!(running.end(), (0, String::new()));
    let (_, last) = collector.next("drain");
    assert_ne!(
        text(&last.attributes, "request"),
        request,
        "what happens while it drains is sent before it ends"
    );
}

#[test]
fn without_a_collector_a_process_warns_once_works_and_ends() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut running = Running::start(&mut exporting_to(free));
    running.until("started");
    assert!(running.until(AWAY).contains(&free.to_string()));
    running.signal("TERM");
    running.until("drained");
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut running.lines, &mut rest).unwrap();
    assert!(!rest.contains(AWAY), "{rest}");
    assert_eq!(running.end(), (0, String::new()));
}

#[test]
fn a_collector_that_does_not_answer_does_not_hold_up_the_end() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut running = Running::start(&mut exporting_to(silent.local_addr().unwrap()));
    running.until("started");
    running.signal("TERM");
    running.until("drained");
    let drained = Instant::now();
    assert_eq!(running.end(), (0, String::new()));
    assert!(drained.elapsed() < ENDS, "{:?}", drained.elapsed());
}

#[test]
fn an_endpoint_that_is_none_is_wrong_usage() {
    for (endpoint, hint) in [
        ("localhost:4317", "http://localhost:4317"),
        ("https://collector:4317", "no TLS"),
    ] {
        let (code, _, said) = output(role().args(["--otlp-endpoint", endpoint]));
        assert_eq!(code, 2, "{said}");
        assert!(
            said.contains("--otlp-endpoint") && said.contains(hint),
            "{said}"
        );
    }
}
