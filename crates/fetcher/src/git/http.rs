//! Git over `http` and `https` for gix: one request for the refs, then posts.
//!
//! Its own client instead of gix's, because gix hides what decides over the next step: headers of
//! an answer that is an error (`Retry-After`), where a redirect leads, what kind of page came.
//! What went wrong is left in [`HttpVerdict`], as gix passes on little more than a text.
//!
//! Invariants: a login goes to the origin of the source alone, also after redirects; a redirect is
//! followed for the list of refs alone, never from https to http; a request's body is held in
//! memory, bounded by [`POST_BYTES_MAX`].

mod pinned;
mod proxy;
mod retry_after;

use std::io::{self, BufReader, Cursor, Read, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gix::protocol::transport::client::blocking_io::http::{
    GetResponse, Http, PostBodyDataKind, PostResponse,
};
use parking_lot::Mutex;
use reqwest::Url;
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER};

use super::failure::GixResult;
use super::transport::basic;
use crate::credentials::{HostCredentials, Login};
use crate::source::FetchLimits;
use monofs_model::{Error, Result, SourceUrl};

/// Most redirects that are followed.
const REDIRECTS_MAX: usize = 10;
/// Largest body of a request: what is wanted and what is here.
const POST_BYTES_MAX: usize = 64 << 20;
/// What every URL of the list of refs ends with, and a redirect of it, too.
const REFS_TAIL: &str = "/info/refs?service=git-upload-pack";

/// What an answer, or its absence, says about the remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpFailure {
    /// A status that is an error. `retry_after`: what the header of that name says.
    Status {
        code: u16,
        reason: &'static str,
        retry_after: Option<Duration>,
        /// Scheme and host that answered, when it is not the source's own.
        elsewhere: Option<String>,
    },
    /// A page for people instead of Git's own answer. `at`: the URL without its query.
    WebPage { at: String },
    /// It sends requests to a place where they may not go.
    Redirect { to: String, why: &'static str },
    /// It did not answer in time: within the connect timeout, or the idle timeout.
    Silent { connecting: bool },
    /// No connection; with what was said about it.
    Unconnected { why: String },
    /// The server's certificate was refused.
    Certificate { why: String },
}

/// What went wrong, and the proxy that was asked. The first failure counts.
#[derive(Debug, Default)]
pub struct HttpVerdict {
    pub failure: Option<HttpFailure>,
    /// The proxy between us and the host, without its login.
    pub proxy: Option<String>,
}

/// A client for one source.
pub struct GitHttp {
    client: Client,
    /// Trusts only the certificates of `ca_file` themselves; tried when the first one refuses.
    pinned: Option<Client>,
    /// The login, and the origin that gets it.
    login: Option<Login>,
    origin: Option<Url>,
    /// Where the source really is.
    redirected: Option<String>,
    verdict: Arc<Mutex<HttpVerdict>>,
}

