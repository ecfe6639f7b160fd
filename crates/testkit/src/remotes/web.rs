//! A host that answers HTTP as a test wants: refusals, redirects, pages for people; what it has no
//! answer of its own for goes to a real server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebRequest {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The value of `Authorization`, if there is one.
    pub login: Option<String>,
}

/// What the host answers by itself.
#[derive(Debug, Clone, Default)]
pub struct WebAnswer {
    /// Such as `429 Too Many Requests`.
    pub status: String,
    /// Lines such as `Retry-After: 5`.
    pub headers: Vec<String>,
    pub body: String,
}

impl WebAnswer {
    /// An answer of this status with these header lines and nothing else.
    pub fn new(status: &str, headers: &[&str]) -> Self {
        Self {
            status: status.to_owned(),
            headers: headers.iter().map(|line| (*line).to_owned()).collect(),
            body: String::new(),
        }
    }
}

type Answering = dyn Fn(&WebRequest) -> Option<WebAnswer> + Send + Sync;

/// The host; it serves until it is dropped.
pub struct WebHost {
    port: u16,
    asked: Arc<Mutex<Vec<WebRequest>>>,
    is_over: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl WebHost {
    /// Answers what `answer` gives; where that is nothing, what the server at port `behind` of this
    /// machine gives.
    #[track_caller]
    pub fn serve(
        behind: u16,
        answer: impl Fn(&WebRequest) -> Option<WebAnswer> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let asked = Arc::<Mutex<Vec<WebRequest>>>::default();
        let answer: Arc<Answering> = Arc::new(answer);
        let is_over = Arc::<AtomicBool>::default();
        let accepting = std::thread::spawn({
            let asked = asked.clone();
            let is_over = is_over.clone();
            move || {
                for stream in listener.incoming().flatten() {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    let asked = asked.clone();
                    let answer = answer.clone();
                    // A client that hangs up ends its thread alone.
                    std::thread::spawn(move || {
                        let _ = converse(&stream, behind, &asked, &*answer);
                    });
                }
            }
        });
        Self {
            port,
            asked,
            is_over,
            accepting: Some(accepting),
        }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a repository.
    pub fn url(&self, name: &str) -> String {
        format!("http://localhost:{}/{name}", self.port)
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<WebRequest> {
        self.asked.lock().clone()
    }
}

impl Drop for WebHost {
    /// Stops accepting, so that what its answers hold is dropped with it.
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // Accepting waits for a connection.
        if TcpStream::connect(("127.0.0.1", self.port)).is_ok()
            && let Some(accepting) = self.accepting.take()
        {
            let _ = accepting.join();
        }
    }
}

/// Takes one request and answers it; every connection carries one.
fn converse(
    stream: &TcpStream,
    behind: u16,
    asked: &Mutex<Vec<WebRequest>>,
    answer: &Answering,
) -> std::io::Result<()> {
    // The head, line by line.
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if line.trim_end().is_empty() {
            break;
        }
        head.push(line.trim_end().to_owned());
    }
    let header = |name: &str| {
        head.iter().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name)
                .then(|| value.trim().to_owned())
        })
    };
    let mut words = head[0].split(' ');
    let request = WebRequest {
        method: words.next().unwrap_or_default().to_owned(),
        target: words.next().unwrap_or_default().to_owned(),
        login: header("authorization"),
    };
    let length = header("content-length").and_then(|text| text.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    asked.lock().push(request.clone());
    // Its own answer, or that of the server behind it.
    let mut out = stream;
    if let Some(own) = answer(&request) {
        write!(out, "HTTP/1.1 {}\r\n", own.status)?;
        for line in &own.headers {
            write!(out, "{line}\r\n")?;
        }
        write!(
            out,
            "Content-Length: {}\r\nConnection: close\r\n\r\n{}",
            own.body.len(),
            own.body
        )?;
        return stream.shutdown(Shutdown::Write);
    }
    let mut server = TcpStream::connect(("127.0.0.1", behind))?;
    for line in head
        .iter()
        .filter(|line| !line.to_lowercase().starts_with("connection:"))
    {
        write!(server, "{line}\r\n")?;
    }
    write!(server, "Connection: close\r\n\r\n")?;
    server.write_all(&body)?;
    std::io::copy(&mut server, &mut out)?;
    stream.shutdown(Shutdown::Write)
}
