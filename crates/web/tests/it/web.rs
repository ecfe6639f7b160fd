//! A small HTTP client for these tests: one request on one connection, as old as HTTP/1.0, so that
//! the end of the connection is the end of the answer.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(30);

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }
}

/// Asks the server at `host:port`.
pub async fn ask(
    at: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let exchange = async {
        let mut reader = send(at, method, path, headers, body).await;
        let (status, headers) = head(&mut reader).await;
        let mut body = Vec::new();
        reader.read_to_end(&mut body).await.unwrap();
        Answer {
            status,
            headers,
            body,
        }
    };
    tokio::time::timeout(LIMIT, exchange)
        .await
        .unwrap_or_else(|_| panic!("{method} {path} takes too long"))
}

pub async fn get(at: &str, path: &str) -> Answer {
    ask(at, "GET", path, &[], b"").await
}

pub async fn post(at: &str, path: &str, body: &Value) -> Answer {
    ask(
        at,
        "POST",
        path,
        &[("content-type", "application/json")],
        body.to_string().as_bytes(),
    )
    .await
}

/// Server-sent events as they come.
pub struct Events {
    reader: BufReader<TcpStream>,
}

impl Events {
    pub async fn of(at: &str, path: &str) -> Self {
        let mut reader = send(at, "GET", path, &[], b"").await;
        let (status, headers) = head(&mut reader).await;
        assert_eq!(status, 200, "{path}");
        let kind = headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        assert_eq!(
            kind.map(|(_, value)| value.as_str()),
            Some("text/event-stream")
        );
        Self { reader }
    }

    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Option<(String, Value)> {
        let mut name = String::new();
        loop {
            let mut line = String::new();
            let read = tokio::time::timeout(LIMIT, self.reader.read_line(&mut line))
                .await
                .expect("an event comes");
            if read.unwrap() == 0 {
                return None;
            }
            if let Some(text) = line.strip_prefix("event: ") {
                name = text.trim_end().to_owned();
            } else if let Some(text) = line.strip_prefix("data: ") {
                return Some((name, serde_json::from_str(text).unwrap()));
            }
        }
    }

    /// The first event that `wanted` takes.
    pub async fn find(&mut self, what: &str, wanted: impl Fn(&str, &Value) -> bool) -> Value {
        loop {
            let (name, data) = self
                .next()
                .await
                .unwrap_or_else(|| panic!("the events end before {what}"));
            if wanted(&name, &data) {
                return data;
            }
        }
    }
}

async fn send(
    at: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let mut request = format!("{method} {path} HTTP/1.0\r\nhost: {at}\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        request.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    BufReader::new(stream)
}

async fn head(reader: &mut BufReader<TcpStream>) -> (u16, Vec<(String, String)>) {
    let mut line = String::new();
    reader.read_line(&mut line).await.unwrap();
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("{line}"));
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).await.unwrap();
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_owned(), value.to_owned())),
            None => return (status, headers),
        }
    }
}

/// The status of `GET path`, whose body need not end.
pub async fn status_of(at: &str, path: &str) -> u16 {
    let mut reader = send(at, "GET", path, &[], b"").await;
    head(&mut reader).await.0
}