impl GitHttp {
    /// A client with the login and the certificates of `host`. Errors: `Refused` when they cannot
    /// be read.
    pub fn new(source: &SourceUrl, host: &HostCredentials, limits: &FetchLimits) -> Result<Self> {
        let url = source.request_url();
        // The cryptography of TLS in this process; what was named first stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            Client::builder()
                .connect_timeout(limits.connect_timeout)
                // The blocking client applies it to the answer's head and to each read.
                .timeout(limits.idle_timeout)
                .redirect(reqwest::redirect::Policy::none())
                .http1_title_case_headers()
        };
        let cannot = |e: reqwest::Error| Error::internal(format!("set up the HTTP client: {e}"));
        let mut trusting = builder();
        let mut pinned = None;
        if let Some(path) = &host.ca_file {
            let refused = |e: &dyn std::fmt::Display| {
                Error::refused(format!("credentials: ca_file {}: {e}", path.display()))
            };
            let pem = std::fs::read(path).map_err(|e| refused(&e))?;
            let roots = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| refused(&e))?;
            if roots.is_empty() {
                return Err(refused(&"holds no PEM certificate"));
            }
            for root in roots {
                trusting = trusting.add_root_certificate(root);
            }
            let exactly = pinned::trusting(&pem).map_err(|e| refused(&e))?;
            pinned = Some(
                builder()
                    .tls_backend_preconfigured(exactly)
                    .build()
                    .map_err(cannot)?,
            );
        }
        Ok(Self {
            client: trusting.build().map_err(cannot)?,
            pinned,
            login: host.login(source)?,
            origin: Url::parse(&url).ok(),
            redirected: None,
            verdict: Arc::new(Mutex::new(HttpVerdict {
                failure: None,
                proxy: proxy::of(&url),
            })),
        })
    }

    /// What goes wrong is found here.
    pub fn verdict(&self) -> Arc<Mutex<HttpVerdict>> {
        self.verdict.clone()
    }

    /// Sends what `build` makes, with the login if `url` may have it.
    fn send(
        &mut self,
        url: &Url,
        build: impl Fn(&Client) -> RequestBuilder,
    ) -> std::result::Result<Response, HttpFailure> {
        let login = self.login.as_ref().filter(|_| self.may_have_login(url));
        let header = login.map(|login| basic(&login.user, login.token.reveal()));
        let ask = |client: &Client| {
            let request = build(client);
            let request = match &header {
                Some(header) => request.header(AUTHORIZATION, header),
                None => request,
            };
            request.send().map_err(|e| understood(&e))
        };
        match (ask(&self.client), self.pinned.take()) {
            (Err(HttpFailure::Certificate { why }), Some(pinned)) => {
                let answer = ask(&pinned).map_err(|failure| match failure {
                    // What the usual rules say is more exact.
                    HttpFailure::Certificate { .. } => HttpFailure::Certificate { why },
                    other => other,
                })?;
                self.client = pinned;
                Ok(answer)
            }
            (answer, pinned) => {
                self.pinned = pinned;
                answer
            }
        }
    }

    /// Whether the login is for the host of `url`: the source's origin, or that with TLS.
    fn may_have_login(&self, url: &Url) -> bool {
        let Some(origin) = &self.origin else {
            return false;
        };
        let is_upgrade = origin.scheme() == "http"
            && url.scheme() == "https"
            && (origin.port(), url.port()) == (None, None);
        origin.host_str() == url.host_str() && (origin.origin() == url.origin() || is_upgrade)
    }

    /// Asks for the list of refs, where redirects lead.
    fn list(
        &mut self,
        url: &str,
        headers: &HeaderMap,
    ) -> std::result::Result<Response, HttpFailure> {
        let bad = |e: &dyn std::fmt::Display| HttpFailure::Unconnected { why: e.to_string() };
        let mut at = Url::parse(url).map_err(|e| bad(&e))?;
        for _ in 0..REDIRECTS_MAX {
            let asked = at.clone();
            let answer = self.send(&at, |client| {
                client.get(asked.clone()).headers(headers.clone())
            })?;
            if !answer.status().is_redirection() {
                return self.accept(answer, "advertisement");
            }
            at = self.next_place(&at, &answer)?;
        }
        Err(HttpFailure::Redirect {
            to: shown(&at),
            why: "that is one redirect of very many",
        })
    }

    /// Where an answer sends us. Errors: we do not go there.
    fn next_place(&self, at: &Url, answer: &Response) -> std::result::Result<Url, HttpFailure> {
        let location = answer.headers().get(LOCATION);
        let next = location
            .and_then(|value| value.to_str().ok())
            .and_then(|text| at.join(text).ok());
        let Some(next) = next else {
            return Err(HttpFailure::Redirect {
                to: "nowhere".to_owned(),
                why: "the answer names no URL",
            });
        };
        let refused = |why| {
            Err(HttpFailure::Redirect {
                to: shown(&next),
                why,
            })
        };
        match (at.scheme(), next.scheme()) {
            ("https", "http") => return refused("that is not encrypted any more"),
            (_, "http" | "https") => {}
            _ => return refused("that is no place for http"),
        }
        if !next.as_str().ends_with(REFS_TAIL) {
            // As hosts do that want people to sign in.
            return Err(HttpFailure::WebPage { at: shown(&next) });
        }
        Ok(next)
    }

    /// Only Git's own answers pass; a server without its program is left to the installed git.
    fn accept(&self, answer: Response, kind: &str) -> std::result::Result<Response, HttpFailure> {
        let status = answer.status();
        let kind_of_page = answer
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_ascii_lowercase();
        if !status.is_success() {
            let elsewhere = (!self.may_have_login(answer.url()))
                .then(|| answer.url().origin().ascii_serialization());
            return Err(HttpFailure::Status {
                code: status.as_u16(),
                reason: status.canonical_reason().unwrap_or("unknown status"),
                retry_after: answer
                    .headers()
                    .get(RETRY_AFTER)
                    .and_then(|value| value.to_str().ok())
                    .and_then(|value| retry_after::parse(value, SystemTime::now())),
                elsewhere,
            });
        }
        let is_git = kind_of_page == format!("application/x-git-upload-pack-{kind}");
        let is_page = ["text/html", "application/xhtml"]
            .iter()
            .any(|page| kind_of_page.starts_with(page));
        if !is_git && (is_page || status.as_u16() != 200) {
            return Err(HttpFailure::WebPage {
                at: shown(answer.url()),
            });
        }
        Ok(answer)
    }

    /// Notes a failure and passes it on as gix wants it.
    fn fail(&self, failure: HttpFailure) -> gix::Error {
        gix::Error::from_error(note(&self.verdict, failure))
    }
}

