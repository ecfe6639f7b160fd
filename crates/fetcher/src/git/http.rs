//! Git over `http` and `https` for gix: one request for the refs, then posts.
//!
//! Its own client instead of gix's, because gix hides what decides over the next step: headers of
//! an answer that is an error (`Retry-After`), where a redirect leads, what kind of page came.
//! What went wrong is left in [`HttpVerdict`], as gix passes on little more than a text.
//!
//! Invariants: a login goes to the origin of the source alone, also after redirects; a redirect is
//! followed for the list of refs alone, never from https to http; a request's body is held in
//! memory, bounded.

mod answer;
mod pinned;
mod proxy;
mod retry_after;
pub mod verdict;

use std::io::BufReader;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use gix::protocol::transport::client::blocking_io::http::{
    GetResponse, Http, PostBodyDataKind, PostResponse,
};
use parking_lot::Mutex;
use reqwest::Url;
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, LOCATION};

use self::answer::{AnswerBody, AnswerHeaders, PostBody};
use self::verdict::{HttpFailure, HttpVerdict, note, understood};
use super::failure::GixResult;
use crate::credentials::{HostCredentials, Login};
use crate::source::FetchLimits;
use monofs_model::{Error, Result, SourceUrl};

/// Most redirects that are followed.
const REDIRECTS_MAX: usize = 10;
/// What every URL of the list of refs ends with, and a redirect of it, too.
const REFS_TAIL: &str = "/info/refs?service=git-upload-pack";

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

        // A failed answer of a place that our login does not belong to names that place, because a
        // 401 there asks for another entry than the source's.
        if !status.is_success() {
            let elsewhere = (!self.may_have_login(answer.url()))
                .then(|| answer.url().origin().ascii_serialization());
            return Err(HttpFailure::Status {
                code: status.as_u16(),
                reason: status.canonical_reason().unwrap_or("unknown status"),
                retry_after: retry_after::of(answer.headers()),
                elsewhere,
            });
        }

        // A page for people is no answer of Git. With status 200 any other type passes: that is how
        // a server of plain files answers.
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

/// The value of an `Authorization` header.
pub fn basic(user: &str, token: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("{user}:{token}")))
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
        Ok(answer::got(answer, self.verdict.clone()))
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
        Ok(answer::posted(request, self.verdict.clone()))
    }

    fn configure(&mut self, _config: &dyn std::any::Any) -> GixResult<()> {
        Ok(())
    }

    fn redirected_base_url(&self) -> Option<String> {
        self.redirected.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_logins_are_padded() {
        assert_eq!(basic("a", "b"), "Basic YTpi");
        assert_eq!(basic("robot", "s3cret"), "Basic cm9ib3Q6czNjcmV0");
        assert_eq!(basic("a", "bc"), "Basic YTpiYw==");
        assert_eq!(basic("a", "bcd"), "Basic YTpiY2Q=");
    }
}
