//! A change is made in the name of the request that asked for it, by whichever door it came.

use std::io::Write;
use std::sync::Arc;

use monofs_proto::v1;
use monofs_proto::v1::admin_client::AdminClient;
use parking_lot::Mutex;
use serde_json::json;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::site::TestSite;
use crate::web::post;

/// Everything that was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The lines that have all of these.
    fn lines(&self, parts: &[&str]) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.0.lock()).into_owned();
        let fits = |line: &&str| parts.iter().all(|part| line.contains(part));
        text.lines().filter(fits).map(str::to_owned).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_logged_with_the_request_and_the_door_that_it_came_by() {
    let log = Log::default();
    let writer = log.clone();
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(move || writer.clone());
    let only = tracing_subscriber::EnvFilter::new("monofs_control=debug,monofs_router=debug");
    tracing_subscriber::registry().with(only).with(lines).init();
    let site = TestSite::start().await;
    // Over HTTP.
    let drained = post(
        &site.at,
        "/api/v1/drain",
        &json!({ "reason": "new switch" }),
    )
    .await;
    assert_eq!(drained.status, 200);
    // Over gRPC, by a caller that names itself and its request.
    let mut admin = AdminClient::connect(format!("http://{}", site.grpc))
        .await
        .unwrap();
    let mut request = tonic::Request::new(v1::UndrainRequest::default());
    let metadata = request.metadata_mut();
    metadata.insert("monofs-principal", "alice".parse().unwrap());
    metadata.insert("monofs-request-id", "00000000deadbeef".parse().unwrap());
    admin.undrain(request).await.unwrap();
    for (verb, by) in [
        ("drain", "anonymous by http"),
        ("undrain", "alice by grpc (request 00000000deadbeef)"),
    ] {
        let asked = log.lines(&["a verb is asked for", &format!("verb=\"{verb}\""), by]);
        assert_eq!(asked.len(), 1, "{verb}");
    }
    let changed = log.lines(&["changed the control state", "maintenance"]);
    assert_eq!(changed.len(), 2, "{changed:?}");
    assert!(changed[0].contains("anonymous by http"), "{changed:?}");
    assert!(
        changed[1].contains("alice by grpc (request 00000000deadbeef)"),
        "{changed:?}"
    );
}
