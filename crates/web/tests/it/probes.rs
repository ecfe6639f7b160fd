//! What a load balancer asks.

use std::net::SocketAddr;

use monofs_proto::v1;
use monofs_proto::v1::admin_client::AdminClient;
use monofs_router::Config;
use monofs_web::spawn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::web::get;

/// The status of `GET path` in HTTP/1.1.
async fn status(at: SocketAddr, path: &str) -> u16 {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: router\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn both_ports_answer_a_load_balancer_and_one_of_them_grpc() {
    let dir = tempfile::tempdir().unwrap();
    let listener = || async { TcpListener::bind("127.0.0.1:0").await.unwrap() };
    let router = spawn(
        Config::new(dir.path().join("state")),
        listener().await,
        listener().await,
    )
    .await
    .unwrap();
    for port in [router.address(), router.http_address()] {
        assert_eq!(status(port, "/ready").await, 200);
        assert_eq!(status(port, "/health").await, 503, "no node is active");
    }
    assert_eq!(status(router.http_address(), "/api/status").await, 200);
    let mut admin = AdminClient::connect(format!("http://{}", router.address()))
        .await
        .unwrap();
    assert!(
        admin
            .status(v1::StatusRequest::default())
            .await
            .unwrap()
            .into_inner()
            .nodes
            .is_empty()
    );
}

#[tokio::test]
async fn paths_that_people_and_tools_try_answer_as_the_documented_ones_do() {
    let dir = tempfile::tempdir().unwrap();
    let listener = || async { TcpListener::bind("127.0.0.1:0").await.unwrap() };
    let config = Config::new(dir.path().join("state"));
    let router = spawn(config, listener().await, listener().await)
        .await
        .unwrap();
    let at = router.http_address().to_string();
    let keys = |answer: &crate::web::Answer| -> Vec<String> {
        let json = answer.json();
        json.as_object().unwrap().keys().cloned().collect()
    };
    let status = get(&at, "/api/v1/status").await;
    assert_eq!(keys(&status), keys(&get(&at, "/api/status").await));
    let metrics = get(&at, "/api/v1/metrics").await;
    assert_eq!(metrics.status, 200);
    let first = get(&at, "/metrics").await;
    assert_eq!(metrics.header("content-type"), first.header("content-type"));
    assert!(String::from_utf8_lossy(&metrics.body).contains("monofs_router_leading"));
    let page = get(&at, "/dashboard").await;
    assert_eq!(page.status, 200);
    assert!(
        page.header("content-type")
            .unwrap()
            .starts_with("text/html")
    );
}
