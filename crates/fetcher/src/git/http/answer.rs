//! Answers as gix reads them: the head as lines, then the body. A request with a body is sent when
//! its answer is first read.

use std::io::{self, BufReader, Cursor, Read, Write};
use std::sync::Arc;

use gix::protocol::transport::client::blocking_io::http::{GetResponse, PostResponse};
use parking_lot::Mutex;
use reqwest::blocking::{RequestBuilder, Response};

use super::retry_after;
use super::verdict::{HttpFailure, HttpVerdict, note, understood};

/// Largest body of a request: what is wanted and what is here.
const POST_BYTES_MAX: usize = 64 << 20;

/// The answer to a request without a body.
pub fn got(
    answer: Response,
    verdict: Arc<Mutex<HttpVerdict>>,
) -> GetResponse<BufReader<AnswerHeaders>, BufReader<AnswerBody>> {
    let lines = AnswerPart::Bytes(Cursor::new(header_lines(&answer)));
    let body = AnswerPart::Whole(Box::new(answer), verdict);
    GetResponse {
        headers: BufReader::new(AnswerHeaders(lines)),
        body: BufReader::new(AnswerBody(body)),
    }
}

/// A request whose body is still to come, and its answer after that.
pub fn posted(
    request: RequestBuilder,
    verdict: Arc<Mutex<HttpVerdict>>,
) -> PostResponse<BufReader<AnswerHeaders>, BufReader<AnswerBody>, PostBody> {
    let body = Vec::new();
    let post = Arc::new(Post {
        state: Mutex::new(PostState::Open { request, body }),
        verdict,
    });
    PostResponse {
        headers: BufReader::new(AnswerHeaders(AnswerPart::Post(post.clone()))),
        body: BufReader::new(AnswerBody(AnswerPart::Post(post.clone()))),
        post_body: PostBody(post),
    }
}

/// The headers of an answer, a line each, as gix reads them.
fn header_lines(answer: &Response) -> Vec<u8> {
    let mut lines = Vec::new();
    for (name, value) in answer.headers() {
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.push(b':');
        lines.extend_from_slice(value.as_bytes());
        lines.push(b'\n');
    }
    lines
}

/// A post that is sent when its answer is first read: its body is complete by then.
enum PostState {
    Open {
        request: RequestBuilder,
        body: Vec<u8>,
    },
    Answered {
        headers: Cursor<Vec<u8>>,
        body: Response,
    },
    Failed,
}

struct Post {
    state: Mutex<PostState>,
    verdict: Arc<Mutex<HttpVerdict>>,
}

impl Post {
    /// Runs `read` on the answer, after sending the request if that was not done yet.
    fn with_answer<T>(
        &self,
        read: impl FnOnce(&mut Cursor<Vec<u8>>, &mut Response) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.state.lock();
        if let PostState::Open { .. } = &*state
            && let PostState::Open { request, body } =
                std::mem::replace(&mut *state, PostState::Failed)
        {
            let answer = request
                .body(body)
                .send()
                .map_err(|e| understood(&e))
                .and_then(accepted)
                .map_err(|failure| note(&self.verdict, failure))?;
            *state = PostState::Answered {
                headers: Cursor::new(header_lines(&answer)),
                body: answer,
            };
        }
        match &mut *state {
            PostState::Answered { headers, body } => read(headers, body),
            _ => Err(io::Error::other("the request failed before")),
        }
    }
}

/// The answer to a post, which is never redirected.
fn accepted(answer: Response) -> std::result::Result<Response, HttpFailure> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    Err(HttpFailure::Status {
        code: status.as_u16(),
        reason: status.canonical_reason().unwrap_or("unknown status"),
        retry_after: retry_after::of(answer.headers()),
        elsewhere: None,
    })
}

/// The head of an answer.
pub struct AnswerHeaders(AnswerPart);

/// The body of an answer.
pub struct AnswerBody(AnswerPart);

enum AnswerPart {
    /// Of a get.
    Bytes(Cursor<Vec<u8>>),
    Whole(Box<Response>, Arc<Mutex<HttpVerdict>>),
    /// Of a post.
    Post(Arc<Post>),
}

impl Read for AnswerHeaders {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            AnswerPart::Bytes(bytes) => bytes.read(buffer),
            AnswerPart::Whole(..) => Ok(0),
            AnswerPart::Post(post) => post.with_answer(|headers, _| headers.read(buffer)),
        }
    }
}

impl Read for AnswerBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // An answer in memory cannot fall silent; the other two still come from the network.
        let (read, verdict) = match &mut self.0 {
            AnswerPart::Bytes(bytes) => return bytes.read(buffer),
            AnswerPart::Whole(answer, verdict) => (answer.read(buffer), verdict),
            AnswerPart::Post(post) => {
                let read = post.with_answer(|_, body| body.read(buffer));
                (read, &mut post.verdict.clone())
            }
        };

        // The silence is noted where the failure is judged later; an earlier failure stays the
        // cause.
        read.map_err(|error| {
            let inner = error
                .get_ref()
                .and_then(|e| e.downcast_ref::<reqwest::Error>());
            if error.kind() == io::ErrorKind::TimedOut
                || inner.is_some_and(reqwest::Error::is_timeout)
            {
                let failure = HttpFailure::Silent { connecting: false };
                verdict.lock().failure.get_or_insert(failure);
                return io::Error::new(io::ErrorKind::TimedOut, "it fell silent");
            }
            error
        })
    }
}

/// The body of a request.
pub struct PostBody(Arc<Post>);

impl Write for PostBody {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *self.0.state.lock() {
            PostState::Open { body, .. } if body.len() + bytes.len() <= POST_BYTES_MAX => {
                body.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            PostState::Open { .. } => Err(io::Error::other("a request of over 64 MiB")),
            _ => Err(io::Error::other("the request was sent already")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