/// Keeps the first failure; the text of the error is of no use beyond the log.
fn note(verdict: &Mutex<HttpVerdict>, failure: HttpFailure) -> io::Error {
    let text = format!("{failure:?}");
    verdict.lock().failure.get_or_insert(failure);
    io::Error::other(text)
}

/// Scheme, host and path: a query may hold what nobody else should see.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Neither can fail on a URL with a host; one without has neither.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

/// What a failed request means.
fn understood(error: &reqwest::Error) -> HttpFailure {
    if error.is_timeout() {
        return HttpFailure::Silent {
            connecting: error.is_connect(),
        };
    }
    let mut why = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause {
        // The last one says what happened, those before it where.
        why = deeper.to_string();
        cause = deeper.source();
    }
    if why.to_lowercase().contains("certificate") {
        return HttpFailure::Certificate { why };
    }
    HttpFailure::Unconnected { why }
}

fn header_map(lines: impl IntoIterator<Item = impl AsRef<str>>) -> HeaderMap {
    let mut map = HeaderMap::new();
    for line in lines {
        let parts = line.as_ref().split_once(':');
        let parsed = parts.and_then(|(name, value)| {
            let name: reqwest::header::HeaderName = name.trim().parse().ok()?;
            let value: reqwest::header::HeaderValue = value.trim().parse().ok()?;
            Some((name, value))
        });
        if let Some((name, value)) = parsed {
            map.append(name, value);
        }
    }
    map
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
    let retry_after = answer.headers().get(RETRY_AFTER);
    Err(HttpFailure::Status {
        code: status.as_u16(),
        reason: status.canonical_reason().unwrap_or("unknown status"),
        retry_after: retry_after
            .and_then(|value| value.to_str().ok())
            .and_then(|value| retry_after::parse(value, SystemTime::now())),
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
        let (read, verdict) = match &mut self.0 {
            AnswerPart::Bytes(bytes) => return bytes.read(buffer),
            AnswerPart::Whole(answer, verdict) => (answer.read(buffer), verdict),
            AnswerPart::Post(post) => {
                let read = post.with_answer(|_, body| body.read(buffer));
                (read, &mut post.verdict.clone())
            }
        };
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

impl Http for GitHttp {
    type Headers = BufReader<AnswerHeaders>;
    type ResponseBody = BufReader<AnswerBody>;
    type PostBody = PostBody;

    fn get(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> GixResult<GetResponse<Self::Headers, Self::ResponseBody>> {
        let headers = header_map(headers);
        let answer = self.list(url, &headers).map_err(|e| self.fail(e))?;
        // Posts go to where the list came from.
        let tail = url.strip_prefix(base_url).unwrap_or(REFS_TAIL);
        if answer.url().as_str() != url
            && let Some(base) = answer.url().as_str().strip_suffix(tail)
        {
            self.redirected = Some(base.to_owned());
        }
        let lines = AnswerPart::Bytes(Cursor::new(header_lines(&answer)));
        let body = AnswerPart::Whole(Box::new(answer), self.verdict.clone());
        Ok(GetResponse {
            headers: BufReader::new(AnswerHeaders(lines)),
            body: BufReader::new(AnswerBody(body)),
        })
    }

    fn post(
        &mut self,
        url: &str,
        _base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
        _body: PostBodyDataKind,
    ) -> GixResult<PostResponse<Self::Headers, Self::ResponseBody, Self::PostBody>> {
        let mut request = self.client.post(url).headers(header_map(headers));
        let to = Url::parse(url).ok().filter(|to| self.may_have_login(to));
        if let (Some(_), Some(login)) = (to, &self.login) {
            request = request.header(AUTHORIZATION, basic(&login.user, login.token.reveal()));
        }
        let post = Arc::new(Post {
            state: Mutex::new(PostState::Open {
                request,
                body: Vec::new(),
            }),
            verdict: self.verdict.clone(),
        });
        Ok(PostResponse {
            headers: BufReader::new(AnswerHeaders(AnswerPart::Post(post.clone()))),
            body: BufReader::new(AnswerBody(AnswerPart::Post(post.clone()))),
            post_body: PostBody(post),
        })
    }

    fn configure(&mut self, _config: &dyn std::any::Any) -> GixResult<()> {
        Ok(())
    }

    fn redirected_base_url(&self) -> Option<String> {
        self.redirected.clone()
    }
}
